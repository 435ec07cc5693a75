"""Midpoint subdivision of a model: four triangles from each, all of its bases with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.mesh import edges_of
from raytrace_face.face.model import AlbedoBasis


def split(triangles: NDArray[np.int32], count: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Midpoint split of triangles (F, 3) over `count` points: children (4 F, 3), and edges (E, 2).

    The new points follow the old ones, one at the middle of each edge. Children 4 f .. 4 f + 2 of triangle f lie at its
    corners, 4 f + 3 in the middle, all wound as f is.
    """
    edges, side_edge, _ = edges_of(triangles)
    a, b, c = triangles.T
    ab, bc, ca = (count + side_edge).T
    children = np.stack([a, ab, ca, ab, b, bc, ca, bc, c, ab, bc, ca], axis=1)
    return children.reshape(-1, 3).astype(np.int32), np.asarray(edges, np.int64)


def subdivide(raw: RawModel) -> RawModel:
    """The same surface with half the edge length: old vertices first and unmoved, then one at the middle of each edge.

    For models with edges of 4 to 5 mm: shading and shadows of a face need them under 3 mm (the embedded model's median
    is 2.3 mm). The surface stays as flat as it was between the old vertices; only the normals are smoothed over more.
    """
    triangles, edges = split(raw.triangles, len(raw.mean))

    def lift(values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        ends = np.take(values, edges[:, 0], axis) + np.take(values, edges[:, 1], axis)
        return np.concatenate([values, ends / np.float32(2)], axis)

    uv, uv_triangles = raw.uv, raw.uv_triangles
    if uv is not None and uv_triangles is not None:
        uv_triangles, uv_edges = split(uv_triangles, len(uv))
        uv = np.concatenate([uv, uv[uv_edges].mean(axis=1)])
    albedo = raw.albedo
    if albedo is not None:
        albedo = AlbedoBasis(
            lift(albedo.diffuse, 0),
            lift(albedo.diffuse_modes, 1),
            None if albedo.specular is None else lift(albedo.specular, 0),
            None if albedo.specular_modes is None else lift(albedo.specular_modes, 1),
        )
    return replace(
        raw,
        mean=lift(raw.mean, 0),
        identity=lift(raw.identity, 1),
        expression=lift(raw.expression, 1),
        expression_modes=lift(raw.expression_modes, 1),
        triangles=triangles,
        triangle_part=None if raw.triangle_part is None else np.repeat(raw.triangle_part, 4),
        uv=uv,
        uv_triangles=uv_triangles,
        albedo=albedo,
        own_vertices=len(raw.mean) if raw.own_vertices is None else raw.own_vertices,
    )
