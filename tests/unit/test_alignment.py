"""Alignment: known motions are found again, and what is found is the least-squares optimum."""

from __future__ import annotations

import numpy as np
import pytest
import trimesh
from scipy.optimize import least_squares
from scipy.spatial.transform import Rotation

from raytrace_face.face.mesh import rigid_fit
from raytrace_face.measure.alignment import Similarity, align, from_landmarks, icp
from raytrace_face.measure.geometry import surface_distances
from raytrace_face.measure.surface import Surface

TURN = Rotation.from_euler("xyz", [6, -9, 4], degrees=True).as_matrix()
MOTION = Similarity(1.07, TURN, np.array([3.0, -8.0, 12.0]))
STILL = Similarity(1.0, np.eye(3), np.zeros(3))


@pytest.fixture(scope="module")
def potato() -> Surface:
    """A bumpy ellipsoid of the size of a head, without any symmetry."""
    ball = trimesh.creation.icosphere(4)
    u = np.asarray(ball.vertices)
    bump = 1 + 0.1 * np.sin(5 * u[:, 0]) + 0.1 * np.cos(4 * u[:, 1] + u[:, 2])
    return Surface(u * bump[:, None] * [60, 90, 70], np.asarray(ball.faces))


def on_surface(surface: Surface, count: int, seed: int = 0) -> np.ndarray:
    mesh = trimesh.Trimesh(surface.vertices, surface.triangles, process=False)
    return np.asarray(trimesh.sample.sample_surface(mesh, count, seed=seed)[0])


def test_a_similarity_applied_and_undone_is_nothing():
    points = np.random.default_rng(0).normal(size=(5, 3))
    assert np.allclose(MOTION.undo(MOTION.apply(points)), points, atol=1e-12)
    twice = MOTION.after(MOTION)
    assert np.allclose(twice.apply(points), MOTION.apply(MOTION.apply(points)), atol=1e-12)


def test_landmarks_give_back_the_motion_they_made():
    points = 40 * np.random.default_rng(1).normal(size=(7, 3))
    found = from_landmarks(points, MOTION.apply(points))
    assert found.scale == pytest.approx(1.07, abs=1e-12)
    assert np.allclose(found.rotation, TURN, atol=1e-12)
    assert np.allclose(found.shift, MOTION.shift, atol=1e-9)


@pytest.mark.parametrize("scale", [True, False])
def test_noisy_landmarks_agree_with_the_other_implementation_of_umeyama(scale):
    rng = np.random.default_rng(2)
    points = 40 * rng.normal(size=(7, 3))
    target = MOTION.apply(points) + 2 * rng.normal(size=(7, 3))
    found = from_landmarks(points, target, scale)
    size, rotation, shift = rigid_fit(points, target, np.ones(7), scale)
    assert found.scale == pytest.approx(size, abs=1e-12)
    assert np.allclose(found.rotation, rotation, atol=1e-12)
    assert np.allclose(found.shift, shift, atol=1e-9)
    assert scale or found.scale == 1


def test_mirrored_landmarks_are_not_matched_by_a_reflection():
    points = 40 * np.random.default_rng(3).normal(size=(7, 3))
    found = from_landmarks(points, points * [-1, 1, 1])
    assert np.linalg.det(found.rotation) == pytest.approx(1)


def test_icp_finds_motion_and_scale_of_points_on_the_surface(potato):
    scan = MOTION.apply(on_surface(potato, 2000))
    found = icp(potato, scan, STILL)
    # where every point lies on the surface the optimum is exact; ICP stops when steps fall under 1e-4 mm
    assert np.linalg.norm(found.apply(potato.vertices) - MOTION.apply(potato.vertices), axis=1).max() < 1e-3
    assert found.scale == pytest.approx(1.07, abs=1e-5)


def test_icp_without_scale_keeps_it(potato):
    scan = 1.05 * on_surface(potato, 2000)
    found = icp(potato, scan, STILL, scale=False)
    assert found.scale == 1
    assert 2 < np.median(surface_distances(found.undo(scan), potato)) < 6  # 5 % of radii of 60 to 90 mm


@pytest.mark.parametrize("scale", [True, False])
def test_icp_ends_at_the_least_squares_optimum_of_exact_distances(potato, scale):
    """SciPy's own optimiser, started at the answer, with exact distances and numerical derivatives, gains nothing."""
    rng = np.random.default_rng(4)
    scan = MOTION.apply(on_surface(potato, 400, seed=4)) + rng.normal(0, 1.5, (400, 3))
    start = Similarity(1.0 if not scale else 1.05, np.eye(3), MOTION.shift)
    found = icp(potato, scan, start, scale)

    def residuals(x: np.ndarray) -> np.ndarray:
        turn = Rotation.from_rotvec(x[:3]).as_matrix()
        motion = Similarity(float(np.exp(x[6])) if scale else 1.0, turn, 100 * x[3:6]).after(found)
        return motion.scale * surface_distances(motion.undo(scan), potato)

    start_cost = float((residuals(np.zeros(7)) ** 2).sum())
    best = least_squares(residuals, np.zeros(7 if scale else 6), method="lm", diff_step=1e-5, max_nfev=150)
    # a move of 0.001 mm off the optimum of 400 points with curvature about 1 costs less than 1e-3 mm^2
    assert start_cost - 2 * best.cost < 1e-3


def test_robust_alignment_is_not_moved_by_hair(potato):
    """A quarter more points that float 20 to 30 mm above the top pull least squares, and hardly the Cauchy loss."""
    scan = on_surface(potato, 2000)
    top = scan[scan[:, 1] > 60]
    hair = np.concatenate([scan, (top * (1 + np.random.default_rng(5).uniform(0.25, 0.35, (len(top), 1))))])
    plain = icp(potato, hair, STILL, scale=False)
    robust = align(potato.vertices, potato.triangles, hair, scale=False).motion
    off = [np.abs(m.apply(potato.vertices) - potato.vertices).max() for m in (plain, robust)]
    assert off[1] < 0.25 * off[0]


def test_near_points_are_those_of_the_exact_search(potato):
    """On uneven triangles, too: one end of the mesh is cut eight times as fine."""
    fine = potato.vertices[potato.triangles][..., 0].mean(axis=1) > 20
    v, t = trimesh.remesh.subdivide(potato.vertices, potato.triangles, face_index=np.flatnonzero(fine))
    surface = Surface(v, t)
    points = on_surface(potato, 3000) + np.random.default_rng(6).normal(0, 2, (3000, 3))
    exact, near = (np.linalg.norm(f(points)[0] - points, axis=1) for f in (surface.closest, surface.near))
    assert (near - exact).min() > -1e-9
    assert (near - exact).mean() < 1e-3  # mm: `near` is for alignment, where that moves nothing
