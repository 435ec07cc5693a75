"""Reflectance of the parts that no map covers: eyes, teeth and the inside of the mouth.

They are masked out of the fit and shown with plain averages, so that a picture of the head looks back at its viewer.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from raytrace_face.types import Array

PART_MATERIALS: dict[str, tuple[tuple[float, float, float], float, float]] = {
    "eyes": ((0.42, 0.39, 0.37), 0.03, 0.25),
    "teeth": ((0.60, 0.53, 0.43), 0.04, 0.35),
    "mouth": ((0.28, 0.10, 0.09), 0.03, 0.45),
}
"""Part -> (diffuse albedo, F0, roughness): sclera in the shade of its lids, dentine, mucosa."""

IRIS, PUPIL = (0.06, 0.033, 0.02), (0.01, 0.01, 0.01)
"""Diffuse albedo of a dark brown iris, the most common one, and of a pupil."""
EYE_CENTRE_U, EYE_CENTRE_V = (0.166, 0.834), 0.511
IRIS_RADIUS_UV, PUPIL_SHARE = (0.062, 0.185), 0.42
"""Where the embedded model's eyes look forward in its eye chart, the iris' radii there (6 mm), and pupil over iris."""


@lru_cache(maxsize=8)
def eye_texture(size: int = 128, iris: tuple[float, ...] = IRIS) -> Array:
    """(size, size, 3) diffuse albedo of both eyes in their chart, row 0 at v = 1.

    Args:
        iris: (3,) albedo of the irises.
    """
    centre = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(centre, 1 - centre)
    du = np.minimum(abs(u - EYE_CENTRE_U[0]), abs(u - EYE_CENTRE_U[1])) / IRIS_RADIUS_UV[0]
    r = np.hypot(du, (v - EYE_CENTRE_V) / IRIS_RADIUS_UV[1])

    def inside(radius: float) -> np.ndarray:
        return np.clip((radius - r) * 8 + 0.5, 0, 1)[..., None]

    out = np.broadcast_to(np.array(PART_MATERIALS["eyes"][0]), (size, size, 3))
    out = out * (1 - inside(1.0)) + np.array(iris) * inside(1.0)
    return (out * (1 - inside(PUPIL_SHARE)) + np.array(PUPIL) * inside(PUPIL_SHARE)).astype(np.float32)
