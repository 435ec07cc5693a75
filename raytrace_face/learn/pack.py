"""Real photos packed for training: aligned crops with landmarks, expression weights and skin mask, in tar shards.

Shards follow the convention of WebDataset: members of one sample share the name up to the first dot. Detection and
segmentation run once, here.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from raytrace_face.capture.colour import encode_u8
from raytrace_face.capture.landmarks import Face, detect_faces
from raytrace_face.capture.photo import load_photo
from raytrace_face.capture.segmentation import CLASSES, segment
from raytrace_face.errors import InputError, OutputError
from raytrace_face.learn.crop import aligned_crop
from raytrace_face.output import begin_folder, write_json
from raytrace_face.types import Photo

ABOUT, LOG = "pack.json", "skipped.txt"
FORMAT = "raytrace_face pack 1"
SHARD = 256
"""Photos a shard: some 5 MB, so that shards spread over processes."""
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".exr", ".hdr"}
MIN_EYES_PX = 16.0
"""Photos with smaller faces, between the irises, are left out: their crops would be interpolated."""
JPEG_QUALITY = 95


@dataclass(frozen=True)
class Packed:
    """What packing came to."""

    photos: int
    """Photos in the shards."""
    skipped: tuple[tuple[str, str], ...]
    """Photo and reason of those that were left out."""
    shards: int


def photos_in(folder: Path) -> list[Path]:
    """Photos of a folder and its folders, sorted.

    Raises:
        InputError: no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise InputError(f"{str(folder)!r} is no folder: give a folder of photos")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{str(folder)!r} holds no photos ({', '.join(sorted(SUFFIXES))}): give a folder of photos")
    return found


def pack(folder: Path, out: Path, size: int = 192, limit: int | None = None, quiet: bool = False) -> Packed:
    """Pack the photos of a folder; a run that was stopped goes on at the first shard that is missing.

    In a layout `person/photo` the name of the folder is the person. A photo without a face, with one too small, or
    that cannot be read is skipped and named in `skipped.txt`.

    Args:
        out: folder for shards; one begun from the same photos goes on.
        size: pixels a side of the crops, [64, 512].
        limit: only so many photos, evenly out of all.
        quiet: no progress.

    Raises:
        InputError: no photos, or none with a face; a number out of its range.
        OutputError: `out` holds something else, or cannot be written.
    """
    if not 64 <= size <= 512 or (limit is not None and limit < 1):
        raise InputError(f"size {size}, limit {limit}: the size must be 64 to 512, the limit 1 or more")
    photos = photos_in(folder)
    if limit is not None and limit < len(photos):
        photos = [photos[int(k)] for k in np.linspace(0, len(photos) - 1, limit).round()]
    names = [str(p.relative_to(folder)) for p in photos]
    try:
        _claim(out, size, names)
        starts = range(0, len(photos), SHARD)
        bar = tqdm(total=len(photos), desc="photos", disable=quiet, dynamic_ncols=True)
        for k, first in enumerate(starts):
            if not (out / shard_name(k)).exists():
                _write_shard(out, k, folder, photos[first : first + SHARD], first, size, bar)
            else:
                bar.update(len(photos[first : first + SHARD]))
        bar.close()
        logs = [json.loads((out / shard_name(k)).with_suffix(".json").read_text("utf-8")) for k in range(len(starts))]
        skipped = tuple((str(name), str(reason)) for log in logs for name, reason in log["skipped"])
        (out / LOG).write_text("".join(f"{name}: {reason}\n" for name, reason in skipped), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"output {str(out)!r} cannot be written ({error}): choose another --out") from error
    if len(skipped) == len(photos):
        raise InputError(f"none of the {len(photos)} photos of {str(folder)!r} can be used: see {str(out / LOG)!r}")
    return Packed(len(photos) - len(skipped), skipped, len(starts))


def shard_name(number: int) -> str:
    return f"shard-{number:05d}.tar"


def _claim(out: Path, size: int, names: list[str]) -> None:
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    about = {"format": FORMAT, "size": size, "photos": len(names), "names_sha256": digest}
    file = out / ABOUT
    if file.is_file():
        if json.loads(file.read_text("utf-8")) != about:
            raise OutputError(
                f"output {str(out)!r} was packed from other photos or at another size: choose another --out"
            )
        return
    begin_folder(out, ABOUT, about, "shards")


def _write_shard(out: Path, number: int, folder: Path, photos: list[Path], first: int, size: int, bar: Any) -> None:
    skipped: list[tuple[str, str]] = []
    target = out / shard_name(number)
    part = target.with_name(target.name + ".part")
    with tarfile.open(part, "w") as tar:
        for k, path in enumerate(photos):
            name = str(path.relative_to(folder))
            try:
                members = sample(path, path.parent.name if path.parent != folder else None, name, size)
            except InputError as error:
                skipped.append((name, str(error)))
            else:
                for suffix, data in members.items():
                    _add(tar, f"{first + k:06d}.{suffix}", data)
            bar.update()
    log = target.with_suffix(".json")
    write_json(log, {"skipped": skipped})
    os.replace(part, target)


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)  # no times, no owner: the same photos give the same bytes
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def sample(path: Path, person: str | None, name: str, size: int) -> dict[str, bytes]:
    """Members of one photo: `jpg` (crop), `mask.png` (skin of the face) and `json` (all the rest).

    Raises:
        InputError: not a photo, or no face that is large enough.
    """
    photo = load_photo(path)
    codes = encode_u8(photo.linear)
    faces = detect_faces(codes)
    if not faces:
        raise InputError("no face found")
    face = faces[0]
    if face.eyes_px < MIN_EYES_PX:
        raise InputError(f"the face is too small: {face.eyes_px:.0f} pixels between the eyes")
    crop, window = aligned_crop(codes, face.landmarks_px, size)
    classes = segment(photo.linear, window, face.landmarks_px)
    mask = (classes[..., CLASSES.index("face skin")] * 255 + 0.5).astype(np.uint8)
    about = _about(photo, face, person, name)
    about["window"] = [window.left_px, window.top_px, window.side_px]
    about["landmarks"] = np.round(window.to_window(face.landmarks_px) / size, 5).tolist()
    return {
        "jpg": _file(crop, "JPEG", quality=JPEG_QUALITY, subsampling=0),
        "mask.png": _file(mask, "PNG"),
        "json": json.dumps(about).encode(),
    }


def _about(photo: Photo, face: Face, person: str | None, name: str) -> dict[str, Any]:
    """What the file says: `landmarks` (478, 2) in sides of the crop, `window` and focal length in photo pixels."""
    return {
        "photo": name, "person": person, "width": photo.width, "height": photo.height, "focal_px": photo.focal_px,
        "monochrome": photo.monochrome, "score": round(face.score, 4),
        "blendshapes": {k: round(v, 4) for k, v in face.blendshapes.items()},
    }  # fmt: skip


def _file(picture: NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **options)
    return stream.getvalue()
