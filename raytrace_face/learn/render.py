"""The decoder of the whole: a prediction traced back into a picture, differentiable in everything predicted.

`render_batch` is the tracer of the fit (`tracer.render`) for a batch: every face with its own geometry, pose, focal
length, maps and lights, and fresh noise. Gradients reach shape, expression, pose, focal length, reflectance, and
strength, colour, direction, distance and size of the lights.

`trace_columns` and `shade` are the transport form of the same picture (docs/method.md, eq. 1). With shape, pose and
places of the lights held, the picture is linear in the strengths of the lights and, apart from the highlight, in the
albedo; so after one trace its gradient is a product of matrices and has no noise of its own. It serves where the rest
is held for many steps: while the decoders are trained on a fixed encoder, each photo is traced once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lightstage.environment import lobes
from lightstage.rig import AreaLights, directional_lights, geodesic
from raytrace_face.face.model import FaceModel
from raytrace_face.fit.light import AMBIENT_LEVEL, ambient_axes
from raytrace_face.fit.observation import Observation, fit_weight
from raytrace_face.learn.decoders import PredictedMaps
from raytrace_face.learn.light import form_factor
from raytrace_face.learn.parameters import Predicted
from raytrace_face.tracer.onelight import head_transport
from raytrace_face.tracer.render import RenderInputs, View, gbuffer, render
from raytrace_face.tracer.scene import HeadScene
from raytrace_face.types import Array, Window

SAMPLES = 8
"""Rays a pixel (ICCV 2021 found no gain from 16 or 32)."""
STRIDE = 4096
"""Seeds that a step keeps for itself: the largest batch."""
AMBIENT_RADIUS_DEG = 4.0
"""Angular radius of the 42 lights that stand for the ambient in the transport form."""


def render_inputs(predicted: Predicted, vertices: Tensor, maps: PredictedMaps, size: int) -> list[RenderInputs]:
    """What the tracer needs of each of B faces with vertices (B, V, 3), for pictures of `size` pixels a side."""
    lights = predicted.lights
    fields = (
        vertices, predicted.T_camera_head, predicted.focal * size, maps.diffuse,
        maps.specular[..., None].expand(*maps.specular.shape, 3), maps.roughness,
        lights.corners(), lights.radiance(), lights.ambient_sh(),
    )  # fmt: skip
    return [RenderInputs(*(field[i].float().contiguous() for field in fields)) for i in range(len(vertices))]


def render_batch(
    head: HeadScene,
    predicted: Predicted,
    vertices: Tensor,
    maps: PredictedMaps,
    pixels: Sequence[NDArray[np.int64]],
    size: int,
    seed: int,
    samples: int = SAMPLES,
    shadows: bool = True,
) -> Tensor:
    """Pictures (B, S, S, 3) of B faces, linear Rec. 709; 0 off the pixels asked for.

    Args:
        head: moved from face to face; its geometry afterwards is undefined.
        vertices: (B, V, 3) mm, of `predicted`.
        pixels: for each face the flat indices of the pixels to trace, (P_b,).
        size: pixels a side of the crop, S.
        seed: new for every step; [0, 2^19).
        samples: rays a pixel.
        shadows: trace visibility. Off only to measure what it buys.

    Raises:
        ValueError: more faces than seeds of a step.
    """
    if len(vertices) > STRIDE:
        raise ValueError(f"batch is {len(vertices)} faces: at most {STRIDE}")
    pictures = []
    for i, inputs in enumerate(render_inputs(predicted, vertices, maps, size)):
        view = View(predicted.crop_camera(i, size), pixels[i], samples, shadows)
        colours = render(head, view, inputs, STRIDE * seed + i)
        empty = colours.new_zeros(size * size, 3)
        pictures.append(empty.index_copy(0, torch.from_numpy(pixels[i]), colours).view(size, size, 3))
    return torch.stack(pictures)


def fitted_weights(
    head: HeadScene, model: FaceModel, predicted: Predicted, vertices: Tensor, usable: Sequence[Array]
) -> list[Array]:
    """For each face the weight (S * S,) in [0, 1] of the pixels of its crop: predicted face skin that the photo shows.

    Args:
        usable: for each face (S, S) in [0, 1]: inside the photo, not hair, clothes or other things
            (`fit.observation.Observation`).
    """
    out = []
    for i, seen in enumerate(usable):
        size = seen.shape[0]
        head.move(vertices[i].detach().cpu().numpy())
        g = gbuffer(head, predicted.crop_camera(i, size), predicted.T_camera_head[i].detach().cpu().numpy())
        crop = Observation(np.zeros((size, size, 3), np.float32), seen, Window(0, 0, size, size))
        out.append(fit_weight(crop, g, model))
    return out


@dataclass(frozen=True)
class Columns:
    """One face under one light at a time: what is left to multiply when shape, pose and light directions are held."""

    diffuse: Tensor
    """(P, L + D) radiance for unit albedo under irradiance / pi of 1, of L lights and D directions of the ambient."""
    specular: Tensor
    """(P, L + D) the same for unit F0."""
    uv: Tensor
    """(P, 2) texture coordinates of the pixels' centres."""


