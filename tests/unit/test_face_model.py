"""Facts about the embedded face model, its file, its chart and its priors."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raytrace_face.errors import ModelError
from raytrace_face.face.mesh import catmull_clark, rigid_motions, triangulate, vertex_normals
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.skin_prior import absorption, albedo, roughness_prior, skin_prior, specular_prior
from raytrace_face.face.store import embedded_path, load_coarse, load_embedded, save_coarse

SKIN = PARTS.index("skin")


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return load_embedded()


def skin_triangles(model: FaceModel) -> np.ndarray:
    return model.triangles[model.triangle_part == SKIN]


def uv_areas(model: FaceModel, triangles: np.ndarray) -> np.ndarray:
    a, b, c = (model.uv[triangles[:, k]].astype(np.float64) for k in range(3))
    return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])


def test_zero_coefficients_give_the_mean(model: FaceModel) -> None:
    zero = model.vertices(np.zeros(len(model.identity)), np.zeros(len(model.expression)))
    np.testing.assert_array_equal(zero, model.mean)


def test_counts_and_frame(model: FaceModel) -> None:
    assert 12_000 < model.vertex_count < 40_000
    assert len(model.expression_names) == 52
    assert 60 <= len(model.identity) <= 110
    eyes = model.mean[np.unique(model.triangles[model.triangle_part == PARTS.index("eyes")])]
    assert np.abs(0.5 * (eyes.min(0) + eyes.max(0)))[:2] == pytest.approx([0, 0], abs=0.5)
    # Adult: 55-72 mm between the eyeball centres; the nose tip is the foremost point.
    left = eyes[eyes[:, 0] > 0]
    assert 55 < left[:, 0].min() + left[:, 0].max() < 72
    tip = model.mean[np.argmax(model.mean[:, 2])]
    assert abs(tip[0]) < 1
    assert -50 < tip[1] < -20


def test_mirror_is_an_involution_of_an_exactly_symmetric_mean(model: FaceModel) -> None:
    own = np.arange(model.vertex_count)
    np.testing.assert_array_equal(model.mirror[model.mirror], own)
    np.testing.assert_array_equal(model.mean[model.mirror], model.mean * np.array([-1, 1, 1], np.float32))
    known = {tuple(sorted(t)) for t in model.triangles.tolist()}
    assert all(tuple(sorted(t)) in known for t in model.mirror[model.triangles].tolist())


def test_chart_is_mirror_symmetric(model: FaceModel) -> None:
    skin = np.unique(skin_triangles(model))
    np.testing.assert_array_equal(model.uv[model.mirror[skin], 0], 1 - model.uv[skin, 0])
    np.testing.assert_array_equal(model.uv[model.mirror[skin], 1], model.uv[skin, 1])
    assert model.uv.min() >= 0
    assert model.uv.max() <= 1


@pytest.mark.parametrize("level", [1, 2])
def test_chart_has_no_flipped_triangle_and_the_face_takes_most_of_it(level: int) -> None:
    model = load_embedded(level)
    triangles = skin_triangles(model)
    area = uv_areas(model, triangles)
    assert area.min() > 0
    # All positive inside a convex border: a bijection, so areas add up to no more than the square.
    assert area.sum() < 1
    in_face = model.regions["face"][triangles].mean(1) > 0.5
    assert area[in_face].sum() > 0.6
    # u grows with x, v with y.
    face = model.regions["face"] > 0.9
    assert np.corrcoef(model.uv[face, 0], model.mean[face, 0])[0, 1] > 0.95
    assert np.corrcoef(model.uv[face, 1], model.mean[face, 1])[0, 1] > 0.95


def test_seam_vertices_coincide_in_every_mode(model: FaceModel) -> None:
    twins = np.flatnonzero(model.weld != np.arange(model.vertex_count))
    assert len(twins) > 10
    assert (model.mean[twins, 2] < 0).all()
    for field in (model.mean[None], model.identity, model.expression):
        np.testing.assert_allclose(field[:, twins], field[:, model.weld[twins]], atol=1e-4)


def test_triangles_face_outwards(model: FaceModel) -> None:
    normals = vertex_normals(model.mean, model.triangles, model.weld)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1, atol=1e-4)
    assert normals[np.argmax(model.mean[:, 2]), 2] > 0.8
    face = model.regions["face"] > 0.9
    # The rest: nostrils and the inner side of the lips.
    assert (normals[face, 2] > 0).mean() > 0.9


def test_expressions_named_left_move_the_positive_side(model: FaceModel) -> None:
    side = model.mean[:, 0]
    for name, mode in zip(model.expression_names, model.expression, strict=True):
        energy = (mode**2).sum(1)
        # Sideways mouth and eye movements are named by direction, not by side.
        if name.endswith(("Left", "Right")) and name not in ("jawLeft", "jawRight", "mouthLeft", "mouthRight"):
            share = energy[side > 0].sum() / energy.sum()
            assert (share > 0.65) if name.endswith("Left") else (share < 0.35), (name, share)


def test_jaw_opens_the_mouth_and_blink_closes_the_eye(model: FaceModel) -> None:
    jaw = model.expression[model.expression_names.index("jawOpen")]
    chin = np.argmax(model.regions["chin"])
    assert jaw[chin, 1] < -8
    teeth = np.unique(model.triangles[model.triangle_part == PARTS.index("teeth")])
    assert jaw[teeth, 1].min() < -5
    assert np.abs(jaw[teeth, 1]).min() < 1
    blink = model.expression[model.expression_names.index("eyeBlinkLeft")]
    assert blink[:, 1].min() < -5
    ball = np.unique(model.triangles[model.triangle_part == PARTS.index("eyes")])
    assert np.abs(blink[ball]).max() < 0.5


def test_landmarks_lie_on_front_skin_and_are_symmetric(model: FaceModel) -> None:
    assert len(model.landmark_index) > 380
    assert len(np.unique(model.landmark_index)) == len(model.landmark_index)
    assert model.landmark_index.max() < 468
    assert (model.triangle_part[model.landmark_triangle] == SKIN).all()
    np.testing.assert_allclose(model.landmark_barycentric.sum(1), 1, atol=1e-5)
    assert model.landmark_barycentric.min() >= 0
    assert (model.landmark_sigma_mm > 0).all()
    points = dict(zip(model.landmark_index.tolist(), model.landmark_points(model.mean), strict=True))
    # MediaPipe: 1 nose tip, 33 / 263 outer eye corners (image left / right), 61 / 291 mouth corners, 152 chin.
    assert abs(points[1][0]) < 1
    assert points[33][0] < -35 < 35 < points[263][0]
    assert points[61][0] < -15 < 15 < points[291][0]
    np.testing.assert_allclose(points[61], points[291] * [-1, 1, 1], atol=0.5)
    assert points[152][1] < points[61][1] < points[1][1] < 0


@pytest.mark.parametrize("level", [0, 2])
def test_landmarks_stay_in_place_at_other_levels(model: FaceModel, level: int) -> None:
    other = load_embedded(level)
    offset = other.landmark_points(other.mean) - model.landmark_points(model.mean)
    assert np.median(np.linalg.norm(offset, axis=1)) < 0.4


def test_regions_are_weights_of_skin(model: FaceModel) -> None:
    expected = {"face", "lips", "eyelids", "nose", "cheeks", "forehead", "chin", "brows", "beard", "ears", "neck"}
    assert expected | {"scalp"} <= set(model.regions)
    inner = np.setdiff1d(np.unique(model.triangles[model.triangle_part != SKIN]), np.unique(skin_triangles(model)))
    for name, weight in model.regions.items():
        assert weight.min() >= 0, name
        assert weight.max() <= 1, name
        assert weight.max() > 0.5, name
    # Smooth subdivision spreads by one ring at most.
    assert model.regions["face"][inner].mean() < 0.05
    height = {name: np.average(model.mean[:, 1], weights=w) for name, w in model.regions.items()}
    assert height["forehead"] > height["brows"] > height["nose"] > height["lips"] > height["chin"] > height["neck"]


def test_subdivision_keeps_linear_functions_and_volume() -> None:
    # A cube: Catmull-Clark rows sum to one, so affine functions are reproduced by affine maps of the input.
    corners = np.array([[x, y, z] for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    quads = np.array([[0, 1, 3, 2], [4, 6, 7, 5], [0, 4, 5, 1], [2, 3, 7, 6], [0, 2, 6, 4], [1, 5, 7, 3]])
    level = catmull_clark(quads, 8)
    assert level.matrix.shape == (26, 8)
    np.testing.assert_allclose(np.asarray(level.matrix.sum(1)).ravel(), 1)
    affine = lambda p: p @ np.array([[1, 2, 3], [0, 1, 0], [4, 0, 1.0]]) + 5  # noqa: E731
    np.testing.assert_allclose(level.matrix @ affine(corners), affine(level.matrix @ corners))
    # Known value: a cube's corner moves to (F + 2 R) / 3 with F = 1/3 and R = 1/6.
    np.testing.assert_allclose((level.matrix @ corners)[0], 2 / 9)
    assert len(triangulate(level.quads)) == 48


def test_rigid_motions_keep_distances_to_first_order() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(20, 3)) * 50
    for motion in rigid_motions(points):
        change = ((points[:, None] - points[None]) * (motion[:, None] - motion[None])).sum(-1)
        assert np.abs(change).max() < 1e-9


def test_same_model_gives_same_bytes(tmp_path: Path) -> None:
    coarse = load_coarse(embedded_path())
    save_coarse(coarse, tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == embedded_path().read_bytes()
    assert embedded_path().stat().st_size < 4e6


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.npz"
    with pytest.raises(ModelError):
        load_coarse(path)
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError):
        load_coarse(path)
    np.savez(path, mean=np.zeros(3))
    with pytest.raises(ModelError, match="marked"):
        load_coarse(path)
    whole = embedded_path().read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError):
        load_coarse(path)
    middle = bytearray(whole)
    middle[len(whole) // 2 : len(whole) // 2 + 64] = bytes(64)
    path.write_bytes(bytes(middle))
    with pytest.raises(ModelError):
        load_coarse(path)
    coarse = load_coarse(embedded_path())
    save_coarse(replace(coarse, mean=np.full_like(coarse.mean, np.nan)), path)
    with pytest.raises(ModelError, match="finite"):
        load_coarse(path)
    save_coarse(replace(coarse, identity=coarse.identity[:, :-1]), path)
    with pytest.raises(ModelError, match="do not fit together"):
        load_coarse(path)
    save_coarse(replace(coarse, quads=coarse.quads + len(coarse.source)), path)
    with pytest.raises(ModelError, match="do not fit together"):
        load_coarse(path)


def test_skin_tones_run_from_light_to_dark_and_blood_reddens(model: FaceModel) -> None:
    melanin, haemoglobin = absorption()
    assert melanin[2] < melanin[1] < melanin[0] < 0
    # Blood absorbs least in the red and most in the green.
    assert haemoglobin[1] < haemoglobin[2] < haemoglobin[0] < 0
    prior = skin_prior(model)
    assert prior.names[:2] == ("melanin", "haemoglobin")
    bare = np.argmin(np.abs(prior.offset).sum(1))

    def tone(sigma: float) -> np.ndarray:
        coefficients = np.zeros(len(prior.modes))
        coefficients[0] = sigma
        return albedo(prior, coefficients)[bare]

    np.testing.assert_allclose(tone(-1), [0.48, 0.31, 0.24], atol=0.05)
    np.testing.assert_allclose(tone(2.5), [0.10, 0.06, 0.035], atol=0.02)
    mean = albedo(prior, np.zeros(len(prior.modes)))
    lips, cheek = np.argmax(model.regions["lips"]), np.argmax(model.regions["cheeks"])
    assert mean[lips, 0] / mean[lips, 1] > mean[cheek, 0] / mean[cheek, 1]


def test_gloss_by_region(model: FaceModel) -> None:
    f0, roughness = specular_prior(model), roughness_prior(model)
    assert 0.026 < f0.min() <= f0.max() < 0.045
    assert 0.3 < roughness.min() <= roughness.max() < 0.6
    tip, cheek = (np.argmax(model.regions[name]) for name in ("nose", "cheeks"))
    assert roughness[tip] < roughness[cheek]
    assert f0[tip] > f0[cheek]


def fit_surface(
    model: FaceModel, target: np.ndarray, normals: np.ndarray, modes: int, sigma_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Rigid motion and identity (sigma-regularised) to a surface by point-to-plane: coefficients, distances (N,)."""
    from scipy.spatial import cKDTree

    basis, skin = model.identity[:modes].astype(np.float64), np.unique(skin_triangles(model))
    vertices, alpha = model.mean.astype(np.float64), np.zeros(modes)
    rotation, shift = np.eye(3), np.zeros(3)
    for step_number in range(25):
        shape = model.mean + np.tensordot(alpha, basis, 1)
        vertices = shape @ rotation.T + shift
        own = vertex_normals(vertices, model.triangles, model.weld)
        tree = cKDTree(np.hstack([vertices[skin], 5 * own[skin]]))
        index = skin[tree.query(np.hstack([target, 5 * normals]))[1]]
        n = own[index]
        gap = ((target - vertices[index]) * n).sum(1)
        moved = np.einsum("kvd,ed->kve", basis[:, index], rotation)
        rows = np.concatenate([rigid_motions(vertices[index]), moved])
        design = np.einsum("kvd,vd->kv", rows, n)
        # Robust: lid and nostril linings have no counterpart. Stiff first, then as the prior says.
        trust = ((n * normals).sum(1) > 0.6) / (1 + (gap / 1.5) ** 2)
        relax = max(1.0, 3000.0 * 0.5**step_number)
        ridge = np.concatenate([np.full(6, 1e-9), np.full(modes, relax * sigma_mm**2)])
        pull = np.concatenate([np.zeros(6), alpha])
        step = np.linalg.solve((design * trust) @ design.T + np.diag(ridge), design @ (trust * gap) - ridge * pull)
        w = step[3:6] / 100
        cross = np.array([[0, -w[2], w[1]], [w[2], 0, -w[0]], [-w[1], w[0], 0]])
        u, _, vt = np.linalg.svd(np.eye(3) + cross)
        rotation, shift = (u @ vt) @ rotation, (u @ vt) @ shift + step[:3]
        alpha = alpha + step[6:]
    return alpha, np.abs(gap)


