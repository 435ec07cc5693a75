"""The self-shadows of a photo: weaker, or softer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lightstage.rig import AreaLights
from raytrace_face.edit.composite import luminance_ratio
from raytrace_face.edit.illumination import Illumination, angular_radius_deg, of_result
from raytrace_face.edit.trace import trace, window_camera
from raytrace_face.errors import InputError
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array

SOFTEN_MAX_DEG = 45.0
"""Most degrees that a light grows by: then it is a wall."""


def reshadowed(
    result: Reconstruction, strength: float, soften_deg: float, *, size: int | None = None, spp: int = 64, seed: int = 0
) -> tuple[Array, Array]:
    """Renderings (S, S, 3) of the window before and after a change of the cast shadows.

    Radiance is A + L_open V with the surroundings A (their occlusion stays), the lamps without visibility L_open and
    the cast shadow V. V is traced as a ratio, so that attached shading, which is in L_open, stays as it is:
    V' = 1 + strength (V_soft - 1), V_soft being that of larger lamps.

    Args:
        strength: 0 without cast shadows, 1 as they are.
        soften_deg: added to the angular radius of every lamp, [0, 45].
        size: pixels a side; default the fit's.

    Raises:
        InputError: a value outside its range, or a result that was made without shadows.
    """
    if not 0 <= strength <= 1:
        raise InputError(f"strength is {strength:g}: it must lie in [0, 1], 0 without shadows, 1 as they are")
    if not 0 <= soften_deg <= SOFTEN_MAX_DEG:
        raise InputError(f"soften is {soften_deg:g}: it must lie in [0, {SOFTEN_MAX_DEG:g}] degrees")
    if not result.config.light.shadows:
        raise InputError("the result was made with --no-shadows, so it has no shadows to edit: reconstruct it again")
    camera = window_camera(result, size)

    def traced(light: Illumination, shadows: bool) -> Array:
        return trace(result, light, camera, spp=spp, seed=seed, shadows=shadows)

    old = trace(result, None, camera, spp=spp, seed=seed)
    if strength == 1 and soften_deg == 0:
        return old, old
    lamps = replace(of_result(result), ambient_sh=np.zeros((9, 3)))
    shadowed, unshadowed = traced(lamps, True), traced(lamps, False)
    visible = shadowed
    if soften_deg > 0:
        large = replace(lamps, area=grown(lamps.area, soften_deg))
        visible = unshadowed * luminance_ratio(traced(large, True), traced(large, False))[..., None]
    # in differences, so that no noise comes in where nothing changes
    change = (unshadowed - shadowed) + strength * (visible - unshadowed)
    return old, np.maximum(old + change, 0)


def grown(area: AreaLights, by_deg: float) -> AreaLights:
    """Lamps of larger angular radius and the same irradiance at the head's centre."""
    radius = np.radians(angular_radius_deg(area))
    factor = np.tan(np.minimum(radius + np.radians(by_deg), np.radians(80.0))) / np.tan(radius)
    middle = area.corners.mean(axis=1, keepdims=True)
    corners = middle + (area.corners - middle) * factor[:, None, None]
    return AreaLights(corners, area.radiance / factor[:, None] ** 2)
