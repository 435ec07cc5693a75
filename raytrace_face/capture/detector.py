"""Where the faces are: BlazeFace (short range) over the photo at several scales.

The network looks at 128 x 128 pixels and finds faces that fill roughly a tenth to nine tenths of them, so it is
shown the whole photo, the photo with a border (tight crops), and overlapping tiles (small faces). When that finds
nothing the search goes on with lifted shadows (hard and low light), smaller tiles and turned pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raytrace_face.capture.networks import network

Image8 = NDArray[np.uint8]

INPUT = 128
"""Side of the network's input, pixels."""
MIN_SCORE = 0.5
"""Faces scored lower are dropped."""
MAX_OVERLAP = 0.3
"""Boxes that share more of their union than this are the same face."""
SMALLEST_TILE = 192
"""Tiles are not made smaller than this, photo pixels: the faces in them would be too small to fit."""


@dataclass(frozen=True)
class Roi:
    """A rotated square of the photo."""

    x: float
    """Centre, photo pixels to the right."""
    y: float
    """Centre, photo pixels downwards."""
    side: float
    """Side length, photo pixels."""
    angle: float = 0.0
    """Direction of the square's x axis in the photo, radians, clockwise on screen (y is down)."""

    def to_photo(self, points: NDArray[np.floating], size: float) -> NDArray[np.float64]:
        """Points (N, 2) in the crop of `size` pixels -> photo pixels (N, 2)."""
        c, s = np.cos(self.angle), np.sin(self.angle)
        local = (np.asarray(points, np.float64) / size - 0.5) * self.side
        return local @ np.array([[c, s], [-s, c]]) + (self.x, self.y)


@dataclass(frozen=True)
class Detection:
    """One face as the detector sees it, in photo pixels."""

    box: NDArray[np.float64]
    """(4,) left, top, right, bottom."""
    keypoints: NDArray[np.float64]
    """(6, 2): the eye on the image's left, the other eye, nose tip, mouth, the two ears."""
    score: float
    """In [0, 1]."""

    def roi(self, scale: float = 1.5) -> Roi:
        """The square that the landmark network expects: 1.5 boxes wide, turned so that the eyes are level."""
        x, y = (self.box[:2] + self.box[2:]) / 2
        dx, dy = self.keypoints[1] - self.keypoints[0]
        side = scale * float(np.max(self.box[2:] - self.box[:2]))
        return Roi(float(x), float(y), side, float(np.arctan2(dy, dx)))


