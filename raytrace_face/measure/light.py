"""Errors of directions (lights, normals, poses) and of environment maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightstage.environment import latlong_directions, latlong_solid_angles
from raytrace_face.capture.colour import REC709_LUMINANCE
from raytrace_face.errors import InputError

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


@dataclass(frozen=True)
class EnvironmentErrors:
    """Errors of a lat-long map, weighted by solid angle; rmse over the mean of the truth."""

    relative_rmse: float
    """As it stands."""
    relative_rmse_one_scale: float
    """After the best factor for all pixels and channels."""
    dominant_deg: float
    """Angle between the directions that the two maps' light comes from on the whole; NaN where there is none."""


def dominant_direction(image: NDArray[np.floating]) -> F:
    """Unit vector (3,) that the light of a lat-long map (H, 2H, 3) comes from: its mean, by luminance. 0 if even.

    It is the direction of the linear band of spherical harmonics. Axes as in `lightstage.environment`: row 0 looks
    up (+y), the middle column along +z.
    """
    height = image.shape[0]
    flux = (image @ REC709_LUMINANCE) * latlong_solid_angles(height)
    total = (latlong_directions(height) * flux[..., None]).sum(axis=(0, 1))
    length = float(np.linalg.norm(total))
    return total / length if length > 1e-9 * np.abs(flux).sum() else np.zeros(3)


def environment_errors(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> EnvironmentErrors:
    """Errors of one lat-long map (H, 2H, 3) against another of the same size, linear, in one frame.

    Raises:
        InputError: the maps are not (H, 2H, 3) of one size, or the truth is black.
    """
    if predicted.shape != truth.shape or truth.ndim != 3 or truth.shape[1:] != (2 * truth.shape[0], 3):
        raise InputError(
            f"environment maps have shapes {predicted.shape} and {truth.shape}: both must be (H, 2H, 3), of one size"
        )
    p, t = predicted.astype(np.float64), truth.astype(np.float64)
    weight = np.broadcast_to(latlong_solid_angles(len(t))[..., None], t.shape) / (4 * np.pi * 3)
    mean = float((weight * t).sum())
    if mean <= 0:
        raise InputError("the true environment map is black: nothing can be relative to it")
    power = float((weight * p * p).sum())
    gain = float((weight * p * t).sum()) / power if power > 0 else 1.0
    plain, scaled = (float(np.sqrt((weight * (k * p - t) ** 2).sum())) / mean for k in (1.0, gain))
    a, b = dominant_direction(p), dominant_direction(t)
    return EnvironmentErrors(plain, scaled, float(angle_deg(a, b)) if a.any() and b.any() else float("nan"))
