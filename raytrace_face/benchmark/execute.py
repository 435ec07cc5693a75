"""Run methods over the items of a benchmark: resumable, in this process, in several, or on Ray.

Each item of each method leaves `<out>/<method>/items/<id>.json` (figures, seconds, error), `.png` and `.npz`. An item
whose file bears the key of the same description, settings and results of others is not done again, unless it failed.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from raytrace_face.backend import environment, start, threads_each
from raytrace_face.benchmark.methods import NOTHING, Method
from raytrace_face.benchmark.protocol import NAN, Scored, scorer
from raytrace_face.benchmark.spec import Benchmark, Item, load
from raytrace_face.config import Config
from raytrace_face.errors import InputError, MachineError, RaytraceFaceError
from raytrace_face.output import sha256, write_json
from raytrace_face.workers import on_ray

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction
    from raytrace_face.types import Photo


@dataclass(frozen=True)
class Job:
    """One item under one method. Everything in it can be sent to another process."""

    folder: Path
    """The benchmark's."""
    item: Item
    method: Method
    config: Config
    out: Path
    """The method's folder."""
    key: str

    @property
    def stem(self) -> Path:
        """Where the item's files go, without suffix."""
        return self.out / "items" / self.item.id


@dataclass(frozen=True)
class Done:
    """What a job left."""

    id: str
    row: dict[str, Any]
    seconds: float
    error: str
    """"" when all went well; else what happened, and `row` scores doing nothing."""

    def arrays(self, out: Path) -> dict[str, np.ndarray]:
        """Arrays of the item in a method's folder."""
        path = out / "items" / f"{self.id}.npz"
        if not path.exists():
            return {}
        with np.load(path, allow_pickle=False) as z:
            return {name: z[name] for name in z.files}


def plan(benchmark: Benchmark, method: Method, settings: dict[str, Any], out: Path) -> list[Job]:
    """One job an item."""
    from raytrace_face import __version__

    options = {k: v for k, v in benchmark.options.items() if k == "colour"}
    config = method.config({**options, **settings})
    config.resolved()
    made_by = str(method.results) if method.weights is None else sha256(method.weights)
    text = json.dumps([config.to_dict(), made_by, __version__], sort_keys=True)
    jobs = []
    for item in benchmark.items:
        key = hashlib.sha256((benchmark.key(item) + text + _stamp(method, item)).encode()).hexdigest()
        jobs.append(Job(benchmark.folder.resolve(), item, method, config, out.resolve() / method.name, key))
    return jobs


def _stamp(method: Method, item: Item) -> str:
    """Sizes and times of what another program left for an item: what it leaves anew is scored anew."""
    if method.results is None:
        return ""
    found = [*method.results.glob(f"{item.id}.*"), *(method.results / item.id).glob("*")]
    return json.dumps(sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in found))