@pytest.mark.slow
@pytest.mark.skipif("RAYTRACE_FACE_DATA" not in os.environ, reason="needs ICT-FaceKit in RAYTRACE_FACE_DATA")
def test_random_ict_heads_are_fitted_and_have_unit_coefficients(model: FaceModel) -> None:
    """Heads drawn from ICT's statistics: fitted to fractions of a millimetre, with coefficients of unit variance."""
    from raytrace_face.face.embedded.prior import read_ict

    ict = read_ict(Path(os.environ["RAYTRACE_FACE_DATA"]) / "ict")
    rng = np.random.default_rng(8)
    narrow = np.arange(6706)
    # ICT models the inside of the nose and of the lids: what lies far even in the mean has no counterpart here.
    mean_head = ict.mean - ict.eye_centres(ict.mean).mean(0)
    mean_normals = vertex_normals(mean_head, ict.triangles)
    narrow = narrow[fit_surface(model, mean_head[narrow], mean_normals[narrow], len(model.identity), 2.0)[1] < 2]
    errors, squares = [], []
    for _ in range(4):
        head = ict.mean + np.tensordot(rng.normal(size=len(ict.modes)), ict.modes, 1)
        head = head - ict.eye_centres(head).mean(0)
        normals = vertex_normals(head, ict.triangles)
        alpha, gap = fit_surface(model, head[narrow], normals[narrow], len(model.identity), 2.0)
        errors.append((np.median(gap), gap.mean()))
        squares.append((alpha**2).mean())
    median, mean = np.mean(errors, axis=0)
    assert median < 0.4
    assert mean < 0.5
    assert 0.6 < np.mean(squares) < 1.5


@pytest.mark.parametrize("side", [-1, 1])
def test_lids_show_their_outside(model, side):
    # Skin 1 to 4.5 mm off the ball is lid, nearer lies its rim. Where a normal points to the ball, by more than the
    # underside of the margin does, the lid is folded through itself: 13 % were, before the fold was taken out.
    ball = model.mean[np.unique(model.triangles[model.triangle_part == PARTS.index("eyes")])]
    ball = ball[ball[:, 0] * side > 0]
    centre = (ball.min(axis=0) + ball.max(axis=0)) / 2
    skin = np.unique(model.triangles[model.triangle_part == PARTS.index("skin")])
    offset = model.mean[skin] - centre
    distance = np.linalg.norm(offset, axis=1)
    above = distance - np.ptp(ball[:, 0]) / 2
    lid = (above > 1.0) & (above < 4.5) & (offset[:, 2] > 0)
    normals = vertex_normals(model.mean, model.triangles, model.weld)[skin]
    cosine = (normals * offset).sum(axis=1)[lid] / distance[lid]
    assert (cosine < -0.3).mean() < 0.03
