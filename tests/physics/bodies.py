"""Simple bodies as face models, so that they go through the same tracer as a head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

from lightstage.rig import AreaLights, geodesic
from raytrace_face.face.model import FaceModel
from raytrace_face.types import Camera

if TYPE_CHECKING:  # the tracer imports Mitsuba, which the tests start first
    from raytrace_face.tracer.render import RenderInputs

Body = tuple[np.ndarray, np.ndarray]
"""Vertices (V, 3) in mm, triangles (F, 3) counter-clockwise from outside."""


def ball(radius: float, centre: Sequence[float] = (0, 0, 0), level: int = 3) -> Body:
    """A geodesic sphere; 1280 triangles at level 3."""
    shape = geodesic(level)
    return shape.vertices * radius + np.asarray(centre), shape.faces[:, ::-1]


def plane(half: float, z: float = 0.0, cells: int = 8) -> Body:
    """A square in the plane of height z that looks along +z."""
    x = np.linspace(-half, half, cells + 1)
    grid = np.stack([*np.meshgrid(x, x), np.full((cells + 1, cells + 1), z)], -1).reshape(-1, 3)
    a = (np.arange(cells)[:, None] * (cells + 1) + np.arange(cells)).ravel()
    b, c, d = a + 1, a + cells + 1, a + cells + 2
    return grid, np.concatenate([np.stack([a, b, c], 1), np.stack([b, d, c], 1)])


def model_of(*bodies: Body) -> FaceModel:
    """A face model without modes that is all skin; texture space is the xy plane, scaled into [0.1, 0.9]."""
    offsets = np.cumsum([0, *(len(v) for v, _ in bodies)])
    vertices = np.concatenate([v for v, _ in bodies]).astype(np.float32)
    triangles = np.concatenate([t + o for (_, t), o in zip(bodies, offsets, strict=False)]).astype(np.int32)
    span = np.abs(vertices[:, :2]).max()
    count = len(vertices)
    return FaceModel(
        name="bodies", mean=vertices, identity=np.zeros((0, count, 3), np.float32),
        expression=np.zeros((0, count, 3), np.float32), expression_names=(), triangles=triangles,
        triangle_part=np.zeros(len(triangles), np.uint8), uv=(0.5 + 0.4 * vertices[:, :2] / span).astype(np.float32),
        weld=np.arange(count, dtype=np.int32), mirror=np.arange(count, dtype=np.int32),
        landmark_index=np.zeros(0, np.int32), landmark_triangle=np.zeros(0, np.int32),
        landmark_barycentric=np.zeros((0, 3), np.float32), landmark_sigma_mm=np.zeros(0, np.float32),
        regions={"face": np.ones(count, np.float32)}, licence="test", provenance={},
    )  # fmt: skip


def portrait(size: int = 32, distance_mm: float = 800.0, width_mm: float = 260.0) -> tuple[Camera, np.ndarray]:
    """A camera whose picture is `width_mm` wide at the origin, off-centre and turned a little: (camera, T)."""
    camera = Camera(size, size, size * distance_mm / width_mm, (0.47 * size, 0.54 * size))
    c, s = np.cos(0.12), np.sin(0.12)
    T = np.eye(4)
    T[:3, :3] = np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])
    T[:3, 3] = [3.0, -5.0, -distance_mm]
    return camera, T.astype(np.float32)


def triangle_light(
    centre: Sequence[float], size: float, radiance: Sequence[float], towards: Sequence[float] = (0, 0, 0)
) -> AreaLights:
    """An equilateral triangle of circumradius `size` that looks at a point."""
    middle = np.asarray(centre, float)
    w = (np.asarray(towards, float) - middle) / np.linalg.norm(np.asarray(towards, float) - middle)
    u = np.cross(w, [0.0, 1.0, 0.0] if abs(w[1]) < 0.9 else [1.0, 0.0, 0.0])
    u /= np.linalg.norm(u)
    v = np.cross(w, u)
    angle = 2 * np.pi * np.arange(3) / 3
    corners = middle + size * (np.cos(angle)[:, None] * u + np.sin(angle)[:, None] * v)
    return AreaLights(corners[None], np.asarray(radiance, float)[None])


def both(*lights: AreaLights) -> AreaLights:
    """Several lights together."""
    return AreaLights(np.concatenate([x.corners for x in lights]), np.concatenate([x.radiance for x in lights]))


def inputs_of(
    model: FaceModel,
    T: np.ndarray,
    camera: Camera,
    lights: AreaLights,
    diffuse: Sequence[float] = (0.6, 0.42, 0.34),
    f0: float = 0.035,
    roughness: float = 0.5,
    ambient: np.ndarray | None = None,
    texels: int = 8,
) -> RenderInputs:
    """Render inputs with constant maps."""
    from raytrace_face.tracer.render import RenderInputs

    sky = np.zeros((9, 3)) if ambient is None else ambient
    values = (
        model.mean, T, camera.focal_px, np.broadcast_to(np.asarray(diffuse), (texels, texels, 3)),
        np.full((texels, texels, 3), f0), np.full((texels, texels), roughness), lights.corners, lights.radiance, sky,
    )  # fmt: skip
    return RenderInputs(*(torch.from_numpy(np.array(v, np.float32)) for v in values))
