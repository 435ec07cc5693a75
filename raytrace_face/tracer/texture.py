"""Between vertices, texels and pixels of the skin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mitsuba as mi
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lightstage.transport import owned
from raytrace_face.backend import MESH_FACES, MESH_POSITIONS
from raytrace_face.face.mirror import mirrored_texels
from raytrace_face.face.model import FaceModel
from raytrace_face.tracer.scene import HeadScene
from raytrace_face.types import Array

LIFT_MM = 0.3
"""Offset from the skin before looking for occluders: a tenth of the mesh's edge length."""


@dataclass(frozen=True)
class TexelMap:
    """Which point of the skin each texel shows, row 0 at v = 1."""

    size: int
    corners: NDArray[np.int32]
    """(T * T, 3) vertices of the triangle under the texel's centre; outside the atlas, of the nearest texel inside."""
    barycentric: Array
    """(T * T, 3)"""
    inside: NDArray[np.bool_]
    """(T, T) true where the texel's centre lies on the skin."""
    mirror: NDArray[np.int64]
    """(T * T,) texel that shows the mirrored point of the skin; the texel itself where there is none."""

    def spread(self, values: NDArray[np.floating]) -> Array:
        """Per-vertex values (V,) or (V, C) -> texture (T, T) or (T, T, C)."""
        corner_values = np.asarray(values, np.float32)[self.corners]
        if corner_values.ndim == 2:
            return np.einsum("tk,tk->t", corner_values, self.barycentric).reshape(self.size, self.size)
        return np.einsum("tkc,tk->tc", corner_values, self.barycentric).reshape(self.size, self.size, -1)


def texel_map(model: FaceModel, size: int) -> TexelMap:
    """Look up every texel by tracing the skin laid flat in texture space."""
    triangles = model.triangles[model.triangle_part == 0]
    flat = np.concatenate([model.uv, np.zeros((len(model.uv), 1), np.float32)], axis=1)
    mesh = mi.Mesh("atlas", len(flat), len(triangles))
    params = mi.traverse(mesh)
    params[MESH_POSITIONS] = owned(mi.Float, flat)
    params[MESH_FACES] = owned(mi.UInt32, triangles.astype(np.uint32))
    params.update()
    scene = mi.load_dict({"type": "scene", "atlas": mesh})
    centre = (np.arange(size) + 0.5) / size
    u, v = np.meshgrid(centre, 1 - centre)
    origin = mi.Point3f(owned(mi.Float, u.astype(np.float32)), owned(mi.Float, v.astype(np.float32)), 1)
    pi = scene.ray_intersect_preliminary(mi.Ray3f(origin, mi.Vector3f(0, 0, -1)))
    hit = pi.is_valid().numpy().reshape(size, size)
    b = np.where(hit.ravel(), pi.prim_uv.numpy(), 0)
    bary = np.stack([1 - b[0] - b[1], b[0], b[1]], axis=1).astype(np.float32)
    nearest = ndimage.distance_transform_edt(~hit, return_distances=False, return_indices=True)
    source = (nearest[0] * size + nearest[1]).ravel()
    triangle = np.where(hit.ravel(), pi.prim_index.numpy(), 0)[source]
    bary = bary[source]
    mirror = mirrored_texels(model, triangles, triangle, bary, hit)
    return TexelMap(size, triangles[triangle], bary, hit, mirror)


def visible_points(
    head: HeadScene, T_camera_head: NDArray[np.floating], points: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """(N,) whether points (N, 3) on the head, in the head frame, are seen from the camera's centre."""
    T = np.asarray(T_camera_head, np.float64)
    eye = -T[:3, :3].T @ T[:3, 3]
    towards = (eye - points).astype(np.float32)
    distance = np.linalg.norm(towards, axis=1)
    direction = towards / distance[:, None]
    origin = (points + direction * LIFT_MM).astype(np.float32)
    ray = _rays(origin, direction)
    ray.maxt = owned(mi.Float, (distance - 2 * LIFT_MM).astype(np.float32))
    return ~head.scene.ray_test(ray).numpy()


def sees(
    head: HeadScene, points: NDArray[np.floating], normals: NDArray[np.floating], directions: NDArray[np.floating]
) -> NDArray[np.bool_]:
    """(N, D) whether nothing of the head lies between points (N, 3) on it and far lights in unit directions (D, 3).

    Args:
        normals: (N, 3) unit, by which the points are lifted off the skin; what lies below them is not seen.
    """
    lifted = np.asarray(points, np.float32) + LIFT_MM * np.asarray(normals, np.float32)
    origin = np.repeat(lifted, len(directions), axis=0)
    direction = np.tile(np.asarray(directions, np.float32), (len(lifted), 1))
    hit = head.scene.ray_test(_rays(origin, direction)).numpy()
    return ~hit.reshape(len(lifted), len(directions)) & (normals @ np.asarray(directions).T > 0)


def _rays(origin: Array, direction: Array) -> Any:
    """Rays from points (N, 3) in directions (N, 3), without an end."""
    axes = [owned(mi.Float, values[:, k]) for values in (origin, direction) for k in range(3)]
    return mi.Ray3f(mi.Point3f(*axes[:3]), mi.Vector3f(*axes[3:]))
