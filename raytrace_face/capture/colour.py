"""sRGB transfer function and luminance: the only place where encoded and linear colour meet."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

REC709_LUMINANCE = np.array([0.2126, 0.7152, 0.0722])
"""Weights of linear Rec. 709 red, green and blue in luminance (ITU-R BT.709)."""


def srgb_to_linear(encoded: NDArray[np.floating]) -> Array:
    """sRGB-encoded values in [0, 1] to linear light (IEC 61966-2-1), any shape; negative values are taken as 0.

    >>> float(srgb_to_linear(np.array(0.5)).round(4))
    0.214
    """
    v = np.maximum(np.asarray(encoded, np.float32), 0)
    return np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4).astype(np.float32)


def linear_to_srgb(linear: NDArray[np.floating]) -> Array:
    """Linear light to sRGB-encoded values, the inverse of `srgb_to_linear`; values above 1 are not clipped.

    >>> float(linear_to_srgb(np.array(0.214)).round(2))
    0.5
    """
    v = np.maximum(np.asarray(linear, np.float32), 0)
    return np.where(v <= 0.0031308, v * 12.92, 1.055 * v ** (1 / 2.4) - 0.055).astype(np.float32)


def luminance(linear: NDArray[np.floating]) -> Array:
    """Luminance Y of linear Rec. 709 colours, (..., 3) -> (...).

    >>> float(luminance(np.ones(3)).round(6))
    1.0
    """
    return np.asarray(linear, np.float32) @ REC709_LUMINANCE.astype(np.float32)


def encode_u8(linear: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Linear light to 8-bit sRGB codes, clipped to [0, 255]: what networks and screens want."""
    return (np.clip(linear_to_srgb(linear), 0, 1) * 255 + 0.5).astype(np.uint8)
