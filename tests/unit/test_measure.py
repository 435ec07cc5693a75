"""Measures: a truth scored against itself is perfect, and known errors get known figures."""

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from skimage.metrics import structural_similarity

from raytrace_face.measure import geometry, images, light, yaleb


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def sphere():
    """A bumpy ellipsoid: vertices (V, 3) mm and triangles (F, 3), without any symmetry."""
    from scipy.spatial import ConvexHull

    k = np.arange(3000)
    z = 1 - 2 * (k + 0.5) / len(k)
    phi = k * 2.399963
    unit = np.stack([np.sqrt(1 - z * z) * np.cos(phi), np.sqrt(1 - z * z) * np.sin(phi), z], 1)
    triangles = ConvexHull(unit).simplices
    outward = np.linalg.det(unit[triangles]) > 0
    triangles = np.where(outward[:, None], triangles, triangles[:, ::-1])
    bump = 1 + 0.1 * np.sin(5 * unit[:, 0]) + 0.1 * np.cos(4 * unit[:, 1] + unit[:, 2])
    return unit * bump[:, None] * [60, 90, 70], triangles


# light


def test_known_rotations_give_known_angles(rng):
    axis = rng.normal(size=3)
    axis /= np.linalg.norm(axis)
    across = np.cross(axis, [0.0, 0, 1])
    for degrees in (0.0, 1e-4, 7.0, 90.0, 179.0):
        turn = Rotation.from_rotvec(np.radians(degrees) * across / np.linalg.norm(across)).as_matrix()
        assert light.angle_deg(axis, turn @ axis * 3) == pytest.approx(degrees, abs=1e-9)
        assert light.rotation_angle_deg(turn, np.eye(3)) == pytest.approx(degrees, abs=1e-7)


def test_truth_against_itself_has_no_angle(rng):
    normals = rng.normal(size=(5, 4, 3))
    assert light.mean_angle_deg(normals, normals, np.ones((5, 4), bool)) == pytest.approx(0, abs=1e-9)


def test_directions_point_where_their_names_say():
    assert light.direction(90, 0) == pytest.approx([1, 0, 0])
    assert light.direction(0, 90) == pytest.approx([0, 1, 0])
    a, e = np.radians(35), np.radians(40)
    expected = [-np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)]
    assert yaleb.light_direction("A+035E+40") == pytest.approx(expected)
    with pytest.raises(ValueError, match=r"A\+035E\+40"):
        yaleb.light_direction("35,40")


# images


def test_truth_against_itself_is_perfect(rng):
    image = rng.random((32, 40))
    mask = rng.random((32, 40)) > 0.3
    assert images.psnr_db(image, image, mask) == np.inf
    assert images.ssim(image, image, mask) == pytest.approx(1)
    assert images.relative_rmse(image, image, mask) == pytest.approx(0, abs=1e-12)
    assert images.iou(mask, mask) == 1
    assert images.relative_std(np.stack([image, image]), mask) == 0


def test_gain_does_not_matter(rng):
    truth = rng.random((20, 20))
    guess = truth + 0.1 * rng.normal(size=truth.shape)
    mask = rng.random((20, 20)) > 0.5
    assert images.relative_rmse(guess, truth, mask) == pytest.approx(images.relative_rmse(7 * guess, truth, mask))
    scaled = [images.best_gain(k * guess, truth, mask) * k * guess for k in (1, 0.01)]
    assert scaled[0] == pytest.approx(scaled[1])
    assert images.best_gain(np.zeros((20, 20)), truth, mask) == 1


def test_psnr_of_a_known_error():
    truth, mask = np.zeros((8, 8)), np.ones((8, 8), bool)
    assert images.psnr_db(truth + 0.1, truth, mask) == pytest.approx(20)


def test_ssim_is_that_of_scikit_image(rng):
    for shape, axis in (((24, 30), None), ((24, 30, 3), -1)):
        a, b = rng.random(shape), rng.random(shape)
        expected, whole = structural_similarity(a, b, data_range=1.0, channel_axis=axis, full=True)
        inner = (slice(3, -3), slice(3, -3))  # scikit-image leaves half a window out of its mean
        mask = np.zeros(shape[:2], bool)
        mask[inner] = True
        assert images.ssim(a, b, mask) == pytest.approx(expected)
        assert images.ssim(a, b) == pytest.approx(whole.mean())


def test_iou_counts_pixels():
    a, b = np.zeros((4, 4), bool), np.zeros((4, 4), bool)
    a[:2], b[1:3] = True, True
    assert images.iou(a, b) == pytest.approx(1 / 3)
    assert images.iou(a, ~a) == 0
    assert images.iou(np.zeros(3, bool), np.zeros(3, bool)) == 1


# geometry


def test_alignment_undoes_a_similarity(sphere):
    vertices, triangles = sphere
    turn = Rotation.from_euler("xyz", [4, -3, 2], degrees=True).as_matrix()
    scan = 1.05 * vertices @ turn.T + [3, -2, 1]
    found = geometry.align(vertices, triangles, scan)
    assert found.median_mm < 1e-3
    assert found.motion.scale == pytest.approx(1.05, abs=1e-4)
    assert light.rotation_angle_deg(found.motion.rotation, turn) < 0.01


def test_rigid_alignment_keeps_the_size(sphere):
    vertices, triangles = sphere
    found = geometry.align(vertices, triangles, 1.05 * vertices, scale=False)
    assert found.motion.scale == 1
    assert 2 < found.median_mm < 6  # 5 % of a radius of 60-90 mm


def test_distance_is_that_to_the_surface_not_to_vertices(sphere):
    vertices, triangles = sphere
    inner = vertices[triangles].mean(axis=1)[:200]
    assert geometry.point_distances(inner, vertices, triangles).max() < 1e-3


# Yale protocol


@pytest.fixture
def truth():
    """A white half sphere that fills the crop, lit by strobes of strength 0.8."""
    y, x = np.mgrid[:192, :168]
    u, v = (x - 83.5) / 84, (95.5 - y) / 96
    z = np.sqrt(np.maximum(1 - u * u - v * v, 0))
    normals = np.stack([u, v, z], axis=-1).astype(np.float32)
    normals /= np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-9)
    return yaleb.Truth("sphere", normals, np.where(z > 0, 0.9, 0).astype(np.float32), {"A+050E+00": 0.8})


def test_score_mask_leaves_out_border_and_grazing_pixels(truth):
    mask = yaleb.score_mask(truth)
    assert not mask[:15].any()
    assert not mask[-7:].any()
    assert not mask[:, :9].any()
    assert not mask[:, -9:].any()
    assert (truth.normals[mask][:, 2] > 0.25).all()
    assert mask[96, 84]


def test_cast_shadow_is_found_and_attached_shadow_is_not(truth):
    cosine = np.maximum(truth.normals @ yaleb.light_direction("A+050E+00"), 0)
    image = 0.8 * 0.9 * cosine
    assert not yaleb.cast_shadow(truth, "A+050E+00", (image * 255).astype(np.uint8)).any()
    image[90:100, 60:80] = 0
    shadow = yaleb.cast_shadow(truth, "A+050E+00", (image * 255).astype(np.uint8))
    assert shadow[90:100, 60:80].all()
    assert shadow.sum() == 200


def test_protocol_has_the_pairs_and_lights_of_the_definition():
    assert len(yaleb.LIGHTS) == 14
    assert sum(map(len, yaleb.RELIGHT.values())) == 10
    assert {a for pairs in yaleb.RELIGHT.values() for a, _ in pairs} == set(yaleb.SOURCES)
