"""`raytrace-face train run | export | data make-synthetic | data pack`: training of the encoder (docs/encoder.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import tyro
from tyro.conf import Positional

Flag = tyro.conf.FlagCreatePairsOff[bool]
_unset = {"help_behavior_hint": ""}
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", **_unset)]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", **_unset)]


def run(
    *,
    synthetic: Path,
    out: Path,
    real: OptionalPath = None,
    recipe: OptionalPath = None,
    init: OptionalPath = None,
    steps: OptionalInt = None,
    workers: int = 0,
    threads: OptionalInt = None,
    quiet: Flag = False,
) -> None:
    """Train the encoder; the same command goes on where it was stopped, also by Ctrl-C. Several processes: torchrun.

    Args:
        synthetic: folder of `train data make-synthetic`.
        out: folder for checkpoint, log, TensorBoard and pictures.
        real: folder of `train data pack`; without it only synthetic photos are seen.
        recipe: TOML file with the settings of raytrace_face.learn.recipe.Recipe.
        init: checkpoint of another training that the network's weights are taken from.
        steps: stop after so many steps in this call.
        workers: processes that load photos, for each that trains; 0 loads in between.
        threads: of this process; 1 makes a run repeatable to the last bit. Default: an equal share of the cores.
        quiet: no progress.
    """
    from raytrace_face.backend import start
    from raytrace_face.errors import InputError

    for name, value, least in (("steps", steps, 1), ("workers", workers, 0), ("threads", threads, 1)):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}: it must be at least {least}")
    start()
    from raytrace_face.learn.recipe import Recipe
    from raytrace_face.learn.train import CHECKPOINT, train

    settings = Recipe() if recipe is None else Recipe.from_toml(recipe)
    kept = out / CHECKPOINT
    try:
        state = train(
            settings, synthetic, out, real, init=init, steps=steps, workers=workers, threads=threads, quiet=quiet
        )
    except KeyboardInterrupt:
        where = f"the checkpoint is {str(kept)!r}" if kept.is_file() else "there is no checkpoint yet"
        raise KeyboardInterrupt(f"{where}; the same command goes on") from None
    if not quiet:
        for figure, found in state.figures.items():
            print(f"{figure:<16}  {found:.3g}")
        print(f"steps             {state.total}\ncheckpoint        {kept}")


def export(
    checkpoint: Positional[Path], out: Positional[Path], *, card: OptionalPath = None, force: Flag = False,
    quiet: Flag = False,
) -> None:  # fmt: skip
    """Write a checkpoint's weights in half precision, with a model card beside them.

    Args:
        checkpoint: checkpoint.safetensors of `train run`.
        out: file to write, .safetensors.
        card: JSON file with more entries for the card: licence, machine, limits.
        force: replace an existing file.
        quiet: no summary.
    """
    from raytrace_face.learn.weights import export as write

    whole = write(checkpoint, out, card, force)
    if not quiet:
        print(f"{out}  {out.stat().st_size / 1e6:.0f} MB, {whole['steps']} steps, stages {', '.join(whole['stages'])}")


def make_synthetic(
    out: Positional[Path], *, count: int, size: int = 128, seed: int = 0, workers: int = 1, quiet: Flag = False
) -> None:
    """Trace synthetic sittings, each of which gives new photos in every epoch; a folder that was begun goes on.

    Args:
        out: folder to write.
        count: sittings in all.
        size: pixels a side of the crops, 64 to 512.
        seed: seed of all randomness.
        workers: processes; each takes about 1 GB.
        quiet: no progress.
    """
    from raytrace_face.learn.synthesis.make import make_synthetic as make

    made = make(out, count, size, seed, workers, quiet)
    if not quiet:
        print(f"{out}  {made} sittings made, {count} in all")


def pack(
    folder: Positional[Path], out: Positional[Path], *, size: int = 192, limit: OptionalInt = None, quiet: Flag = False
) -> None:
    """Pack a folder of real photos into shards of aligned crops; a folder that was begun goes on.

    Args:
        folder: photos; in a layout person/photo the folder's name is the person.
        out: folder for the shards.
        size: pixels a side of the crops, 64 to 512.
        limit: only so many photos, evenly out of all.
        quiet: no progress.
    """
    from raytrace_face.learn.pack import LOG
    from raytrace_face.learn.pack import pack as write

    packed = write(folder, out, size, limit, quiet)
    if not quiet:
        print(f"{out}  {packed.photos} photos in {packed.shards} shards, {len(packed.skipped)} skipped ({out / LOG})")


COMMANDS: dict[str, Any] = {"run": run, "export": export}
DATA: dict[str, Any] = {"make-synthetic": make_synthetic, "pack": pack}