def crop(image: Image8, roi: Roi, size: int, border: str = "edge") -> Image8:
    """Cut a rotated square out of an 8-bit picture and resample it to (size, size, 3).

    `image` (H, W, 3). Large squares are first reduced by area averaging, then sampled bilinearly. Outside the
    photo the nearest edge pixel continues (`border="edge"`) or the picture is black (`border="black"`).
    """
    height, width = image.shape[:2]
    corners = roi.to_photo(np.array([[0, 0], [1, 0], [0, 1], [1, 1]]), 1)
    step = max(1, int(roi.side / size))
    low = np.floor(corners.min(0)).astype(int) - 2 * step
    high = np.ceil(corners.max(0)).astype(int) + 2 * step
    x0, y0 = (int(np.clip(v, 0, n - 1)) for v, n in zip(low, (width, height), strict=True))
    x1, y1 = (int(np.clip(v, 1, n)) for v, n in zip(high, (width, height), strict=True))
    part = Image.fromarray(np.ascontiguousarray(image[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)]))
    step = max(1, min(step, *part.size))
    if step > 1:
        part = part.reduce(step)
    cells = np.asarray(part)
    # a border of edge pixels (or black ones) as wide as the square reaches over the photo's edge
    pad = [max(0, -int(np.floor((v - o) / step))) for v, o in zip(low, (x0, y0), strict=True)]
    end = [
        max(0, int(np.ceil((v - o) / step)) - n)
        for v, o, n in zip(high, (x0, y0), (cells.shape[1], cells.shape[0]), strict=True)
    ]
    padded = np.pad(
        cells, ((pad[1], end[1]), (pad[0], end[0]), (0, 0)), mode="edge" if border == "edge" else "constant"
    )
    scale = roi.side / size / step
    c, s = np.cos(roi.angle) * scale, np.sin(roi.angle) * scale
    origin = (corners[0] - (x0, y0)) / step + pad
    affine = (c, -s, origin[0], s, c, origin[1])
    out = Image.fromarray(padded).transform((size, size), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
    return np.asarray(out)


@lru_cache(maxsize=1)
def _anchors() -> NDArray[np.float64]:
    """(896, 2) anchor centres in [0, 1]: two per cell of 16 x 16, then six per cell of 8 x 8 (strides 8, 16 x 3)."""
    grids = []
    for cells, count in ((16, 2), (8, 6)):
        centre = (np.arange(cells) + 0.5) / cells
        x, y = np.meshgrid(centre, centre)
        grids.append(np.repeat(np.stack([x.ravel(), y.ravel()], 1), count, 0))
    return np.concatenate(grids)


def detect_in(image: Image8, square: Roi, min_score: float = MIN_SCORE, border: str = "black") -> list[Detection]:
    """Run the detector once on a square of the photo; overlapping answers are not yet merged."""
    view = crop(image, square, INPUT, border).astype(np.float32) / 127.5 - 1
    raw, logits = network("detector")(view)
    score = 1 / (1 + np.exp(-np.clip(logits.reshape(-1), -100, 100).astype(np.float64)))
    keep = np.flatnonzero(score >= min_score)
    values = raw.reshape(-1, 16)[keep].astype(np.float64) / INPUT
    anchors = _anchors()[keep]
    centre = values[:, :2] + anchors
    half = values[:, 2:4] / 2
    found = []
    for i, s in enumerate(score[keep]):
        keypoints = square.to_photo(values[i, 4:].reshape(6, 2) + anchors[i], 1)
        middle = square.to_photo(centre[i : i + 1], 1)[0]
        extent = half[i] * square.side
        found.append(Detection(np.concatenate([middle - extent, middle + extent]), keypoints, float(s)))
    return found


def overlap(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Intersection over union of two boxes (left, top, right, bottom)."""
    inner = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    common = float(inner[0] * inner[1])
    areas = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]))
    return common / max(areas - common, 1e-9)


def merge(found: list[Detection]) -> list[Detection]:
    """Weighted non-maximum suppression: boxes of one face become their score-weighted mean."""
    rest = sorted(found, key=lambda d: -d.score)
    merged = []
    while rest:
        best = rest[0]
        same = [d for d in rest if d is best or overlap(best.box, d.box) > MAX_OVERLAP]
        rest = [d for d in rest if not any(d is s for s in same)]
        weight = np.array([d.score for d in same])
        weight /= weight.sum()
        box = np.tensordot(weight, np.stack([d.box for d in same]), 1)
        keypoints = np.tensordot(weight, np.stack([d.keypoints for d in same]), 1)
        merged.append(Detection(box, keypoints, best.score))
    return merged


def _tiles(width: int, height: int, side: float) -> Iterator[Roi]:
    """Squares of `side` pixels that cover the photo and overlap by half."""

    def starts(length: int) -> NDArray[np.float64]:
        count = max(1, int(np.ceil((length - side) / (side / 2))) + 1)
        return np.linspace(0, max(length - side, 0), count)

    for top in starts(height):
        for left in starts(width):
            yield Roi(left + side / 2, top + side / 2, side)


def lift_shadows(image: Image8, gamma: float = 0.45) -> Image8:
    """Brighten dark regions: exposure to the 99th percentile, then a power law below 1. (H, W, 3) 8 bit."""
    top = max(float(np.percentile(image, 99)), 1.0)
    table = (np.clip(np.arange(256) / top, 0, 1) ** gamma * 255 + 0.5).astype(np.uint8)
    return table[image]


def _search(image: Image8, divisions: tuple[int, ...], angles: tuple[float, ...], min_score: float) -> list[Detection]:
    height, width = image.shape[:2]
    side = float(max(width, height))
    x, y = width / 2, height / 2
    found: list[Detection] = []
    for angle in angles:
        for scale in (1.0, 1.5, 2.2):
            for border in ("black", "edge") if scale > 1 else ("black",):
                found += detect_in(image, Roi(x, y, side * scale, angle), min_score, border)
    for division in divisions:
        if side / division >= SMALLEST_TILE:
            for tile in _tiles(width, height, side / division):
                for angle in angles:
                    found += detect_in(image, Roi(tile.x, tile.y, tile.side, angle), min_score)
    return merge(found)


def glance(image: Image8) -> list[Detection]:
    """The faces of an 8-bit sRGB photo (H, W, 3) that are large in it, from five passes over the whole."""
    return _search(image, (), (0.0,), MIN_SCORE)


def candidates(image: Image8) -> Iterator[list[Detection]]:
    """Ever more patient searches over an 8-bit sRGB photo (H, W, 3); stop at the first that satisfies.

    Each item is a merged list of detections, possibly empty or false: the landmark network decides.
    """
    level = (0.0,)
    yield _search(image, (2, 4), level, MIN_SCORE)
    yield _search(lift_shadows(image), (2, 4), level, MIN_SCORE)
    tilted = (0.0, -np.pi / 4, np.pi / 4, np.pi / 2, -np.pi / 2, np.pi)
    yield _search(image, (2,), tilted, MIN_SCORE)
    yield _search(lift_shadows(image), (2,), tilted, 0.3)
    yield _search(image, (8, 16), level, MIN_SCORE)
