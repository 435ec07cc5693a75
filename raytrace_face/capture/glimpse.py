"""The photo round a face at the resolution of its window, and the photo that this is."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.landmarks import segmented
from raytrace_face.capture.segmentation import CONTEXT, resample
from raytrace_face.types import Capture, Glimpse, Photo, Sighting, Window

CLIPPED_SHARE = 0.25
"""Of a pixel's footprint in the photo, from which it counts as clipped: `fit.observation` halves its weight there."""


def glimpse(photo: Photo, window: Window) -> Glimpse:
    """Look at a photo round a window, as far as the segmentation network does."""
    margin = math.ceil((CONTEXT - 1) / 2 * window.size)
    pixel = window.side_px / window.size
    size = window.size + 2 * margin
    wide = Window(window.left_px - margin * pixel, window.top_px - margin * pixel, size * pixel, size)
    linear, valid = resample(photo.linear, wide)
    # most photos have no clipped pixel at all
    clipped = resample(photo.saturated, wide)[0][..., 0] if photo.saturated.any() else np.zeros(valid.shape)
    rows, columns = (np.flatnonzero(valid.any(axis)) for axis in (1, 0))
    part = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    corner = np.array([margin - columns[0], margin - rows[0]])
    return Glimpse(np.ascontiguousarray(linear[part]), clipped[part] > CLIPPED_SHARE, corner)


def regard(seen: Glimpse, landmarks_px: NDArray[np.floating], window: Window) -> tuple[Photo, Capture]:
    """A glimpse as a photo of its own, and the face in it, segmented.

    Args:
        landmarks_px: (478, 2) pixels of the whole photo; window: the one of `glimpse`.
    """
    photo = Photo(seen.linear, seen.saturated, "", "", False)
    here = (window.to_window(landmarks_px) + seen.corner).astype(np.float32)
    column, row = (float(v) for v in seen.corner)
    there = Window(column, row, float(window.size), window.size)
    return photo, segmented(photo, Sighting(here, np.zeros(len(here), np.float32), {}, 1.0, there, 1))
