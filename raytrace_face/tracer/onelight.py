"""One-light-at-a-time images of the head: `lightstage.transport` with the skin's own response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from lightstage.rig import AreaLights
from lightstage.transport import Transport, owned, transport
from raytrace_face.tracer import skin
from raytrace_face.tracer.render import View, bilinear, intersect
from raytrace_face.tracer.scene import HeadScene


def head_transport(
    head: HeadScene,
    view: View,
    T_camera_head: NDArray[np.floating],
    lights: AreaLights,
    specular: NDArray[np.floating],
    roughness: NDArray[np.floating],
    seed: int,
) -> Transport:
    """Transport matrix of the head's pixels.

    Args:
        specular: (T, T) F0, which the diffuse base lies under.
        roughness: (T, T) perceptual roughness.
        seed: of primary and light samples.

    Returns:
        Columns over `view.pixels`: `diffuse` for unit albedo, `specular` for unit F0.
    """
    return next(head_transports(head, view, T_camera_head, lights, specular, [roughness], seed))


def head_transports(
    head: HeadScene,
    view: View,
    T_camera_head: NDArray[np.floating],
    lights: AreaLights,
    specular: NDArray[np.floating],
    roughnesses: Sequence[NDArray[np.floating]],
    seed: int,
) -> Iterator[Transport]:
    """`head_transport` for one map of roughness after the other, of the same rays."""
    si = intersect(head, view, T_camera_head, seed)
    wi = si.to_world(si.wi)
    dr.eval(wi, si.t, si.p, si.n, si.sh_frame.n, si.uv)  # together: what is asked for later would trace the rays again
    f0 = bilinear(owned(mi.Float, np.asarray(specular, np.float32)), specular.shape[0], 1, si.uv)
    occluders = head.scene if view.shadows else mi.load_dict({"type": "scene"})  # of nothing: every light is seen
    for roughness in roughnesses:
        r = bilinear(owned(mi.Float, np.asarray(roughness, np.float32)), roughness.shape[0], 1, si.uv)
        dr.eval(f0, r)

        def response(wo: Any, normal: Any, lane: Any, r: Any = r) -> tuple[Any, Any]:
            f0_here, r_here = dr.gather(mi.Float, f0, lane), dr.gather(mi.Float, r, lane)
            return skin.lobes(dr.gather(mi.Vector3f, wi, lane), wo, normal, f0_here, r_here)

        yield transport(occluders, si, lights, view.samples, seed, response)
