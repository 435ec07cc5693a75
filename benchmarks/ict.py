"""ICT-FaceKit heads (Li et al. 2020, MIT) as subjects of synthetic photos: geometry, skins, and the painter.

Units: mm, the head frame of `raytrace_face` (origin between the eyeballs). Eyes and skin are one textured surface
here, on an atlas of their own: skin by cylindrical projection in the lower 80 %, the two eyes above it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.interpolate import LinearNDInterpolator
from scipy.ndimage import gaussian_filter
from scipy.special import expit

from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.types import Array

NARROW = 6706
"""The first vertices are the face from forehead to chin: what is scored."""
FACE = 9409
BOUNDS = (("mouth", 11248), ("teeth", 17039), ("eyes", 21451))
"""Part and its first vertex; skin comes before. Eye sockets and gums count as mouth."""
LAST = 24591
"""Lashes, lacrimal fluid and other shells from here on are hidden."""
AXIS_Z_MM = -40.0
"""Axis of the cylinder of the skin's projection."""
SKIN_TOP = 0.8
TEXTURE = 1024
HELD_OUT = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}


@dataclass(frozen=True)
class IctHead:
    """The linear model and its 68 landmarks."""

    model: FaceModel
    landmarks: NDArray[np.int64]
    """(68,) vertices of the iBUG landmarks."""


def arkit_name(name: str) -> str:
    """ARKit's name of an ICT expression; those that ARKit does not split in two lose their side.

    >>> arkit_name("mouthSmile_L"), arkit_name("browInnerUp_R"), arkit_name("jawOpen")
    ('mouthSmileLeft', 'browInnerUp', 'jawOpen')
    """
    base, _, side = name.partition("_")
    if base in ("browInnerUp", "cheekPuff"):
        return base
    return base + {"": "", "L": "Left", "R": "Right"}[side]


def load_ict(folder: Path) -> IctHead:
    """Read `ict_all_modes.npz` and the topology beside it."""
    with np.load(folder / "ict_all_modes.npz") as z:
        mean, modes, expression = (z[k].astype(np.float32)[..., :LAST, :] * 10 for k in ("mean", "id", "expr"))
        names = tuple(str(n) for n in z["expr_names"])
    triangles = _triangles(folder / "FaceXModel" / "generic_neutral_mesh.obj")
    mean = mean - mean[BOUNDS[2][1] :].mean(axis=0)
    part = np.zeros(len(triangles), np.uint8)
    for name, first in BOUNDS:
        part[triangles.min(axis=1) >= first] = PARTS.index(name)
    uv = atlas(mean)
    part[part == PARTS.index("eyes")] = 0  # painted, so that eyes have an iris
    layout = json.loads((folder / "FaceXModel" / "vertex_indices.json").read_text(encoding="utf-8"))
    own = np.arange(LAST, dtype=np.int32)
    none = np.zeros(0, np.int32)
    model = FaceModel(
        name="ICT-FaceKit",
        mean=mean,
        identity=modes,
        expression=expression,
        expression_names=names,
        triangles=triangles,
        triangle_part=part,
        uv=uv,
        weld=own,
        mirror=own,
        landmark_index=none,
        landmark_triangle=none,
        landmark_barycentric=np.zeros((0, 3), np.float32),
        landmark_sigma_mm=np.zeros(0, np.float32),
        regions={"face": (own < NARROW).astype(np.float32)},
        licence="MIT",
        provenance={},
    )
    return IctHead(model, np.array(layout["idx_to_landmark_verts"]))


def _triangles(path: Path) -> NDArray[np.int32]:
    found = []
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.startswith("f "):
                corners = [int(word.partition("/")[0]) - 1 for word in line.split()[1:]]
                if max(corners) < LAST:
                    found += [[corners[0], corners[k], corners[k + 1]] for k in range(1, len(corners) - 1)]
    return np.array(found, np.int32)


def atlas(mean: Array) -> Array:
    """(V, 2) texture coordinates of vertices (V, 3) of the mean head."""
    angle = np.arctan2(mean[:, 0], mean[:, 2] - AXIS_Z_MM)
    low, high = mean[:, 1].min(), mean[:, 1].max()
    uv = np.stack([0.5 + angle / (2 * np.pi), SKIN_TOP * (mean[:, 1] - low) / (high - low)], axis=1)
    eyes = np.arange(len(mean)) >= BOUNDS[2][1]
    for side, middle in ((mean[:, 0] < 0, 0.1), (mean[:, 0] >= 0, 0.3)):
        here = eyes & side
        centre = (mean[here].min(0) + mean[here].max(0)) / 2
        radius = float(np.ptp(mean[here, 0])) / 2
        front = mean[here, 2] > centre[2]
        flat = (mean[here, :2] - centre[:2]) / radius * 0.09
        flat[~front] = [0.085, 0]  # the back of the eye is white and never seen
        uv[here] = np.array([middle, 0.9]) + flat
    return uv.astype(np.float32)


def texel_positions(ict: IctHead) -> Array:
    """(T, T, 3) point of the mean face at each texel, row 0 at v = 1; NaN off the face."""
    uv, mean = ict.model.uv[:FACE], ict.model.mean[:FACE]
    front = np.abs(uv[:, 0] - 0.5) < 0.36
    k = (np.arange(TEXTURE) + 0.5) / TEXTURE
    u, v = np.meshgrid(k, 1 - k)
    return LinearNDInterpolator(uv[front], mean[front])(u, v).astype(np.float32)


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


def paint(ict: IctHead, rng: np.random.Generator, photo_albedo: Array | None = None) -> Skin:
    """A skin with variation at all scales, brows, lips, lashes, beard, hair and eyes.

    Args:
        photo_albedo: (T, T, 3) albedo of a real face on the atlas, NaN where it has none; then only what it lacks
            is painted.
    """
    tone = TONES[rng.integers(len(TONES))] * rng.uniform(0.9, 1.1)
    redness = _noise(rng, (3, 12, 40, 110), (0.05, 0.05, 0.06, 0.06))
    melanin = _noise(rng, (1.2, 5, 18, 70), (0.03, 0.03, 0.05, 0.08))
    diffuse = tone * np.exp(redness[..., None] * np.array([-0.3, -1.0, -0.9]) - melanin[..., None] * [0.7, 1.0, 1.3])
    if photo_albedo is None:
        diffuse = _features(ict, diffuse, tone, rng)
    else:
        known = np.asarray(np.isfinite(photo_albedo).all(axis=2))
        weight = gaussian_filter(gaussian_filter(known.astype(np.float32), 12) ** 4, 6)[..., None]
        filled = np.where(known[..., None], photo_albedo, 0)
        edge = known & (weight[..., 0] > 0.05) & (weight[..., 0] < 0.8)
        match = np.median(filled[edge], axis=0) / np.median(diffuse[edge], axis=0)
        diffuse = weight * np.where(known[..., None], photo_albedo, diffuse * match) + (1 - weight) * diffuse * match
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
