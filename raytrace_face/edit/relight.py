"""A reconstruction, and its photo, under another light."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from raytrace_face.edit.composite import composite
from raytrace_face.edit.illumination import Illumination, on_stage
from raytrace_face.edit.trace import refreshed, trace, window_camera
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array


def relit_photo(
    result: Reconstruction,
    light: Illumination,
    photo: Array | None = None,
    *,
    size: int | None = None,
    spp: int = 64,
    seed: int = 0,
) -> Array:
    """The photo under another light: linear, (H, W, 3), or (S, S, 3) on the window when no photo is given.

    Args:
        light: head frame (`illumination.named`, `illumination.of_result`).
        photo: (H, W, 3) the whole photo, linear.
        size: pixels a side of the window that is traced; default the fit's.
        spp: rays a pixel.
        seed: of the noise, which old and new rendering share.
    """
    camera = window_camera(result, size)
    old, new = (trace(result, shown, camera, spp=spp, seed=seed) for shown in (None, light))
    return composite(result, old, new, photo)


def relit(result: Reconstruction, light: Illumination, note: str, seed: int = 0) -> Reconstruction:
    """The reconstruction under another light, as far as a light stage can hold it (`illumination.on_stage`).

    Its photo is the relit one.
    """
    stage, ambient = on_stage(light, result.config.light.rig)
    photo = relit_photo(result, light, size=result.window.size, seed=seed)
    changed = replace(result, lights=stage, ambient_sh=np.asarray(ambient, np.float32))
    return refreshed(changed, photo, note, seed)
