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

from lightstage import solve
from lightstage.rig import StageLights
from raytrace_face.capture.colour import REC709_LUMINANCE, luminance
from raytrace_face.config import Config
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.skin_prior import DIFFUSE_RANGE, SkinPrior
from raytrace_face.fit import landmarks, shape
from raytrace_face.fit.albedo import AlbedoModel, fit_coefficients
from raytrace_face.fit.checkpoint import Checkpoint, State
from raytrace_face.fit.guess import Guess
from raytrace_face.fit.light import (
    Light,
    LightColumns,
    Surface,
    Tracing,
    estimate_light,
)
from raytrace_face.fit.observation import Observation, fit_weight, mean_luminance, observe, window_camera
from raytrace_face.fit.stage2 import sample_texture
from raytrace_face.tracer.render import GBuffer, View, gbuffer
from raytrace_face.tracer.scene import HeadScene
from raytrace_face.tracer.texture import TexelMap
from raytrace_face.types import Array, Camera, Capture, FaceParams, Photo

F = NDArray[np.float64]

SEARCHES = 2
"""Rounds that search the whole stage: under the mean albedo, then under the photo's own; later ones refine. From a
guess the first is under the guess's albedo."""
SETTLED = 0.32
"""Drop of the cost below which a round from a guess is the last. The second took 3 to 32 % off what 15 photos had after
the first; where skin or identity of the guess were wrong by a deviation and more 23 to 46 %, and then a third round was
worth 0.9 dB. With the shipped weights, six of 31 photos get a third."""
GUESSED_STEP = 2
"""From a guess every second pixel tells of the shape: neighbours err together (`stage1.correlated_pixels`)."""
POSE_STEPS = 4
"""Gauss-Newton steps that lay a guess's pose on the landmarks; three settle it."""


@dataclass(frozen=True)
class Setting:
    """What does not change during a fit."""

    model: FaceModel
    prior: SkinPrior
    head: HeadScene
    photo: Photo
    capture: Capture
    config: Config
    texels: TexelMap
    """Coarse texture of T texels a side, for maps that are smooth."""
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
    history: list[float]
    """Robust photometric cost after every round."""
    stage: StageLights | None = None
    """The light stage, where the solver fitted its parameters directly; else it is condensed from `light`."""


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

    def clipped(self) -> NDArray[np.bool_]:
        """(Q, 3) channels that are lower bounds."""
        over = self.observation.clipped
        return np.zeros((len(self.pixels), 3), bool) if over is None else over.reshape(-1, 3)[self.pixels]


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
    if len(pixels) < 50:  # hair, a mask or glare nearly everywhere: better the covered face than nothing
        face_skin = (g.part == PARTS.index("skin")) & (g.interpolate(model.regions["face"]) > 0.5)
        weight = np.where(face_skin, 0.1, weight).astype(np.float32)
        pixels = np.flatnonzero(face_skin)
    at = GBuffer(*(getattr(g, name)[pixels] for name in g.__dataclass_fields__))
    albedo = AlbedoModel(
        (setting.prior.log_mean + at.interpolate(setting.prior.offset)).astype(np.float32),
        np.stack([at.interpolate(mode) for mode in setting.prior.modes]),
    )
    if setting.photo.monochrome:
        albedo = albedo.grey()
    surface = Surface(
        albedo.albedo(np.zeros(len(albedo.modes))),
        sample_texture(setting.specular_map, at.uv),
        setting.specular_map,
        setting.roughness_map,
    )
    view = View(seen, pixels, samples, setting.config.light.shadows)
    return Fitted(
        observation, g, weight, pixels, Tracing(setting.head, view, face.T_camera_head, surface), albedo
    ), vertices


