"""Rationale: SIDE and MAD do not see scale, and see a known tilt as the angle that it is."""

from __future__ import annotations

import numpy as np
import pytest

from raytrace_face.errors import InputError
from raytrace_face.measure.depth import depth_scores, mad_deg, normals_from_depth, scored_pixels, side
from raytrace_face.types import Camera

CAMERA = Camera(40, 30, 90.0, (18.3, 16.1))
ALL = np.ones((30, 40), bool)


def rays() -> np.ndarray:
    y, x = np.mgrid[:30, :40] + 0.5
    cx, cy = CAMERA.principal_px
    return np.stack([(x - cx) / CAMERA.focal_px, (cy - y) / CAMERA.focal_px, -np.ones_like(x)], axis=-1)


def tilted(degrees: float) -> tuple[np.ndarray, np.ndarray]:
    """Depth of a plane 700 mm away that is turned about the axis (3, 4, 0) / 5, and its normal."""
    a = np.radians(degrees)
    normal = np.array([0.8 * np.sin(a), -0.6 * np.sin(a), np.cos(a)])
    return normal @ [0, 0, -700] / (rays() @ normal), normal


def sphere() -> tuple[np.ndarray, np.ndarray]:
    """Depth of a sphere of radius 100 in front of a wall, and where the sphere is."""
    ray, centre = rays(), np.array([5.0, -8.0, -700.0])
    a, b = (ray**2).sum(-1), ray @ centre
    under = b**2 - a * (centre @ centre - 100.0**2)
    return np.where(under > 0, (b - np.sqrt(np.maximum(under, 0))) / a, 900.0), under > 0


def test_scaled_depth_has_no_scale_invariant_error():
    depth, mask = sphere()
    scores = depth_scores(0.37 * depth, depth, mask, CAMERA)
    assert scores.side == pytest.approx(0, abs=1e-12)
    assert scores.mad_deg == pytest.approx(0, abs=1e-5)  # rounding of directions, in degrees
    assert scores.pixels == scored_pixels(mask).sum()


def test_side_is_what_a_hand_computes():
    truth = np.array([[700.0, 710.0, 720.0]])
    predicted = truth * np.exp([[0.0, 0.03, 0.06]])
    # D = 0, .03, .06: mean of squares .0015, square of the mean .0009
    assert side(predicted, truth, np.ones((1, 3), bool)) == pytest.approx(np.sqrt(0.0006))


def test_side_of_noise_is_that_of_the_formula_written_as_in_the_paper():
    rng = np.random.default_rng(0)
    truth, mask = sphere()
    predicted = truth * np.exp(0.02 * rng.normal(size=truth.shape))
    total, squares, count = 0.0, 0.0, 0
    for v in range(1, 29):
        for u in range(1, 39):
            if mask[v - 1 : v + 2, u - 1 : u + 2].all():
                d = np.log(predicted[v, u]) - np.log(truth[v, u])
                total, squares, count = total + d, squares + d * d, count + 1
    scores = depth_scores(predicted, truth, mask)
    assert scores.pixels == count
    assert scores.side == pytest.approx(np.sqrt(squares / count - (total / count) ** 2))
    assert np.isnan(scores.mad_deg)


@pytest.mark.parametrize("degrees", [0.01, 5.0, 30.0])
def test_a_tilted_plane_deviates_by_its_angle(degrees):
    flat, tipped = tilted(0)[0], tilted(degrees)[0]
    # differences of points of a plane lie in the plane: exact but for rounding
    assert mad_deg(tipped, flat, ALL, CAMERA) == pytest.approx(degrees, abs=1e-6)


def test_normals_of_a_plane_are_its_normal_and_outside_of_the_mask_there_are_none():
    depth, normal = tilted(25)
    mask = ALL.copy()
    mask[10:15, 20:25] = False
    normals = normals_from_depth(np.where(mask, depth, np.nan), CAMERA, mask)
    known = np.linalg.norm(normals, axis=-1) > 0
    assert normals[known] == pytest.approx(np.broadcast_to(normal, (known.sum(), 3)), abs=1e-9)
    assert known[9, 19]  # a diagonal neighbour of the hole still has its four neighbours
    assert not known[9, 20]
    assert not known[0].any()
    assert normal[2] > 0  # towards the camera


def test_what_lies_outside_of_the_mask_does_not_count():
    depth, mask = sphere()
    other = np.where(mask, depth, -1.0)
    assert depth_scores(other, depth, mask, CAMERA) == depth_scores(depth, depth, mask, CAMERA)


@pytest.mark.parametrize(
    ("predicted", "mask", "message"),
    [
        (np.ones((3, 3)), ALL, "differ"),
        (np.ones((30, 40)), np.eye(30, 40, dtype=bool), "empty"),
        (np.zeros((30, 40)), ALL, "predicted depth is not positive"),
        (np.full((30, 40), np.nan), ALL, "predicted depth is not positive"),
    ],
)
def test_what_cannot_be_scored_is_refused(predicted, mask, message):
    with pytest.raises(InputError, match=message):
        depth_scores(predicted, tilted(10)[0], mask, CAMERA)