def trace_columns(
    head: HeadScene,
    predicted: Predicted,
    vertices: Tensor,
    maps: PredictedMaps,
    item: int,
    pixels: NDArray[np.int64],
    size: int,
    seed: int,
    samples: int = SAMPLES,
) -> Columns:
    """Trace one face of a batch under each of its lights, and under the directions of the ambient, with shadows."""
    head.move(vertices[item].detach().cpu().numpy())
    camera, T = predicted.crop_camera(item, size), predicted.T_camera_head[item].detach().cpu().numpy()
    corners = predicted.lights.corners()[item].detach()
    unit = (1 / form_factor(corners))[:, None].expand(-1, 3)
    sky = directional_lights(geodesic(AMBIENT_LEVEL).vertices, AMBIENT_RADIUS_DEG)
    lights = AreaLights(
        np.concatenate([corners.cpu().numpy(), sky.corners]), np.concatenate([unit.cpu().numpy(), sky.radiance])
    )
    f0, rough = (v[item].detach().cpu().numpy() for v in (maps.specular, maps.roughness))
    traced = head_transport(head, View(camera, pixels, samples), T, lights, f0, rough, seed)
    uv = gbuffer(head, camera, T).uv[pixels]
    return Columns(*(torch.from_numpy(np.ascontiguousarray(v)) for v in (traced.diffuse, traced.specular, uv)))


def shade(columns: Columns, irradiance: Tensor, ambient: Tensor, diffuse: Tensor, specular: Tensor) -> Tensor:
    """Colours (P, 3) of a face from its columns, differentiable in every argument.

    Args:
        irradiance: (L, 3) / pi, of the lights (`Lights.irradiance`).
        ambient: (A, 3) weights of the lobes.
        diffuse: (T, T, 3) albedo.
        specular: (T, T) F0.
    """
    directions = geodesic(AMBIENT_LEVEL).vertices
    quadrature = ambient.new_tensor(lobes(directions, ambient_axes()) * (4 / len(directions)))
    strength = torch.cat([irradiance, quadrature @ ambient]).to(columns.diffuse.dtype)
    at = _lookup(torch.cat([diffuse, specular[..., None]], dim=2), columns.uv)
    return at[:, :3] * (columns.diffuse @ strength) + at[:, 3:] * (columns.specular @ strength)


def _lookup(texture: Tensor, uv: Tensor) -> Tensor:
    """(P, C) bilinear values of a texture (T, T, C), row 0 at v = 1, as `tracer.render.bilinear`."""
    grid = torch.stack([2 * uv[:, 0] - 1, 1 - 2 * uv[:, 1]], dim=1)[None, None]
    picture = texture.permute(2, 0, 1)[None]
    found = functional.grid_sample(picture, grid.to(texture.dtype), padding_mode="border", align_corners=False)
    return found[0, :, 0].T
