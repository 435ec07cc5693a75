"""A reconstruction under another light, traced directly: its maps under one light, without the photo's own detail."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightstage.rig import AreaLights, directional_lights
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array

SAMPLES = 16
"""Rays a pixel."""


def head_direction(result: Reconstruction, direction_camera: NDArray[np.floating]) -> NDArray[np.float64]:
    """Camera frame -> head frame, (3,)."""
    return result.face.T_camera_head[:3, :3].T.astype(np.float64) @ direction_camera


def single_light(result: Reconstruction, direction_camera: NDArray[np.floating]) -> Array:
    """(S, S, 3) under one light as strong as all lights of the photo together, beside the photo's ambient.

    Where the photo has no lights, the one light gives as much as the ambient does.
    """
    lamp = directional_lights(head_direction(result, direction_camera)[None])
    power = result.lights.irradiance().sum(axis=0)
    if not power.any():
        power = np.maximum(result.ambient_sh[0], 0) * 0.282  # Y00: irradiance / pi of an even sky
    return result.render(lights=AreaLights(lamp.corners, lamp.radiance * power), spp=SAMPLES)


def visibility(result: Reconstruction, direction_camera: NDArray[np.floating]) -> Array:
    """(S, S) share of a small light from a direction that is seen from the head; 1 outside of it."""
    from raytrace_face.backend import start

    start(result.config.device, result.config.deterministic)
    from lightstage.transport import transport
    from raytrace_face.tracer.render import View, all_pixels, intersect
    from raytrace_face.tracer.scene import HeadScene

    camera = result.camera.windowed(result.window)
    head = HeadScene(result.face_model(), result.vertices())
    si = intersect(head, View(camera, all_pixels(camera), SAMPLES), result.face.T_camera_head, seed=1)
    lamp = directional_lights(head_direction(result, direction_camera)[None])
    traced = transport(head.scene, si, lamp, SAMPLES, seed=1)
    inside = np.asarray(si.is_valid().numpy()).reshape(-1, SAMPLES).any(axis=1)
    share = np.where(traced.unshadowed > 0, traced.diffuse / np.maximum(traced.unshadowed, 1e-9), 0)[:, 0]
    size = result.window.size
    return np.where(inside, share, 1).reshape(size, size).astype(np.float32)


def dominant_visibility(result: Reconstruction) -> Array:
    """(S, S) visibility of the light of the stage nearest to the dominant direction, among those that are on."""
    power = result.lights.irradiance().sum(axis=1)
    if not (power > 0).any():
        return np.ones_like(result.pictures.shadow)
    cosine = result.lights.directions() @ result.dominant_light_head()
    return result.pictures.light_shadow[int(np.argmax(np.where(power > 0, cosine, -2)))]
