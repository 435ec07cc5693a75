"""Figures and pictures of the network on held-out synthetic photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import default_collate

from lightstage.environment import sh_basis
from raytrace_face.capture.colour import encode_u8, linear_to_srgb
from raytrace_face.learn import objective
from raytrace_face.learn.dataset import Item, RealPhotos, SyntheticPhotos
from raytrace_face.learn.inputs import begun, behold
from raytrace_face.learn.network import FaceNetwork
from raytrace_face.learn.recipe import Recipe
from raytrace_face.learn.start import IDENTITY, LandmarkStart
from raytrace_face.learn.step import forward
from raytrace_face.measure.light import angle_deg
from raytrace_face.types import Array

BATCH = 16
TRACED = 12
"""Photos of which the prediction is traced, 0.2 s each."""
SHOWN = 6
DIRECTED = 0.5
"""Part of the strongest light in all light from which a photo's light has a direction that is measured."""
VALIDATION_EPOCH = 2**20
"""Light and camera that no training epoch has, the same in every validation."""
QUANTILE = 0.99
"""Of photos that `predict` is to find familiar."""
USUAL, MARGIN = 256, 1.2
"""Real photos that say what is familiar, and how far others may go beyond: portraits in a studio are easier than
albums. Limits of synthetic photos, with their masks of hair and hands, are twice as wide and let anything pass."""
DOUBTS = ("strange", "unlike_landmarks")
"""`FaceNetwork.strangeness`, and the distance of predicted landmarks from the detected ones, sides of the crop."""
COSINE_BANDS = np.array([1, *[2 / 3] * 3, *[1 / 4] * 5])
"""Irradiance / pi of radiance, by band (Ramamoorthi & Hanrahan 2001, eq. 8)."""
BALL = 64
"""Pixels a side of a light ball."""


@dataclass(frozen=True)
class Example:
    """Pictures of one held-out photo; 8-bit codes."""

    photo: NDArray[np.uint8]
    traced: NDArray[np.uint8]
    albedo: NDArray[np.uint8]
    """Diffuse map."""
    true_albedo: NDArray[np.uint8]
    light: NDArray[np.uint8]
    """A white ball under the predicted light as it falls in the photo; the true one's brightest point is white."""
    true_light: NDArray[np.uint8]


@torch.no_grad()
def measure(
    world: objective.World, network: FaceNetwork, data: SyntheticPhotos, numbers: Sequence[int], recipe: Recipe,
    decoded: bool,
) -> tuple[dict[str, float], list[Example]]:  # fmt: skip
    """Figures over held-out photos, and pictures of the first.

    - `light_deg`: mean angle of the main light where one light gives half of all, head frame; `light_median_deg`;
      `front_light_deg` for who always says "from the front";
    - `vertex_mm`: mean distance of the face's vertices in the head frame; `mean_vertex_mm` for the mean face;
    - `landmark_px`: RMS distance of projected landmarks from the true ones, pixels of the crop;
    - `rotation_deg`; `albedo`: mean difference of log diffuse albedo on the face, and `mean_albedo` for the mean skin;
    - `psnr_db` of the traced prediction against the photo in its skin;
    - `strange`, `unlike_landmarks`: what 99 in 100 held-out photos stay below (`learn.predict` warns above); where
      there are real photos, `usual` takes their place.
    """
    every: dict[str, list[NDArray[np.floating]]] = {}
    examples: list[Example] = []
    fit = LandmarkStart(world.model)
    for first in range(0, len(numbers), BATCH):
        chosen = [data[(VALIDATION_EPOCH, n)] for n in numbers[first : first + BATCH]]
        batch, faces, doubts = looked(world, network, fit, chosen, decoded)
        values = {**_errors(world, faces, batch), **doubts}
        todo = min(max(TRACED - first, 0), len(chosen))
        for i in range(todo):
            picture, psnr = _trace(world, faces, batch, i, recipe)
            values.setdefault("psnr_db", np.full(len(chosen), np.nan))[i] = psnr
            if len(examples) < SHOWN:
                examples.append(_example(faces, batch, i, picture))
        for key, value in values.items():
            every.setdefault(key, []).append(value)
    columns = {key: np.concatenate(value).astype(np.float64) for key, value in every.items()}
    figures = {key: _mean(value) for key, value in columns.items()}
    figures["landmark_px"] = float(np.sqrt(_mean(columns["landmark_px"] ** 2)))
    known = columns["light_deg"][np.isfinite(columns["light_deg"])]
    figures["light_median_deg"] = float(np.median(known)) if len(known) else float("nan")
    return figures | {key: _quantile(columns[key]) for key in DOUBTS}, examples


