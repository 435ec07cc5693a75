"""`raytrace-face predict`: reconstructions by one pass of the encoder (docs/encoder.md)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from raytrace_face.errors import InputError

if TYPE_CHECKING:
    from raytrace_face.learn.many import Job

Flag = tyro.conf.FlagCreatePairsOff[bool]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")


def predict(
    photo: Positional[Path],
    *,
    weights: OptionalPath = None,
    out: OptionalPath = None,
    face: OptionalInt = None,
    pictures: Flag = False,
    refine: int = 0,
    every: int = 25,
    workers: int = 1,
    force: Flag = False,
    quiet: Flag = False,
) -> None:
    """Predict a face, all faces of a folder, or of a video, by one pass of a trained network.

    A photo gives a result folder that every command reads; a folder or a video one such folder a photo or frame, with
    contact.png over them and skipped.txt.

    Args:
        photo: a photo, a folder of photos, or a video.
        weights: file of `train export`; default: the shipped weights.
        out: folder to write; default: the name of the photo with _face, in the current folder.
        face: which face of a photo, 0 = the largest (default).
        pictures: trace the pictures too, and write all files that `reconstruct` writes, which takes ten times as long;
            without it the commands that need pictures trace them.
        refine: steps of gradient descent through the tracer on what the network said.
        every: video: one frame out of so many.
        workers: folder: so many photos at a time, on Ray.
        force: replace an existing result.
        quiet: no progress and no summary.
    """
    if refine < 0 or every < 1 or workers < 1:
        raise InputError(f"refine is {refine}, every {every}, workers {workers}: they must be at least 0, 1 and 1")
    if not photo.exists():
        raise InputError(f"photo {str(photo)!r} does not exist: check the path")
    several = photo.is_dir() or photo.suffix.lower() in VIDEOS
    if workers > 1 and not photo.is_dir():
        raise InputError(f"workers is {workers}, but {str(photo)!r} is no folder of photos: leave out --workers")
    if face is not None and several:
        raise InputError("--face goes with one photo: of a folder or a video the largest faces are taken")
    from raytrace_face.backend import start
    from raytrace_face.output import check_output

    folder = Path(f"{photo.stem or 'photo'}_face") if out is None else out
    check_output(folder, force)
    start()
    from raytrace_face.learn.many import Job
    from raytrace_face.learn.weights import shipped

    job = Job(shipped() if weights is None else weights.resolve(), photo.resolve(), "", folder, face, refine, pictures)
    if several:
        _many(job, every, workers, force, quiet)
    else:
        _one(job, force, quiet)


def _one(job: Job, force: bool, quiet: bool) -> None:
    from raytrace_face.capture.photo import load_photo
    from raytrace_face.learn.many import predicted, predictor

    photo = load_photo(job.photo)
    result = predicted(predictor(job.weights), photo, job)
    result.save(job.out, force=force)
    if not quiet:
        print("\n".join([*(f"warning     {line}" for line in result.warnings), f"result      {job.out}"]))


def _many(job: Job, every: int, workers: int, force: bool, quiet: bool) -> None:
    from dataclasses import replace

    from tqdm import tqdm

    from raytrace_face.learn import contact, many
    from raytrace_face.output import new_folder, write_json

    folder, source = job.out, job.photo
    jobs = many.jobs_of(source, job) if source.is_dir() else None
    with new_folder(folder, force) as temporary:
        if jobs is None:
            coming = many.frames(source, every, replace(job, out=temporary))
        else:
            coming = many.done([replace(one, out=temporary) for one in jobs], workers)
        shown = tqdm(coming, total=jobs and len(jobs), desc="photos", disable=quiet, dynamic_ncols=True)
        found = sorted(shown, key=lambda one: one.name)
        names = [one.name for one in found if not one.skipped]
        skipped = [f"{one.name}: {one.skipped}\n" for one in found if one.skipped]
        if not names:
            raise InputError(f"{str(source)!r} holds no photo with a face ({len(skipped)} skipped): check the path")
        contact.sheet(temporary, names).save(temporary / "contact.png")
        (temporary / "skipped.txt").write_text("".join(skipped), encoding="utf-8")
        doubted = sum(one.warned for one in found)
        write_json(temporary / "result.json", {"predictions": len(names), "skipped": len(skipped), "warned": doubted})
    if not quiet:
        print(
            f"{len(names)} results, {doubted} with warnings, {len(skipped)} skipped  (look at {folder / 'contact.png'})"
        )
