"""Make a folder of sittings: one file each, in processes, going on where it was stopped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from tqdm import tqdm

from raytrace_face.backend import environment, threads_each
from raytrace_face.errors import InputError, MachineError, OutputError
from raytrace_face.output import begin_folder

ABOUT = "sittings.json"
FORMAT = "raytrace_face sittings 1"
SIZE_RANGE = (64, 512)
"""Pixels a side of a crop."""


def sitting_path(folder: Path, number: int) -> Path:
    """Where a sitting lies: a thousand in a folder."""
    return folder / f"{number // 1000:03d}" / f"{number:06d}.safetensors"


def make_synthetic(out: Path, count: int, size: int = 160, seed: int = 0, workers: int = 1, quiet: bool = False) -> int:
    """Trace sittings 0 .. count - 1 that are not there yet; returns how many were made.

    A sitting is a function of seed, number and size, whatever the number of workers; each takes one thread.

    Args:
        out: folder; one of the same seed and size goes on, and may be asked for more.
        count: sittings in all, 1 or more.
        size: pixels a side of the crops, [64, 512].
        seed: of all randomness, 0 or more.
        workers: processes; each takes about 1 GB.
        quiet: no progress.

    Raises:
        InputError: a number out of its range.
        OutputError: the folder holds something else, or cannot be written.
        MachineError: a worker was killed, or the machine cannot trace.
    """
    if count < 1 or workers < 1 or seed < 0 or not SIZE_RANGE[0] <= size <= SIZE_RANGE[1]:
        raise InputError(
            f"count {count}, workers {workers}, seed {seed}, size {size}: counts must be 1 or more, the seed 0 or "
            f"more, the size {SIZE_RANGE[0]} to {SIZE_RANGE[1]}"
        )
    try:
        _claim(out, size, seed)
        todo = [n for n in range(count) if not sitting_path(out, n).exists()]
        for thousand in {n // 1000 for n in todo}:
            sitting_path(out, 1000 * thousand).parent.mkdir(exist_ok=True)
        with tqdm(total=count, initial=count - len(todo), desc="sittings", disable=quiet, dynamic_ncols=True) as bar:
            for _ in _in_processes(out, todo, size, seed, workers):
                bar.update()
    except OSError as error:
        raise OutputError(f"output {str(out)!r} cannot be written ({error}): choose another --out") from error
    return len(todo)


def _claim(out: Path, size: int, seed: int) -> None:
    """Say whose folder it is; refuse one that is another's."""
    from raytrace_face.face.skin_prior import skin_prior
    from raytrace_face.face.store import load_embedded

    model = load_embedded()
    about: dict[str, Any] = {
        "format": FORMAT, "size": size, "seed": seed, "model": model.name,
        "albedo_modes": list(skin_prior(model).names), "expression_names": list(model.expression_names),
        "landmark_index": model.landmark_index.tolist(),
    }  # fmt: skip
    file = out / ABOUT
    if file.is_file():
        found = _read(file)
        other = [key for key in about if found.get(key) != about[key]]
        if other:
            raise OutputError(
                f"output {str(out)!r} holds sittings of another {other[0]} ({str(found.get(other[0]))[:40]}, not "
                f"{str(about[other[0]])[:40]}): choose another --out"
            )
        return
    begin_folder(out, ABOUT, about, "sittings")


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def about(folder: Path) -> dict[str, Any]:
    """What `make_synthetic` noted of a folder: size, seed, names.

    Raises:
        InputError: it is no such folder.
    """
    values = _read(folder / ABOUT)
    if values.get("format") != FORMAT:
        raise InputError(f"{str(folder)!r} holds no sittings: make some with `train data make-synthetic`")
    return values


def _in_processes(out: Path, todo: list[int], size: int, seed: int, workers: int) -> Iterator[None]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    if not todo:
        return
    context = multiprocessing.get_context("spawn")  # Mitsuba does not survive a fork
    with environment(threads_each(1)):  # sums depend on how many threads share them
        pool = ProcessPoolExecutor(min(workers, len(todo)), mp_context=context, initializer=_one_thread)
        try:
            for future in as_completed([pool.submit(make_one, out, n, size, seed) for n in todo]):
                yield future.result()
        except BrokenProcessPool as error:
            raise MachineError(
                "a worker was killed, most likely for want of memory: use fewer --workers; what is done is kept"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    from raytrace_face.backend import start

    start("llvm", deterministic=True)


@lru_cache(maxsize=1)
def _studio() -> Any:
    from raytrace_face.face.store import load_embedded
    from raytrace_face.learn.synthesis.sitting import Studio

    return Studio(load_embedded())


def make_one(out: Path, number: int, size: int, seed: int) -> None:
    """Trace and write one sitting, in a process whose backend has one thread."""
    from raytrace_face.learn.synthesis.files import save
    from raytrace_face.learn.synthesis.sitting import trace_sitting

    save(sitting_path(out, number), trace_sitting(_studio(), size, seed, number))
