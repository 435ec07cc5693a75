"""The light stage of the report: the head under one light at a time, with and without its shadows.

Light adds up (Debevec et al. 2000), so that the page can light the face anew by a weighted sum. Lights have no colour
of their own and skin multiplies: what is stored of a source are two grey images, the light on white matte skin and the
highlight, each with and without visibility; the picture is  albedo * sum_l w_l diffuse_l + sum_l w_l gloss_l.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lightstage.environment import lobes, sh_basis
from lightstage.preset import UP
from lightstage.rig import AreaLights, directional_lights, geodesic, triangle_form_factor
from raytrace_face.types import Array

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

SIZE = 512
"""Pixels a side of the stage with up to 20 lights; with more of them 256, to keep the page small."""
SAMPLES = 8
"""Rays a pixel and light. The surroundings get a quarter: they are the mean of 42 directions."""
SKY_LEVEL = 1
"""Geodesic level of the directions that stand for the surroundings: 42 of them, as in the fit."""
SKY_RADIUS_DEG = 10.0
"""Radius of each of them, about a third of their spacing."""
SURROUNDINGS = ("ambient red", "ambient green", "ambient blue", "even", "sky")
"""Sources after the lights: the fitted surroundings by colour channel, radiance 1 from everywhere, a bright zenith."""


@dataclass(frozen=True)
class OneLight:
    """The head of the photo, source by source; N sources: the lights of the rig, then `SURROUNDINGS`."""

    coverage: Array
    """(S, S) share of the pixel that the head covers."""
    albedo: Array
    """(S, S, 3) diffuse albedo, linear."""
    diffuse: Array
    """(N, S, S) radiance of white matte skin; for a light, per unit irradiance / pi at the centre of the stage."""
    gloss: Array
    """(N, S, S) radiance of the highlight, F0 and roughness of the fit included."""
    diffuse_open: Array
    """(N, S, S) `diffuse` without visibility."""
    gloss_open: Array
    """(N, S, S) `gloss` without visibility."""

    @property
    def planes(self) -> Array:
        """(N, 4, S, S) all of them: diffuse, gloss, and both without shadows."""
        return np.stack([self.diffuse, self.gloss, self.diffuse_open, self.gloss_open], axis=1)

    def picture(self, weights: NDArray[np.floating], shadows: float = 1.0) -> Array:
        """(S, S, 3) linear picture under weights (N, 3); `shadows` blends from none (0) to traced (1)."""
        w = np.asarray(weights, np.float32)
        diffuse = (1 - shadows) * self.diffuse_open + shadows * self.diffuse
        gloss = (1 - shadows) * self.gloss_open + shadows * self.gloss
        return self.albedo * np.einsum("nhw,nc->hwc", diffuse, w) + np.einsum("nhw,nc->hwc", gloss, w)


def fitted_weights(result: Reconstruction) -> Array:
    """(N, 3) weights that give the reconstruction's own picture: irradiance / pi of its lights, and its ambient."""
    surroundings = np.concatenate([np.eye(3), np.zeros((2, 3))])
    return np.concatenate([result.lights.irradiance(), surroundings]).astype(np.float32)


def trace(result: Reconstruction, size: int | None = None, samples: int = SAMPLES) -> OneLight:
    """Trace the one-light images of a reconstruction on its window.

    Args:
        size: pixels a side; default `SIZE`, half of it with more than 20 lights.
        samples: rays a pixel and light.
    """
    from raytrace_face.backend import start

    start(result.config.device, result.config.deterministic)
    from raytrace_face.tracer.onelight import head_transport
    from raytrace_face.tracer.render import View
    from raytrace_face.tracer.scene import HeadScene

    count = result.lights.rig.count
    S = size or (SIZE if count <= 20 else SIZE // 2)
    head = HeadScene(result.face_model(), result.vertices())
    coverage, albedo, f0 = _surface(result, head, S)
    pixels = np.flatnonzero(coverage.ravel() > 0)
    view = View(result.camera.windowed(result.window.resized(S)), pixels, samples)
    few = replace(view, samples=max(samples // 4, 2))
    pose, specular, roughness = result.face.T_camera_head, result.maps.specular.mean(axis=-1), result.maps.roughness

    corners = result.lights.corners_mm()
    strength = 1 / triangle_form_factor(corners)
    lamps = AreaLights(corners, np.repeat(strength[:, None], 3, axis=1))
    dense = geodesic(SKY_LEVEL).vertices
    patches = directional_lights(dense, SKY_RADIUS_DEG)
    ambient = np.maximum(sh_basis(dense) @ result.ambient_sh, 0)
    radiance = np.concatenate([ambient, np.ones((len(dense), 1)), lobes(dense, UP)], axis=1)
    mix = (radiance * (4 / len(dense))).astype(np.float32)  # irradiance / pi that a patch of 4 pi / 42 sr gives

    def traced(shadows: bool) -> tuple[Array, Array]:
        views = (replace(v, shadows=shadows) for v in (view, few))
        lit, sky = (
            head_transport(head, v, pose, lights, specular, roughness, result.config.seed)
            for v, lights in zip(views, (lamps, patches), strict=True)
        )
        diffuse = np.concatenate([lit.diffuse, sky.diffuse @ mix], axis=1)
        gloss = np.concatenate([lit.specular, sky.specular @ mix], axis=1) * f0.ravel()[pixels, None]
        return _images(diffuse, pixels, S), _images(gloss, pixels, S)

    return OneLight(coverage, albedo, *traced(True), *traced(False))


def _images(columns: Array, pixels: NDArray[np.int64], size: int) -> Array:
    """(P, N) values at pixels -> (N, S, S), 0 elsewhere."""
    out = np.zeros((columns.shape[1], size * size), np.float32)
    out[:, pixels] = columns.T
    return out.reshape(-1, size, size)


def _surface(result: Reconstruction, head: object, size: int) -> tuple[Array, Array, Array]:
    """Coverage (S, S), diffuse albedo (S, S, 3) and F0 (S, S), each the mean of 2 x 2 rays a pixel."""
    from raytrace_face.fit.stage2 import sample_texture
    from raytrace_face.fit.window import set_parts
    from raytrace_face.tracer.render import gbuffer

    fine = 2 * size
    g = gbuffer(head, result.camera.windowed(result.window.resized(fine)), result.face.T_camera_head)  # type: ignore[arg-type]
    diffuse = sample_texture(result.maps.diffuse, g.uv)
    f0 = sample_texture(result.maps.specular.mean(axis=-1), g.uv)
    set_parts(diffuse, f0, g.part, g.uv)
    hit = g.part != 255

    def pooled(values: NDArray[np.floating]) -> NDArray[np.float64]:
        return values.reshape(size, 2, size, 2, -1).sum(axis=(1, 3), dtype=np.float64)

    rays = pooled(hit)
    share = 1 / np.maximum(rays, 1)
    pictures = (rays[..., 0] / 4, pooled(diffuse * hit[:, None]) * share, (pooled((f0 * hit)[:, None]) * share)[..., 0])
    coverage, albedo, f0 = (picture.astype(np.float32) for picture in pictures)
    return coverage, albedo, f0
