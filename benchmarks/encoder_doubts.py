"""How often the encoder warns: of ordinary photos, where that is a false alarm, and of broken ones, where it should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from benchmarks.common import table
from raytrace_face.capture.colour import encode_u8
from raytrace_face.errors import InputError
from raytrace_face.types import Capture, Photo, Window

if TYPE_CHECKING:
    from raytrace_face.learn.predict import Predictor

CAPTURE_SIZE = 192
"""Side of the segmentation in pixels, that of preview quality."""
Codes = NDArray[np.uint8]
Row = dict[str, Any]


def sample(folder: Path, count: int, seed: int) -> list[Path]:
    """Photos of a folder of people, one of each of `count` people drawn by the seed, in their order."""
    from raytrace_face.learn.pack import photos_in

    first: dict[Path, Path] = {}
    for path in photos_in(folder):
        first.setdefault(path.parent, path)
    people = list(first.values())
    chosen = np.random.default_rng(seed).permutation(len(people))[:count]
    return [people[k] for k in sorted(chosen)]


# what is done to photos


def with_noise(codes: Codes, window: Window, rng: np.random.Generator) -> Codes:
    """White noise in place of the face."""
    out = codes.copy()
    rows, columns = _inside(codes, window)
    out[rows, columns] = rng.integers(0, 256, out[rows, columns].shape, np.uint8)
    return out


def upside_down(codes: Codes, window: Window, rng: np.random.Generator) -> Codes:
    """The photo turned by 180 degrees."""
    return np.ascontiguousarray(codes[::-1, ::-1])


def half_painted(codes: Codes, window: Window, rng: np.random.Generator) -> Codes:
    """One colour over the left or the right half of the face's window."""
    out = codes.copy()
    rows, columns = _inside(codes, window)
    middle = int(np.clip(window.left_px + window.side_px / 2, columns.start, columns.stop))
    half = slice(columns.start, middle) if rng.random() < 0.5 else slice(middle, columns.stop)
    out[rows, half] = rng.integers(0, 256, 3, np.uint8)
    return out


def _inside(codes: Codes, window: Window) -> tuple[slice, slice]:
    """Rows and columns of a photo that its window covers."""
    height, width = codes.shape[:2]
    return (
        slice(max(round(window.top_px), 0), min(round(window.top_px + window.side_px), height)),
        slice(max(round(window.left_px), 0), min(round(window.left_px + window.side_px), width)),
    )


Break = Callable[[Codes, Window, np.random.Generator], Codes]
BROKEN: dict[str, tuple[Break, bool]] = {
    "noise in place of the face": (with_noise, True),
    "upside down": (upside_down, False),
    "half of the face painted over": (half_painted, False),
}
"""What is done, and whether the network is told the whole photo's landmarks: in noise no face would be detected."""


# what the encoder says


def rows_of(predictor: Predictor, sets: dict[str, Sequence[Path]], broken: Sequence[Path], quiet: bool) -> list[Row]:
    """One row a photo: its set, whether it was refused or warned of, and both figures over their limits.

    Args:
        sets: photos as they are, by name of the set.
        broken: photos that are looked at in every way of `BROKEN`.
    """
    from raytrace_face.capture import capture, load_photo, photo_from_array

    rows: list[Row] = []
    todo = [(name, path) for name, paths in sets.items() for path in paths]
    todo += [("", path) for path in broken]
    for name, path in tqdm(todo, desc="doubts", disable=quiet, dynamic_ncols=True):
        try:
            photo = load_photo(path)
            seen = capture(photo, None, CAPTURE_SIZE)
        except InputError:
            if name:
                rows.append(refused(name, path.name))
            continue
        if name:
            rows.append(judged(name, path.name, predictor, photo, seen))
            continue
        for way, (change, told) in BROKEN.items():
            rng = np.random.default_rng([len(rows), 7])
            try:
                spoilt = photo_from_array(change(encode_u8(photo.linear), seen.window, rng), name=path.name)
                shown = seen if told else capture(spoilt, None, CAPTURE_SIZE)
            except InputError:
                rows.append(refused(way, path.name))
            else:
                rows.append(judged(way, path.name, predictor, spoilt, shown))
    return rows


def refused(name: str, photo: str) -> Row:
    """The row of a photo in which no face was detected."""
    nan = float("nan")
    return {
        "set": name, "photo": photo, "refused": True, "warned": False, "code": nan, "landmarks": nan, "melanin": nan,
    }  # fmt: skip


def judged(name: str, photo: str, predictor: Predictor, shown: Photo, seen: Capture) -> Row:
    """The row of a photo that was looked at."""
    found = predictor.look(shown, seen)
    return {
        "set": name,
        "photo": photo,
        "refused": False,
        "warned": bool(predictor.doubts(found)),
        "code": found.strange / predictor.weights.strange,
        "landmarks": found.unlike_landmarks / predictor.weights.unlike_landmarks,
        "melanin": float(found.predicted.albedo[0, 0]),
    }


def summary(rows: Sequence[Row]) -> str:
    """A table: one row a set."""
    lines = []
    for name in dict.fromkeys(r["set"] for r in rows):
        own = [r for r in rows if r["set"] == name]
        looked = [r for r in own if not r["refused"]]
        warned = sum(r["warned"] for r in looked)
        by_code, by_landmarks = (sum(r[key] > 1 for r in looked) for key in ("code", "landmarks"))
        middle = [float(np.median([r[key] for r in looked])) if looked else float("nan") for key in KEYS]
        flagged = f"{100 * (warned + len(own) - len(looked)) / len(own):.0f} %"
        lines.append([name, len(own), len(own) - len(looked), warned, by_code, by_landmarks, *middle, flagged])
    return table(
        ["photos", "number", "no face found", "warned", "by code", "by landmarks", "code / limit, median",
         "landmarks / limit, median", "refused or warned"], lines,
    )  # fmt: skip


KEYS = ("code", "landmarks")
