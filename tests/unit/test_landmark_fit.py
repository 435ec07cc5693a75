"""Rationale: what the model can say, the fit recovers: pose and shape from its own landmarks, normals, skin, losses."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raytrace_face.face.camera import project, rotated, to_camera
from raytrace_face.face.store import load_embedded
from raytrace_face.fit import albedo as albedo_fit
from raytrace_face.fit import landmarks, losses
from raytrace_face.measure.light import rotation_angle_deg
from raytrace_face.types import Camera, Capture, FaceParams, Photo, Window

SIZE = 256
FOCAL = 700.0


@pytest.fixture(scope="module")
def model():
    return load_embedded(1)


def true_face(model, identity: np.ndarray, expression: dict[str, float], turn: tuple[float, ...]) -> FaceParams:
    T = np.eye(4)
    T[2, 3] = -landmarks.DISTANCE_MM  # where the prior expects it: distance and focal length trade places
    T = rotated(T, np.array(turn), np.array([15.0, -10.0, 0.0]))
    weights = np.array([expression.get(n, 0.0) for n in model.expression_names], np.float32)
    full = np.zeros(len(model.identity), np.float32)
    full[: len(identity)] = identity
    return FaceParams(T.astype(np.float32), full, weights)


def seen(model, face: FaceParams, expression: dict[str, float], focal: float = FOCAL, size: int = SIZE):
    """Noise-free landmarks of a face, as the network would report them, and the empty photo."""
    camera = Camera(size, size, focal, (size / 2, size / 2))
    points = to_camera(face.T_camera_head, model.landmark_points(model.vertices(face.identity, face.expression)))
    pixels, depth = np.zeros((478, 2), np.float32), np.zeros(478, np.float32)
    pixels[model.landmark_index] = project(camera, points)
    depth[model.landmark_index] = -(points[:, 2] - points[:, 2].mean()) * focal / -points[:, 2].mean()
    window = Window(0, 0, float(size), 64)
    capture = Capture(pixels, depth, expression, 1.0, window, 1, segmentation=np.zeros((64, 64, 6), np.float32))
    blank = np.zeros((size, size, 3), np.float32)
    return capture, Photo(blank, np.zeros((size, size), bool), "", "", False, focal), camera


IDENTITY = np.array([1.2, -0.8, 0.6, -0.5, 0.4, 0.9, -0.3, 0.5])
SMILE = {"mouthSmileLeft": 0.6, "mouthSmileRight": 0.5, "browInnerUp": 0.3}


@pytest.mark.parametrize("turn", [(0.0, 0.0, 0.0), (0.1, 0.5, -0.1), (-0.2, -0.35, 0.15)])
def test_pose_and_shape_are_recovered_from_the_model_s_own_landmarks(model, turn):
    truth = true_face(model, IDENTITY, SMILE, turn)
    capture, photo, _ = seen(model, truth, SMILE)
    fit = landmarks.fit_landmarks(model, capture, photo)
    # noise-free, so that only the priors pull: by 0.24 mm here (0.15 px), a tenth of what a detector errs
    assert fit.rms_px < 0.2
    # the prior shrinks the shape, and a turn of the head makes up for part of it: 0.7 degrees at the largest yaw
    assert rotation_angle_deg(fit.face.T_camera_head[:3, :3], truth.T_camera_head[:3, :3]) < 1
    # landmarks alone see a face half as far with half the focal length nearly alike, but EXIF told the focal length
    assert fit.face.T_camera_head[2, 3] == pytest.approx(truth.T_camera_head[2, 3], rel=0.03)
    assert fit.camera.focal_px == pytest.approx(FOCAL, rel=0.02)
    a, b = fit.face.identity, truth.identity
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.9  # the direction; the length is shrunk by the prior
    assert 0.5 < np.linalg.norm(a) / np.linalg.norm(b) < 1.1


def test_mean_face_gives_zero_coefficients(model):
    truth = true_face(model, np.zeros(0), {}, (0.0, 0.2, 0.0))
    capture, photo, _ = seen(model, truth, {})
    fit = landmarks.fit_landmarks(model, capture, photo)
    assert np.abs(fit.face.identity).max() < 0.02  # Gauss-Newton stops after 12 steps
    assert fit.face.expression.max() < 0.02
    assert model.vertices(np.zeros(len(model.identity)), np.zeros(len(model.expression))) == pytest.approx(
        model.mean, abs=0
    )


def test_the_mean_face_alone_is_posed(model):
    """The ablation: identity stays zero and expression the network's, and the pose is still found."""
    truth = true_face(model, np.zeros(0), {}, (0.1, 0.4, -0.1))
    capture, photo, _ = seen(model, truth, {})
    fit = landmarks.fit_landmarks(model, capture, photo, mean_shape=True)
    assert fit.rms_px < 0.05
    assert rotation_angle_deg(fit.face.T_camera_head[:3, :3], truth.T_camera_head[:3, :3]) < 0.1
    another = true_face(model, IDENTITY, SMILE, (0.1, 0.4, -0.1))
    capture, photo, _ = seen(model, another, SMILE)
    fit = landmarks.fit_landmarks(model, capture, photo, mean_shape=True)
    assert not fit.face.identity.any()
    assert fit.face.expression == pytest.approx(landmarks.expression_start(model, capture), abs=0)
    free = landmarks.fit_landmarks(model, capture, photo)
    assert fit.rms_px > 3 * free.rms_px
    # what the shape may not say, the pose says
    assert rotation_angle_deg(fit.face.T_camera_head[:3, :3], another.T_camera_head[:3, :3]) < 15


