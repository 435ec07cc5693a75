"""The transport matrix of a scene: its image under one light at a time, ray-traced visibility included.

For fixed geometry the radiance of pixel p is linear in the lights (Debevec et al. 2000, "Acquiring the reflectance
field of a human face"):  I_p = sum_l L_l (rho_d T_d[p, l] + rho_s T_s[p, l]).  This module computes the columns of
T_d and T_s. One kernel is compiled for the first light and used for all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from lightstage.rig import AreaLights

Array = NDArray[np.float32]
Response = Callable[[Any, Any], tuple[Any, Any]]


@dataclass(frozen=True)
class Transport:
    """Columns of the transport matrix for `pixels` points and `lights` lights."""

    diffuse: Array
    """(P, L) radiance for unit diffuse albedo, with visibility."""
    specular: Array
    """(P, L) radiance for unit F0, with visibility."""
    unshadowed: Array
    """(P, L) as `diffuse`, with every light visible."""

    def select(self, lights: NDArray[np.int64]) -> Transport:
        """The columns of some lights."""
        return Transport(self.diffuse[:, lights], self.specular[:, lights], self.unshadowed[:, lights])


def lambert(si: Any, wo: Any) -> tuple[Any, Any]:
    """Response of a white matte surface: (cos / pi, 0)."""
    cos = dr.maximum(dr.dot(wo, si.sh_frame.n), 0)
    return cos / dr.pi, dr.zeros(mi.Float, dr.width(cos))


def hashed_points(lanes: int, seed: int, stream: int) -> Any:
    """Uniform points (lanes,) in the unit square, a pure function of (lane, seed, stream)."""
    a, b = mi.sample_tea_32(dr.arange(mi.UInt32, lanes), dr.opaque(mi.UInt32, (seed * 0x9E3779B1 + stream) & 0xFFFFFFFF))
    return mi.Point2f(mi.Float(a >> 8) * 2.0**-24, mi.Float(b >> 8) * 2.0**-24)


def stratified_points(lanes: int, per_block: int, seed: int, stream: int) -> Any:
    """Points that are well spread within each block of `per_block` neighbouring lanes.

    The R2 sequence (Roberts 2018) with an independent random shift per block: Cranley-Patterson rotation.
    """
    lane = dr.arange(mi.UInt32, lanes)
    block = lane // per_block
    a, b = mi.sample_tea_32(block, dr.opaque(mi.UInt32, (seed * 0x9E3779B1 + stream) & 0xFFFFFFFF))
    index = mi.Float(lane - block * per_block)
    x = mi.Float(a >> 8) * 2.0**-24 + index * 0.7548776662466927
    y = mi.Float(b >> 8) * 2.0**-24 + index * 0.5698402909980532
    return mi.Point2f(x - dr.floor(x), y - dr.floor(y))


def point_on_triangle(corners: Any, u: Any) -> Any:
    """Uniform point on a triangle, by the square-root map. `corners` is a list of three points."""
    s = dr.sqrt(u.x)
    return corners[0] * (1 - s) + corners[1] * (s * (1 - u.y)) + corners[2] * (s * u.y)


def light_geometry(corners: Any, u: Any, p: Any) -> tuple[Any, Any, Any]:
    """Sample a triangular light from points p.

    Returns:
        direction: unit vector to the sampled point.
        distance: in mm.
        weight: A max(0, cos_light) / r^2, which times the emitted radiance and the BSDF cosine is the contribution.
    """
    q = point_on_triangle(corners, u)
    normal = dr.cross(corners[1] - corners[0], corners[2] - corners[0])  # length 2 A
    to_light = q - p
    r2 = dr.squared_norm(to_light)
    r = dr.sqrt(r2)
    d = to_light / r
    weight = dr.maximum(-dr.dot(normal, d), 0) * 0.5 / r2
    return d, r, weight


def transport(
    scene: Any,
    si: Any,
    lights: AreaLights,
    samples: int,
    seed: int,
    response: Response = lambert,
) -> Transport:
    """Trace the columns of the transport matrix.

    Args:
        scene: a Mitsuba scene without emitters; its shapes cast the shadows.
        si: surface interactions, `samples` neighbouring lanes a pixel.
        lights: radiance is taken as a scalar (mean of the channels): columns are colourless.
        samples: lanes a pixel.
        seed: new seed, new noise.
        response: (si, wo in world) -> (diffuse, specular) lobe times cosine, for unit albedo and unit F0.
    """
    lanes = dr.width(si)
    pixels = lanes // samples
    columns: list[tuple[Array, Array, Array]] = []
    strength = lights.radiance.mean(axis=1)
    valid = si.is_valid()
    hits = dr.maximum(dr.block_sum(dr.select(valid, mi.Float(1), 0), samples), 1e-6)
    dr.eval(si, hits, valid)
    for index, (triangle, radiance) in enumerate(zip(lights.corners, strength, strict=True)):
        corners = [mi.Point3f(*(dr.opaque(mi.Float, float(x)) for x in corner)) for corner in triangle]
        u = stratified_points(lanes, samples, seed, index)
        wo, distance, weight = light_geometry(corners, u, si.p)
        weight = dr.select(valid, weight * dr.opaque(mi.Float, float(radiance)), 0)
        diffuse, specular = response(si, wo)
        ray = si.spawn_ray(wo)
        ray.maxt = distance * (1 - 1e-4)
        lit = dr.select(scene.ray_test(ray, valid & (weight > 0)), mi.Float(0), mi.Float(1))
        parts = [diffuse * weight * lit, specular * weight * lit, diffuse * weight]
        sums = [dr.block_sum(part, samples) / hits for part in parts]
        dr.eval(*sums)
        columns.append((sums[0].numpy(), sums[1].numpy(), sums[2].numpy()))
    empty = np.zeros((pixels, 0), np.float32)
    stacked = [np.stack([c[i] for c in columns], axis=1) if columns else empty for i in range(3)]
    return Transport(*stacked)
