"""Errors of shapes: how far scan points lie from a mesh, and how far normals turn from each other.

Three distances are in use, and papers do not always say which: to the surface (the nearest point of a triangle), to
the nearest vertex ("point-to-point"; it grows with the triangles), and to the tangent plane of the nearest vertex
("point-to-plane"; never more than to the vertex). Alignment is in `raytrace_face.measure.alignment`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raytrace_face.measure.alignment import Alignment, Similarity, align
from raytrace_face.measure.light import angle_deg
from raytrace_face.measure.surface import F, Points, Surface

__all__ = [
    "Alignment",
    "Errors",
    "Similarity",
    "align",
    "closest_points",
    "cumulative_curve",
    "normal_errors_deg",
    "plane_distances",
    "point_distances",
    "surface_distances",
    "vertex_distances",
]


@dataclass(frozen=True)
class Errors:
    """A distribution of errors in a few figures, in the unit of the errors (mm or degrees)."""

    median: float
    mean: float
    std: float
    """Standard deviation about the mean."""
    p90: float
    """90 % of the points are no worse than this."""
    rmse: float
    n: int
    """Number of points."""

    @classmethod
    def of(cls, values: Points) -> Errors:
        """The figures of errors (N,); NaN where there are none.

        >>> Errors.of(np.array([3.0, 4.0])).mean
        3.5
        """
        v = np.asarray(values, np.float64)
        if not len(v):
            nan = float("nan")
            return cls(nan, nan, nan, nan, nan, 0)
        rmse = float(np.sqrt((v * v).mean()))
        return cls(float(np.median(v)), float(v.mean()), float(v.std()), float(np.percentile(v, 90)), rmse, len(v))


def surface_distances(points: Points, surface: Surface) -> F:
    """Exact distance (N,) in mm of points (N, 3) from a surface."""
    return np.linalg.norm(surface.closest(points)[0] - points, axis=1)


def vertex_distances(points: Points, surface: Surface) -> F:
    """Distance (N,) in mm of points (N, 3) from the nearest vertex."""
    return surface.nearest_vertex(points)[0]


def plane_distances(points: Points, surface: Surface) -> F:
    """Distance (N,) in mm of points (N, 3) from the tangent plane of the nearest vertex."""
    found = surface.nearest_vertex(points)[1]
    return np.abs(((points - surface.vertices[found]) * surface.vertex_normals[found]).sum(axis=1))


def normal_errors_deg(points: Points, normals: Points, surface: Surface) -> F:
    """Angle (N,) in degrees between the normals (N, 3) of points (N, 3) and the surface's at their nearest points.

    A mesh whose triangles run the other way round is turned: its angles lie beyond 90 degrees for most points.
    """
    angles = angle_deg(normals, surface.normals_at(*surface.closest(points)))
    return angles if np.median(angles) <= 90 else 180 - angles


def cumulative_curve(distances: Points, limits_mm: Points) -> F:
    """Share (L,) of distances (N,) that are no larger than each limit (L,).

    >>> cumulative_curve(np.array([0.5, 1.0, 2.0, 9.0]), np.array([0.0, 1.0, 5.0])).tolist()
    [0.0, 0.5, 0.75]
    """
    return np.searchsorted(np.sort(distances), limits_mm, side="right") / len(distances)


def closest_points(points: Points, vertices: Points, triangles: NDArray[np.integer]) -> tuple[F, F]:
    """Nearest points (N, 3) of a mesh to points (N, 3), and the unit normals (N, 3) of their triangles."""
    surface = Surface(np.asarray(vertices, np.float64), triangles)
    nearest, found = surface.near(np.asarray(points, np.float64))
    return nearest, surface.triangle_normals[found]


def point_distances(points: Points, vertices: Points, triangles: NDArray[np.integer]) -> F:
    """Exact distance (N,) in mm of points (N, 3) from a mesh."""
    return surface_distances(np.asarray(points, np.float64), Surface(np.asarray(vertices, np.float64), triangles))
