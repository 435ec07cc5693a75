"""Pictures of a reconstruction under any light, and a reconstruction made whole again after an edit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from raytrace_face.backend import start
from raytrace_face.edit.illumination import Illumination, of_result
from raytrace_face.result import LANES, Reconstruction
from raytrace_face.retrace import retraced
from raytrace_face.types import Array, Camera


def trace(
    result: Reconstruction,
    light: Illumination | None = None,
    camera: Camera | None = None,
    *,
    spp: int = 64,
    seed: int = 0,
    shadows: bool | None = None,
) -> Array:
    """The head (H, W, 3) under a light, linear, black where it is not; equal seeds have equal noise.

    Args:
        light: default the one that was fitted.
        camera: default the photo's on the fitted window.
        spp: rays a pixel.
        shadows: trace visibility; default as the reconstruction was made.
    """
    shown = of_result(result) if light is None else light
    ambient = np.asarray(shown.ambient_sh, np.float32)
    picture = result.render(camera, shown.area, ambient, spp=spp, seed=seed, shadows=shadows)
    if shown.environment is None:
        return picture
    from raytrace_face.tracer.environment import render_environment
    from raytrace_face.tracer.render import View, all_pixels
    from raytrace_face.tracer.scene import HeadScene

    view_camera = window_camera(result) if camera is None else camera
    R = np.eye(3) if shown.R_head_environment is None else shown.R_head_environment
    visible = result.config.light.shadows if shadows is None else shadows
    head = HeadScene(result.face_model(), result.vertices())
    pixels = all_pixels(view_camera)
    sky = np.empty((len(pixels), 3), np.float32)
    step = max(LANES // spp, 1)
    for number, begin in enumerate(range(0, len(pixels), step)):
        part = slice(begin, begin + step)
        view = View(view_camera, pixels[part], spp, visible)
        sky[part] = render_environment(
            head, view, result.face.T_camera_head, result.maps, shown.environment, R, seed + 7919 * number
        )
    return picture + sky.reshape(picture.shape)


def window_camera(result: Reconstruction, size: int | None = None) -> Camera:
    """The photo's camera on the fitted window, at a resolution of `size` pixels a side (default the fit's)."""
    window = result.window if size is None else result.window.resized(size)
    return result.camera.windowed(window)


def surface(result: Reconstruction, camera: Camera) -> Any:
    """What the pixels of a camera show of the head: `tracer.render.GBuffer`."""
    start(result.config.device, result.config.deterministic)
    from raytrace_face.tracer.render import gbuffer
    from raytrace_face.tracer.scene import HeadScene

    head = HeadScene(result.face_model(), result.vertices())
    return gbuffer(head, camera, result.face.T_camera_head)


def refreshed(result: Reconstruction, photo: Array, note: str, seed: int = 0) -> Reconstruction:
    """An edited reconstruction with pictures, main light and figures that belong to it.

    Args:
        result: with the edited light, maps, face or camera.
        photo: (S, S, 3) what now stands for the photo on the fitted window.
        note: what was done; it becomes a warning, so that an edited face is never taken for a measured one.
    """
    start(result.config.device, result.config.deterministic)
    from raytrace_face.fit.observation import Observation

    shown = retraced(result, Observation(photo, result.pictures.mask, result.window), seed)
    strength = result.lights.irradiance().mean(axis=1)
    towards = result.dominant_light
    if strength.max() > 0:
        towards = result.face.T_camera_head[:3, :3] @ result.lights.directions()[int(np.argmax(strength))]
    kept = {name: value for name, value in result.metrics.items() if name in ("landmark_rms_px", "face_presence")}
    return replace(
        result,
        pictures=replace(shown, mask=result.pictures.mask),
        dominant_light=np.asarray(towards, np.float32),
        metrics=kept,
        timings={},
        history={},
        warnings=(*result.warnings, f"edited: {note}"),
    )
