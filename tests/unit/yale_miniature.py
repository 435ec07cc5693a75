"""A data set in the layout of CroppedYale whose heads are ellipsoids: normals, albedo, gains and shadows are known."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from raytrace_face.measure import yaleb

SHAPE = (192, 168)
SUBJECTS = ("yaleB02", "yaleB05")
SCORED = ("A+000E+00", "A+050E+00", "A-035E+40", "A-060E+20", "A+035E+65")
"""The lights that photos are relit from, and one more."""
RECORDED = tuple(
    dict.fromkeys([
        *yaleb.LIGHTS, *(b for pairs in yaleb.RELIGHT.values() for _, b in pairs), "A-010E-20", "A+010E-20",
        "A-020E+10", "A+020E+10", "A+005E+10", "A-005E-10", "A-050E-40", "A+050E-40", "A+015E+20",
        "A-110E+15", "A+020E-10",
    ])
)  # fmt: skip
"""The photos there are; that from 110 degrees shows the head from behind the light."""


@dataclass(frozen=True)
class Head:
    """One subject."""

    normals: np.ndarray
    albedo: np.ndarray
    gain: dict[str, float]
    photos: dict[str, np.ndarray]
    """light -> (192, 168) codes."""
    painted: dict[str, np.ndarray]
    """light -> (192, 168) where a cast shadow was painted."""


def head(subject: str) -> Head:
    """An ellipsoid, freckled, under every light, with a shadow behind its middle as a nose would cast it."""
    number = int(subject[-2:])
    width, height, depth = 66.0 + number, 84.0, 55.0 + 2 * number
    row, column = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    x, y = column - SHAPE[1] / 2, SHAPE[0] / 2 - row
    behind = np.sqrt(np.maximum(1 - (x / width) ** 2 - (y / height) ** 2, 0))
    inside = behind > 0
    normals = np.stack([x / width**2, y / height**2, behind / depth], axis=2)
    normals = np.where(inside[..., None], normals / np.linalg.norm(normals, axis=2, keepdims=True), [0.0, 0, 1])
    albedo = np.where(inside, 0.5 + 0.1 * np.cos(x / 5 + number) * np.cos(y / 7), 0)
    strength = np.random.default_rng(number).uniform(0.8, 1.25, len(RECORDED))
    gain = dict(zip(RECORDED, (strength / strength.mean()).tolist(), strict=True))
    photos, painted = {}, {}
    for light in RECORDED:
        towards = yaleb.light_direction(light)
        shadow = np.hypot(x + 25 * towards[0], y + 25 * towards[1]) < 14
        shadow &= np.hypot(*towards[:2]) > 0.3
        image = gain[light] * albedo * np.maximum(normals @ towards, 0) * np.where(shadow, 0.1, 1)
        photos[light] = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
        painted[light] = shadow
    return Head(normals.astype(np.float32), albedo.astype(np.float32), gain, photos, painted)


def write(folder: Path, truth: bool) -> Path:
    """The data folder, with or without the truth beside the photos."""
    for subject in SUBJECTS:
        h = head(subject)
        (folder / subject).mkdir(parents=True)
        for light, codes in h.photos.items():
            Image.fromarray(codes).save(folder / subject / f"{subject}_P00{light}.pgm")
        if truth:
            (folder / "truth").mkdir(exist_ok=True)
            names = [f"{subject}_P00{light}.pgm" for light in h.gain]
            np.savez(
                folder / "truth" / f"{subject}.npz", normal=np.moveaxis(h.normals, -1, 0), albedo=h.albedo,
                gain=list(h.gain.values()), names=names,
            )  # fmt: skip
    return folder


def perfect(folder: Path) -> Path:
    """The truth itself as another program's results, `<id>.npz` of every scored photo."""
    folder.mkdir()
    for subject in SUBJECTS:
        h = head(subject)
        truth = yaleb.Truth(subject, h.normals, h.albedo, h.gain)
        for light in SCORED:
            shadow = yaleb.cast_shadow(truth, light, h.photos[light])
            relit = [b for pairs in yaleb.RELIGHT.values() for a, b in pairs if a == light]
            np.savez(
                folder / f"{subject}_{light}.npz", light_direction=yaleb.light_direction(light), albedo=h.albedo,
                normals=h.normals, shadow_own=shadow, shadow_true=shadow,
                **{f"relit_{b}": h.photos[b] / 255 for b in relit},
            )  # fmt: skip
    return folder


def change(path: Path, **arrays: np.ndarray | None) -> None:
    """Replace arrays of an npz file; None takes one out."""
    with np.load(path) as z:
        kept = {name: z[name] for name in z.files if name not in arrays}
    np.savez(path, **kept, **{name: array for name, array in arrays.items() if array is not None})
