"""What the pieces of `adopt` promise, on shapes whose answers are known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from raytrace_face.adopt.atlas import overlap, usable
from raytrace_face.adopt.correspond import Surface
from raytrace_face.adopt.disc import border_loops, find_disc, flatten, signed_areas
from raytrace_face.adopt.expressions import deformation, gradient, project
from raytrace_face.adopt.frame import eye_centres
from raytrace_face.adopt.parts import without_specks
from raytrace_face.adopt.regions import mirror_map, rim_distance
from raytrace_face.face.mesh import triangle_normals
from raytrace_face.face.model import PARTS


def sheet(columns: int, rows: int, step: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """A flat grid around the origin: vertices (V, 3), triangles facing +z."""
    x, y = np.meshgrid(np.arange(columns) - (columns - 1) / 2, np.arange(rows) - (rows - 1) / 2)
    vertices = np.stack([x.ravel(), y.ravel(), np.zeros(x.size)], axis=1) * step
    a = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    triangles = np.concatenate(
        [np.stack([a, a + 1, a + columns], 1), np.stack([a + 1, a + columns + 1, a + columns], 1)]
    )
    return vertices, triangles


def test_gradient_of_a_linear_function_is_its_slope_in_the_plane_of_each_triangle():
    rng = np.random.default_rng(0)
    vertices, triangles = rng.normal(size=(9, 3)), np.arange(9).reshape(3, 3)
    slope = np.array([0.3, -1.2, 2.0])
    normal = np.cross(
        vertices[triangles[:, 1]] - vertices[triangles[:, 0]], vertices[triangles[:, 2]] - vertices[triangles[:, 0]]
    )
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    tangential = slope - (normal @ slope)[:, None] * normal
    found = (gradient(vertices, triangles) @ (vertices @ slope)).reshape(-1, 3)
    np.testing.assert_allclose(found, tangential, atol=1e-12)


def test_deformation_gradient_of_a_linear_map_is_that_map_along_the_triangle():
    """Sumner and Popović's S takes the edges as the map does, and the normal to the new normal."""
    rng = np.random.default_rng(1)
    vertices, triangles = rng.normal(size=(6, 3)), np.arange(6).reshape(2, 3)
    angle = 0.4
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    np.testing.assert_allclose(
        deformation(vertices, triangles, vertices @ turn.T - vertices), np.tile(turn - np.eye(3), (2, 1, 1)), atol=1e-9
    )


def test_projection_recovers_coefficients_of_units_in_the_span_and_nothing_of_those_outside():
    rng = np.random.default_rng(2)
    basis = np.linalg.qr(rng.normal(size=(60, 5)))[0].T.reshape(5, 20, 3) * np.sqrt(20) * 4  # 4 mm rms a sigma
    coefficients = np.array([[1.0, -2.0, 0.0, 0.5], [0.0, 0.0, 0.0, 0.0]])
    units = np.tensordot(coefficients, basis[:4], 1)
    units[1] = 3 * basis[4]
    found, native, kept = project(units, basis[:4].astype(np.float32), np.ones(20))
    np.testing.assert_allclose(native, coefficients, atol=1e-3)  # the ridge takes 0.002 / 16
    np.testing.assert_allclose(found, np.tensordot(coefficients, basis[:4], 1), atol=0.02)
    assert kept == pytest.approx([1, 0], abs=1e-3)


def test_mirror_of_a_symmetric_sheet_is_exact_and_an_involution():
    vertices, triangles = sheet(7, 5)
    mirror, gap = mirror_map(vertices, triangles, np.zeros(len(triangles), np.uint8), np.arange(len(vertices)))
    assert gap == 0
    np.testing.assert_array_equal(vertices[mirror], vertices * [-1, 1, 1])
    np.testing.assert_array_equal(mirror[mirror], np.arange(len(vertices)))


def test_mirror_keeps_the_two_sides_of_a_seam_apart():
    """A seam along x = -1 and x = 1: a vertex on it mirrors to the duplicate that bounds the mirrored triangles."""
    vertices, triangles = sheet(7, 5)
    on_seam = np.abs(np.abs(vertices[:, 0]) - 1) < 1e-9
    outer = np.abs(vertices[triangles].mean(1)[:, 0]) > 1
    extra = np.full(len(vertices), -1)
    extra[on_seam] = len(vertices) + np.arange(on_seam.sum())
    split = np.where(outer[:, None] & on_seam[triangles], extra[triangles], triangles)
    source = np.concatenate([np.arange(len(vertices)), np.flatnonzero(on_seam)])
    mirror, gap = mirror_map(vertices[source], split, np.zeros(len(split), np.uint8), source)
    assert gap == 0
    outside = np.zeros(len(source), bool)
    outside[extra[on_seam]] = True
    np.testing.assert_array_equal(outside[mirror][source < len(vertices)], outside)


