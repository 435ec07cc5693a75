"""Predictions of many photos: a folder's in this process or on Ray, or a video's; each becomes a result folder."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from raytrace_face.backend import start, threads_each
from raytrace_face.config import Config
from raytrace_face.errors import InputError
from raytrace_face.result import Reconstruction
from raytrace_face.types import Photo
from raytrace_face.workers import on_ray

if TYPE_CHECKING:
    from raytrace_face.learn.predict import Predictor


@dataclass(frozen=True)
class Job:
    """One photo. Everything in it can be sent to another process."""

    weights: Path
    photo: Path
    name: str
    """Of the result, under `out`: the photo's in its folder."""
    out: Path
    face: int | None
    refine: int
    pictures: bool
    """Whether the pictures are traced and all files written."""


@dataclass(frozen=True)
class Done:
    """What became of a photo."""

    name: str
    skipped: str
    """Why there is no result; "" where there is one."""
    warned: bool = False


def jobs_of(folder: Path, first: Job) -> list[Job]:
    """One job a photo of a folder and its folders.

    Args:
        first: all the rest of them.

    Raises:
        InputError: there are none.
    """
    from raytrace_face.learn.pack import photos_in

    return [replace(first, photo=path, name=str(path.relative_to(folder))) for path in photos_in(folder)]


def done(jobs: Sequence[Job], workers: int) -> Iterator[Done]:
    """Do all jobs: in this process, or with more than one worker on Ray, where they come in any order.

    Raises:
        InputError: the weights cannot be read.
        OutputError: a result cannot be written.
        MachineError: Ray is not installed, a worker was killed, or the machine cannot trace.
    """
    if workers == 1:
        return map(do, jobs)
    share = threads_each(max((os.cpu_count() or 1) // workers, 1))
    return on_ray(do, jobs, "auto", workers, share, "--workers")


def do(job: Job) -> Done:
    """Predict and save one photo."""
    from raytrace_face.capture.photo import load_photo

    return _attempt(job, lambda: load_photo(job.photo))


def _attempt(job: Job, read: Callable[[], Photo]) -> Done:
    network = predictor(job.weights)
    try:
        result = predicted(network, read(), job)
    except InputError as error:
        return Done(job.name, str(error))
    result.save(job.out / job.name)
    return Done(job.name, "", bool(result.warnings))


def predicted(network: Predictor, photo: Photo, job: Job) -> Reconstruction:
    """What a job makes of a photo that is loaded."""
    result = network.predict(photo, Config(quality="preview", face=job.face), job.refine)
    if not job.pictures:
        return result
    from raytrace_face.retrace import completed

    return completed(result)


def predictor(weights: Path) -> Predictor:
    """The predictor of these weights, loaded once a process."""
    start()
    from raytrace_face.learn.predict import loaded

    return loaded(weights)


def frames(video: Path, every: int, first: Job) -> Iterator[Done]:
    """What becomes of one frame of a video out of `every`.

    Raises:
        InputError: it cannot be read.
    """
    import imageio.v3 as imageio

    from raytrace_face.capture.photo import photo_from_array

    decoded = enumerate(imageio.imiter(video, plugin="FFMPEG"))
    while True:
        try:
            number, frame = next(decoded)
        except StopIteration:
            return
        except (OSError, RuntimeError, IndexError) as error:
            reason = str(error).splitlines()[0][:80]
            raise InputError(f"video {video.name} cannot be read ({reason}): convert it") from error
        if number % every == 0:
            name = f"{video.stem}-{number:06d}.png"
            yield _attempt(replace(first, name=f"frame-{number:06d}"), partial(photo_from_array, frame, name=name))
