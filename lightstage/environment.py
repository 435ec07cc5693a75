"""Spherical harmonics and lat-long environment maps.

Real spherical harmonics up to order 2 in the usual ordering (l, m) = (0,0), (1,-1), (1,0), (1,1), (2,-2) ... (2,2)
with the normalisation of Ramamoorthi & Hanrahan, "An efficient representation for irradiance environment maps",
SIGGRAPH 2001, eq. 3. Axes: x right, y up, z towards the camera; the harmonics use (x, y, z) as they stand.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F = NDArray[np.float64]


def sh_basis(directions: F) -> F:
    """Values (N, 9) of the real spherical harmonics up to order 2 in unit directions (N, 3)."""
    x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
    return np.stack(
        [
            np.full_like(x, 0.28209479177387814),
            0.4886025119029199 * y,
            0.4886025119029199 * z,
            0.4886025119029199 * x,
            1.0925484305920792 * x * y,
            1.0925484305920792 * y * z,
            0.31539156525252005 * (3 * z * z - 1),
            1.0925484305920792 * x * z,
            0.5462742152960396 * (x * x - y * y),
        ],
        axis=-1,
    )


def lobes(directions: F, axes: F) -> F:
    """Values (N, A) of the lobes ((1 + cos) / 2)^2 about unit axes (A, 3) in unit directions (N, 3).

    A lobe is a polynomial of degree 2 in the direction: exactly a spherical harmonic of order 2, and never negative.
    A non-negative mixture of lobes is thus an ambient light that is both smooth and physical.
    """
    return ((1 + directions @ axes.T) / 2) ** 2


def lobe_sh(axes: F) -> F:
    """SH coefficients (A, 9) of the lobes about unit axes (A, 3). Exact: solved on a spherical design."""
    from lightstage.rig import geodesic

    points = geodesic(1).vertices
    return np.asarray(np.linalg.lstsq(sh_basis(points), lobes(points, axes), rcond=None)[0].T, np.float64)


def latlong_directions(height: int) -> F:
    """Unit directions (height, 2 height, 3) of the pixels of a lat-long map in Mitsuba's `envmap` convention.

    Row 0 looks up (+y), the middle column along +z, the edges along -z: u = atan2(x, -z) / 2 pi.
    """
    v = (np.arange(height) + 0.5) / height * np.pi
    u = (np.arange(2 * height) + 0.5) / (2 * height) * 2 * np.pi
    sin_v, cos_v = np.sin(v)[:, None], np.cos(v)[:, None]
    return np.stack([np.sin(u) * sin_v, np.broadcast_to(cos_v, (height, 2 * height)), -np.cos(u) * sin_v], axis=-1)


def latlong_solid_angles(height: int) -> F:
    """Solid angle (height, 1) of the pixels of each row, sr. They add up to 4 pi over the map."""
    edges = np.cos(np.arange(height + 1) / height * np.pi)
    return ((edges[:-1] - edges[1:]) * (np.pi / height))[:, None]


def sh_to_latlong(coefficients: F, height: int = 64) -> F:
    """Lat-long map (height, 2 height, 3) of SH coefficients (9, 3), clipped at zero."""
    return np.maximum(sh_basis(latlong_directions(height)) @ coefficients, 0)


def latlong_to_sh(image: F) -> F:
    """SH coefficients (9, 3), order 2, of a lat-long map (H, 2H, 3): the projection integral over the sphere."""
    height = image.shape[0]
    weight = latlong_solid_angles(height)
    return np.einsum(
        "hwk,hwc,hw->kc", sh_basis(latlong_directions(height)), image, np.broadcast_to(weight, image.shape[:2])
    )


def latlong_to_stage(image: F, directions: F) -> F:
    """Irradiance / pi (L, 3) at the centre from the part of a lat-long map nearest to each of `directions` (L, 3).

    Every pixel goes to its nearest direction, so that the sum over the stage is the flux of the map.
    """
    height = image.shape[0]
    pixels = latlong_directions(height).reshape(-1, 3)
    nearest = np.argmax(pixels @ directions.T, axis=1)
    flux = (image * latlong_solid_angles(height)[..., None]).reshape(-1, 3) / np.pi
    total = np.zeros((len(directions), 3))
    np.add.at(total, nearest, flux)
    return total


def stage_to_latlong(corners: F, radiance: F, height: int = 128) -> F:
    """Lat-long map (height, 2 height, 3) of triangular lights seen from the origin, energy-preserving.

    Lights smaller than a pixel are spread over the nearest pixel; larger ones cover the pixels they cover.
    """
    directions = latlong_directions(height).reshape(-1, 3)
    solid = np.broadcast_to(latlong_solid_angles(height), (height, 2 * height)).reshape(-1)
    image = np.zeros((len(directions), 3))
    for triangle, light in zip(corners, radiance, strict=True):
        a, b, c = triangle
        omega = triangle_solid_angle(triangle)
        sides = np.stack([np.cross(b, a), np.cross(c, b), np.cross(a, c)])  # inward-facing winding
        inside = np.all(directions @ sides.T >= 0, axis=1)
        if not inside.any():
            inside = np.zeros(len(directions), bool)
            inside[np.argmax(directions @ triangle.mean(axis=0))] = True
        image[inside] += light * omega / solid[inside].sum()
    return image.reshape(height, 2 * height, 3)


def triangle_solid_angle(triangle: F) -> float:
    """Solid angle in sr of a triangle (3, 3) seen from the origin (Van Oosterom & Strackee 1983, eq. 8)."""
    a, b, c = triangle / np.linalg.norm(triangle, axis=1, keepdims=True)
    return float(abs(2 * np.arctan2(a @ np.cross(b, c), 1 + a @ b + b @ c + c @ a)))
