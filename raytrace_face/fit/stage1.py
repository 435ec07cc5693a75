"""Stage 1: light, shadow and shape under statistical albedo.

Alternates, coarse to fine, between what is linear (light by transport; albedo coefficients in log space) and what is
not (identity and expression by Gauss-Newton on shading, landmarks and priors together). What this stage calls shadow
is kept out of the personal reflectance of stage 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.colour import luminance
from raytrace_face.config import Config
from raytrace_face.face.model import FaceModel
from raytrace_face.face.skin_prior import SkinPrior
from raytrace_face.fit import landmarks, shape
from raytrace_face.fit.albedo import AlbedoModel, fit_coefficients
from raytrace_face.fit.light import Light, Surface, Tracing, ambient_columns, estimate_light, radiance_columns
from raytrace_face.fit.observation import Observation, fit_weight, mean_luminance, observe, window_camera
from raytrace_face.tracer.render import GBuffer, View, gbuffer
from raytrace_face.tracer.scene import HeadScene
from raytrace_face.types import Array, Camera, Capture, FaceParams, Photo

F = NDArray[np.float64]
LUMA = np.array([0.2126, 0.7152, 0.0722])


@dataclass(frozen=True)
class Setting:
    """What does not change during a fit."""

    model: FaceModel
    prior: SkinPrior
    head: HeadScene
    photo: Photo
    capture: Capture
    config: Config
    specular_map: Array
    """(T, T) prior F0."""
    roughness_map: Array
    """(T, T) prior roughness."""


@dataclass(frozen=True)
class Stage1:
    """State after stage 1."""

    camera: Camera
    face: FaceParams
    light: Light
    albedo_coefficients: Array
    """(M,) in standard deviations."""
    evidence: F
    """(D,) robust cost of every direction of the dense stage as the only light."""
    history: list[float]
    """Robust photometric cost after every round."""


@dataclass(frozen=True)
class Fitted:
    """The pixels of one round."""

    observation: Observation
    g: GBuffer
    weight: Array
    """(P,) over all pixels of the window."""
    pixels: NDArray[np.int64]
    """(Q,) those with weight."""
    tracing: Tracing
    albedo: AlbedoModel


def fitted_pixels(
    setting: Setting, observation: Observation, camera: Camera, face: FaceParams, samples: int
) -> tuple[Fitted, Array]:
    """Move the head, trace the window, and choose the pixels of the fit. Also returns the vertices (V, 3)."""
    model = setting.model
    vertices = model.vertices(face.identity, face.expression)
    setting.head.move(vertices)
    seen = window_camera(camera, observation)
    g = gbuffer(setting.head, seen, face.T_camera_head)
    weight = fit_weight(observation, g, model)
    pixels = np.flatnonzero(weight > 0.05)
    if len(pixels) < 50:
        pixels = np.flatnonzero((g.part == 0) & (g.interpolate(model.regions["face"]) > 0.5))
        weight = np.where((g.part == 0) & (g.interpolate(model.regions["face"]) > 0.5), 0.1, weight).astype(np.float32)
    at = GBuffer(*(getattr(g, name)[pixels] for name in g.__dataclass_fields__))
    albedo = AlbedoModel(
        np.broadcast_to(setting.prior.log_mean, (len(pixels), 3)).astype(np.float32),
        np.stack([at.interpolate(mode) for mode in setting.prior.modes]),
    )
    if setting.photo.monochrome:
        albedo = albedo.grey()
    surface = Surface(
        albedo.albedo(np.zeros(len(albedo.modes))),
        _lookup(setting.specular_map, at.uv),
        setting.specular_map,
        setting.roughness_map,
    )
    view = View(seen, pixels, samples, setting.config.light.shadows)
    return Fitted(observation, g, weight, pixels, Tracing(setting.head, view, face.T_camera_head, surface), albedo), vertices


def _lookup(texture: Array, uv: Array) -> Array:
    size = texture.shape[0]
    x = np.clip((uv[:, 0] * size).astype(int), 0, size - 1)
    y = np.clip(((1 - uv[:, 1]) * size).astype(int), 0, size - 1)
    return texture[y, x]


def light_and_albedo(fitted: Fitted, setting: Setting, coefficients: Array | None, seed: int) -> tuple[Light, Array, F]:
    """Alternate light and albedo coefficients on fixed geometry; returns light, coefficients and the evidence map."""
    config = setting.config
    image = fitted.observation.image.reshape(-1, 3)[fitted.pixels]
    weight = fitted.weight[fitted.pixels]
    x = np.zeros(len(fitted.albedo.modes), np.float32) if coefficients is None else coefficients
    tracing = fitted.tracing
    light, evidence = None, np.zeros(0)
    for i in range(2 if coefficients is None else 1):
        tracing = replace(tracing, surface=replace(tracing.surface, albedo=fitted.albedo.albedo(x)))
        light, evidence = estimate_light(tracing, image, weight, config.light, seed + 10 * i)
        shading, highlight, _ = shade(tracing, light, config, seed + 5)
        x, gain = fit_coefficients(fitted.albedo, image, shading, highlight, weight)
        light = replace(light, irradiance=light.irradiance * gain, ambient=light.ambient * gain)
    assert light is not None
    return light, x, evidence


def shade(tracing: Tracing, light: Light, config: Config, seed: int) -> tuple[F, F, F]:
    """Diffuse shading (P, 3), highlight (P, 3) and visibility of each light (P, N) under a light."""
    from lightstage.rig import geodesic

    dense = geodesic(1).vertices
    directions = np.concatenate([light.directions, dense])
    t = tracing.columns(directions, config.light.angular_radius_deg, seed)
    N = len(light.directions)
    strengths = np.concatenate([light.irradiance, ambient_columns(np.eye(len(dense)), dense) @ light.ambient])
    visibility = t.diffuse[:, :N] / np.maximum(t.unshadowed[:, :N], 1e-6)
    shading = t.diffuse @ strengths
    highlight = tracing.surface.f0[:, None] * (t.specular @ strengths)
    return shading, highlight, visibility


def run(
    setting: Setting, start: landmarks.LandmarkFit, seed: int, progress: Callable[[str, float], None]
) -> Stage1:
    """Stage 1 from the landmark start.

    Args:
        progress: called with a label and the photometric cost after every round.
    """
    config, model = setting.config, setting.model
    camera, face = start.camera, start.face
    beta = landmarks.expression_start(model, setting.capture)
    data = landmarks.embedded(model, setting.capture)
    observation = observe(setting.photo, setting.capture, config.stage1.size)
    coefficients: Array | None = None
    history: list[float] = []
    for r in range(config.stage1.rounds):
        fitted, vertices = fitted_pixels(setting, observation, camera, face, config.stage1.samples)
        light, coefficients, evidence = light_and_albedo(fitted, setting, coefficients, seed + 100 * r)
        term, cost = shading_equations(fitted, setting, vertices, light, coefficients, seed + 100 * r + 50)
        history.append(cost)
        progress("stage 1", cost)
        if r + 1 == config.stage1.rounds:
            break
        for _ in range(2):
            landmark_term = landmarks.linearise(
                model, data, camera, face, beta, setting.photo.focal_px, landmarks.DISTANCE_MM
            )
            before = face
            camera, face = landmarks.step(
                [(landmark_term.jacobian, landmark_term.residual), term], camera, face, damping=0.3
            )
            moved = np.concatenate([face.identity - before.identity, face.expression - before.expression])
            term = (term[0], term[1] + term[0][:, 7:] @ moved)
    return Stage1(camera, face, light, coefficients, evidence, history)


def shading_equations(
    fitted: Fitted, setting: Setting, vertices: Array, light: Light, coefficients: Array, seed: int
) -> tuple[tuple[F, F], float]:
    """Gauss-Newton equations of shape from shading, and the robust photometric cost."""
    config = setting.config
    albedo = fitted.albedo.albedo(coefficients)
    tracing = replace(fitted.tracing, surface=replace(fitted.tracing.surface, albedo=albedo))
    shading, highlight, visibility = shade(tracing, light, config, seed)
    predicted = (albedo * shading + highlight) @ LUMA
    observed = luminance(fitted.observation.image.reshape(-1, 3)[fitted.pixels])
    weight = fitted.weight[fitted.pixels].astype(np.float64)
    mean = mean_luminance(fitted.observation, fitted.weight)
    sigma = config.stage1.photometric_sigma * mean
    residual = predicted - observed
    cost = float((np.log1p((residual / (2 * sigma)) ** 2) * weight).sum() / weight.sum())
    n = fitted.g.normal[fitted.pixels].astype(np.float64)
    lit = visibility * (n @ light.directions.T > 0)
    rho = albedo.astype(np.float64)
    gradient = np.einsum("pl,lc,la,pc,c->pa", lit, light.irradiance, light.directions, rho, LUMA, optimize=True)
    gradient += np.einsum("pac,pc,c->pa", shape.ambient_gradient(n, light.ambient_sh()), rho, LUMA)
    correlated = config.stage1.correlated_pixels * (fitted.observation.size / 128) ** 2
    term = shape.shading_term(
        setting.model, vertices, fitted.g, fitted.pixels, gradient, residual, weight, sigma, correlated
    )
    return term, cost