def test_distance_to_a_long_border_grows_by_the_length_of_the_edges():
    vertices, triangles = sheet(61, 41, step=2.0)  # a border of 400 mm
    distance = rim_distance(Surface.of(vertices, triangles)).reshape(41, 61)
    np.testing.assert_allclose(distance[20, :6], 2.0 * np.arange(6))
    small, few = sheet(11, 11, step=2.0)  # 80 mm: the rim of a mouth, say
    assert np.isinf(rim_distance(Surface.of(small, few))).all()


def test_specks_take_the_part_around_them_and_patches_stay():
    vertices, triangles = sheet(41, 41)
    centres = vertices[triangles].mean(1)
    part = np.zeros(len(triangles), np.uint8)
    part[np.linalg.norm(centres - [10, 10, 0], axis=1) < 6] = PARTS.index("eyes")  # 113 mm^2
    whole = part.copy()
    part[np.linalg.norm(centres - [-10, -5, 0], axis=1) < 2.5] = PARTS.index("mouth")  # 20 mm^2
    area = np.full(len(triangles), 0.5)
    np.testing.assert_array_equal(without_specks(triangles, part, area), whole)


def test_centres_of_eyeballs_come_from_a_part_of_the_sphere():
    rng = np.random.default_rng(4)
    direction = rng.normal(size=(400, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    ball = 12 * direction[direction[:, 2] > -0.5]
    truth = np.array([[31.0, 3.0, -4.0], [-32.0, 2.0, -5.0]])
    vertices = np.concatenate([ball + centre for centre in truth])
    triangles = np.arange(len(vertices) // 3 * 3).reshape(-1, 3)
    part = np.full(len(triangles), PARTS.index("eyes"), np.uint8)
    np.testing.assert_allclose(eye_centres(vertices, triangles, part), truth, atol=1e-9)
    patch = vertices[:, 2] > 5
    assert eye_centres(vertices[patch], triangles[: patch.sum() // 3], part[: patch.sum() // 3]) is None


def test_a_bowl_with_a_hole_becomes_one_upright_chart_of_even_area():
    """Half an ellipsoid, open at its back and at a mouth: a bijection whose triangles keep their areas."""
    plane, triangles = sheet(61, 61)
    centres = plane[triangles].mean(1)
    mouth = (np.abs(centres[:, 0]) < 6) & (np.abs(centres[:, 1] + 12) < 2)
    triangles = triangles[(np.linalg.norm(centres, axis=1) < 28) & ~mouth]
    triangles = triangles[find_disc(triangles, np.ones(len(triangles), bool))]
    used, triangles = np.unique(triangles, return_inverse=True)
    triangles, plane = triangles.reshape(-1, 3), plane[used, :2] / 30
    points = np.stack([70 * plane[:, 0], 90 * plane[:, 1], 60 * np.sqrt(1.1 - (plane**2).sum(1))], axis=1)
    assert len(border_loops(triangles)) == 2
    uv = flatten(points, triangles, np.ones(len(points)))
    assert uv is not None
    wanted = 0.5 * np.linalg.norm(triangle_normals(points, triangles), axis=1)
    got = signed_areas(uv, triangles)
    assert got.min() > 0
    assert np.average(np.abs(np.log(got / wanted)), weights=wanted) < 0.3
    assert np.corrcoef(uv[:, 1], points[:, 1])[0, 1] > 0.95


def test_a_patch_has_neither_pinches_nor_enclosed_gaps():
    plane, triangles = sheet(21, 21)
    centres = plane[triangles].mean(1)
    left, right = centres[:, 0] < 0, centres[:, 0] > 0
    bow_tie = (left & (centres[:, 1] < 0)) | (right & (centres[:, 1] > 0))  # two squares that meet in one vertex
    gap = np.linalg.norm(centres - [-5, -5, 0], axis=1) < 2
    patch = find_disc(triangles, bow_tie & ~gap)
    np.testing.assert_array_equal(patch, right & bow_tie)  # the larger one
    np.testing.assert_array_equal(find_disc(triangles, left & ~gap), left)


def test_overlapping_or_tiled_layouts_are_not_used():
    vertices, triangles = sheet(20, 20)
    uv = (vertices[:, :2] / 19 + 0.5)[triangles]
    assert overlap(uv) < 0.01
    face = np.ones(len(triangles))
    assert usable(uv, face)
    assert not usable(uv, (vertices[triangles].mean(1)[:, 0] > 5) * face)  # most of it for what nobody looks at
    halves = uv.copy()
    halves[..., 0] = np.abs(halves[..., 0] - 0.5) * 2  # left and right share their texels
    assert overlap(halves) > 0.9
    assert not usable(halves, face)
    assert not usable(uv * [7, 1], face)
    assert not usable(uv / 7, face)
