"""A reconstruction under another light, traced directly: what `edit relight` does, without its compositing."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from lightstage.rig import AreaLights, directional_lights
from raytrace_face.face.model import FaceModel
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array

DETAIL_RANGE = (0.5, 2.0)
"""What the photo may add to the render, as a factor: in deep shadow a free ratio would show noise and fit errors."""
DARK = 0.01
"""Added to photo and render before they are divided, relative to the mean of the render."""


class Relighter:
    """The head of one reconstruction on its window, ready to be traced under any light."""

    def __init__(self, model: FaceModel, result: Reconstruction, shadows: bool = True) -> None:
        from raytrace_face.tracer.render import View, all_pixels
        from raytrace_face.tracer.scene import HeadScene

        self.result = result
        self.vertices = model.vertices(result.face.identity, result.face.expression)
        self.head = HeadScene(model, self.vertices)
        camera = result.camera.windowed(result.window)
        self.view = View(camera, all_pixels(camera), 16, shadows)

    def render(self, lights: AreaLights, ambient_sh: NDArray[np.floating]) -> Array:
        """(S, S, 3) linear picture of the head under lights in the head frame."""
        from raytrace_face.tracer.render import RenderInputs, render

        r = self.result

        def t(array: NDArray[np.floating] | float) -> torch.Tensor:
            return torch.tensor(np.asarray(array, np.float32))

        inputs = RenderInputs(
            t(self.vertices),
            t(r.face.T_camera_head),
            t(self.view.camera.focal_px),
            t(r.maps.diffuse),
            t(r.maps.specular),
            t(r.maps.roughness),
            t(lights.corners),
            t(lights.radiance),
            t(ambient_sh),
        )
        size = r.window.size
        return render(self.head, self.view, inputs, seed=1).numpy().reshape(size, size, 3)

    def own(self) -> Array:
        """(S, S, 3) the reconstruction under its own lights."""
        return self.render(self.result.lights.area_lights(), self.result.ambient_sh)

    def head_direction(self, direction_camera: NDArray[np.floating]) -> NDArray[np.float64]:
        """Camera frame -> head frame."""
        return self.result.face.T_camera_head[:3, :3].T.astype(np.float64) @ direction_camera

    def single_light(self, direction_camera: NDArray[np.floating]) -> Array:
        """(S, S, 3) under one light as strong as all lights of the photo together, and the ambient of the photo."""
        lamp = directional_lights(self.head_direction(direction_camera)[None])
        power = self.result.lights.irradiance().sum(axis=0)
        return self.render(AreaLights(lamp.corners, lamp.radiance * power), self.result.ambient_sh)

    def visibility(self, direction_camera: NDArray[np.floating]) -> Array:
        """(S, S) share of a small light from a direction that is seen from the skin; 1 outside the head."""
        from lightstage.transport import transport
        from raytrace_face.tracer.render import intersect

        si = intersect(self.head, self.view, self.result.face.T_camera_head, seed=1)
        lamp = directional_lights(self.head_direction(direction_camera)[None])
        traced = transport(self.head.scene, si, lamp, self.view.samples, seed=1)
        size = self.result.window.size
        inside = np.asarray(si.is_valid().numpy()).reshape(-1, self.view.samples).any(axis=1)
        share = np.where(traced.unshadowed > 0, traced.diffuse / np.maximum(traced.unshadowed, 1e-9), 0)[:, 0]
        return np.where(inside, share, 1).reshape(size, size).astype(np.float32)


def ratio_image(photo: NDArray[np.floating], old: NDArray[np.floating], new: NDArray[np.floating]) -> Array:
    """(S, S, 3) new render times the detail photo / old render; where nothing was rendered, the photo."""
    floor = DARK * float(old[old > 0].mean()) if (old > 0).any() else 1.0
    detail = np.clip((photo + floor) / (old + floor), *DETAIL_RANGE)
    drawn = old.sum(axis=2, keepdims=True) + new.sum(axis=2, keepdims=True) > 0
    return np.where(drawn, new * detail, photo).astype(np.float32)
