"""`raytrace-face predict`: reconstructions by one pass of the encoder (docs/encoder.md)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from tyro.conf import Positional

from raytrace_face.errors import InputError

if TYPE_CHECKING:
    from raytrace_face.types import Photo

Flag = tyro.conf.FlagCreatePairsOff[bool]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
VIDEOS = (".mp4", ".mov", ".avi", ".mkv", ".webm")


def predict(
    photo: Positional[Path],
    *,
    weights: Path,
    out: OptionalPath = None,
    refine: int = 0,
    every: int = 25,
    force: Flag = False,
    quiet: Flag = False,
) -> None:
    """Predict a face, all faces of a folder, or of a video, by one pass of a trained network.

    A photo gives a result folder as `reconstruct` does; a folder or a video one such folder a photo or frame, with
    contact.png over all and skipped.txt.

    Args:
        photo: a photo, a folder of photos, or a video.
        weights: file of `train export`.
        out: folder to write; default: the name of the photo with _face, in the current folder.
        refine: steps of gradient descent through the tracer on what the network said.
        every: video: one frame out of so many.
        force: replace an existing result.
        quiet: no progress and no summary.
    """
    if refine < 0 or every < 1:
        raise InputError(f"refine is {refine}, every is {every}: they must be at least 0 and 1")
    if not photo.exists():
        raise InputError(f"photo {str(photo)!r} does not exist: check the path")
    from raytrace_face.backend import start
    from raytrace_face.output import check_output, new_folder

    folder = Path(f"{photo.stem or 'photo'}_face") if out is None else out
    check_output(folder, force)
    start()
    from raytrace_face.learn.predict import Predictor

    predictor = Predictor(weights)
    if not photo.is_dir() and photo.suffix.lower() not in VIDEOS:
        from raytrace_face.capture.photo import load_photo

        result = predictor.predict(load_photo(photo), refine=refine)
        result.save(folder, force=force)
        if not quiet:
            print("\n".join([*(f"warning     {line}" for line in result.warnings), f"result      {folder}"]))
        return
    from tqdm import tqdm

    from raytrace_face.learn.contact import row, stacked
    from raytrace_face.output import write_json

    rows, skipped, doubted = [], list[str](), 0
    with new_folder(folder, force) as temporary:
        for name, one in tqdm(_photos(photo, every), desc="photos", disable=quiet, dynamic_ncols=True):
            try:
                if isinstance(one, InputError):
                    raise one
                result = predictor.predict(one, refine=refine)
            except InputError as error:
                skipped.append(f"{name}: {error}\n")
                continue
            result.save(temporary / name)
            rows.append(row(name, result))
            doubted += bool(result.warnings)
        if not rows:
            raise InputError(f"{str(photo)!r} holds no photo with a face ({len(skipped)} skipped): check the path")
        stacked(rows).save(temporary / "contact.png")
        (temporary / "skipped.txt").write_text("".join(skipped), encoding="utf-8")
        write_json(temporary / "result.json", {"predictions": len(rows), "skipped": len(skipped), "warned": doubted})
    if not quiet:
        print(
            f"{len(rows)} results, {doubted} with warnings, {len(skipped)} skipped  (look at {folder / 'contact.png'})"
        )


def _photos(source: Path, every: int) -> Iterator[tuple[str, Photo | InputError]]:
    """Name and photo of every file of a folder, or of frames of a video; or why it cannot be read."""
    from raytrace_face.capture.photo import load_photo, photo_from_array

    if source.is_dir():
        from raytrace_face.learn.pack import photos_in

        for path in photos_in(source):
            name = str(path.relative_to(source)).replace("/", "_")
            try:
                yield name, load_photo(path)
            except InputError as error:
                yield name, error
        return
    import imageio.v3 as imageio

    try:
        for number, frame in enumerate(imageio.imiter(source, plugin="FFMPEG")):
            if number % every == 0:
                yield f"frame-{number:06d}", photo_from_array(frame, name=f"{source.stem}-{number:06d}.png")
    except (OSError, RuntimeError, IndexError) as error:
        raise InputError(
            f"video {source.name} cannot be read ({str(error).splitlines()[0][:80]}): convert it"
        ) from error