def read(job: Job) -> Done | None:
    """What is there of a job already; None if nothing, or made otherwise."""
    try:
        values = json.loads(job.stem.with_name(job.item.id + ".json").read_text(encoding="utf-8"))
        if values["key"] != job.key:
            return None
        row = {k: _number(v) for k, v in values["row"].items()}
        return Done(job.item.id, row, float(values["seconds"]), str(values["error"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _number(value: Any) -> Any:
    if isinstance(value, list):
        return [_number(x) for x in value]
    return NAN if value is None else value


def do(job: Job) -> None:
    """Do one job, and write what comes out of it; the figures last, so that a killed job is done again.

    Raises:
        MachineError: the machine cannot trace at all, which is no failure of the method.
        InputError: the benchmark itself is damaged, so that even doing nothing cannot be scored.
    """
    benchmark = load(job.folder)
    protocol = scorer(benchmark.protocol)
    error, begin = "", time.perf_counter()
    try:
        scored = _scored(job, benchmark)
    except MachineError:
        raise
    except Exception as problem:  # a benchmark counts failures of any kind and goes on
        if not isinstance(problem, RaytraceFaceError):
            traceback.print_exc()
        error = " ".join(f"{type(problem).__name__}: {problem}".split())
        scored = protocol.score_nothing(benchmark, job.item)
    seconds = time.perf_counter() - begin
    job.stem.parent.mkdir(parents=True, exist_ok=True)
    name = job.item.id
    for suffix in (".json", ".npz", ".png"):  # nothing of an earlier time stays beside new figures
        job.stem.with_name(name + suffix).unlink(missing_ok=True)
    if scored.arrays:
        np.savez_compressed(job.stem.with_name(name + ".npz"), **scored.arrays)  # type: ignore[arg-type]
    if scored.picture is not None:
        Image.fromarray(scored.picture).save(job.stem.with_name(name + ".png"))
    part = job.stem.with_name(name + ".json.part")
    row = {k: _plain(v) for k, v in scored.row.items()}
    write_json(part, {"key": job.key, "item": name, "row": row, "seconds": seconds, "error": error})
    os.replace(part, job.stem.with_name(name + ".json"))


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def _scored(job: Job, benchmark: Benchmark) -> Scored:
    protocol = scorer(benchmark.protocol)
    if job.method.results is not None:
        return protocol.score_files(benchmark, job.item, job.method.results)
    if job.method.name == NOTHING and job.method.weights is None:
        return protocol.score_nothing(benchmark, job.item)
    from raytrace_face.capture import load_photo

    photo = load_photo(benchmark.path(str(job.item["photo"])), job.config.colour)
    return protocol.score(benchmark, job.item, _result(job, photo))


def _result(job: Job, photo: Photo) -> Reconstruction:
    if job.method.weights is not None:
        start(job.config.device, job.config.deterministic)
        from raytrace_face.learn.predict import loaded

        return loaded(job.method.weights).predict(photo, job.config)
    from raytrace_face.recover import reconstruct

    return reconstruct(photo, job.config, progress=False)


def run(jobs: Sequence[Job], processes: int, ray_address: str | None, quiet: bool) -> list[Done]:
    """Do all jobs that are not done, and read them all, in their order.

    Args:
        processes: how many at a time on this machine; each gets its share of the cores.
        ray_address: a Ray cluster instead ("auto": the running one, or one on this machine with `processes` workers).

    Raises:
        MachineError: Ray is not installed or not reached, a worker was killed, or the machine cannot trace.
        InputError: a worker could not write what it found, or the benchmark is damaged.
    """
    todo = [job for job in jobs if (done := read(job)) is None or done.error]
    deterministic = any(job.config.deterministic for job in todo)
    share = _share(processes, deterministic)
    bar = tqdm(total=len(todo), desc="items", unit="item", disable=quiet or not todo, dynamic_ncols=True)
    try:
        if todo and ray_address is not None:
            for _ in on_ray(do, todo, ray_address, processes, share, "--ray"):
                bar.update()
        elif todo and (processes > 1 or deterministic):
            for _ in _in_processes(todo, min(processes, len(todo)), share):
                bar.update()
        else:
            for job in todo:
                do(job)
                bar.update()
    finally:
        bar.close()
    found = [read(job) for job in jobs]
    missing = [job.item.id for job, done in zip(jobs, found, strict=True) if done is None]
    if missing:
        raise InputError(
            f"items {', '.join(missing[:5])} left no figures: is {str(jobs[0].out)!r} shared by all workers?"
        )
    return [done for done in found if done is not None]


def _share(processes: int, deterministic: bool) -> dict[str, str]:
    """Threads of each of several processes: with more than its share of the cores each takes three times as long.

    One each where results are to be deterministic: sums depend on how many threads share them.
    """
    threads = 1 if deterministic else max((os.cpu_count() or 1) // processes, 1)
    return threads_each(threads)


KILLED = "a worker was killed, most likely for want of memory: use fewer --jobs; what is done is kept"


def _in_processes(jobs: Sequence[Job], processes: int, share: dict[str, str]) -> Iterator[None]:
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor, as_completed
    from concurrent.futures.process import BrokenProcessPool

    with environment(share):
        context = multiprocessing.get_context("spawn")  # Mitsuba does not survive a fork
        pool = ProcessPoolExecutor(processes, mp_context=context)
        try:
            for future in as_completed([pool.submit(do, job) for job in jobs]):
                yield future.result()
        except BrokenProcessPool as error:
            raise MachineError(KILLED) from error
        finally:
            pool.shutdown(cancel_futures=True)  # after an error the rest is not done first
