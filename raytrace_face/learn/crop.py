"""The crop that the encoder looks at: the same window that the optimiser fits, at the encoder's resolution.

A square round the landmarks with a margin, level with the photo and not turned upright with the face. Turning would
spare the network roll, but it would need a second geometry beside `Window`, which camera, segmentation, optimiser and
results share, and lose where *up* is in the photo, which is where light mostly comes from. Landmarks tell the network
the roll anyway. Cutting is exact: of the camera it moves the principal point and scales the focal length
(`Camera.windowed`), the pose stays, and everything goes back.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.detector import Image8, Roi, crop
from raytrace_face.capture.landmarks import window_around
from raytrace_face.types import Camera, Window

JITTER_SHIFT, JITTER_LOG_SIDE = 0.018, 0.035
"""Standard deviation of the window of detected landmarks about that of the true ones: shift over its side, log side.
Measured on synthetic photos (docs/encoder.md); what is detected of turned and of shadowed heads is off by more."""


def aligned_crop(photo: Image8, landmarks_px: NDArray[np.floating], size: int) -> tuple[Image8, Window]:
    """The crop (size, size, 3) of an 8-bit sRGB photo (H, W, 3), black outside the photo, and where it lies.

    Args:
        landmarks_px: (478, 2) network landmarks in photo pixels; (N, 2) of them do, if the outline is among them.
        size: pixels a side.
    """
    window = window_around(landmarks_px, size)
    half = window.side_px / 2
    square = Roi(window.left_px + half, window.top_px + half, window.side_px)
    return crop(photo, square, size, border="black"), window


def camera_of_photo(seen: Camera, window: Window, width: int, height: int) -> Camera:
    """The camera of a photo of width x height pixels from that of its crop: the inverse of `Camera.windowed`."""
    s = window.side_px / seen.width
    cx, cy = seen.principal_px
    return Camera(width, height, seen.focal_px * s, (cx * s + window.left_px, cy * s + window.top_px))


def jittered(window: Window, rng: np.random.Generator) -> Window:
    """The window as detected landmarks would have placed it."""
    dx, dy, grow = rng.normal(size=3)
    side = window.side_px * float(np.exp(JITTER_LOG_SIDE * grow))
    shift = (window.side_px - side) / 2
    return replace(
        window,
        left_px=window.left_px + shift + JITTER_SHIFT * window.side_px * dx,
        top_px=window.top_px + shift + JITTER_SHIFT * window.side_px * dy,
        side_px=side,
    )
