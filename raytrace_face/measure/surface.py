"""A triangle mesh that points are measured against: nearest points, nearest vertices, normals."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from raytrace_face.face.mesh import triangle_normals, vertex_normals

F = NDArray[np.float64]
Points = NDArray[np.floating]

PIECE_MM = 4.0
"""Triangles are indexed by pieces with edges no longer than this: as fine as the triangles of face models."""
PIECES = 8
"""Pieces tried for a point by `Surface.near`, nearest centres first."""


@dataclass(frozen=True)
class Surface:
    """A mesh in mm with its search trees, which are built once and on demand."""

    vertices: F
    """(V, 3) mm."""
    triangles: NDArray[np.integer]
    """(F, 3) counter-clockwise seen from outside."""

    def closest(self, points: Points) -> tuple[F, NDArray[np.integer]]:
        """Exact nearest points (N, 3) of the surface to points (N, 3), and the triangles (N,) that they lie on."""
        nearest, _, found = trimesh.proximity.closest_point(self._mesh, points)
        return nearest, found

    def near(self, points: Points) -> tuple[F, NDArray[np.integer]]:
        """As `closest`, fifteen times as fast, and now and then a neighbour of the nearest triangle: for alignment.

        The triangles tried are those of the `PIECES` nearest pieces. On a face model 2 mm away, four points in a
        thousand were off, by 0.3 mm at most and by 0.0001 mm on average.
        """
        tree, owner = self._pieces
        candidates = owner[tree.query(points, k=min(PIECES, len(owner)))[1]].reshape(len(points), -1)
        count = candidates.shape[1]
        corners = self.vertices[self.triangles[candidates.ravel()]]
        tried = trimesh.triangles.closest_point(corners, np.repeat(points, count, axis=0)).reshape(-1, count, 3)
        best = ((tried - points[:, None]) ** 2).sum(axis=2).argmin(axis=1)
        row = np.arange(len(points))
        return tried[row, best], candidates[row, best]

    def nearest_vertex(self, points: Points) -> tuple[F, NDArray[np.integer]]:
        """Distance (N,) in mm of points (N, 3) from the nearest vertex of a triangle, and its number (N,)."""
        used = np.unique(self.triangles)
        distance, found = cKDTree(self.vertices[used]).query(points)
        return distance, used[found]

    def normals_at(self, nearest: Points, triangle: NDArray[np.integer]) -> F:
        """Unit normals (N, 3), interpolated between those of the vertices, at points (N, 3) on triangles (N,)."""
        corners = self.triangles[triangle]
        weight = trimesh.triangles.points_to_barycentric(self.vertices[corners], nearest)
        return unit(np.einsum("nc,ncd->nd", np.clip(weight, 0, 1), self.vertex_normals[corners]))

    @cached_property
    def triangle_normals(self) -> F:
        """(F, 3) unit."""
        return unit(triangle_normals(self.vertices, self.triangles))

    @cached_property
    def vertex_normals(self) -> F:
        """(V, 3) unit, weighted by area."""
        return np.asarray(vertex_normals(self.vertices, self.triangles), np.float64)

    @cached_property
    def _mesh(self) -> Any:
        return trimesh.Trimesh(self.vertices, self.triangles, process=False)

    @cached_property
    def _pieces(self) -> tuple[cKDTree, NDArray[np.integer]]:
        """Centres of pieces of the triangles, and the triangle that each belongs to.

        Without the cut, a point above the middle of a long triangle would be nearer to the centres of small ones.
        """
        points, pieces, owner = trimesh.remesh.subdivide_to_size(
            self.vertices, self.triangles, PIECE_MM, max_iter=20, return_index=True
        )
        return cKDTree(points[pieces].mean(axis=1)), owner


def unit(vectors: Points) -> F:
    """Vectors (..., 3) at length 1; those without a length stay 0."""
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.maximum(length, 1e-30), np.float64)
