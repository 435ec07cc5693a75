"""Frames of a turntable: the light goes round the face, or the camera."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.spatial.transform import Rotation

from raytrace_face.edit.composite import composite, face_matte
from raytrace_face.edit.illumination import Illumination
from raytrace_face.edit.trace import trace, window_camera
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array

FRAMES = 72
"""Three seconds at 24 frames a second, 5 degrees a frame when the light goes round."""
SWING_DEG = 60.0
"""How far the camera goes to either side: beyond, it would show what no photo has shown."""


def light_turntable(
    result: Reconstruction, light: Illumination, photo: Array | None = None, *, size: int | None = None, spp: int = 32,
    seed: int = 0, frames: int = FRAMES,
) -> Iterator[Array]:  # fmt: skip
    """The photo, as `relight.relit_photo` gives it, while a light goes once round the head's vertical."""
    camera = window_camera(result, size)
    old, matte = trace(result, None, camera, spp=spp, seed=seed), face_matte(result, camera.width)
    for frame in range(frames):
        turned = light.rotated(Rotation.from_euler("y", 360 * frame / frames, degrees=True).as_matrix())
        new = trace(result, turned, camera, spp=spp, seed=seed)
        yield composite(result, old, new, photo, matte)


def camera_turntable(
    result: Reconstruction, light: Illumination, *, size: int | None = None, spp: int = 32, seed: int = 0,
    frames: int = FRAMES,
) -> Iterator[Array]:  # fmt: skip
    """The head over black while the camera swings from side to side; the light stays with the head."""
    camera = window_camera(result, size)
    T = result.face.T_camera_head.astype(np.float64)
    for frame in range(frames):
        swing = Rotation.from_euler("y", SWING_DEG * np.sin(2 * np.pi * frame / frames), degrees=True).as_matrix()
        pose = T.copy()
        pose[:3, :3] = swing @ T[:3, :3]  # the camera goes round a head that stays: in its frame the head turns
        seen = replace(result, face=replace(result.face, T_camera_head=pose.astype(np.float32)))
        yield trace(seen, light, camera, spp=spp, seed=seed)
