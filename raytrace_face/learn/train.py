"""The training loop: the stages of a recipe, on one process or many, stopped and continued exactly.

Lightning Fabric starts the processes, places the network and averages gradients. On a GPU the network runs there; head,
light and tracer stay on the CPU, whose part in a step of path tracing is the larger one anyway. This module loads the
tracer: call `raytrace_face.backend.start` before it is imported.
"""

from __future__ import annotations

import copy
import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from raytrace_face.backend import start
from raytrace_face.errors import InputError, MachineError, TrainingError
from raytrace_face.learn import checkpoint, objective
from raytrace_face.learn.checkpoint import State
from raytrace_face.learn.columns import ColumnStore
from raytrace_face.learn.curves import plot
from raytrace_face.learn.dataset import RealPhotos, SyntheticPhotos
from raytrace_face.learn.interrupt import undisturbed
from raytrace_face.learn.journal import LOG, VALIDATION, append, claim, cut
from raytrace_face.learn.network import FaceNetwork
from raytrace_face.learn.recipe import Recipe, Stage
from raytrace_face.learn.schedule import groups, schedule
from raytrace_face.learn.start import LandmarkStart
from raytrace_face.learn.step import Turn, judge
from raytrace_face.learn.stream import Batches, Drawn, steps_per_epoch, stream
from raytrace_face.learn.validate import measure, sheet, usual
from raytrace_face.output import sha256

CHECKPOINT, CURVES = "checkpoint.safetensors", "curves.png"
REPORT = 10
"""Steps between lines of the log, which hold means over them."""
SAVE = 100
"""Steps between checkpoints, and after every validation: 150 MB, half a second."""
DEAD = 0.02
"""Luminance on skin that looks ahead (median of a batch) below which light counts as dead; photos are exposed for 0.9,
and the vector's bounds end at 0.01."""


