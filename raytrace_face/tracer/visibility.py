"""Cast shadow of lights at given points of a head."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from lightstage.rig import AreaLights
from lightstage.transport import owned, transport
from raytrace_face.tracer.scene import HeadScene
from raytrace_face.types import Array

SHADE = 0.02
"""Share of the mean irradiance that a point gets in any case: where a light only grazes, it casts no shadow."""


def cast_visibility(
    head: HeadScene,
    points: NDArray[np.floating],
    normals: NDArray[np.floating],
    lights: AreaLights,
    samples: int,
    seed: int,
) -> Array:
    """(P,) share of the lights' irradiance that reaches points on the head, [0, 1]; 1 where none could arrive.

    Args:
        points: (P, 3) on the head, mm, head frame.
        normals: (P, 3) unit.
        samples: shadow rays a point and light.
    """
    if not len(lights.corners) or not len(points):
        return np.ones(len(points), np.float32)
    p, n = (np.repeat(np.asarray(values, np.float32), samples, axis=0) for values in (points, normals))
    si = dr.zeros(mi.SurfaceInteraction3f, len(p))
    si.t = mi.Float(0)  # any finite distance: a hit
    si.p = mi.Point3f(*(owned(mi.Float, p[:, k]) for k in range(3)))
    si.n = mi.Normal3f(*(owned(mi.Float, n[:, k]) for k in range(3)))
    si.sh_frame = mi.Frame3f(si.n)
    traced = transport(head.scene, si, lights, samples, seed)
    shadowed, open_light = traced.diffuse.sum(axis=1), traced.unshadowed.sum(axis=1)
    floor = SHADE * float(open_light.mean()) + 1e-12
    return ((shadowed + floor) / (open_light + floor)).astype(np.float32)
