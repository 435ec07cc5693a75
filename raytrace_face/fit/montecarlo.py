"""The plain published way (EG 2021): both stages by stochastic gradient descent through the tracer.

Kept as the reference that the default solver is compared with. It shares rig, BSDF, losses, priors and results with
it; only the optimisation differs: Adam on everything, fresh noise every iteration, no linear algebra on transport.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from lightstage.environment import lobe_sh
from lightstage.rig import StageLights, light_corners, light_radiance, rig
from raytrace_face.capture.colour import REC709_LUMINANCE
from raytrace_face.face.skin_prior import DIFFUSE_RANGE
from raytrace_face.fit import landmarks
from raytrace_face.fit.checkpoint import Checkpoint, State
from raytrace_face.fit.light import Light, ambient_axes, stage_lights
from raytrace_face.fit.losses import charbonnier, edge_aware_smoothness, gaussian_prior, photometric
from raytrace_face.fit.observation import Observation, fit_weight, mean_luminance, observe, window_camera
from raytrace_face.fit.stage1 import Setting, Stage1
from raytrace_face.fit.stage2 import Texels, sample_window
from raytrace_face.fit.window import LitWindow
from raytrace_face.tracer.render import RenderInputs, View, gbuffer, render
from raytrace_face.types import Camera, FaceParams, Maps

SAVE_EVERY = 25
"""Iterations between checkpoints."""
WEIGHT_LANDMARKS, WEIGHT_PRIOR, WEIGHT_LIGHT = 0.05, 0.004, 0.01
"""Landmarks (mean squared, in standard deviations), coefficients (mean squared sigma) and light energy, against a
photometric loss in units of the mean radiance of the face."""
LEARNING_RATE = {
    "rotation": 0.004, "translation": 1.0, "log_focal": 0.004, "identity": 0.03, "expression": 0.01,
    "distance": 0.03, "area": 0.03, "centre": 0.02, "intensity": 0.05, "ambient": 0.05, "albedo": 0.03,
    "diffuse": 0.02, "specular": 0.02, "roughness": 0.02,
}  # fmt: skip
"""Adam step of each unknown in its own unit: radians, mm, log, sigma, weight, log stage radii, logits, log radiance."""


def _descend(
    name: str,
    unknowns: dict[str, torch.Tensor],
    loss_of: Callable[[int], torch.Tensor],
    iterations: int,
    store: Checkpoint,
    progress: Callable[[str, float], None],
    rate: float = 1.0,
) -> list[float]:
    """Adam on named unknowns; resumes from the checkpoint, iteration for iteration."""
    groups = [{"params": [v], "lr": rate * LEARNING_RATE[k]} for k, v in unknowns.items()]
    optimiser = torch.optim.Adam(groups, betas=(0.9, 0.99))
    history: list[float] = []
    saved = store.load(name)
    if saved is not None:
        history = [float(x) for x in saved["history"]]
        for key, tensor in unknowns.items():
            tensor.data.copy_(torch.from_numpy(saved[key]))
            optimiser.state[tensor] = {
                "step": torch.tensor(float(len(history))),
                "exp_avg": torch.from_numpy(saved[f"{key}.m"]),
                "exp_avg_sq": torch.from_numpy(saved[f"{key}.v"]),
            }
    for i in range(len(history), iterations):
        optimiser.zero_grad()
        loss = loss_of(i)
        loss.backward()
        optimiser.step()
        history.append(float(loss.detach()))
        progress(name, history[-1])
        if (i + 1) % SAVE_EVERY == 0:
            state: State = {"history": np.array(history)}
            for key, tensor in unknowns.items():
                moments = optimiser.state[tensor]
                state |= {
                    key: tensor.detach().numpy(), f"{key}.m": moments["exp_avg"].numpy(),
                    f"{key}.v": moments["exp_avg_sq"].numpy(),
                }  # fmt: skip
            store.save(name, state)
    return history


def _rotation(vector: torch.Tensor) -> torch.Tensor:
    """Rotation matrix of an axis-angle vector (3,)."""
    zero = vector.new_zeros(())
    x, y, z = vector
    rows = (torch.stack([zero, -z, y]), torch.stack([z, zero, -x]), torch.stack([-y, x, zero]))
    return torch.linalg.matrix_exp(torch.stack(rows))


def stage1(
    setting: Setting,
    start: landmarks.LandmarkFit,
    seed: int,
    store: Checkpoint,
    progress: Callable[[str, float], None],
) -> Stage1:
    """Stage 1 from the landmark start: every light of the stage on and alike, albedo at its mean."""
    L = rig(setting.config.light.rig).count
    unknowns = _geometry_unknowns(start.face) | {
        "distance": torch.full((L,), float(np.log(2.0))), "area": torch.zeros(L), "centre": torch.zeros(L, 3),
        "intensity": torch.full((L, 3), float(np.log(0.3))), "ambient": torch.full((12, 3), float(np.log(0.15))),
        "albedo": torch.zeros(len(setting.prior.modes)),
    }  # fmt: skip
    steps = setting.config.montecarlo.stage1_iterations
    name, on = "montecarlo_stage1", torch.ones(L, 1)
    return _through_tracer(name, setting, start.camera, start.face, unknowns, on, steps, 1.0, seed, store, progress)[0]


def refine(
    setting: Setting, first: Stage1, seed: int, store: Checkpoint, progress: Callable[[str, float], None]
) -> Stage1:
    """Monte-Carlo refinement of a stage 1 found by transport: small steps on everything, lights that are on only.

    Kept only where it lowers the loss, measured before and after with the same noise.
    """
    steps = setting.config.stage1.montecarlo_iterations
    if steps == 0:
        return first
    lights = stage_lights(first.light, setting.config.light)
    t = torch.from_numpy

    def log(values: np.ndarray, floor: float) -> torch.Tensor:
        return t(np.log(np.maximum(values, floor)).astype(np.float32))

    bary = np.concatenate([lights.centre, 1 - lights.centre.sum(axis=1, keepdims=True)], axis=1)
    area = np.clip(lights.area, 0.01, 0.99)
    unknowns = _geometry_unknowns(first.face) | {
        "distance": log(lights.distance, 0.5), "area": log(area / (1 - area), 1e-3), "centre": log(bary, 1e-3),
        "intensity": log(lights.intensity, 1e-4), "ambient": log(first.light.ambient, 1e-3),
        "albedo": t(first.albedo_coefficients.copy()),
    }  # fmt: skip
    on = t((lights.intensity.max(axis=1, keepdims=True) > 0).astype(np.float32))
    refined, before, after = _through_tracer(
        "refine", setting, first.camera, first.face, unknowns, on, steps, REFINE_RATE, seed, store, progress
    )
    return replace(refined, history=[*first.history, *refined.history]) if after < before else first


REFINE_RATE = 0.25
"""Learning rates of the refinement over those of the full descent: it starts near the optimum."""


def _geometry_unknowns(face: FaceParams) -> dict[str, torch.Tensor]:
    return {
        "rotation": torch.zeros(3),
        "translation": torch.zeros(3),
        "log_focal": torch.zeros(1),
        "identity": torch.from_numpy(face.identity.copy()),
        "expression": torch.from_numpy(face.expression.copy()),
    }


def _through_tracer(
    name: str,
    setting: Setting,
    start_camera: Camera,
    start_face: FaceParams,
    unknowns: dict[str, torch.Tensor],
    on: torch.Tensor,
    iterations: int,
    rate: float,
    seed: int,
    store: Checkpoint,
    progress: Callable[[str, float], None],
) -> tuple[Stage1, float, float]:
    """Pose, focal length, identity, expression, light stage, ambient and statistical albedo by descent.

    Args:
        on: (L, 1) 0 for lights that stay off.
        rate: factor on the learning rates.

    Returns:
        The state, and the loss before and after with the same noise.
    """
    config, model, prior = setting.config, setting.model, setting.prior
    t = torch.from_numpy
    stage = rig(config.light.rig)
    log_mean = t(setting.texels.spread(prior.log_mean + prior.offset))
    modes = torch.stack([t(setting.texels.spread(mode)) for mode in prior.modes])
    grey = t(REC709_LUMINANCE.astype(np.float32))
    specular, roughness = t(setting.specular_map)[..., None].expand(-1, -1, 3).contiguous(), t(setting.roughness_map)
    mean, identity, expression = t(model.mean), t(model.identity), t(model.expression)
    beta = t(landmarks.expression_start(model, setting.capture))
    T0 = t(start_face.T_camera_head.astype(np.float32))
    to_sh = t(lobe_sh(ambient_axes()).astype(np.float32))
    full = name == "montecarlo_stage1"
    for tensor in unknowns.values():
        tensor.requires_grad_()
    u = unknowns
    corner_ids = t(model.triangles[model.landmark_triangle].astype(np.int64))
    bary = t(model.landmark_barycentric)
    observed = t(setting.capture.landmarks_px[model.landmark_index])
    sigma = t(np.sqrt((landmarks.NOISE_MM**2 + model.landmark_sigma_mm**2) * landmarks.CORRELATED).astype(np.float32))

    def head_vertices() -> torch.Tensor:
        shape = torch.tensordot(u["identity"], identity, 1)
        return mean + shape + torch.tensordot(u["expression"].clamp(0, 1), expression, 1)

    def pose() -> torch.Tensor:
        T = torch.eye(4)
        T[:3, :3] = _rotation(u["rotation"]) @ T0[:3, :3]
        T[:3, 3] = T0[:3, 3] + u["translation"]
        return T

    def lights() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        distance = u["distance"].exp().clamp(0.5, 5.0)
        centre = torch.softmax(u["centre"], dim=1)[:, :2]
        return distance, torch.sigmoid(u["area"]).clamp_min(0.01), centre, u["intensity"].exp() * on

    def albedo_map() -> torch.Tensor:
        colour = (log_mean + torch.tensordot(u["albedo"], modes, 1)).exp().clamp(*DIFFUSE_RANGE)
        return (colour @ grey)[..., None].expand(-1, -1, 3).contiguous() if setting.photo.monochrome else colour

    frame: dict[int, tuple[View, torch.Tensor, torch.Tensor, float]] = {}

    def look(i: int) -> tuple[View, torch.Tensor, torch.Tensor, float]:
        """Pixels of this iteration: coarse to fine, chosen anew every `SAVE_EVERY` iterations."""
        key = i // SAVE_EVERY
        if key not in frame:
            size = max(config.stage1.size // (2 if full and i < iterations // 2 else 1), 32)
            seen: Observation = observe(setting.photo, setting.capture, size)
            with torch.no_grad():
                camera = replace(start_camera, focal_px=start_camera.focal_px * float(u["log_focal"].exp()))
                setting.head.move(head_vertices().numpy())
                camera = window_camera(camera, seen)
                weight = fit_weight(seen, gbuffer(setting.head, camera, pose().numpy()), model)
            pixels = np.flatnonzero(weight > 0.05)
            view = View(camera, pixels, config.montecarlo.samples, config.light.shadows)
            image = t(seen.image.reshape(-1, 3)[pixels])
            frame.clear()
            frame[key] = (view, image, t(weight[pixels]), mean_luminance(seen, weight))
        return frame[key]

    def loss_of(i: int) -> torch.Tensor:
        view, image, weight, scale = look(i)
        vertices, T = head_vertices(), pose()
        distance, area, centre, intensity = lights()
        ambient = to_sh.T @ u["ambient"].exp()
        inputs = RenderInputs(
            vertices, T, view.camera.focal_px * (u["log_focal"] - u["log_focal"].detach()).exp()[0], albedo_map(),
            specular, roughness, light_corners(stage, distance, area, centre),
            light_radiance(distance, area, intensity), ambient,
        )  # fmt: skip
        picture = render(setting.head, view, inputs, seed * 100003 + i)
        loss = photometric(picture, image, weight, scale)
        points = (vertices[corner_ids] * bary[:, :, None]).sum(1) @ T[:3, :3].T + T[:3, 3]
        focal = start_camera.focal_px * u["log_focal"].exp()
        cx, cy = start_camera.principal_px
        xy = torch.stack([cx - focal * points[:, 0] / points[:, 2], cy + focal * points[:, 1] / points[:, 2]], 1)
        error = (xy - observed) * (-points[:, 2] / focal / sigma)[:, None]
        loss = loss + WEIGHT_LANDMARKS * charbonnier(error, 3.0).mean()
        loss = loss + WEIGHT_PRIOR * (gaussian_prior(u["identity"]) + gaussian_prior(u["albedo"]))
        loss = loss + WEIGHT_PRIOR * gaussian_prior((u["expression"] - beta) / landmarks.EXPRESSION_SIGMA)
        loss = loss + WEIGHT_PRIOR * ((-T[2, 3] / landmarks.DISTANCE_MM).log() / landmarks.DISTANCE_SIGMA) ** 2
        return loss + WEIGHT_LIGHT * intensity.mean()

    with torch.no_grad():
        before = float(loss_of(COMPARE)) if not full else float("inf")
    history = _descend(name, unknowns, loss_of, iterations, store, progress, rate)
    with torch.no_grad():
        after = float(loss_of(COMPARE)) if not full else history[-1]
        distance, area, centre, intensity = (x.numpy().astype(np.float64) for x in lights())
        fitted = StageLights(stage, distance, area, centre, intensity)
        camera = replace(start_camera, focal_px=start_camera.focal_px * float(u["log_focal"].exp()))
        face = FaceParams(pose().numpy(), u["identity"].numpy().copy(), u["expression"].clamp(0, 1).numpy().copy())
        shining = np.flatnonzero(on.numpy().ravel() > 0)
        strength, directions = fitted.irradiance()[shining], fitted.directions()[shining]
        order = np.argsort(-strength.mean(axis=1))
        light = Light(directions[order], strength[order], u["ambient"].exp().numpy().astype(np.float64))
        state = Stage1(camera, face, light, u["albedo"].numpy().copy(), history, fitted)
        return state, before, after


COMPARE = 1_000_000
"""Iteration number, and so seed, of the renderings that judge a refinement: one that no step used."""


def stage2(
    setting: Setting,
    first: Stage1,
    plain: Maps,
    window: LitWindow,
    texels: Texels,
    observation: Observation,
    seed: int,
    store: Checkpoint,
    progress: Callable[[str, float], None],
) -> tuple[Maps, list[float]]:
    """Free maps by descent through the tracer, from the statistical maps `plain`."""
    config, t = setting.config, torch.from_numpy
    assert first.stage is not None
    weight = window.lit.weight.ravel()
    pixels = np.flatnonzero(weight > 0.05)
    view = View(window_camera(first.camera, observation), pixels, config.montecarlo.samples, config.light.shadows)
    image, w = t(observation.image.reshape(-1, 3)[pixels]), t(weight[pixels])
    scale = mean_luminance(observation, weight)
    area = first.stage.area_lights()
    vertices = setting.model.vertices(first.face.identity, first.face.expression)
    fixed = [t(np.array(x, np.float32)) for x in (vertices, first.face.T_camera_head, view.camera.focal_px)]
    light = [t(np.array(x, np.float32)) for x in (area.corners, area.radiance, first.light.ambient_sh())]
    start = t(np.log(plain.diffuse))
    f0, rough, mirror = t(plain.specular), t(plain.roughness), t(texels.mirror)
    unknowns = {
        "diffuse": start.clone().requires_grad_(),
        "specular": torch.zeros_like(rough).requires_grad_(),
        "roughness": torch.zeros_like(rough).requires_grad_(),
    }
    u = unknowns

    def maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        diffuse = u["diffuse"].exp().clamp(*DIFFUSE_RANGE)
        return (
            diffuse,
            f0 * u["specular"].clamp(-1.2, 0.7).exp()[..., None],
            rough * u["roughness"].clamp(-0.4, 0.4).exp(),
        )

    def loss_of(i: int) -> torch.Tensor:
        inputs = RenderInputs(*[*fixed, *maps(), *light])
        loss = photometric(render(setting.head, view, inputs, seed * 100003 + 50000 + i), image, w, scale)
        x = u["diffuse"]
        other = x.flatten(0, 1).index_select(0, mirror).reshape(x.shape)
        loss = loss + config.stage2.symmetry * charbonnier(x - other, 0.05).mean()
        loss = loss + config.stage2.consistency * ((x - start) ** 2).mean()
        loss = loss + config.stage2.consistency * sum((u[k] ** 2).mean() for k in ("specular", "roughness"))
        smooth = edge_aware_smoothness(x.permute(2, 0, 1)[None], None)
        return loss + 0.01 * config.stage2.smoothness * smooth

    history = _descend("montecarlo_stage2", unknowns, loss_of, config.montecarlo.stage2_iterations, store, progress)
    with torch.no_grad():
        diffuse, specular, roughness = (x.numpy().copy() for x in maps())
    confidence = np.clip(sample_window(window.lit.weight, texels.xy) * texels.visible, 0, 1)
    return Maps(diffuse, specular, roughness, confidence.astype(np.float32)), history
