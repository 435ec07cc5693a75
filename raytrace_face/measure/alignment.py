"""Laying one shape onto another: similarities, landmarks in closed form, and ICP of a mesh onto scan points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from raytrace_face.measure.surface import F, Points, Surface

SETTLED_MM = 1e-4
"""ICP ends when no point moves farther than this in a step: a hundredth of what tables show."""


@dataclass(frozen=True)
class Similarity:
    """x -> scale rotation x + shift."""

    scale: float
    rotation: F
    """(3, 3)."""
    shift: F
    """(3,) mm."""

    def apply(self, points: Points) -> F:
        """Points (N, 3) after the motion."""
        return self.scale * np.asarray(points, np.float64) @ self.rotation.T + self.shift

    def undo(self, points: Points) -> F:
        """The points (N, 3) that the motion takes to these."""
        return (np.asarray(points, np.float64) - self.shift) @ self.rotation / self.scale

    def after(self, first: Similarity) -> Similarity:
        """The motion that does `first`, then this one."""
        shift = self.apply(first.shift[None])[0]
        return Similarity(self.scale * first.scale, self.rotation @ first.rotation, shift)


def from_landmarks(source: Points, target: Points, scale: bool = True) -> Similarity:
    """The motion that takes points (N, 3) to others (N, 3) with the least squared error, in closed form.

    The rotation is the one of Kabsch (1976), by `scipy.spatial.transform.Rotation.align_vectors`; the scale that of
    Umeyama (PAMI 1991), eq. 42: covariance after the rotation over variance of the source.
    """
    middle_a, middle_b = source.mean(axis=0, dtype=np.float64), target.mean(axis=0, dtype=np.float64)
    a, b = source - middle_a, target - middle_b
    turn = Rotation.align_vectors(b, a)[0]
    size = float((b * turn.apply(a)).sum() / (a * a).sum()) if scale else 1.0
    return Similarity(size, turn.as_matrix(), middle_b - size * turn.apply(middle_a))


def icp(
    surface: Surface,
    scan: Points,
    start: Similarity,
    scale: bool = True,
    iterations: int = 100,
    outlier_mm: float | None = None,
) -> Similarity:
    """The motion mesh -> scan that minimises the summed squared distances of scan points (N, 3) from the mesh, mm.

    Gauss-Newton on rotation, shift and scale at once (Chen and Medioni 1992; Fitzgibbon 2003): the distance of a
    point changes only along the line to its nearest point, which is found anew in every step.

    Args:
        surface: the mesh, mm.
        scan: (N, 3) mm.
        start: motion mesh -> scan to start from, within about 20 degrees and 20 mm.
        scale: False keeps the scale of `start`.
        iterations: at most so many steps; 10 to 40 are usual.
        outlier_mm: points farther than this count with the weight of a Cauchy loss, so that a scan may show more
            than the mesh; None: least squares, as the published protocols have it.
    """
    points = np.asarray(scan, np.float64)
    motion = start
    for _ in range(iterations):
        nearest, found = surface.near(motion.undo(points))
        nearest = motion.apply(nearest)
        gap = points - nearest
        distance = np.linalg.norm(gap, axis=1)
        touching = distance[:, None] < 1e-6
        line = np.where(touching, surface.triangle_normals[found] @ motion.rotation.T, gap)
        line /= np.where(touching, 1.0, distance[:, None])
        weight = np.ones(len(points)) if outlier_mm is None else 1 / (1 + (distance / outlier_mm) ** 2)
        step = _step(nearest, line, distance * ~touching[:, 0], weight, scale)
        motion = step.after(motion)
        if np.abs(step.apply(nearest) - nearest).max() < SETTLED_MM:
            break
    return motion


def _step(points: F, lines: F, distances: F, weight: F, scale: bool) -> Similarity:
    """The small similarity of points (N, 3) that closes distances (N,) along lines (N, 3), by linear least squares."""
    centre = points.mean(axis=0)
    arm = points - centre
    columns = [np.cross(arm, lines), lines]
    if scale:
        columns.append((arm * lines).sum(axis=1, keepdims=True))
    A = np.concatenate(columns, axis=1)
    x = np.linalg.lstsq(A * np.sqrt(weight)[:, None], distances * np.sqrt(weight), rcond=None)[0]
    rotation = Rotation.from_rotvec(x[:3]).as_matrix()
    s = float(np.exp(x[6])) if scale else 1.0
    return Similarity(s, rotation, centre + x[3:6] - s * rotation @ centre)


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


def align(
    vertices: Points,
    triangles: NDArray[np.integer],
    scan: Points,
    scale: bool = True,
    iterations: int = 25,
    outlier_mm: float = 5.0,
) -> Alignment:
    """Lay a mesh onto scan points (N, 3) in mm without landmarks, by robust ICP, and measure scan-to-mesh distances.

    The two must start roughly in register (both in a head frame). `scale=False` aligns rigidly; `outlier_mm` as
    in `icp`.
    """
    surface = Surface(np.asarray(vertices, np.float64), triangles)
    points = np.asarray(scan, np.float64)
    start = Similarity(1.0, np.eye(3), points.mean(axis=0) - surface.near(points)[0].mean(axis=0))
    motion = icp(surface, points, start, scale, iterations, outlier_mm)
    back = motion.undo(points)
    return Alignment(motion, motion.scale * np.linalg.norm(surface.closest(back)[0] - back, axis=1))