def train(
    recipe: Recipe, synthetic: Path, out: Path, real: Path | None = None, *, init: Path | None = None,
    steps: int | None = None, workers: int = 0, threads: int | None = None, quiet: bool = False,
) -> State:  # fmt: skip
    """Train, going on where `out` ends if it was begun.

    Args:
        synthetic: folder of `make_synthetic`.
        out: folder for checkpoint, log, TensorBoard and pictures.
        real: shards of `pack`; without them the stages see synthetic photos alone, and `traced` is left out.
        init: checkpoint of another training to take the network's weights from, for fine-tuning.
        steps: stop after so many in this call.
        workers: processes that load photos, for each process that trains; 0 loads in between.
        threads: of this process; default an equal share of the cores. One makes a run exactly repeatable.
        quiet: no progress.

    Raises:
        InputError: data that cannot be used, or `out` was begun with another recipe or data.
        TrainingError: a loss is no number, or light has died; the last good checkpoint stays.
        KeyboardInterrupt: Ctrl-C; one process ends its step and saves first, of several the last checkpoint stays.
        MachineError: Lightning Fabric or TensorBoard is missing.
    """
    fabric = _fabric()
    share = threads or max((os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", "1")), 1)
    torch.set_num_threads(share)
    os.environ["RAYTRACE_FACE_THREADS"] = str(share)
    start("auto", deterministic=share == 1)
    run = Run.begin(fabric, recipe, synthetic, real, init, out, workers, quiet)
    state, tensors = run.resume()
    last = math.inf if steps is None else state.total + steps
    stages = list(run.stages().items())
    try:
        for index in range(state.stage, len(stages)):
            state = run.stage(*stages[index], index, state, tensors, last)
            tensors = {}
            if state.total >= last:
                break
    finally:
        run.close()
    return state


def _fabric() -> Any:
    try:
        from lightning_fabric import Fabric
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401  # asked for before the work
    except ImportError as error:
        raise MachineError(f"training needs more packages ({error}): pip install 'raytrace-face[train]'") from error
    world, here = (int(os.environ.get(name, "1")) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE"))
    accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    fabric = Fabric(
        accelerator=accelerator, devices=here, num_nodes=world // here, strategy="ddp" if world > 1 else "auto"
    )
    fabric.launch()
    return fabric


@dataclass
class Run:
    """A training with its data and its folder."""

    fabric: Any
    recipe: Recipe
    synthetic: SyntheticPhotos
    real: RealPhotos | None
    out: Path
    world: objective.World
    network: FaceNetwork
    about: dict[str, Any]
    workers: int
    quiet: bool
    board: Any = None

    @classmethod
    def begin(
        cls, fabric: Any, recipe: Recipe, synthetic: Path, real: Path | None, init: Path | None, out: Path,
        workers: int, quiet: bool,
    ) -> Run:  # fmt: skip
        """Open the data and claim the folder."""
        sittings = SyntheticPhotos(synthetic, recipe.seed, recipe.network.crop)
        world = objective.World.of(recipe.network.texture)
        photos = None if real is None else RealPhotos(real, world.model.expression_names, recipe.network.crop)
        for data in (sittings, photos):
            if data is not None and data.skipped.entries and fabric.is_global_zero and not quiet:
                print(data.skipped)
        if len(sittings) < 4:
            raise InputError(f"{str(synthetic)!r} holds {len(sittings)} sittings: training needs 4 or more")
        tensors = None if init is None else checkpoint.load(init)[0]
        about = {
            "recipe": recipe.to_dict(), "sittings": len(sittings), "sittings_seed": sittings.about.get("seed"),
            "real_photos": 0 if photos is None else len(photos), "processes": fabric.world_size,
            "init": None if init is None else sha256(init),
        }  # fmt: skip
        torch.manual_seed(recipe.seed)
        network = FaceNetwork(recipe.network)
        if tensors is not None:
            checkpoint.restore_network(network, tensors)
        run = cls(fabric, recipe, sittings, photos, out, world, network, about, workers, quiet)
        run.stages()  # refused before anything is written
        if fabric.is_global_zero:
            claim(out, about)
        fabric.barrier()
        return run

    @property
    def held_out(self) -> int:
        return max(min(self.recipe.held_out, len(self.synthetic) // 4), 1)

    def stages(self) -> dict[str, Stage]:
        """The stages that the data allow."""
        stages = self.recipe.stages()
        if self.real is None:
            stages = {name: replace(s, real=0) for name, s in stages.items() if name != "traced"}
        if not stages:
            raise InputError("the recipe has no stage with epochs (traced needs --real): give one some")
        return stages

    def resume(self) -> tuple[State, dict[str, Tensor]]:
        """State and tensors of the last checkpoint, if there is one; logs lose what came after it."""
        path = self.out / CHECKPOINT
        state, tensors = State(), dict[str, Tensor]()
        if path.is_file():
            tensors, state, _ = checkpoint.load(path)
            checkpoint.restore_network(self.network, tensors)
        if self.fabric.is_global_zero:
            from torch.utils.tensorboard import SummaryWriter

            for name in (LOG, VALIDATION):
                cut(self.out / name, state.total)
            self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=state.total)
        return state, tensors

    def stage(
        self, name: str, stage: Stage, index: int, state: State, tensors: dict[str, Tensor], last: float
    ) -> State:
        """Run a stage to its end, or to step `last` of all."""
        fabric, recipe = self.fabric, self.recipe
        self.network = copy.deepcopy(self.network)  # the wrapper of the stage before has hooks in its parameters
        parameters = self.network.learning(stage.encoder, stage.decoders)
        optimiser = torch.optim.AdamW(groups(parameters, recipe.decay), lr=stage.learning_rate)
        model, optimiser = fabric.setup(self.network, optimiser)
        checkpoint.restore_optimiser(optimiser.optimizer, self.network, tensors)  # where the parameters now are
        epoch_steps = steps_per_epoch(len(self.synthetic) - self.held_out, stage.synthetic, fabric.world_size)
        count = stage.epochs * epoch_steps
        end = int(min(count, state.step + last - state.total))
        store = ColumnStore(recipe.keep_columns) if stage.decoders and not stage.encoder else None
        batches = self._batches(index, stage, range(state.step, end))
        size = (stage.synthetic + stage.real) * fabric.world_size
        bar = tqdm(
            total=count * size, initial=state.step * size, desc=name, unit="photo", dynamic_ncols=True,
            disable=self.quiet or not fabric.is_global_zero, smoothing=0.05,
        )  # fmt: skip
        window: dict[str, list[float]] = {}
        try:
            for step in range(state.step, end):
                begin = time.perf_counter()
                for group in optimiser.param_groups:
                    group["lr"] = stage.learning_rate * schedule(step / count, recipe.warm_up)
                photos = next(batches)
                done = step + 1 == count
                judged = done or (step + 1) % (epoch_steps * recipe.validate) == 0
                with undisturbed():
                    for key, value in self._step(model, optimiser, stage, store, *photos, state.total).items():
                        window.setdefault(key, []).append(value)
                    seconds = state.seconds + time.perf_counter() - begin
                    state = replace(state, step=step + 1, total=state.total + 1, seconds=seconds)
                    bar.update(size)
                    if state.total % REPORT == 0 or judged or step + 1 == end:
                        self._report(name, window, state, bar)
                        window = {}
                if judged:
                    state = self._validate(name, stage, state, step // epoch_steps)
                if judged or state.total % SAVE == 0 or step + 1 == end:
                    saved = replace(state, stage=index + 1, step=0) if done else state
                    self._save(None if done else optimiser, saved)
                    state = saved
        except KeyboardInterrupt:
            if 0 < state.step < count and fabric.world_size == 1:  # several are not at the same step
                self._save(optimiser, state)
            raise
        finally:
            bar.close()
        return state

    def _batches(
        self, index: int, stage: Stage, steps: range
    ) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
        """Synthetic and real batches of the steps."""
        r, fabric = self.recipe, self.fabric
        first = sum(s.epochs for s in list(self.stages().values())[:index])
        fixed = stage.decoders and not stage.encoder  # a prediction that is held has to be the same every time
        hints = 1.0 if fixed else r.hints
        place = (first, steps, fabric.global_rank, fabric.world_size)
        count, fit = len(self.synthetic) - self.held_out, LandmarkStart(self.world.model)
        made = stream(
            Drawn(self.synthetic, fit, r.seed, hints), Batches(count, stage.synthetic, r.seed, *place), self.workers
        )
        if self.real is None or not stage.real:
            return ((batch, None) for batch in made)
        batches = Batches(len(self.real), stage.real, r.seed + 1, *place, self.real.people)
        found = stream(Drawn(self.real, fit, r.seed, hints), batches, self.workers)
        return zip(made, found, strict=True)

    def _step(
        self, model: Any, optimiser: Any, stage: Stage, store: ColumnStore | None, made: dict[str, Any],
        found: dict[str, Any] | None, number: int,
    ) -> dict[str, float]:  # fmt: skip
        """One step of the optimiser; the values of all losses."""
        turn = Turn(number, self.fabric.global_rank, self.fabric.world_size)
        judged = judge(self.world, self.recipe, stage, model, self.fabric.device, turn, made, found, store)
        self.network.remember(judged.latent.to(self.network.code_mean.device))
        optimiser.zero_grad()
        self.fabric.backward(judged.loss)
        norm = float(self.fabric.clip_gradients(model, optimiser, max_norm=self.recipe.clip, error_if_nonfinite=False))
        if not math.isfinite(norm):
            bad = next((k for k, v in judged.values.items() if not math.isfinite(v)), "its gradient")
            raise TrainingError(self._stopped(f"loss is not a number at step {number} ({bad})"))
        optimiser.step()
        return {"loss": float(judged.loss.detach()), "norm": norm, **judged.values}

    def _stopped(self, why: str) -> str:
        kept = self.out / CHECKPOINT
        where = f"the last good checkpoint is {str(kept)!r}" if kept.is_file() else "there is no checkpoint yet"
        return f"{why}: {where}; lower the stage's learning_rate and train again into another --out"

    def _report(self, name: str, window: dict[str, list[float]], state: State, bar: Any) -> None:
        keys = sorted(window)
        means = self.fabric.all_reduce(torch.tensor([sum(window[k]) / len(window[k]) for k in keys]), reduce_op="mean")
        values = dict(zip(keys, map(float, means), strict=True))
        if values["light"] < DEAD:  # after the reduction: all processes see it
            raise TrainingError(self._stopped(f"light has died at step {state.total} ({values['light']:.3f} of white)"))
        bar.set_postfix(loss=f"{values['loss']:.3f}")
        if self.fabric.is_global_zero:
            append(self.out / LOG, {"step": state.total, "stage": name, **values})
            for key, value in values.items():
                self.board.add_scalar(f"train/{key}", value, state.total)

    @torch.no_grad()
    def _validate(self, name: str, stage: Stage, state: State, epoch: int) -> State:
        figures: dict[str, float] = {}
        if self.fabric.is_global_zero:
            count = len(self.synthetic)
            numbers = range(count - self.held_out, count)
            figures, examples = measure(self.world, self.network, self.synthetic, numbers, self.recipe, stage.decoders)
            if self.real is not None:
                figures |= usual(self.world, self.network, self.real, stage.decoders)
            picture = sheet(examples)
            (self.out / "pictures").mkdir(exist_ok=True)
            picture.save(self.out / "pictures" / f"{state.total:07d}.png")
            append(self.out / VALIDATION, {"step": state.total, "stage": name, "epoch": epoch, **figures})
            plot(self.out, self.out / CURVES)
            for key, value in figures.items():
                self.board.add_scalar(f"held_out/{key}", value, state.total)
            codes = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
            self.board.add_image(
                "held_out", codes.view(picture.height, picture.width, 3), state.total, dataformats="HWC"
            )
        self.fabric.barrier()
        return replace(state, figures=figures)

    def _save(self, optimiser: Any, state: State) -> None:
        if self.fabric.is_global_zero:
            inner = None if optimiser is None else optimiser.optimizer
            checkpoint.save(self.out / CHECKPOINT, self.network, inner, state, self.about)
        self.fabric.barrier()

    def close(self) -> None:
        """Flush TensorBoard."""
        if self.board is not None:
            self.board.close()
