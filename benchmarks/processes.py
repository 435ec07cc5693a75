"""Reconstructions in processes of their own: threads and processes on the cores, and peak memory."""

from __future__ import annotations

import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.common import Section, demo_photo, table
from raytrace_face.backend import environment, threads_each
from raytrace_face.config import Config, Quality

PHOTOS = 3
"""Photos of a process after the one that compiles."""


@dataclass(frozen=True)
class Found:
    """What several processes at a time took."""

    seconds: float
    """From the moment all were warm until the last was done."""
    cold_seconds: float
    """Of the first photo, the slowest process's."""
    peak_gb: float
    """Largest resident size of a process."""


def _peak_gb() -> float:
    """Largest resident size of this process so far (getrusage counts KiB on Linux, bytes on macOS)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024**3 if sys.platform == "darwin" else 1024**2)


def _work(config: Config, photos: int, gate: Any, answer: Any) -> None:
    """In the process: one photo, then `photos` more once every process has come that far."""
    from raytrace_face.fit.reconstruct import reconstruct

    begin = time.perf_counter()
    photo = demo_photo()
    reconstruct(photo, config, progress=False)
    cold = time.perf_counter() - begin
    gate.wait()
    begin = time.perf_counter()
    for _ in range(photos):
        reconstruct(photo, config, progress=False)
    answer.send((time.perf_counter() - begin, cold, _peak_gb()))


def measure(config: Config, processes: int, threads: int, photos: int) -> Found:
    """Run fresh processes at a time, each with so many threads in tracer, torch and BLAS.

    Raises:
        RuntimeError: a process died.
    """
    context = multiprocessing.get_context("spawn")  # Mitsuba does not survive a fork
    gate = context.Barrier(processes)
    workers, answers = [], []
    try:
        with environment(threads_each(threads)):
            for _ in range(processes):
                mine, theirs = context.Pipe(duplex=False)
                worker = context.Process(target=_work, args=(config, photos, gate, theirs), daemon=True)
                worker.start()
                theirs.close()  # so that the end of the process is the end of the pipe
                workers.append(worker)
                answers.append(mine)
        found = [answer.recv() for answer in answers]
    except EOFError as error:
        gate.abort()
        raise RuntimeError(f"one of {processes} processes with {threads} threads ended early: see above") from error
    finally:
        for worker in workers:
            worker.join()
    return Found(*(max(values) for values in zip(*found, strict=True)))


def layouts(cores: int) -> list[tuple[int, int]]:
    """(processes, threads of each) to compare: one process with 1, 2, 4, ... threads up to all, and one a core."""
    threads = [2**k for k in range(cores.bit_length()) if 2**k < cores] + [cores]
    return [(1, n) for n in threads] + [(cores, 1)] * (cores > 1)


def cores_section(config: Config) -> Section:
    """Photos an hour of each layout, preview quality."""
    config = replace(config, quality="preview")
    rows: list[dict[str, Any]] = []
    for processes, threads in layouts(os.cpu_count() or 1):
        found = measure(config, processes, threads, PHOTOS)
        each, hourly = found.seconds / PHOTOS, 3600 * processes * PHOTOS / found.seconds
        rows.append({"processes": processes, "threads": threads, "seconds a photo": each, "photos an hour": hourly})
        rows[-1]["ratio"] = hourly / rows[0]["photos an hour"]
    cells = [[r["processes"], r["threads"], f"{r['seconds a photo']:.2f}", f"{r['photos an hour']:.0f}",
              f"{r['ratio']:.2f} x"] for r in rows]  # fmt: skip
    header = ["processes", "threads of each", "s a photo", "photos an hour", "against one thread"]
    text = f"Preview, {PHOTOS} warm photos a process; threads of tracer, torch and BLAS.\n\n{table(header, cells)}"
    return Section("cores", "Cores", text, rows)


def memory_section(config: Config, qualities: Sequence[Quality]) -> Section:
    """Peak memory and time of the first photo of a fresh process."""
    rows = []
    for quality in qualities:
        found = measure(replace(config, quality=quality), 1, os.cpu_count() or 1, 0)
        rows.append({"quality": quality, "peak GB": found.peak_gb, "first photo s": found.cold_seconds})
    header = list(rows[0])
    text = table(header, [[r[k] for k in header] for r in rows])
    return Section("memory", "Peak memory, one photo in a fresh process", text, rows)