def light_and_albedo(
    fitted: Fitted,
    setting: Setting,
    coefficients: Array | None,
    start: Light | None,
    seed: int,
    expected: F | None = None,
    refine: bool = True,
) -> tuple[Light, Array, LightColumns]:
    """Light under given albedo coefficients (M,), then coefficients under that light, on fixed geometry.

    Args:
        start: lights whose directions are only refined; None searches the whole stage.
        expected: (N, 3) where a search looks first.
        refine: whether the lights are turned between the directions that were tried, if the configuration says so.

    Returns:
        Light, coefficients, and what was traced of the light.
    """
    config = setting.config
    image = fitted.observation.image.reshape(-1, 3)[fitted.pixels]
    weight = fitted.weight[fitted.pixels]
    x = np.zeros(len(fitted.albedo.modes), np.float32) if coefficients is None else coefficients
    tracing = replace(fitted.tracing, surface=replace(fitted.tracing.surface, albedo=fitted.albedo.albedo(x)))
    clipped = fitted.clipped()
    sought = replace(config.light, refine=config.light.refine and refine)
    light, columns = estimate_light(tracing, image, weight, sought, seed, start, clipped, expected)
    if not config.stage1.albedo:
        return light, x, columns
    shading, highlight, _ = columns.shade(tracing.surface, light)
    x, gain = fit_coefficients(fitted.albedo, image, shading, highlight, weight, clipped)
    return replace(light, irradiance=light.irradiance * gain, ambient=light.ambient * gain), x, columns


def run(
    setting: Setting,
    start: landmarks.LandmarkFit,
    seed: int,
    store: Checkpoint,
    progress: Callable[[str, float], None],
    guess: Guess | None = None,
) -> Stage1:
    """Stage 1 from the landmark start.

    Args:
        guess: its albedo is the first, lights are looked for where its lights are, and the rounds end when the cost
            has settled.
        store: resumes after the last finished round.
        progress: called with a label and the photometric cost after every round.
    """
    config, model = setting.config, setting.model
    camera, face = start.camera, start.face
    beta = landmarks.expression_start(model, setting.capture)
    data = landmarks.embedded(model, setting.capture)
    coefficients = None if guess is None else guess.albedo
    light: Light | None = None
    observation: Observation | None = None
    history: list[float] = []
    saved = store.load("stage1")
    if saved is not None:
        camera, face, light, coefficients, history = _unpack(saved, camera)
    while _unfinished(config, guess, history):
        r = len(history)
        if observation is None:
            observation = observe(setting.photo, setting.capture, config.stage1.size)
        fitted, vertices = fitted_pixels(setting, observation, camera, face, config.stage1.samples)
        known = light if r >= SEARCHES else None
        expected = None
        if guess is not None:
            expected = guess.expected(config.light.max_lights, np.zeros((0, 3)) if light is None else light.directions)
        refine = guess is None or r > 0  # the first round from a guess only looks which of its lights are there
        light, coefficients, columns = light_and_albedo(
            fitted, setting, coefficients, known, seed + 100 * r, expected, refine
        )
        shown = predict(fitted, setting, light, coefficients, columns)
        history.append(shown.cost())
        progress("stage 1", history[-1])
        if _unfinished(config, guess, history) and config.stage1.shape == "shading":
            term = shading_equations(fitted, setting, vertices, light, shown, 1 if guess is None else GUESSED_STEP)
            camera, face = move_shape(setting, data, beta, camera, face, term)
        store.save("stage1", _pack(camera, face, light, coefficients, history))
    assert light is not None
    assert coefficients is not None
    return Stage1(camera, face, light, coefficients, history)


def _unfinished(config: Config, guess: Guess | None, history: list[float]) -> bool:
    """Whether a round is due after those with these costs: all rounds, but from a guess no more than it needs."""
    settled = guess is not None and len(history) >= 2 and history[-1] > (1 - SETTLED) * history[-2]
    return len(history) < config.stage1.rounds and not settled


def move_shape(
    setting: Setting, data: tuple[F, F, F], beta: Array, camera: Camera, face: FaceParams, term: tuple[F, F]
) -> tuple[Camera, FaceParams]:
    """Two Gauss-Newton steps on landmarks, priors and the linearised shading."""
    design, residual = term
    for _ in range(2):
        marks = landmarks.linearise(
            setting.model, data, camera, face, beta, setting.photo.focal_px, landmarks.DISTANCE_MM
        )
        before = face
        camera, face = landmarks.step([(marks.jacobian, marks.residual), (design, residual)], camera, face, damping=0.3)
        moved = np.concatenate([face.identity - before.identity, face.expression - before.expression])
        residual = residual + design[:, 7:] @ moved
    return camera, face


