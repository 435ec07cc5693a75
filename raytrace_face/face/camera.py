"""Projection, and rotations as axis-angle vectors."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from raytrace_face.types import Camera

F = NDArray[np.float64]


def to_camera(T_camera_head: NDArray[np.floating], points: NDArray[np.floating]) -> F:
    """Head frame (N, 3) mm -> camera frame (N, 3) mm."""
    T = np.asarray(T_camera_head, np.float64)
    return points @ T[:3, :3].T + T[:3, 3]


def project(camera: Camera, points_camera: NDArray[np.floating]) -> F:
    """Camera frame (N, 3) -> pixels (N, 2), x to the right and y downwards. Points must lie in front (z < 0)."""
    depth = -points_camera[:, 2]
    cx, cy = camera.principal_px
    x = cx + camera.focal_px * points_camera[:, 0] / depth
    y = cy - camera.focal_px * points_camera[:, 1] / depth
    return np.stack([x, y], axis=1)


def projection_jacobian(camera: Camera, points_camera: NDArray[np.floating]) -> tuple[F, F]:
    """Derivatives of `project`: by the point (N, 2, 3) in px / mm, by log focal length (N, 2) in px."""
    X, Y, depth = points_camera[:, 0], points_camera[:, 1], -points_camera[:, 2]
    f = camera.focal_px
    zero = np.zeros_like(X)
    by_point = np.stack(
        [np.stack([f / depth, zero, f * X / depth**2], 1), np.stack([zero, -f / depth, -f * Y / depth**2], 1)], 1
    )
    by_log_focal = np.stack([f * X / depth, -f * Y / depth], 1)
    return by_point, by_log_focal


def skew(v: NDArray[np.floating]) -> F:
    """Cross-product matrices (N, 3, 3) of vectors (N, 3): skew(v) @ w = v x w."""
    zero = np.zeros(len(v))
    x, y, z = v[:, 0], v[:, 1], v[:, 2]
    return np.stack([np.stack([zero, -z, y], 1), np.stack([z, zero, -x], 1), np.stack([-y, x, zero], 1)], 1)


def rotated(T: NDArray[np.floating], rotation_vector: NDArray[np.floating], translation: NDArray[np.floating]) -> F:
    """Pose after a small rotation about the head's origin (camera axes, radians) and a shift (camera frame, mm)."""
    out = np.array(T, np.float64)
    out[:3, :3] = Rotation.from_rotvec(rotation_vector).as_matrix() @ out[:3, :3]
    out[:3, 3] += translation
    return out


def rigid_from_points(source: NDArray[np.floating], target: NDArray[np.floating]) -> tuple[float, F]:
    """Similarity (scale, 4x4 rigid with R and t such that target = scale R source + t) by Umeyama's method (1991)."""
    a, b = source - source.mean(0), target - target.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.array([1, 1, np.sign(np.linalg.det(u @ vt))])
    R = (u * sign) @ vt
    scale = float((s * sign).sum() / (a**2).sum())
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, target.mean(0) - scale * R @ source.mean(0)
    return scale, T
