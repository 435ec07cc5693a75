"""Resampling of the photo into the fitted window, and who is who in it: skin, hair, clothes, background."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull
from skimage.draw import polygon2mask

from raytrace_face.capture.colour import encode_u8
from raytrace_face.capture.networks import network
from raytrace_face.types import Window

Array = NDArray[np.float32]

CLASSES = ("background", "hair", "body skin", "face skin", "clothes", "other")
"""Names of the six classes, in the order of the network's outputs. "Other" is glasses, hats, jewellery."""

INPUT = 256
"""Side of the network's input, pixels."""
CONTEXT = 1.25
"""Side of the square shown to the network over the window's: it knows heads with hair and shoulders."""
OVAL_SHRINK = 0.95
"""The inside of a face is this part of the landmarks' outline."""


def resample(image: NDArray[np.floating | np.bool_], window: Window) -> tuple[Array, NDArray[np.bool_]]:
    """The photo seen through a window, area-averaged where it shrinks: ((S, S, C) float32, (S, S) validity).

    `image` (H, W) or (H, W, C), linear light (averaging light is only right there). Window pixel (i, j) is the mean
    of the photo over its footprint, triangle-weighted and so exact for linear ramps; its centre lies at (j + 0.5,
    i + 0.5). A pixel is valid when its whole footprint lies in the photo; what is outside is black.
    """
    out, valid = _filtered(image, window)
    return np.where(valid[..., None], out, 0).astype(np.float32), valid


def _filtered(image: NDArray[np.floating | np.bool_], window: Window) -> tuple[Array, NDArray[np.bool_]]:
    """`resample` with the photo's edge pixels continued outside instead of black."""
    picture = np.asarray(image, np.float32)
    if picture.ndim == 2:
        picture = picture[..., None]
    height, width, channels = picture.shape
    size, side = window.size, window.side_px
    step = side / size
    reach = max(step, 1.0) + 1
    x0, y0 = math.floor(window.left_px - reach), math.floor(window.top_px - reach)
    x1, y1 = math.ceil(window.left_px + side + reach), math.ceil(window.top_px + side + reach)
    rows, above = _within(y0, y1, height)
    columns, beside = _within(x0, x1, width)
    box = (window.left_px - x0, window.top_px - y0, window.left_px - x0 + side, window.top_px - y0 + side)
    out = np.empty((size, size, channels), np.float32)
    for c in range(channels):
        plane = Image.fromarray(np.pad(picture[rows, columns, c], (above, beside), mode="edge"))
        out[..., c] = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR, box=box))
    edges = np.arange(size + 1) * step
    inside_x = (window.left_px + edges[:-1] >= -1e-6) & (window.left_px + edges[1:] <= width + 1e-6)
    inside_y = (window.top_px + edges[:-1] >= -1e-6) & (window.top_px + edges[1:] <= height + 1e-6)
    return out, inside_y[:, None] & inside_x[None, :]


def _within(low: int, high: int, size: int) -> tuple[slice, tuple[int, int]]:
    """What of the range [low, high) lies in [0, size), at least one element, and how many more there are on each side.

    >>> _within(-2, 3, 10), _within(8, 12, 10), _within(12, 14, 10)
    ((slice(0, 3, None), (2, 0)), (slice(8, 10, None), (0, 2)), (slice(9, 10, None), (0, 1)))
    """
    first = min(max(low, 0), size - 1)
    last = max(min(high, size), first + 1)
    more = high - low - (last - first)
    before = min(first - min(low, first), more)
    return slice(first, last), (before, more - before)


def _softmax(logits: Array) -> Array:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def segment(
    photo_linear: NDArray[np.floating],
    window: Window,
    landmarks_px: NDArray[np.floating] | None = None,
    mirrored: bool = True,
) -> Array:
    """Class probabilities (S, S, 6) of a linear photo (H, W, 3) on a window; they sum to one.

    The network sees a larger square than the window, as it is and, if `mirrored`, mirrored. Outside the photo all is
    background. With `landmarks_px` (N, 2) there is no background inside the face: what the network calls so there (it
    does in deep shadow and in tight crops) counts as face skin; hands, hair and glasses stay what they are.
    """
    extra = (CONTEXT - 1) / 2 * window.side_px
    wide = Window(window.left_px - extra, window.top_px - extra, CONTEXT * window.side_px, INPUT)
    light, _ = resample(photo_linear, wide)
    view = encode_u8(light).astype(np.float32) / 255
    total = np.zeros((INPUT, INPUT, len(CLASSES)), np.float32)
    ways = (1, -1) if mirrored else (1,)
    for step in ways:
        (logits,) = network("segmentation")(view[:, ::step])
        total += _softmax(logits.reshape(total.shape))[:, ::step] / len(ways)
    margin = INPUT * (1 - 1 / CONTEXT) / 2
    out, _ = _filtered(total, Window(margin, margin, INPUT / CONTEXT, window.size))
    out /= np.maximum(out.sum(-1, keepdims=True), 1e-6)
    if landmarks_px is not None:
        moved = out[..., 0] * _face_oval(window, landmarks_px)
        out[..., CLASSES.index("face skin")] += moved
        out[..., 0] -= moved
    valid = _filtered(np.empty((*photo_linear.shape[:2], 0), np.float32), window)[1]
    return np.where(valid[..., None], out, np.eye(len(CLASSES), dtype=np.float32)[0])


def _face_oval(window: Window, landmarks_px: NDArray[np.floating]) -> Array:
    """(S, S) in [0, 1]: inside the convex outline of the landmarks (N, 2), a little shrunk, smooth at its border."""
    points = window.to_window(np.asarray(landmarks_px, np.float64))
    outline = points[ConvexHull(points).vertices]
    outline = outline.mean(0) + OVAL_SHRINK * (outline - outline.mean(0))
    inside = polygon2mask((window.size, window.size), outline[:, ::-1] - 0.5)
    return gaussian_filter(inside.astype(np.float32), window.size / 100)