@torch.no_grad()
def looked(
    world: objective.World, network: FaceNetwork, fit: LandmarkStart, items: Sequence[Item], decoded: bool
) -> tuple[Item, objective.Faces, dict[str, NDArray[np.floating]]]:
    """Items as a batch, their prediction, and for each photo the figures DOUBTS; NaN without landmarks."""
    batch = default_collate([{**item, "start": begun(fit, item)} for item in items])
    seen = behold(world.head, world.chart, batch, torch.ones(len(items), dtype=torch.bool))
    device = network.code_mean.device
    out = forward(network, device, [seen], decoded)
    strange = network.strangeness(out["latent"].to(device))
    faces = objective.faces_of(world, out, seen.start)
    given = batch["detected"].bool().numpy()
    miss = disagreement(faces.landmarks, batch["landmarks"][:, world.head.landmark_index]).numpy()
    return batch, faces, {"strange": strange.cpu().numpy(), "unlike_landmarks": np.where(given, miss, np.nan)}


def usual(world: objective.World, network: FaceNetwork, data: RealPhotos, decoded: bool) -> dict[str, float]:
    """Limits of DOUBTS from real photos: what 99 in 100 of the first USUAL stay below, times MARGIN."""
    fit, found = LandmarkStart(world.model), list[dict[str, NDArray[np.floating]]]()
    count = min(len(data), USUAL)
    for first in range(0, count, BATCH):
        items = [data[(VALIDATION_EPOCH, n)] for n in range(first, min(first + BATCH, count))]
        found.append(looked(world, network, fit, items, decoded)[2])
    return {key: MARGIN * _quantile(np.concatenate([one[key] for one in found])) for key in DOUBTS}


def _quantile(values: NDArray[np.floating]) -> float:
    known = values[np.isfinite(values)]
    return float(np.quantile(known, QUANTILE)) if len(known) else float("nan")


def disagreement(predicted: torch.Tensor, detected: torch.Tensor) -> torch.Tensor:
    """(B,) RMS distance of landmarks (B, N, 2), sides of the crop."""
    return ((predicted - detected) ** 2).sum(dim=2).mean(dim=1).sqrt()


