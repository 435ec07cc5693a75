"""The Extended Yale B protocol: who, which lights, which pixels count, and where the cast shadows are.

Georghiades, Belhumeur and Kriegman, PAMI 2001; Lee, Ho and Kriegman, PAMI 2005. The truth (normals, albedo, gains)
is photometric stereo over up to 49 lights, made once and kept beside the images as `truth/<subject>.npz`.
Directions: x right, y up, z to the camera. Pixels are linear light.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import binary_erosion

from raytrace_face.measure.light import direction
from raytrace_face.types import Array

Mask = NDArray[np.bool_]

LIGHTS = (
    "A+000E+00",
    "A+000E+20",
    "A+000E+45",
    "A+000E-35",
    "A+025E+00",
    "A-025E+00",
    "A+035E+15",
    "A-035E+40",
    "A+050E+00",
    "A-050E+00",
    "A+070E+45",
    "A-070E+00",
    "A-060E+20",
    "A+035E+65",
)
"""The lights of the direction test."""
SOURCES = ("A+000E+00", "A+050E+00", "A-035E+40", "A-060E+20")
"""The lights that photos are relit from."""
RELIGHT: dict[str, tuple[tuple[str, str], ...]] = {
    "front -> hard": tuple(("A+000E+00", b) for b in ("A+035E+40", "A-050E+00", "A+070E+00", "A-020E-40")),
    "hard -> front": tuple((a, "A+000E+00") for a in ("A+050E+00", "A-035E+40", "A-060E+20")),
    "hard -> hard": (("A+050E+00", "A-035E+40"), ("A-060E+20", "A+035E+15"), ("A-035E+40", "A+050E+00")),
}
"""Pairs source -> target by group."""
BROKEN = (("yaleB02", "A+020E-10"), ("yaleB02", "A+025E+00"))
"""Images whose recorded light is wrong; left out."""
MIN_SHADOW_PIXELS = 150
"""Images with fewer true shadow pixels say nothing about shadows."""


@dataclass(frozen=True)
class Truth:
    """Photometric stereo of one subject, (H, W) = (192, 168)."""

    subject: str
    normals: Array
    """(H, W, 3) unit."""
    albedo: Array
    """(H, W) in units of the gain-1 image."""
    gain: dict[str, float]
    """Strength of the strobe by light name."""


def light_direction(light: str) -> NDArray[np.float64]:
    """Unit vector (3,) to the light of a name such as "A+035E+40": azimuth +35 is from the image's LEFT.

    >>> light_direction("A+090E+00").round(6).tolist()
    [-1.0, 0.0, 0.0]
    """
    found = re.fullmatch(r"A([+-]\d+)E([+-]\d+)", light)
    if found is None:
        raise ValueError(f"light is {light!r}: a name looks like A+035E+40")
    return direction(-float(found[1]), float(found[2]))


def subjects(root: Path) -> list[str]:
    """Names of the subjects under a data folder, sorted."""
    return sorted(p.name for p in root.glob("yaleB*") if p.is_dir())


def load_image(root: Path, subject: str, light: str) -> NDArray[np.uint8]:
    """One crop (192, 168), codes proportional to light."""
    return np.asarray(Image.open(root / subject / f"{subject}_P00{light}.pgm"))


def load_truth(root: Path, subject: str) -> Truth:
    """Normals, albedo and gains of one subject."""
    with np.load(root / "truth" / f"{subject}.npz") as z:
        names = [re.sub(r"^.*_P00|\.pgm$", "", str(n)) for n in z["names"]]
        gain = dict(zip(names, z["gain"].tolist(), strict=True))
        return Truth(subject, np.moveaxis(z["normal"], 0, -1), z["albedo"], gain)


def score_mask(truth: Truth) -> Mask:
    """(H, W) pixels that count: facing the camera, not black, away from the border of the crop, eroded by 3 x 3."""
    mask = (truth.normals[..., 2] > 0.25) & (truth.albedo > 0.12 * np.percentile(truth.albedo, 98))
    mask[:14], mask[-6:], mask[:, :8], mask[:, -8:] = False, False, False, False
    return binary_erosion(mask, np.ones((3, 3)))


def inside_mask(truth: Truth, light: str) -> Mask:
    """(H, W) where a cast shadow can be told from a surface that turns away from the light."""
    cosine = truth.normals @ light_direction(light)
    return (truth.normals[..., 2] > 0.25) & (cosine > 0.1)


def cast_shadow(truth: Truth, light: str, image: NDArray[np.uint8]) -> Mask:
    """(H, W) where the image has less than half of what the truth's normals and albedo give without shadows."""
    cosine = np.maximum(truth.normals @ light_direction(light), 0)
    predicted = truth.gain[light] * truth.albedo * cosine
    return inside_mask(truth, light) & (image / 255 < 0.5 * predicted)
