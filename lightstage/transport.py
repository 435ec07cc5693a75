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
Response = Callable[[Any, Any, Any], tuple[Any, Any]]
LANES = 1 << 22
"""Most rays traced by one kernel launch: enough to hide the launch, little enough to stay below 1 GB."""


@dataclass(frozen=True)
class Transport:
    """Columns of the transport matrix for `pixels` points and `lights` lights."""

    diffuse: Array
    """(P, L) radiance for unit diffuse albedo, with visibility."""
    specular: Array
    """(P, L) radiance for unit F0, with visibility."""
    unshadowed: Array
    """(P, L) as `diffuse`, with every light visible."""


def owned(kind: Any, values: NDArray[Any]) -> Any:
    """A Dr.Jit array with a copy of NumPy values.

    On the CPU `kind(values)` shares the memory of the NumPy array, and lets go of it when the variable dies, which is
    before the kernels that read it have run: they run asynchronously. Seen as NaN now and then on a busy machine.
    """
    shared = kind(np.ascontiguousarray(values).ravel())
    copy = dr.gather(kind, shared, dr.arange(mi.UInt32, dr.width(shared)))
    dr.eval(copy)
    dr.sync_thread()
    return copy


def lambert(wo: Any, normal: Any, lane: Any) -> tuple[Any, Any]:
    """Response of a white matte surface: (cos / pi, 0)."""
    cos = dr.maximum(dr.dot(wo, normal), 0)
    return cos / dr.pi, dr.zeros(mi.Float, dr.width(cos))


def stratified_points(lanes: int, per_block: int, seed: int, stream: int) -> Any:
    """Points that are well spread within each block of `per_block` neighbouring lanes.

    The R2 sequence (Roberts 2018) with an independent random shift per block: Cranley-Patterson rotation.
    """
    lane = dr.arange(mi.UInt32, lanes)
    block = lane // per_block
    a, b = mi.sample_tea_32(block, dr.opaque(mi.UInt32, (seed * 0x9E3779B1 + stream) & 0xFFFFFFFF))
    # each stream visits the sequence in its own order: otherwise pixel, light and point on the light move together
    index = mi.Float(mi.permute_kensler(lane - block * per_block, per_block, a ^ (b >> 3)))
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
    """Trace the columns of the transport matrix, many lights in one kernel launch.

    Args:
        scene: a Mitsuba scene without emitters; its shapes cast the shadows.
        si: surface interactions, `samples` neighbouring lanes a pixel.
        lights: radiance is taken as a scalar (mean of the channels): columns are colourless.
        samples: lanes a pixel.
        seed: new seed, new noise.
        response: (wo in world, shading normal, lane of `si`) -> (diffuse, specular) lobe times cosine, for unit
            albedo and unit F0. What varies over the surface is gathered by lane.
    """
    lanes = dr.width(si)
    pixels, count = lanes // samples, len(lights.corners)
    valid = si.is_valid()
    hits = dr.maximum(dr.block_sum(dr.select(valid, mi.Float(1), 0), samples), 1)
    p, n, normal = mi.Point3f(si.p), mi.Normal3f(si.n), mi.Vector3f(si.sh_frame.n)
    dr.eval(p, n, normal, valid, hits)
    share = 1 / hits.numpy()
    flat = [owned(mi.Float, lights.corners[:, k].astype(np.float32)) for k in range(3)]
    radiance = owned(mi.Float, lights.radiance.mean(axis=1).astype(np.float32))
    out = np.zeros((3, count, pixels), np.float32)
    batch = max(min(LANES // max(lanes, 1), count), 1)
    for first in range(0, count, batch):
        some = min(batch, count - first)
        index = dr.arange(mi.UInt32, lanes * some)
        light = index // lanes
        lane = index - light * lanes
        light += dr.opaque(mi.UInt32, first)
        corners = [dr.gather(mi.Point3f, corner, light) for corner in flat]
        u = stratified_points(lanes * some, samples, seed, first)
        at = dr.gather(mi.Point3f, p, lane)
        active = dr.gather(mi.Bool, valid, lane)
        wo, distance, weight = light_geometry(corners, u, at)
        weight *= dr.gather(mi.Float, radiance, light)
        diffuse, specular = response(wo, dr.gather(mi.Vector3f, normal, lane), lane)
        active &= (weight > 0) & ((diffuse > 0) | (specular > 0))
        weight = dr.select(active, weight, 0)
        ray = mi.Ray3f(_offset(at, dr.gather(mi.Normal3f, n, lane), wo), wo)
        ray.maxt = distance * (1 - 1e-4)
        lit = dr.select(scene.ray_test(ray, active), mi.Float(0), mi.Float(1))
        parts = [diffuse * weight * lit, specular * weight * lit, diffuse * weight]
        dr.eval(*parts)  # together: `block_sum` evaluates its input, and each part alone would trace the rays again
        sums = [dr.block_sum(part, samples) for part in parts]
        for k in range(3):
            out[k, first : first + some] = sums[k].numpy().reshape(some, pixels) * share
    return Transport(*(np.ascontiguousarray(o.T) for o in out))


def _offset(p: Any, n: Any, direction: Any) -> Any:
    """Ray origin lifted off the surface along the geometric normal, as Mitsuba's `spawn_ray` does."""
    magnitude = (1 + dr.max(dr.abs(p))) * RAY_EPSILON
    return p + n * dr.mulsign(magnitude, dr.dot(n, direction))


RAY_EPSILON = 1500 * 2.0**-24
"""Relative offset of shadow rays: `mi.math.RayEpsilon` in single precision."""