def _mean(values: NDArray[np.floating]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else float("nan")


def _errors(world: objective.World, faces: objective.Faces, batch: dict) -> dict[str, NDArray[np.floating]]:
    """Errors of every photo, (B,) each; NaN where there is nothing to measure."""
    p, face = faces.predicted, world.head.face
    direction, share = objective.main_light(batch)
    directed = share.numpy() >= DIRECTED
    truth = world.head.vertices(batch["identity"][:, :IDENTITY], batch["expression"])
    mean = world.head.vertices(torch.zeros_like(p.identity), torch.zeros_like(p.expression))
    T = p.T_camera_head[:, :3, :3].mT @ batch["T_camera_head"][:, :3, :3]
    on_face = world.on_face[None, ..., None]
    albedo = objective.maps_at(batch["albedo_map"], world.on_face.shape[0]).clamp_min(1e-3).log()

    def distance(vertices: torch.Tensor) -> NDArray[np.floating]:
        return (((vertices - truth).norm(dim=2) * face).sum(dim=1) / face.sum()).numpy()

    def difference(log_map: torch.Tensor) -> NDArray[np.floating]:
        return (((log_map - albedo).abs() * on_face).sum(dim=(1, 2, 3)) / (3 * on_face.sum())).numpy()

    front = np.broadcast_to([0.0, 0.0, 1.0], (len(directed), 3))
    size = batch["image"].shape[-1]
    offset = ((faces.landmarks - batch["true_landmarks"]) ** 2).sum(dim=2).mean(dim=1).sqrt()
    turn = (T.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2
    return {
        "light_deg": np.where(directed, angle_deg(p.lights.dominant().numpy(), direction.numpy()), np.nan),
        "front_light_deg": np.where(directed, angle_deg(front, direction.numpy()), np.nan),
        "vertex_mm": distance(faces.vertices),
        "mean_vertex_mm": distance(mean),
        "landmark_px": offset.numpy() * size,
        "rotation_deg": torch.rad2deg(torch.acos(turn.clamp(-1, 1))).numpy(),
        "albedo": difference(faces.maps.diffuse.clamp_min(1e-3).log()),
        "mean_albedo": difference(world.skin.log_mean[None]),
    }


def _trace(
    world: objective.World, faces: objective.Faces, batch: dict, item: int, recipe: Recipe
) -> tuple[Array, float]:
    """(S, S, 3) one traced prediction, and its PSNR on sRGB codes in the skin that the photo shows."""
    one = slice(item, item + 1)
    alone = faces_at(faces, one)
    cut = {key: batch[key][one] for key in ("image", "mask")}
    target = objective.look_at(world, alone, cut, recipe.picture)
    everywhere = objective.Target(target.photo, target.weight, [np.arange(recipe.picture**2)])
    picture = objective.traced(world, alone, everywhere, 0, 4 * recipe.samples)[0].numpy()
    inside = target.weight[0].numpy() > 0.5
    if not inside.any():
        return picture, float("nan")
    shown, photo = (linear_to_srgb(np.clip(x[inside], 0, 1)) for x in (picture, target.photo[0].numpy()))
    return picture, float(-10 * np.log10(max(float(((shown - photo) ** 2).mean()), 1e-12)))


def faces_at(faces: objective.Faces, chosen: slice) -> objective.Faces:
    """Some faces of a batch."""

    def cut(node: object) -> object:
        values = {
            name: value[chosen] if isinstance(value, torch.Tensor) else cut(value) for name, value in vars(node).items()
        }
        return type(node)(**values)

    found = cut(faces)
    assert isinstance(found, objective.Faces)
    return found


def _example(faces: objective.Faces, batch: dict, item: int, picture: Array) -> Example:
    p = faces.predicted
    T = p.T_camera_head[item].numpy()
    true_T = batch["T_camera_head"][item].numpy()
    lights = (p.lights.directions(), p.lights.irradiance, p.lights.ambient_sh())
    truth = (batch["light_direction"], batch["light_irradiance"], batch["ambient_sh"])

    balls = []
    for light, pose in ((lights, T), (truth, true_T)):
        directions, irradiance, ambient_sh = (v[item].numpy() for v in light)
        balls.append(light_ball(directions, irradiance, ambient_sh, pose))
    white = max(float(balls[1].max()), 1e-6)  # of both: a prediction that is too weak is darker
    return Example(
        (batch["image"][item].permute(1, 2, 0).numpy() * 255 + 0.5).astype(np.uint8),
        encode_u8(picture),
        encode_u8(faces.maps.diffuse[item].numpy()),
        encode_u8(batch["albedo_map"][item].numpy()),
        *(encode_u8(ball / white) for ball in balls),
    )


def light_ball(directions: Array, irradiance: Array, ambient_sh: Array, T_camera_head: Array) -> Array:
    """(BALL, BALL, 3) irradiance / pi on a ball in the camera frame, without shadows; black round it.

    Args:
        directions: (L, 3) unit vectors to lights, head frame; irradiance: (L, 3) / pi; ambient_sh: (9, 3).
    """
    v, u = np.mgrid[:BALL, :BALL] * (2 / (BALL - 1)) - 1
    inside = u * u + v * v < 1
    seen = np.stack([u[inside], -v[inside], np.sqrt(1 - u[inside] ** 2 - v[inside] ** 2)], axis=1)
    normals = seen @ T_camera_head[:3, :3].astype(np.float64)  # camera to head frame
    shade = np.maximum(normals @ directions.T, 0) @ irradiance + sh_basis(normals) * COSINE_BANDS @ ambient_sh
    ball = np.zeros((BALL, BALL, 3), np.float32)
    ball[inside] = np.maximum(shade, 0)
    return ball


TILE = 160
LABELS = ("photo", "prediction, traced", "albedo", "true albedo", "light", "true light")


def sheet(examples: list[Example]) -> Image.Image:
    """One row an example: photo, prediction traced, albedo and light beside the true ones."""
    from PIL import ImageDraw

    rows = len(examples)
    out = Image.new("RGB", (TILE * len(LABELS), 18 + TILE * rows), (24, 24, 24))
    pen = ImageDraw.Draw(out)
    for k, label in enumerate(LABELS):
        pen.text((k * TILE + 4, 3), label, (235, 235, 235))
    for row, example in enumerate(examples):
        for k, codes in enumerate(vars(example).values()):
            out.paste(
                Image.fromarray(codes).resize((TILE, TILE), Image.Resampling.NEAREST), (k * TILE, 18 + row * TILE)
            )
    return out
