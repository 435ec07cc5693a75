"""What a step minimises: losses of synthetic photos against their truth, and of real ones through the tracer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from raytrace_face.face.model import FaceModel
from raytrace_face.face.store import load_embedded
from raytrace_face.learn import losses
from raytrace_face.learn.chart import Chart, linear_of
from raytrace_face.learn.decoders import PredictedMaps, StatisticalSkin, embedded_skin
from raytrace_face.learn.head import TorchHead, project
from raytrace_face.learn.light import Lights, luminance
from raytrace_face.learn.network import embedded_chart, face_of, maps_of
from raytrace_face.learn.parameters import Predicted
from raytrace_face.learn.recipe import Weights
from raytrace_face.learn.render import Columns, fitted_weights, render_batch, shade
from raytrace_face.learn.start import IDENTITY, Start
from raytrace_face.tracer.scene import HeadScene

FITTED = 0.05
"""Weight from which a pixel is traced, as in `fit.stage1`."""
Terms = dict[str, Tensor]


@dataclass(frozen=True)
class World:
    """What does not change: the head that predictions are made of, and the tracer's scene of it."""

    model: FaceModel
    head: TorchHead
    skin: StatisticalSkin
    scene: HeadScene
    chart: Chart
    on_face: Tensor
    """(T, T) weight of the texels of the face."""

    @classmethod
    def of(cls, texture: int) -> World:
        """The embedded head, the coarse one: its 4,900 vertices trace as the fine one's do at 96 pixels."""
        model = load_embedded(0)
        skin, texels = embedded_skin(texture)
        on_face = texels.spread(model.regions["face"].astype(np.float32)) * texels.inside
        head, chart = embedded_chart(texture)
        return cls(model, head, skin, HeadScene(model), chart, torch.from_numpy(on_face))


@dataclass(frozen=True)
class Faces:
    """A prediction for B photos with its geometry."""

    predicted: Predicted
    vertices: Tensor
    """(B, V, 3) mm, head frame."""
    landmarks: Tensor
    """(B, N, 2) sides of the crop."""
    depth: Tensor
    """(B, N) of the landmarks, mm."""
    maps: PredictedMaps

    @classmethod
    def of(cls, head: TorchHead, predicted: Predicted, maps: PredictedMaps) -> Faces:
        vertices = head.vertices(predicted.identity, predicted.expression)
        return cls(predicted, vertices, *project(predicted, head.landmarks(vertices)), maps)


def faces_of(world: World, out: dict[str, Tensor], start: Start) -> Faces:
    """The faces of what a network says (`FaceNetwork.forward`)."""
    predicted = face_of(out, start)
    return Faces.of(world.head, predicted, maps_of(out, predicted.albedo, world.skin))


def supervised(world: World, faces: Faces, batch: dict[str, Any], decoded: bool) -> Terms:
    """Losses of synthetic photos, by the names of their weights (`recipe.Weights`)."""
    p, T = faces.predicted, batch["T_camera_head"]
    true_vertices = world.head.vertices(batch["identity"][:, :IDENTITY], batch["expression"])
    direction, share = main_light(batch)
    truth = maps_at(batch["albedo_map"], world.on_face.shape[0]).clamp_min(1e-3).log()
    log_statistical = world.skin.log_diffuse(p.albedo)
    log_diffuse = log_statistical + faces.maps.diffuse_increment
    on_face = world.on_face.expand(len(truth), -1, -1)
    everyone = torch.ones(len(truth), dtype=torch.bool)
    terms = {
        "vertices": losses.vertex_distance(faces.vertices, true_vertices, world.head.face),
        "rotation": losses.rotation_distance(p.T_camera_head[:, :3, :3], T[:, :3, :3]),
        "landmarks": losses.landmark_reprojection(
            faces.landmarks, batch["true_landmarks"], (faces.depth / p.focal[:, None]).detach(),
            world.head.landmark_sigma_mm, everyone,
        ),
        "distance": losses.gaussian((p.T_camera_head[:, 2, 3] / T[:, 2, 3]).log(), losses.DISTANCE_SIGMA),
        "light": losses.light_distance(
            p.lights, batch["light_direction"], batch["light_irradiance"], batch["ambient_sh"]
        ),
        "dominant": losses.dominant_light(p.lights, direction, share),
        "albedo": losses.albedo_map(log_statistical, truth, on_face),
    }  # fmt: skip
    if decoded:
        terms["detail"] = losses.albedo_detail(log_diffuse, truth, on_face)
        terms["confidence"] = losses.confidence(log_diffuse, truth, faces.maps.confidence, on_face)
        f0 = maps_at(batch["specular_map"][..., None], world.on_face.shape[0]).clamp_min(1e-3).log()
        terms["specular"] = losses.albedo_map(faces.maps.specular.log()[..., None], f0, on_face)
        terms["maps"] = _map_priors(faces.maps)
    return terms


