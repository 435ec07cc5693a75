"""The whole window under the fitted light: what stage 2 divides by and what the pictures show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightstage.environment import sh_basis
from lightstage.rig import AreaLights, StageLights, directional_lights, geodesic
from lightstage.transport import Transport
from raytrace_face.capture.colour import linear_to_srgb, luminance
from raytrace_face.face.model import PARTS
from raytrace_face.face.parts import PART_MATERIALS, eye_texture
from raytrace_face.face.skin_prior import PERSONAL_SIGMA, personal_sigma
from raytrace_face.fit.light import AMBIENT_LEVEL
from raytrace_face.fit.observation import Observation, fit_weight, window_camera
from raytrace_face.fit.stage1 import Setting
from raytrace_face.fit.stage2 import Lit, Texels, sample_texture, sample_window
from raytrace_face.result import Pictures
from raytrace_face.tracer.onelight import head_transports
from raytrace_face.tracer.render import GBuffer, View, gbuffer
from raytrace_face.tracer.texture import TexelMap, visible_points
from raytrace_face.types import Array, Camera, FaceParams, Maps

ROUGHNESS_STEPS = np.array([0.7, 1.0, 1.4], np.float32)
"""Factors on the prior roughness at which highlights are traced; stage 2 interpolates between them."""


@dataclass(frozen=True)
class LitWindow:
    """Geometry and light of the window, pixel by pixel."""

    lit: Lit
    g: GBuffer
    unshadowed: Array
    """(S, S, 3) shading without visibility."""
    light_shadow: Array
    """(L, S, S) visibility of each light of the stage."""


def light_window(
    setting: Setting,
    observation: Observation,
    camera: Camera,
    face: FaceParams,
    lights: StageLights,
    ambient_sh: Array,
    samples: int,
    seed: int,
    thinned: bool = False,
) -> LitWindow:
    """Trace the window under the stage's lights and the ambient.

    Args:
        samples: rays a pixel of the lights; a quarter of it, and no fewer than two, of the ambient.
        thinned: trace the ambient, which is smooth, at every second pixel a side, and interpolate. It takes a quarter
            of the time and has less noise; what the ambient shadows in the creases of lids and lips is blurred by 1 mm.

    Returns shading and highlights for unit albedo and unit F0, so that a picture is one multiplication away.
    """
    S = observation.size
    seen = window_camera(camera, observation)
    vertices = setting.model.vertices(face.identity, face.expression)
    setting.head.move(vertices)
    g = gbuffer(setting.head, seen, face.T_camera_head)
    pixels = np.flatnonzero(g.part != 255)
    view = View(seen, pixels, samples, setting.config.light.shadows)
    on = np.flatnonzero(lights.intensity.max(axis=1) > 0)
    area = lights.area_lights()
    strength = area.radiance.mean(axis=1, keepdims=True)
    colour = area.radiance / np.maximum(strength, 1e-12)
    dense = geodesic(AMBIENT_LEVEL).vertices
    sky = np.maximum(sh_basis(dense) @ ambient_sh, 0) * (4 / len(dense))  # irradiance / pi of each patch

    def trace(some: AreaLights, factors: Array, view: View, offset: int) -> Iterator[Transport]:
        maps = [np.clip(setting.roughness_map * factor, 0.1, 1) for factor in factors]
        yield from head_transports(
            setting.head, view, face.T_camera_head, some, setting.specular_map, maps, seed + offset
        )

    few = replace(view, samples=max(samples // 4, 2))  # the ambient is the mean of 42 lights already
    if thinned:
        few = _every_second(few, camera.windowed(observation.window.resized(S // 2)))
    under = next(trace(directional_lights(dense, 10.0), np.ones(1, np.float32), few, 0))
    planes: list[NDArray[np.floating]] = [t @ sky for t in (under.diffuse, under.specular, under.unshadowed)]
    shading, gloss, unshadowed = _filled_in(planes, few, view) if thinned else planes
    highlight = np.repeat(gloss[None], 3, 0)
    light_shadow = np.ones((lights.rig.count, S * S), np.float32)
    if len(on):
        for k, t in enumerate(trace(area, ROUGHNESS_STEPS, view, 1)):
            highlight[k] += t.specular @ colour
        d, u = t.diffuse, t.unshadowed
        shading, unshadowed = shading + d @ colour, unshadowed + u @ colour
        # a light that does not reach a pixel at all (behind the horizon) casts no shadow there
        visible = np.where(u > 1e-6 * u.max(), d / np.maximum(u, 1e-9), 1)
        light_shadow[np.ix_(on, pixels)] = np.clip(visible, 0, 1).T

    def full(values: NDArray[np.floating]) -> Array:
        out = np.zeros((S * S, *values.shape[1:]), np.float32)
        out[pixels] = values
        return out.reshape(S, S, *values.shape[1:])

    weight = fit_weight(observation, g, setting.model, brows=True).reshape(S, S)
    sigma = g.interpolate(personal_sigma(setting.model)).reshape(S, S)
    mm = float(-face.T_camera_head[2, 3]) / seen.focal_px
    lit = Lit(
        observation.image, weight, full(shading), np.stack([full(h) for h in highlight]).astype(np.float32),
        ROUGHNESS_STEPS, g.uv.reshape(S, S, 2), (g.part == PARTS.index("skin")).reshape(S, S),
        np.maximum(sigma, PERSONAL_SIGMA), mm, observation.clipped,
    )  # fmt: skip
    return LitWindow(lit, g, full(unshadowed), light_shadow.reshape(-1, S, S))


def _every_second(view: View, camera: Camera) -> View:
    """The pixels of a camera with half as many a side that show what a view shows."""
    size = camera.width
    hit = np.zeros(4 * size * size, bool)
    hit[view.pixels] = True
    return replace(view, camera=camera, pixels=np.flatnonzero(hit.reshape(size, 2, size, 2).any(axis=(1, 3))))


def _filled_in(values: list[NDArray[np.floating]], few: View, view: View) -> list[NDArray[np.floating]]:
    """Values (P, 3) of `_every_second` pixels of a view at all its pixels, bilinear between those that show something.

    A pixel of the view lies in one that does, so that its weights never vanish.
    """
    planes = np.zeros((few.camera.width**2, 3 * len(values) + 1), np.float32)
    planes[few.pixels] = np.concatenate([*values, np.ones((len(few.pixels), 1))], axis=1)
    row, column = np.divmod(view.pixels, view.camera.width)
    xy = np.stack([column + 0.5, row + 0.5], axis=-1) / 2
    at = sample_window(planes.reshape(few.camera.width, few.camera.width, -1), xy.astype(np.float32))
    return np.split(at[:, :-1] / at[:, -1:], len(values), axis=1)


def texels_in_window(
    setting: Setting, texel_map: TexelMap, camera: Camera, face: FaceParams, observation: Observation
) -> Texels:
    """Project every texel into the window and find which are seen."""
    from raytrace_face.face.camera import project, to_camera

    vertices = setting.model.vertices(face.identity, face.expression)
    points = np.einsum("tkc,tk->tc", vertices[texel_map.corners], texel_map.barycentric)
    seen = window_camera(camera, observation)
    xy = project(seen, to_camera(face.T_camera_head, points)).astype(np.float32)
    visible = visible_points(setting.head, face.T_camera_head, points) & texel_map.inside.ravel()
    T = texel_map.size
    return Texels(xy.reshape(T, T, 2), visible.reshape(T, T).astype(np.float32), texel_map.mirror)


def set_parts(diffuse: Array, f0: Array, part: NDArray[np.uint8], uv: Array) -> NDArray[np.bool_]:
    """Write the reflectance of eyes, teeth and mouth, which no map covers, over that of the maps.

    Args:
        diffuse: (..., 3), f0: (...) or (..., 3): changed in place.
        part: (...) index into `PARTS`.
        uv: (..., 2).

    Returns:
        (...) where such parts are.
    """
    other = np.zeros(part.shape, bool)
    for name, (colour, fresnel, _) in PART_MATERIALS.items():
        here = part == PARTS.index(name)
        diffuse[here] = sample_texture(eye_texture(), uv[here]) if name == "eyes" else colour
        f0[here] = fresnel
        other |= here
    return other


def compose(window: LitWindow, maps: Maps, prior_roughness: Array) -> Array:
    """(S, S, 3) picture of the window with given maps: albedo * shading + F0 * highlight."""
    lit, S = window.lit, window.lit.weight.shape[0]
    diffuse, f0 = sample_texture(maps.diffuse, lit.uv), sample_texture(maps.specular, lit.uv)
    factor = sample_texture(maps.roughness, lit.uv) / np.maximum(sample_texture(prior_roughness, lit.uv), 1e-3)
    part = window.g.part.reshape(S, S)
    factor[set_parts(diffuse, f0, part, lit.uv)] = 1
    gloss = lit.gloss(factor)
    return np.where((part != 255)[..., None], diffuse * lit.shading + f0 * gloss, 0).astype(np.float32)


def psnr_db(picture: Array, photo: Array, weight: Array) -> float:
    """PSNR in the fitted region (weight > 0.5) on sRGB-encoded values in [0, 1]."""
    inside = weight > 0.5
    if not inside.any():
        return float("nan")
    error = linear_to_srgb(np.clip(picture[inside], 0, 1)) - linear_to_srgb(np.clip(photo[inside], 0, 1))
    return float(-10 * np.log10(max(float((error**2).mean()), 1e-12)))


def pictures(
    window: LitWindow, observation: Observation, maps: Maps, stage1: Array, render: Array, T_camera_head: Array
) -> Pictures:
    """All pictures of a result."""
    S, lit = observation.size, window.lit
    skin = lit.skin
    open_Y = luminance(window.unshadowed)
    shadow = np.where(open_Y > 1e-4, luminance(lit.shading) / np.maximum(open_Y, 1e-4), 1)
    normals = (window.g.normal @ np.asarray(T_camera_head)[:3, :3].T).reshape(S, S, 3)

    # what no map covers (eyes, teeth, mouth): the photo divided by the shading, for the picture alone
    divided = np.clip(observation.image / np.maximum(lit.shading, 0.05 * max(float(lit.shading.max()), 1e-6)), 0, 1)
    other = (window.g.part.reshape(S, S) != 255) & ~skin

    def seen(texture: Array) -> Array:
        values = sample_texture(texture, lit.uv)
        return np.where(skin[..., None] if values.ndim == 3 else skin, values, 0).astype(np.float32)

    return Pictures(
        photo=observation.image,
        render=render,
        stage1=stage1,
        shading=lit.shading.astype(np.float32),
        shadow=np.clip(np.where(window.g.part.reshape(S, S) != 255, shadow, 1), 0, 1).astype(np.float32),
        light_shadow=window.light_shadow,
        normals=normals.astype(np.float32),
        diffuse=np.where(other[..., None], divided, seen(maps.diffuse)).astype(np.float32),
        specular=seen(maps.specular[..., 0]),
        roughness=seen(maps.roughness),
        confidence=seen(maps.confidence),
        mask=lit.weight,
    )