def test_cost_falls_to_a_minimum(model):
    truth = true_face(model, IDENTITY, SMILE, (0.1, 0.3, 0.0))
    capture, photo, _ = seen(model, truth, SMILE)
    cost = landmarks.fit_landmarks(model, capture, photo).cost
    assert cost[-1] < 0.1 * cost[0]
    assert cost[-1] <= min(cost) * (1 + 1e-3)


def test_size_of_the_photo_does_not_matter(model):
    """Half the pixels, half the focal length: the same face in the same place."""
    truth = true_face(model, IDENTITY, SMILE, (0.1, 0.3, 0.0))
    fits = []
    for scale in (1, 2):
        capture, photo, _ = seen(model, truth, SMILE, FOCAL / scale, SIZE // scale)
        fits.append(landmarks.fit_landmarks(model, capture, photo))
    # landmarks are rounded to float32 pixels
    assert fits[1].face.identity == pytest.approx(fits[0].face.identity, abs=2e-3)
    assert fits[1].face.T_camera_head == pytest.approx(fits[0].face.T_camera_head, rel=1e-3, abs=2e-3)
    assert fits[1].rms_px == pytest.approx(fits[0].rms_px / 2, rel=0.02, abs=1e-3)


def test_stray_landmarks_do_not_take_the_face_along(model):
    truth = true_face(model, IDENTITY, {}, (0.0, 0.2, 0.0))
    capture, photo, _ = seen(model, truth, {})
    marks = capture.landmarks_px.copy()
    rng = np.random.default_rng(0)
    stray = rng.choice(model.landmark_index, len(model.landmark_index) // 10, replace=False)
    marks[stray] += rng.choice([-25.0, 25.0], (len(stray), 2))  # a tenth of them, 55 mm off
    fit = landmarks.fit_landmarks(model, replace(capture, landmarks_px=marks), photo)
    # Huber: each pulls with the force of three standard deviations, in directions that partly cancel; 2.6 was measured
    assert rotation_angle_deg(fit.face.T_camera_head[:3, :3], truth.T_camera_head[:3, :3]) < 4


def test_landmark_equations_are_the_derivatives_of_their_residuals(model):
    truth = true_face(model, IDENTITY, SMILE, (0.1, 0.3, 0.0))
    capture, photo, camera = seen(model, truth, SMILE)
    start = replace(truth, identity=truth.identity + 0.3, expression=np.full_like(truth.expression, 0.2))
    data = landmarks.embedded(model, capture)
    beta = landmarks.expression_start(model, capture)

    def term(camera: Camera, face: FaceParams) -> landmarks.LandmarkTerm:
        return landmarks.linearise(model, data, camera, face, beta, photo.focal_px, landmarks.DISTANCE_MM)

    J = term(camera, start).jacobian
    K = len(model.identity)
    h = 1e-3
    prior_rows = len(J) - (K + len(model.expression) + 2)
    for unknown in (0, 1, 2, 3, 5, 6, 7, 10, 7 + K, 9 + K):
        ends = []
        for sign in (-1, 1):
            x = np.zeros(J.shape[1])
            x[unknown] = sign * h
            T = rotated(np.asarray(start.T_camera_head, np.float64), x[:3], x[3:6])
            moved = FaceParams(
                *(np.asarray(v, np.float32) for v in (T, start.identity + x[7 : 7 + K], start.expression + x[7 + K :]))
            )
            ends.append(term(replace(camera, focal_px=camera.focal_px * np.exp(x[6])), moved).residual)
        numeric = (ends[1] - ends[0]) / (2 * h)
        scale = np.abs(J[:, unknown]).max()
        # weights (Huber, millimetres a pixel) are held in Gauss-Newton; they change the data rows by up to a tenth
        assert J[:prior_rows, unknown] == pytest.approx(numeric[:prior_rows], rel=0.15, abs=0.1 * scale)
        # poses are float32: 6e-5 mm of rounding over steps of 2e-3 mm
        assert J[prior_rows:, unknown] == pytest.approx(numeric[prior_rows:], rel=0.03, abs=1e-3 * scale)


# a face that is known


def test_a_known_face_is_laid_on_the_landmarks_and_keeps_its_shape(model):
    truth = true_face(model, IDENTITY, SMILE, (0.1, 0.4, 0.0))
    capture, photo, camera = seen(model, truth, SMILE)
    off = rotated(truth.T_camera_head, np.array([0.05, -0.05, 0.04]), np.array([6.0, -5.0, 60.0])).astype(np.float32)
    fit = landmarks.fit_landmarks(model, capture, photo, 4, known=(camera, replace(truth, T_camera_head=off)))
    assert np.array_equal(fit.face.identity, truth.identity)
    assert np.array_equal(fit.face.expression, truth.expression)
    # what is left is the pull of the distance's prior; before, the marks were 14 px off
    assert fit.rms_px < 0.3
    assert rotation_angle_deg(fit.face.T_camera_head[:3, :3], truth.T_camera_head[:3, :3]) < 0.3


# normals


def test_normals_move_with_the_coefficients_as_their_jacobian_says(mi):
    from raytrace_face.fit.shape import normal_jacobian

    model = load_embedded(0)
    rng = np.random.default_rng(0)
    skin = np.flatnonzero((model.triangle_part == 0) & (model.regions["face"][model.triangles].min(1) > 0.5))
    corners = model.triangles[rng.choice(skin, 40)]
    bary = rng.dirichlet([2.0, 2.0, 2.0], 40).astype(np.float32)
    K = len(model.identity)
    identity = 0.3 * rng.normal(size=K)
    expression = np.full(len(model.expression), 0.1)

    def normals(step: np.ndarray) -> np.ndarray:
        vertices = model.vertices(identity + step[:K], expression + step[K:])
        return normal_jacobian(model, vertices, corners, bary)[0]

    n, by_vertex = normal_jacobian(model, model.vertices(identity, expression), corners, bary)
    basis = np.concatenate([model.identity, model.expression]).reshape(K + len(expression), -1)
    J = (by_vertex @ basis.T).reshape(40, 3, -1)
    assert np.linalg.norm(n, axis=1) == pytest.approx(1, abs=1e-6)
    h = 0.02
    for k in (0, 5, 20, K, K + 10):
        step = np.zeros(J.shape[2])
        step[k] = h
        numeric = (normals(step) - normals(-step)) / (2 * h)
        # float32 vertices of 100 mm on 5-mm triangles leave 3e-5 in the difference; the largest entries are 0.01-0.1
        assert J[:, :, k] == pytest.approx(numeric, rel=0.02, abs=2e-4)


def test_normals_of_the_shape_term_are_those_of_the_tracer(mi):
    from raytrace_face.fit.shape import normal_jacobian
    from raytrace_face.tracer.render import gbuffer
    from raytrace_face.tracer.scene import HeadScene

    model = load_embedded(0)
    T = np.eye(4, dtype=np.float32)
    T[2, 3] = -900
    g = gbuffer(HeadScene(model), Camera(40, 40, 40 * 900 / 220, (20.0, 20.0)), T)
    here = np.flatnonzero((g.part == 0) & (g.interpolate(model.regions["face"]) > 0.9))
    n, _ = normal_jacobian(model, model.mean, g.corners[here], g.barycentric[here])
    # Mitsuba weighs the faces round a vertex by angle, we by area: a degree or two on this coarse mesh, more at lids
    angle = np.degrees(np.arccos(np.clip((n * g.normal[here]).sum(1), -1, 1)))
    assert np.median(angle) < 2
    assert np.percentile(angle, 95) < 8


def test_gradient_of_the_ambient_is_the_derivative_of_its_irradiance():
    from lightstage.environment import sh_basis
    from raytrace_face.fit.shape import IRRADIANCE_BAND, ambient_gradient

    rng = np.random.default_rng(0)
    normals = rng.normal(size=(10, 3))
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    sh = rng.normal(size=(9, 3))
    across = np.cross(normals, rng.normal(size=(10, 3)))
    across /= np.linalg.norm(across, axis=1, keepdims=True)
    h = 1e-4
    ends = [(sh_basis(np.cos(h) * normals + s * np.sin(h) * across) * IRRADIANCE_BAND) @ sh for s in (-1, 1)]
    # along the sphere, where normals can go; order-2 polynomials, so that differences are exact to 1e-8
    slope = np.einsum("pac,pa->pc", ambient_gradient(normals, sh), across)
    assert slope == pytest.approx((ends[1] - ends[0]) / (2 * h), abs=1e-6)


# albedo


@pytest.fixture(scope="module")
def skin(model):
    """The albedo model at a tenth of the face's vertices, and shading of a side light there."""
    from raytrace_face.face.mesh import vertex_normals
    from raytrace_face.face.skin_prior import skin_prior

    prior = skin_prior(model)
    face = np.flatnonzero(model.regions["face"] > 0.5)[::8]
    normals = vertex_normals(model.mean, model.triangles, model.weld)[face]
    direction = np.array([0.5, 0.4, 0.77])
    shading = 0.25 + np.maximum(normals @ direction, 0)
    shading *= albedo_fit.EXPOSURE / shading.mean()
    fitted = albedo_fit.AlbedoModel(
        (prior.log_mean + prior.offset[face]).astype(np.float32), np.ascontiguousarray(prior.modes[:, face])
    )
    return fitted, np.repeat(shading[:, None], 3, 1), prior.names


@pytest.fixture
def sure(monkeypatch):
    """White light and known exposure: what the priors say is certain."""
    monkeypatch.setattr(albedo_fit, "EXPOSURE_SIGMA", 1e-3)
    monkeypatch.setattr(albedo_fit, "WHITENESS_SIGMA", 1e-3)
    monkeypatch.setattr(albedo_fit, "CORRELATED", 1.0)  # and every pixel counts, as there is no noise


@pytest.mark.parametrize("melanin", [-1.5, 0.0, 2.0])
def test_chromophores_are_recovered_under_white_light_of_known_exposure(skin, sure, melanin):
    model, shading, names = skin
    truth = np.zeros(len(names))
    truth[names.index("melanin")] = melanin
    truth[names.index("haemoglobin")] = 0.8
    truth[names.index("lips")] = -1.0
    truth[names.index("cheeks and nose")] = 1.0
    image = model.albedo(truth) * shading
    found, gain = albedo_fit.fit_coefficients(model, image, shading, np.zeros_like(shading), np.ones(len(shading)))
    # thousands of pixels against unit priors: regional modes that cover few of them are shrunk by up to a tenth
    assert found == pytest.approx(truth, abs=0.15)
    assert found[0] == pytest.approx(melanin, abs=0.05)
    assert gain == pytest.approx(np.ones(3), abs=0.01)


def test_albedo_times_light_is_the_photo_even_where_the_two_cannot_be_told_apart(skin):
    model, shading, names = skin
    truth = np.zeros(len(names))
    truth[0] = 1.5
    image = model.albedo(truth) * shading
    found, gain = albedo_fit.fit_coefficients(model, image, shading, np.zeros_like(shading), np.ones(len(shading)))
    again = model.albedo(found) * shading * gain
    # the product is observed; its split is a matter of priors, so that coefficients alone are not asserted here
    assert np.abs(np.log(again / image)).mean() < 0.03
    assert found[0] > 0.3  # darker skin rather than dimmer light, in part


def test_darker_photos_give_darker_skin(skin):
    model, shading, names = skin
    found = []
    for melanin in (-2.0, -1.0, 0.0, 1.0, 2.0):
        truth = np.zeros(len(names))
        truth[0] = melanin
        image = model.albedo(truth) * shading
        found.append(albedo_fit.fit_coefficients(model, image, shading, 0 * shading, np.ones(len(shading)))[0][0])
    assert found == sorted(found)


def test_hair_does_not_darken_the_skin(skin, sure):
    model, shading, names = skin
    image = model.albedo(np.zeros(len(names))) * shading
    image[::6] *= 0.1
    found, _ = albedo_fit.fit_coefficients(model, image, shading, 0 * shading, np.ones(len(shading)))
    # a sixth of the pixels nine scales off keep a Cauchy weight of 1 %
    assert abs(found[0]) < 0.2


def test_monochrome_model_has_the_luminance_of_the_coloured_one(skin):
    model, _, names = skin
    grey = model.grey()
    x = np.zeros(len(names))
    luma = np.array([0.2126, 0.7152, 0.0722])
    assert grey.albedo(x)[:, 0] == pytest.approx(model.albedo(x) @ luma, rel=1e-5)
    assert np.ptp(grey.albedo(x), axis=1).max() == 0
    x[0] = 0.1  # linearised in the coefficients: second order in 0.1 x 0.5
    assert grey.albedo(x)[:, 0] == pytest.approx(model.albedo(x) @ luma, rel=2e-3)


# losses


def picture(size: int, seed: int = 0) -> torch.Tensor:
    """(1, 3, size, size) of a few smooth waves, the same at every size."""
    rng = np.random.default_rng(seed)
    x = (torch.arange(size) + 0.5) / size
    out = torch.zeros(3, size, size)
    for c in range(3):
        a, b, p = rng.uniform(1, 5, 3)
        out[c] = torch.sin(a * x[None] * 3 + p) * torch.cos(b * x[:, None] * 2)
    return out[None]


def test_photometric_loss_does_not_depend_on_the_number_of_pixels():
    a, b = picture(24)[0].reshape(3, -1).T, picture(24, 1)[0].reshape(3, -1).T
    weight = torch.rand(len(a), generator=torch.Generator().manual_seed(0))
    once = losses.photometric(a, b, weight, 0.3)
    four = losses.photometric(a.repeat_interleave(4, 0), b.repeat_interleave(4, 0), weight.repeat_interleave(4), 0.3)
    assert float(four) == pytest.approx(float(once), rel=1e-5)  # float32 sums
    # nor on exposure
    assert float(losses.photometric(2 * a, 2 * b, weight, 0.6)) == pytest.approx(float(once), rel=1e-5)


def test_smoothness_does_not_depend_on_the_resolution_of_the_map():
    values = [float(losses.edge_aware_smoothness(picture(size), None)) for size in (64, 128, 256)]
    # differences of a smooth function: second order in the texel, and a border that is one texel narrower
    assert values[1] == pytest.approx(values[0], rel=0.03)
    assert values[2] == pytest.approx(values[1], rel=0.015)


def test_smoothness_is_the_squared_gradient():
    size = 50
    ramp = (torch.arange(size) / size).expand(1, 1, size, size) * 3  # three per width: 0.03 in hundredths of it
    assert float(losses.edge_aware_smoothness(ramp, None)) == pytest.approx(0.03**2, rel=1e-5)
    edge = torch.zeros(1, 1, size, size)
    edge[..., size // 2 :] = 1
    # an edge of the guide in the same place costs e^-10 of it
    assert float(losses.edge_aware_smoothness(edge, edge)) < 1e-4 * float(losses.edge_aware_smoothness(edge, None))


def test_charbonnier_is_quadratic_near_zero_and_linear_far_away():
    x = torch.tensor([0.0, 1e-3, 10.0], dtype=torch.float64)
    assert losses.charbonnier(x, 0.1).tolist() == pytest.approx([0, 1e-6 / 0.2, 9.9], rel=1e-3)


def test_prior_does_not_depend_on_the_number_of_coefficients():
    assert [float(losses.gaussian_prior(torch.full((count,), 2.0))) for count in (4, 90)] == [4, 4]
