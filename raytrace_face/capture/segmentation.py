"""Resampling of the photo into the fitted window, and who is who in it: skin, hair, clothes, background."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raytrace_face.capture.colour import linear_to_srgb
from raytrace_face.capture.networks import network
from raytrace_face.types import Window

Array = NDArray[np.float32]

CLASSES = ("background", "hair", "body skin", "face skin", "clothes", "other")
"""Names of the six classes, in the order of the network's outputs. "Other" is glasses, hats, jewellery."""

INPUT = 256
"""Side of the network's input, pixels."""
CONTEXT = 1.5
"""Side of the square shown to the network over the window's: it knows heads with hair and shoulders."""


def resample(image: NDArray[np.floating], window: Window) -> tuple[Array, NDArray[np.bool_]]:
    """The photo seen through a window, area-averaged where it shrinks: ((S, S, C) float32, (S, S) validity).

    `image` (H, W) or (H, W, C), linear light (averaging light is only right there). Window pixel (i, j) is the mean
    of the photo over its footprint, triangle-weighted and so exact for linear ramps; its centre lies at (j + 0.5,
    i + 0.5). A pixel is valid when its whole footprint lies in the photo; what is outside is black.
    """
    picture = np.asarray(image, np.float32)
    if picture.ndim == 2:
        picture = picture[..., None]
    height, width, channels = picture.shape
    size, side = window.size, window.side_px
    step = side / size
    reach = max(step, 1.0) + 1
    x0, y0 = math.floor(window.left_px - reach), math.floor(window.top_px - reach)
    x1, y1 = math.ceil(window.left_px + side + reach), math.ceil(window.top_px + side + reach)
    # the nearest edge pixel continues past the photo while filtering; the mask then removes it
    rows = np.clip(np.arange(y0, y1), 0, height - 1)
    columns = np.clip(np.arange(x0, x1), 0, width - 1)
    box = (window.left_px - x0, window.top_px - y0, window.left_px - x0 + side, window.top_px - y0 + side)
    out = np.empty((size, size, channels), np.float32)
    for c in range(channels):
        plane = Image.fromarray(np.ascontiguousarray(picture[..., c][rows][:, columns]))
        out[..., c] = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR, box=box))
    edges = np.arange(size + 1) * step
    inside_x = (window.left_px + edges[:-1] >= -1e-6) & (window.left_px + edges[1:] <= width + 1e-6)
    inside_y = (window.top_px + edges[:-1] >= -1e-6) & (window.top_px + edges[1:] <= height + 1e-6)
    valid = inside_y[:, None] & inside_x[None, :]
    return np.where(valid[..., None], out, 0).astype(np.float32), valid


def _softmax(logits: Array) -> Array:
    e = np.exp(logits - logits.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def segment(photo_linear: NDArray[np.floating], window: Window) -> Array:
    """Class probabilities (S, S, 6) of a linear photo (H, W, 3) on a window; they sum to one."""
    extra = (CONTEXT - 1) / 2 * window.side_px
    wide = Window(window.left_px - extra, window.top_px - extra, CONTEXT * window.side_px, INPUT)
    view, _ = resample(photo_linear, wide)
    (logits,) = network("segmentation")(np.clip(linear_to_srgb(view), 0, 1))
    probabilities = _softmax(logits.reshape(INPUT, INPUT, len(CLASSES)))
    margin = INPUT * (1 - 1 / CONTEXT) / 2
    part = Window(margin, margin, INPUT / CONTEXT, window.size)
    out, _ = resample(probabilities, part)
    return (out / np.maximum(out.sum(-1, keepdims=True), 1e-6)).astype(np.float32)
