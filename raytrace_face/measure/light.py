"""Errors of directions: lights, normals, poses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F = NDArray[np.float64]


def angle_deg(a: NDArray[np.floating], b: NDArray[np.floating]) -> F:
    """Angle in degrees between vectors (..., 3) of any length, by atan2 (exact for small angles).

    >>> float(angle_deg(np.array([1.0, 0, 0]), np.array([0, 2.0, 0])))
    90.0
    """
    x, y = np.asarray(a, np.float64), np.asarray(b, np.float64)
    cross = np.linalg.norm(np.cross(x, y), axis=-1)
    return np.degrees(np.arctan2(cross, (x * y).sum(-1)))


def direction(azimuth_deg: float, elevation_deg: float) -> F:
    """Unit vector (3,) to a light: x right, y up, z to the camera; azimuth positive = from the image's right.

    >>> direction(90, 0).round(6).tolist()
    [1.0, 0.0, 0.0]
    """
    a, e = np.radians(azimuth_deg), np.radians(elevation_deg)
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])


def rotation_angle_deg(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Angle in degrees of the rotation that takes one rotation matrix (3, 3) to another."""
    delta = np.asarray(a, np.float64) @ np.asarray(b, np.float64).T
    axis = np.array([delta[2, 1] - delta[1, 2], delta[0, 2] - delta[2, 0], delta[1, 0] - delta[0, 1]])
    return float(np.degrees(np.arctan2(np.linalg.norm(axis), np.trace(delta) - 1)))


def mean_angle_deg(predicted: NDArray[np.floating], truth: NDArray[np.floating], mask: NDArray[np.bool_]) -> float:
    """Mean angle in degrees between two fields of vectors (H, W, 3) where `mask` (H, W) is true."""
    return float(angle_deg(predicted[mask], truth[mask]).mean())