def statistical_map(setting: Setting, texels: TexelMap, coefficients: Array) -> Array:
    """(T, T, 3) diffuse albedo of the prior's coefficients (M,)."""
    prior = setting.prior
    model = AlbedoModel((prior.log_mean + prior.offset).astype(np.float32), prior.modes)
    if setting.photo.monochrome:
        model = model.grey()
    return np.clip(texels.spread(model.albedo(coefficients)), *DIFFUSE_RANGE).astype(np.float32)


def _pack(camera: Camera, face: FaceParams, light: Light, coefficients: Array, history: list[float]) -> State:
    return {
        "focal_px": np.array(camera.focal_px), "T_camera_head": face.T_camera_head, "identity": face.identity,
        "expression": face.expression, "directions": light.directions, "irradiance": light.irradiance,
        "ambient": light.ambient, "coefficients": coefficients, "history": np.array(history),
    }  # fmt: skip


def _unpack(s: State, camera: Camera) -> tuple[Camera, FaceParams, Light, Array, list[float]]:
    face = FaceParams(s["T_camera_head"], s["identity"], s["expression"])
    light = Light(s["directions"], s["irradiance"], s["ambient"])
    return (
        replace(camera, focal_px=float(s["focal_px"])),
        face,
        light,
        s["coefficients"],
        list(map(float, s["history"])),
    )


@dataclass(frozen=True)
class Predicted:
    """The fitted pixels under a light, against the photo."""

    albedo: Array
    """(Q, 3)"""
    visibility: F
    """(Q, N) of each light."""
    residual: F
    """(Q,) luminance, predicted minus photo; 0 where the photo clipped and the prediction is brighter."""
    weight: F
    """(Q,); 0 there too."""
    sigma: float
    """Standard deviation of the residual."""

    def cost(self) -> float:
        """Robust photometric cost."""
        log = np.log1p((self.residual / (2 * self.sigma)) ** 2)
        return float((log * self.weight).sum() / self.weight.sum())


def predict(fitted: Fitted, setting: Setting, light: Light, coefficients: Array, columns: LightColumns) -> Predicted:
    """Shade the fitted pixels under the statistical albedo of coefficients (M,)."""
    albedo = fitted.albedo.albedo(coefficients)
    shading, highlight, visibility = columns.shade(fitted.tracing.surface, light)
    predicted = (albedo * shading + highlight) @ REC709_LUMINANCE
    observed = luminance(fitted.observation.image.reshape(-1, 3)[fitted.pixels])
    weight = fitted.weight[fitted.pixels].astype(np.float64)
    sigma = setting.config.stage1.photometric_sigma * mean_luminance(fitted.observation, fitted.weight)
    residual = predicted - observed
    needed = ~solve.bound_met(residual, np.asarray(fitted.clipped().any(axis=1)))
    return Predicted(albedo, visibility, residual * needed, weight * needed, sigma)


def shading_equations(
    fitted: Fitted, setting: Setting, vertices: Array, light: Light, p: Predicted, step: int = 1
) -> tuple[F, F]:
    """Gauss-Newton equations of shape from shading, of every `step`-th pixel, which stands for its neighbours."""
    some = slice(None, None, step)
    pixels = fitted.pixels[some]
    n = fitted.g.normal[pixels].astype(np.float64)
    lit = p.visibility[some] * (n @ light.directions.T > 0)
    rho = p.albedo[some].astype(np.float64)
    gradient = np.einsum(
        "pl,lc,la,pc,c->pa", lit, light.irradiance, light.directions, rho, REC709_LUMINANCE, optimize=True
    )
    gradient += np.einsum("pac,pc,c->pa", shape.ambient_gradient(n, light.ambient_sh()), rho, REC709_LUMINANCE)
    correlated = setting.config.stage1.correlated_pixels * (fitted.observation.size / 128) ** 2 / step
    return shape.shading_term(
        setting.model, vertices, fitted.g, pixels, gradient, p.residual[some], p.weight[some], p.sigma, correlated
    )
