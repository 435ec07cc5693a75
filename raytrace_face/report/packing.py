"""Arrays as text in a page: quantised vertices, sparse morph targets, and HDR images as 8-bit pictures.

Everything comes back in the browser as typed arrays (little-endian, as every browser's machine is) or as an image.
"""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrace_face.types import Array

STEPS = 65535
"""Codes of a quantised coordinate: a head of 300 mm is resolved to 5 micrometres."""
STILL_MM = 0.02
"""A vertex that a morph target moves by less stays out of it: a fiftieth of a millimetre is below every pixel."""
JPEG_QUALITY = 92
"""Of the one-light images and maps: errs by about 1 code of 255 on skin (`tests/unit/test_report_packing.py`)."""


def text_of(values: NDArray[Any]) -> str:
    """Base64 of the bytes of an array, little-endian."""
    array = np.ascontiguousarray(values)
    return base64.b64encode(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()).decode("ascii")


def quantise(points: NDArray[np.floating]) -> tuple[NDArray[np.uint16], Array, Array]:
    """Points (N, C) as 16-bit codes over their bounding box.

    Returns:
        codes (N, C), low (C,) and step (C,): point = low + step * code, wrong by at most half a step.
    """
    low = np.min(points, axis=0).astype(np.float32)
    step = ((np.max(points, axis=0) - low) / STEPS).astype(np.float32)
    codes = np.rint((points - low) / np.maximum(step, 1e-30))
    return np.clip(codes, 0, STEPS).astype(np.uint16), low, step


def sparse(displacement: NDArray[np.floating]) -> tuple[NDArray[np.uint32], NDArray[np.int16], float]:
    """A morph target (V, 3) in mm as the vertices that it moves.

    Returns:
        index (M,) of the vertices that move by more than `STILL_MM`, codes (M, 3) and the step in mm:
        displacement[index] = step * codes, wrong by at most half a step; all others stay where they are.
    """
    index = np.flatnonzero(np.linalg.norm(displacement, axis=1) > STILL_MM)
    moved = displacement[index]
    step = max(float(np.abs(moved).max(initial=0)), 1e-6) / 32767
    return index.astype(np.uint32), np.rint(moved / step).astype(np.int16), step


def root_codes(image: NDArray[np.floating], scale: float) -> NDArray[np.uint8]:
    """Linear radiance in [0, scale] as 8-bit codes of its square root.

    The step in radiance is then proportional to the root of it, near what the eye tells apart (and near sRGB):
    |root_values(root_codes(x)) - x| <= scale (c + 1/4) / 255^2 for the code c.
    """
    return (np.sqrt(np.clip(image / scale, 0, 1)) * 255 + 0.5).astype(np.uint8)


def root_values(codes: NDArray[np.uint8], scale: float) -> Array:
    """The radiance that codes of `root_codes` stand for."""
    return ((codes.astype(np.float32) / 255) ** 2 * scale).astype(np.float32)


def data_uri(codes: NDArray[np.uint8], kind: str = "png", quality: int = JPEG_QUALITY) -> str:
    """An 8-bit picture (H, W) or (H, W, 3) as a `data:` address; kind is "png" (lossless) or "jpeg" (4:4:4)."""
    from PIL import Image

    buffer = io.BytesIO()
    options: dict[str, Any] = {"optimize": True}
    if kind == "jpeg":
        options |= {"quality": quality, "subsampling": 0}
    Image.fromarray(np.ascontiguousarray(codes)).save(buffer, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"


def grown(image: NDArray[Any], inside: NDArray[np.bool_]) -> NDArray[Any]:
    """The image (..., H, W) with every pixel outside as the nearest one inside (H, W): no edge to ring at."""
    from scipy import ndimage

    if not inside.any():
        return image
    rows, columns = ndimage.distance_transform_edt(~inside, return_distances=False, return_indices=True)
    return image[..., rows, columns]
