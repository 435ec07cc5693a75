"""The head under a lat-long environment map, importance-sampled. Not differentiable: for edits, not for the fit.

Every ray joins the hit to one direction drawn from the map and one drawn from the BSDF, weighted by the balance
heuristic (Veach and Guibas, "Optimally combining sampling techniques for Monte Carlo rendering", SIGGRAPH 1995):
the first finds the sun, the second the highlights under an even sky. The map itself is Mitsuba's `envmap`.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from lightstage.transport import owned, stratified_points
from raytrace_face.tracer import skin
from raytrace_face.tracer.render import View, camera_rays, opaque_pose, reflectance
from raytrace_face.tracer.scene import HeadScene
from raytrace_face.types import Array, Maps


def render_environment(
    head: HeadScene,
    view: View,
    T_camera_head: NDArray[np.floating],
    maps: Maps,
    environment: NDArray[np.floating],
    R_head_environment: NDArray[np.floating],
    seed: int,
) -> Array:
    """Colours (P, 3) of the pixels of a view under an environment map alone, linear Rec. 709.

    Args:
        environment: (H, W, 3) radiance, lat-long; row 0 is up (+y), the middle column looks along +z.
        R_head_environment: (3, 3) rotation, frame of the map -> head frame.
        seed: of the jitter (the same as `tracer.render.render` makes of it) and of the light.
    """
    emitter = _emitter(environment, R_head_environment)
    ray = camera_rays(view, opaque_pose(T_camera_head), dr.opaque(mi.Float, view.camera.focal_px), 2 * seed)
    si = head.scene.ray_intersect(ray)
    valid = si.is_valid()
    lanes = len(view.pixels) * view.samples
    flat = [owned(mi.Float, t.astype(np.float32)) for t in (maps.diffuse, maps.specular, maps.roughness)]
    sizes = (maps.diffuse.shape[0], maps.specular.shape[0], maps.roughness.shape[0])
    diffuse, f0, rough = reflectance(head, si, (flat[0], flat[1], flat[2]), sizes)

    frame = mi.Frame3f(si.sh_frame.n)
    wi = -ray.d
    wi_local, alpha = frame.to_local(wi), skin.alpha_of(rough)
    share = skin.specular_share(f0, wi_local.z)

    drawn, _ = emitter.sample_direction(si, stratified_points(lanes, view.samples, 2 * seed, 5), valid)
    u, lobe = (stratified_points(lanes, view.samples, 2 * seed, stream) for stream in (6, 7))
    mirrored = skin.reflected_direction(wi_local, alpha, u)
    local = dr.select(lobe.x < share, mirrored, mi.warp.square_to_cosine_hemisphere(u))

    total = mi.Color3f(0)
    for wo in (drawn.d, frame.to_world(local)):
        towards = dr.zeros(mi.DirectionSample3f, lanes)
        towards.d = wo
        sky = dr.zeros(mi.SurfaceInteraction3f, lanes)
        sky.wi = -wo
        density = emitter.pdf_direction(si, towards) + skin.mixture_pdf(wi_local, frame.to_local(wo), share, alpha)
        value = skin.evaluate(wi, wo, si.sh_frame.n, diffuse, f0, rough) * emitter.eval(sky)
        value *= dr.rcp(dr.maximum(density, 1e-9))
        lit = valid & (density > 0)  # false, too, for the undefined directions of a hit whose normal looks away
        if view.shadows:
            lit &= ~head.scene.ray_test(si.spawn_ray(wo), lit)
        total += dr.select(lit, value, 0)
    planes = [dr.block_sum(total[c], view.samples) / view.samples for c in range(3)]
    return np.stack([plane.numpy() for plane in planes], axis=1).astype(np.float32)


def _emitter(environment: NDArray[np.floating], R_head_environment: NDArray[np.floating]) -> Any:
    to_world = np.eye(4)
    to_world[:3, :3] = R_head_environment
    sky = {
        "type": "envmap",
        "bitmap": mi.Bitmap(np.ascontiguousarray(environment, np.float32)),
        "to_world": mi.ScalarTransform4f(to_world),
    }
    return mi.load_dict({"type": "scene", "sky": sky}).emitters()[0]
