"""A reconstruction under another light, traced directly: what an edit would do, without its compositing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lightstage.rig import AreaLights, directional_lights
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array

SAMPLES = 16
"""Rays a pixel."""
DETAIL_RANGE = (0.5, 2.0)
"""What the photo may add to the render, as a factor: in deep shadow a free ratio would show noise and fit errors."""
DARK = 0.01
"""Added to photo and render before they are divided, relative to the mean of the render."""


def head_direction(result: Reconstruction, direction_camera: NDArray[np.floating]) -> NDArray[np.float64]:
    """Camera frame -> head frame, (3,)."""
    return result.face.T_camera_head[:3, :3].T.astype(np.float64) @ direction_camera


def single_light(result: Reconstruction, direction_camera: NDArray[np.floating], ambient: bool) -> Array:
    """(S, S, 3) under one light as strong as all lights of the photo together, with or without the photo's ambient."""
    lamp = directional_lights(head_direction(result, direction_camera)[None])
    power = result.lights.irradiance().sum(axis=0)
    sky = result.ambient_sh if ambient else np.zeros_like(result.ambient_sh)
    return result.render(lights=AreaLights(lamp.corners, lamp.radiance * power), ambient_sh=sky, spp=SAMPLES)


def visibility(result: Reconstruction, direction_camera: NDArray[np.floating]) -> Array:
    """(S, S) share of a small light from a direction that is seen from the head; 1 outside of it."""
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


def ratio_image(photo: NDArray[np.floating], old: NDArray[np.floating], new: NDArray[np.floating]) -> Array:
    """(S, S, 3) new render times the detail photo / old render; where nothing was rendered, the photo."""
    floor = DARK * float(old[old > 0].mean()) if (old > 0).any() else 1.0
    detail = np.clip((photo + floor) / (old + floor), *DETAIL_RANGE)
    drawn = old.sum(axis=2, keepdims=True) + new.sum(axis=2, keepdims=True) > 0
    return np.where(drawn, new * detail, photo).astype(np.float32)