def main_light(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """(B, 3) direction to the strongest true light, head frame, and (B,) its part in all light."""
    strength = luminance(batch["light_irradiance"])
    sky = luminance(batch["ambient_sh"][:, 0]) * float(np.sqrt(1 / (4 * np.pi)))  # mean radiance: irradiance / pi
    share = strength[:, 0] / (strength.sum(dim=1) + sky).clamp_min(1e-6)
    return batch["light_direction"][:, 0], share


def maps_at(maps: Tensor, side: int) -> Tensor:
    """Maps (B, T, T, C) at another size."""
    if maps.shape[1] == side:
        return maps
    return functional.interpolate(maps.permute(0, 3, 1, 2), (side, side), mode="area").permute(0, 2, 3, 1)


def self_supervised(
    world: World, faces: Faces, batch: dict[str, Any], target: Target, picture: Tensor, expression: Tensor,
    decoded: bool,
) -> Terms:  # fmt: skip
    """Losses of real photos.

    Args:
        target: what the photos show, from `look_at`.
        picture: (B, S, S, 3) the prediction traced.
        expression: (B, E) the landmark network's weights.
    """
    p = faces.predicted
    seen = batch["landmarks"][:, world.head.landmark_index]
    skill = torch.cat([p.identity, p.albedo], dim=1)
    grey = batch["monochrome"].bool().view(-1, 1, 1, 1)
    shown = torch.where(grey, luminance(picture)[..., None].expand_as(picture), picture)
    terms = {
        "photometric": losses.photometric(shown, target.photo, target.weight),
        "landmarks": losses.landmark_reprojection(
            faces.landmarks, seen, (faces.depth / p.focal[:, None]).detach(), world.head.landmark_sigma_mm,
            batch["detected"].bool(),
        ),
        "expression": losses.expression_prior(p.expression, expression),
        "prior": losses.gaussian(p.identity) + losses.gaussian(p.albedo) + losses.distance_prior(p.T_camera_head)
        + losses.exposure_prior(p.lights),
        "spread": losses.light_spread(p.lights),
        "person": losses.same_person(skill, batch["person"]),
    }  # fmt: skip
    if decoded:
        terms["maps"] = _map_priors(faces.maps)
    return terms


def _map_priors(maps: PredictedMaps) -> Tensor:
    """Symmetry, consistency and smoothness of both increments."""
    both = torch.cat([maps.diffuse_increment, maps.specular_increment[..., None]], dim=3)
    return losses.symmetry(both) + losses.consistency(both) + losses.smoothness(both)


@dataclass(frozen=True)
class Target:
    """What B photos show at the size of the traced pictures, and where."""

    photo: Tensor
    """(B, S, S, 3) linear."""
    weight: Tensor
    """(B, S, S) predicted face skin that the photo shows."""
    pixels: list[NDArray[np.int64]]
    """For each face the pixels to trace."""

    @property
    def size(self) -> int:
        return self.photo.shape[1]


@torch.no_grad()
def look_at(world: World, faces: Faces, batch: dict[str, Any], size: int) -> Target:
    """The photos of a batch where the predicted faces are."""
    codes = functional.interpolate(batch["image"], (size, size), mode="area")
    usable = functional.interpolate(batch["mask"][:, None], (size, size), mode="area")[:, 0]
    photo = linear_of(codes).permute(0, 2, 3, 1)
    weights = fitted_weights(world.scene, world.model, faces.predicted, faces.vertices, list(usable.numpy()))
    pixels = [np.flatnonzero(w > FITTED) for w in weights]
    middle = np.array([size * size // 2 + size // 2])
    chosen = [found if len(found) else middle for found in pixels]  # a face that is nowhere has no weight
    return Target(photo, torch.from_numpy(np.stack(weights)).view(-1, size, size), chosen)


def traced(world: World, faces: Faces, target: Target, seed: int, samples: int, shadows: bool = True) -> Tensor:
    """(B, S, S, 3) the prediction by path tracing, differentiable in everything."""
    return render_batch(
        world.scene, faces.predicted, faces.vertices, faces.maps, target.pixels, target.size, seed, samples, shadows
    )


def shaded(faces: Faces, target: Target, columns: list[Columns]) -> Tensor:
    """(B, S, S, 3) the prediction from columns, differentiable in maps, and in the strengths of lights."""
    pictures = []
    for i, column in enumerate(columns):
        lights, maps = faces.predicted.lights, faces.maps
        colours = shade(column, lights.irradiance[i], lights.ambient[i], maps.diffuse[i], maps.specular[i])
        empty = colours.new_zeros(target.size**2, 3)
        place = torch.from_numpy(target.pixels[i])
        pictures.append(empty.index_copy(0, place, colours).view(target.size, target.size, 3))
    return torch.stack(pictures)


def weighted(terms: Terms, weights: Weights) -> Tensor:
    """The sum of the losses."""
    total = next(iter(terms.values())).new_zeros(())
    for name, value in terms.items():
        total = total + getattr(weights, name) * value
    return total


def facing(lights: Lights) -> float:
    """Median over photos of the luminance on skin that looks ahead: what light is left."""
    return float(luminance(lights.facing_irradiance()).detach().median())
