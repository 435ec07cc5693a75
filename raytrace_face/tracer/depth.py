"""Depth of the head, as a depth camera would see it."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
from numpy.typing import NDArray

from raytrace_face.tracer.render import View, all_pixels, camera_rays, opaque_pose
from raytrace_face.tracer.scene import HeadScene
from raytrace_face.types import Array, Camera


def depth_map(head: HeadScene, camera: Camera, T_camera_head: NDArray[np.floating]) -> Array:
    """Distance along the optical axis (H, W) in mm at the centres of the pixels; 0 where the head is not."""
    view = View(camera, all_pixels(camera), 1)
    ray = camera_rays(view, opaque_pose(T_camera_head), dr.opaque(mi.Float, camera.focal_px), None)
    distance = head.scene.ray_intersect_preliminary(ray).t.numpy().reshape(camera.height, camera.width)
    cx, cy = camera.principal_px
    x, y = np.arange(camera.width) + 0.5 - cx, np.arange(camera.height)[:, None] + 0.5 - cy
    along_axis = 1 / np.sqrt(1 + (x**2 + y**2) / camera.focal_px**2)
    return np.where(np.isfinite(distance), distance * along_axis, 0).astype(np.float32)
