"""Painted skins for ICT heads: variation at all scales, features, hair and eyes, on the atlas of `benchmark.ict`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from raytrace_face.benchmark.ict import SKIN_TOP, TEXTURE, IctHead
from raytrace_face.types import Array


@dataclass(frozen=True)
class Skin:
    """Reflectance on the atlas."""

    diffuse: Array
    """(T, T, 3)"""
    specular: Array
    """(T, T, 3)"""
    roughness: Array
    """(T, T)"""


TONES = np.array(
    [(0.56, 0.36, 0.27), (0.48, 0.29, 0.20), (0.40, 0.23, 0.15), (0.30, 0.165, 0.105), (0.20, 0.108, 0.070)]
)
"""Linear albedo of skins from light to dark; deliberately not the chromophore prior of the program."""


def paint(ict: IctHead, rng: np.random.Generator) -> Skin:
    """A skin with variation at all scales, brows, lips, lashes, beard, hair and eyes."""
    tone = TONES[rng.integers(len(TONES))] * rng.uniform(0.9, 1.1)
    redness = _noise(rng, (3, 12, 40, 110), (0.05, 0.05, 0.06, 0.06))
    melanin = _noise(rng, (1.2, 5, 18, 70), (0.03, 0.03, 0.05, 0.08))
    diffuse = tone * np.exp(redness[..., None] * np.array([-0.3, -1.0, -0.9]) - melanin[..., None] * [0.7, 1.0, 1.3])
    diffuse = _features(ict, diffuse, tone, rng)
    diffuse = _hair(ict, diffuse, rng)
    roughness = np.clip(0.45 + _noise(rng, (3, 30), (0.03, 0.04)), 0.3, 0.65)
    specular = np.repeat(np.clip(0.03 * np.exp(_noise(rng, (3, 30), (0.1, 0.15))), 0.015, 0.04)[..., None], 3, axis=2)
    rows = int((1 - SKIN_TOP - 0.01) * TEXTURE)
    diffuse[:rows], specular[:rows], roughness[:rows] = _eyes(rng)[:rows], 0.04, 0.2
    return Skin(
        np.clip(diffuse, 0.01, 0.95).astype(np.float32), specular.astype(np.float32), roughness.astype(np.float32)
    )


def _noise(rng: np.random.Generator, sizes: tuple[float, ...], amounts: tuple[float, ...]) -> NDArray[np.float64]:
    """(T, T) sum of smooth noises: standard deviation `amounts` at correlation lengths `sizes` in texels."""
    total = np.zeros((TEXTURE, TEXTURE))
    for size, amount in zip(sizes, amounts, strict=True):
        smooth = gaussian_filter(rng.normal(size=total.shape), size, mode="wrap")
        total += amount * smooth / smooth.std()
    return total


def _pixels(ict: IctHead, index: NDArray[np.int64] | list[int]) -> list[tuple[float, float]]:
    """Positions of landmarks on the texture, pixels (x, y)."""
    uv = ict.model.uv[ict.landmarks[index]]
    return [(float(u) * TEXTURE, (1 - float(v)) * TEXTURE) for u, v in uv]


def _shape(points: list[tuple[float, float]], blur: float, width: float = 0) -> NDArray[np.float64]:
    """(T, T) in [0, 1]: a filled polygon, or a line of some width in texels, with a soft border."""
    canvas = Image.new("L", (TEXTURE, TEXTURE))
    draw = ImageDraw.Draw(canvas)
    if width:
        draw.line(points, fill=255, width=round(width), joint="curve")
    else:
        draw.polygon(points, fill=255)
    return gaussian_filter(np.asarray(canvas, np.float64) / 255, blur)


def _features(
    ict: IctHead, diffuse: NDArray[np.float64], tone: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float64]:
    """Lips, cheeks, brows, lashes, beard on a plain skin."""
    lips = _shape(_pixels(ict, list(range(48, 60))), 2.5)[..., None]
    diffuse = diffuse * (1 - lips * (1 - np.array([0.88, 0.50, 0.52])))
    for cheek in ([2, 31, 48], [14, 35, 54]):
        points = np.array(_pixels(ict, cheek)).mean(axis=0)
        y, x = np.mgrid[:TEXTURE, :TEXTURE]
        blob = np.exp(-((x - points[0]) ** 2 + (y - points[1]) ** 2) / (2 * 34**2))[..., None]
        diffuse = diffuse * (1 - blob * rng.uniform(0.05, 0.25) * np.array([0.1, 1.0, 0.8]))
    if rng.random() < 0.5:
        jaw = _shape(_pixels(ict, [*range(2, 15), 54, 33, 48]), 14)[..., None]
        diffuse = diffuse * (1 - jaw * rng.uniform(0.1, 0.35))
    dark = tone * 0.12 + 0.008
    strands = 0.8 + 0.4 * rng.random((TEXTURE, TEXTURE))
    for first in (17, 22):
        brow = _shape(_pixels(ict, list(range(first, first + 5))), 2.2, rng.uniform(11, 17))
        brow = np.clip(brow * strands * rng.uniform(0.8, 1.05), 0, 1)[..., None]
        diffuse = diffuse * (1 - brow) + dark * brow
    for first in (36, 42):
        ring = _pixels(ict, [*range(first, first + 6), first])
        lashes = 0.75 * np.maximum(_shape(ring[:4], 1.0, 4), 0.6 * _shape(ring[3:], 1.0, 3))[..., None]
        diffuse = diffuse * (1 - np.clip(lashes, 0, 1)) + dark * np.clip(lashes, 0, 1)
    return diffuse


def _hair(ict: IctHead, diffuse: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Dark above a ragged hairline and behind the ears (no hair geometry)."""
    brow = min(y for _, y in _pixels(ict, list(range(17, 27))))
    chin = max(y for _, y in _pixels(ict, [8]))
    eye = float(np.mean([y for _, y in _pixels(ict, list(range(36, 48)))]))
    y, x = np.mgrid[:TEXTURE, :TEXTURE]
    across = np.abs(x / TEXTURE - 0.5)
    line = brow - rng.uniform(0.42, 0.5) * (chin - brow) + 120 * np.maximum(across - 0.1, 0)
    ragged = _noise(rng, (2, 10), (4, 5))
    scalp = expit((line - y - ragged) / 3)
    side = expit((across - 0.27) / 0.006) * expit((eye + 60 - y - ragged) / 6)
    amount = np.clip(np.maximum(scalp, side), 0, 1)[..., None]
    colour = np.array([(0.02, 0.015, 0.012), (0.06, 0.035, 0.02), (0.14, 0.08, 0.04)])[rng.integers(3)]
    strands = np.exp(_noise(rng, (1.5,), (0.4,)))[..., None]
    return diffuse * (1 - amount) + colour * strands * amount


def _eyes(rng: np.random.Generator) -> NDArray[np.float64]:
    """(T, T, 3) the two eyes on their blocks: sclera, iris, pupil."""
    iris = np.array([(0.06, 0.035, 0.02), (0.10, 0.07, 0.035), (0.09, 0.13, 0.17)])[rng.integers(3)]
    y, x = np.mgrid[:TEXTURE, :TEXTURE] / TEXTURE
    out = np.broadcast_to(np.array([0.62, 0.57, 0.54]), (TEXTURE, TEXTURE, 3)).copy()
    for middle in (0.1, 0.3):
        r = np.hypot(x - middle, y - 0.1) / 0.09
        for edge, colour in ((0.50, iris), (0.20, np.full(3, 0.01))):
            share = expit((edge - r) / 0.015)[..., None]
            out = out * (1 - share) + colour * share
    return out
