"""Rationale: the traced depth is that of the analytic body, along the optical axis, wherever a pixel looks."""

from __future__ import annotations

import numpy as np
import pytest

from raytrace_face.measure.depth import normals_from_depth
from raytrace_face.types import Camera
from tests.physics.bodies import ball, model_of, plane, portrait


def rays(camera: Camera) -> np.ndarray:
    """(H, W, 3) rays through the centres of the pixels, camera frame, of unit depth."""
    cx, cy = camera.principal_px
    y, x = np.mgrid[: camera.height, : camera.width] + 0.5
    return np.stack([(x - cx) / camera.focal_px, (cy - y) / camera.focal_px, -np.ones_like(x)], axis=-1)


def traced(mi, camera: Camera, T: np.ndarray, *bodies) -> np.ndarray:
    from raytrace_face.tracer.depth import depth_map
    from raytrace_face.tracer.scene import HeadScene

    return depth_map(HeadScene(model_of(*bodies)), camera, T)


def test_depth_of_a_tilted_plane(mi):
    camera, T = portrait(40)
    camera = Camera(40, 28, camera.focal_px, (19.0, 17.0))
    depth = traced(mi, camera, T, plane(400))
    assert depth.shape == (28, 40)
    normal, point = T[:3, 2].astype(float), T[:3, 3].astype(float)
    expected = (normal @ point) / (rays(camera) @ normal)
    # float32 distances of 800 mm are good to 5e-5 mm, the intersection to a few times that
    assert depth == pytest.approx(expected, abs=1e-3)
    assert np.ptp(depth) > 10  # the plane is tilted by 7 degrees
    normals = normals_from_depth(depth, camera, depth > 0)[1:-1, 1:-1]
    # differences of 1e-4 mm over two pixels of 6.5 mm
    assert normals == pytest.approx(np.broadcast_to(normal, normals.shape), abs=1e-4)


def test_depth_and_normals_of_a_sphere(mi):
    radius, (camera, T) = 90.0, portrait(64)
    body = ball(radius, level=5)
    depth = traced(mi, camera, T, body)
    ray, centre = rays(camera), T[:3, 3].astype(float)
    a, b, c = (ray**2).sum(-1), ray @ centre, centre @ centre - radius**2
    under = b**2 - a * c
    expected = (b - np.sqrt(np.maximum(under, 0))) / a
    true_normal = (ray * expected[..., None] - centre) / radius
    seen = -(ray * true_normal).sum(-1) / np.sqrt(a)
    facing = (under > 0) & (seen > 0.4)
    assert facing.sum() > 800
    # flat triangles lie below the sphere: at most by the gap of the lowest, seen under cos 0.4; rounding on top
    a, b, c = (body[0][body[1][:, k]] for k in range(3))
    outward = np.cross(b - a, c - a)
    gap = radius - np.abs((a * outward).sum(1) / np.linalg.norm(outward, axis=1)).min()
    below = (depth - expected)[facing]
    assert -1e-3 < below.min() <= below.max() < gap / 0.4 + 1e-3
    assert gap < 0.05
    assert (depth[under < 0] == 0).all()
    normals = normals_from_depth(depth, camera, depth > 0)
    inner = facing & (seen > 0.6)
    # second-order error of central differences, h^2 f''' / 6 with h = 4 mm, f''' ~ 3 / R^2 / 0.6^5: 0.013
    assert np.linalg.norm(normals - true_normal, axis=-1)[inner].max() < 0.02
