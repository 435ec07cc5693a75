"""Errors of shapes: similarity alignment of a mesh to scan points and their distance to it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from raytrace_face.face.mesh import triangle_normals
from raytrace_face.face.store import closest_on_triangles

F = NDArray[np.float64]
NEIGHBOURS = 10
"""Triangles tried per point, nearest centroids first: enough for meshes of even triangles."""


@dataclass(frozen=True)
class Similarity:
    """x -> scale rotation x + shift."""

    scale: float
    rotation: F
    """(3, 3)."""
    shift: F
    """(3,) mm."""

    def apply(self, points: NDArray[np.floating]) -> F:
        """Points (N, 3) after the motion."""
        return self.scale * np.asarray(points, np.float64) @ self.rotation.T + self.shift


@dataclass(frozen=True)
class Alignment:
    """A mesh laid onto scan points."""

    motion: Similarity
    """Mesh frame -> scan frame."""
    distance_mm: F
    """(N,) distance of each scan point from the moved mesh."""

    @property
    def median_mm(self) -> float:
        return float(np.median(self.distance_mm))

    @property
    def mean_mm(self) -> float:
        return float(self.distance_mm.mean())


def closest_points(
    points: NDArray[np.floating], vertices: NDArray[np.floating], triangles: NDArray[np.integer]
) -> tuple[F, F]:
    """Nearest points (N, 3) of a mesh to points (N, 3), and the unit normals (N, 3) of their triangles."""
    corners = vertices[triangles]
    candidates = (
        cKDTree(corners.mean(axis=1)).query(points, k=min(NEIGHBOURS, len(triangles)))[1].reshape(len(points), -1)
    )
    found, weight = closest_on_triangles(points, vertices, triangles, candidates)
    nearest = np.einsum("nc,ncd->nd", weight, corners[found]).astype(np.float64)
    normals = triangle_normals(vertices, triangles[found])
    return nearest, normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def point_distances(points: NDArray[np.floating], vertices: NDArray[np.floating], triangles: NDArray[np.integer]) -> F:
    """Distance (N,) of points from a mesh."""
    return np.linalg.norm(closest_points(points, vertices, triangles)[0] - points, axis=1)


def align(
    vertices: NDArray[np.floating],
    triangles: NDArray[np.integer],
    scan: NDArray[np.floating],
    scale: bool = True,
    iterations: int = 25,
    outlier_mm: float = 5.0,
) -> Alignment:
    """Lay a mesh onto scan points (N, 3) in mm by point-to-plane ICP, and measure scan-to-mesh distances in mm.

    The two must start roughly in register (both in a head frame). `scale=False` aligns rigidly. Points farther
    than `outlier_mm` count with the weight of a Cauchy loss, so that a scan may show more than the mesh.
    """
    mesh = np.asarray(vertices, np.float64)
    scan = np.asarray(scan, np.float64)
    motion = Similarity(1.0, np.eye(3), scan.mean(0) - closest_points(scan, mesh, triangles)[0].mean(0))
    for _ in range(iterations):
        moved = motion.apply(mesh)
        nearest, normal = closest_points(scan, moved, triangles)
        gap = scan - nearest
        weight = 1 / (1 + (gap**2).sum(axis=1) / outlier_mm**2)
        step = _plane_step(nearest, normal, gap, weight, scale)
        motion = Similarity(
            step.scale * motion.scale, step.rotation @ motion.rotation, step.apply(motion.shift[None])[0]
        )
        if np.abs(step.apply(nearest) - nearest).max() < 1e-4:
            break
    return Alignment(motion, point_distances(scan, motion.apply(mesh), triangles))


def _plane_step(points: F, normals: F, gaps: F, weight: F, scale: bool) -> Similarity:
    """The small similarity of points (N, 3) that closes gaps (N, 3) along normals, by linear least squares."""
    centre = points.mean(axis=0)
    arm = points - centre
    columns = [np.cross(arm, normals), normals]
    if scale:
        columns.append((arm * normals).sum(axis=1, keepdims=True))
    A = np.concatenate(columns, axis=1)
    x = np.linalg.lstsq(A * np.sqrt(weight)[:, None], (gaps * normals).sum(axis=1) * np.sqrt(weight), rcond=None)[0]
    rotation = Rotation.from_rotvec(x[:3]).as_matrix()
    s = float(np.exp(x[6])) if scale else 1.0
    return Similarity(s, rotation, centre + x[3:6] - s * rotation @ centre)
