"""Rationale: the network corrects what landmarks say already, so a start must be the optimiser's own landmark fit.

Expected behaviour: poses survive the way into crop units and back; landmarks of a known face give its pose; without
landmarks there is the mean face that looks into the camera, and nothing of what landmarks would have said.
"""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from raytrace_face.capture.landmarks import WINDOW_SCALE
from raytrace_face.face.camera import project as project_numpy
from raytrace_face.face.camera import to_camera
from raytrace_face.face.store import load_embedded
from raytrace_face.fit.landmarks import fit_landmarks
from raytrace_face.learn import start as starts
from raytrace_face.learn.head import TorchHead, project
from raytrace_face.learn.inputs import begun
from raytrace_face.learn.parameters import EXPRESSION, unpack
from raytrace_face.learn.start import IDENTITY, LandmarkStart, Start
from raytrace_face.types import Camera, Capture, FaceParams, Photo, Window
from tests.unit.conftest import turned
from tests.unit.learned import neutral, vector

CAMERA, WINDOW = Camera(1000, 1000, 1500.0, (480.0, 510.0)), Window(300.0, 300.0, 380.0, 192)


@pytest.fixture(scope="module")
def model():
    """The embedded head with the modes that a start knows."""
    whole = load_embedded(0)
    return replace(whole, identity=whole.identity[:IDENTITY])


@pytest.fixture(scope="module")
def fit(model) -> LandmarkStart:
    return LandmarkStart(model)


def face(T: np.ndarray, expression: float = 0.1, identity: np.ndarray | None = None) -> FaceParams:
    mean = np.zeros(IDENTITY, np.float32)
    return FaceParams(T, mean if identity is None else identity, np.full(EXPRESSION, expression, np.float32))


def marks(model, params: FaceParams, camera: Camera = CAMERA, window: Window = WINDOW) -> np.ndarray:
    """(478, 2) landmarks of a face in sides of the crop, by the model and the camera."""
    points = model.landmark_points(model.vertices(params.identity, params.expression))
    seen = camera.windowed(window)
    out = np.full((478, 2), 0.5, np.float32)
    out[model.landmark_index] = project_numpy(seen, to_camera(params.T_camera_head, points)) / window.size
    return out


def degrees(found: Start, truth: Start) -> float:
    """Angle between the rotations of two starts."""
    between = found.rotation[0].double().numpy() @ truth.rotation[0].double().numpy().T
    return float(np.degrees(Rotation.from_matrix(between).magnitude()))


# poses


def test_neutral_crop_is_the_window_of_the_mean_face(model):
    """Where the mean face stands at the neutral start, its landmarks fill the crop as `capture` would cut it."""
    head = TorchHead.of(model)
    p = unpack(vector(), neutral())
    zero = torch.zeros(1, EXPRESSION)
    xy, _ = project(p, head.landmarks(head.vertices(p.identity, zero)))
    low, high = xy[0].min(dim=0).values, xy[0].max(dim=0).values
    # the constants are rounded to 1 mm and 0.01 sides, and half a degree of pitch comes with looking down at the face
    assert float((high - low).max()) * WINDOW_SCALE == pytest.approx(1, abs=0.01)
    assert ((low + high) / 2).numpy() == pytest.approx([0.5, 0.5], abs=0.01)


def test_a_face_survives_the_way_into_a_crop_and_back(model):
    camera, T = Camera(1600, 1200, 1300.0, (790.0, 611.0)), turned(0.5, -0.2, (180.0, -120.0, -700.0))
    window = Window(900.0, 500.0, 350.0, 256)
    identity = np.random.default_rng(0).normal(size=100).astype(np.float32)
    start = starts.of_pose(camera, face(T, 0.3, identity), window)
    p = unpack(vector(), start)
    assert p.T_camera_head[0].numpy() == pytest.approx(T, abs=2e-3)  # float32 of 700 mm through exp and log: 1e-6 of it
    back = p.photo_camera(0, 1600, 1200, window)
    assert back.focal_px == pytest.approx(1300, rel=1e-5)
    assert back.principal_px == pytest.approx(camera.principal_px, abs=1e-3)
    assert p.expression.numpy() == pytest.approx(0.3, rel=1e-5)
    assert p.identity[0].numpy() == pytest.approx(identity[:IDENTITY])  # of a model with more modes, the first
    seen = camera.windowed(window)
    assert p.crop_camera(0, 256).focal_px == pytest.approx(seen.focal_px, rel=1e-5)
    assert p.crop_camera(0, 256).principal_px == pytest.approx(seen.principal_px, abs=1e-3)


def test_a_head_moved_across_the_photo_has_the_same_rotation_against_its_ray():
    """Turning the camera about its centre moves a head over the picture and changes nothing that the crop shows."""
    camera = Camera(1000, 1000, 800.0, (500.0, 500.0))
    T = turned(0.2, 0.1, (0.0, 0.0, -900.0))
    for pan in (turned(0.3, 0.0, (0, 0, 0)), turned(0.0, -0.25, (0, 0, 0))):
        seen = [starts.of_pose(camera, face(M), Window(0, 0, 100, 100)) for M in (T, pan @ T)]
        # pan and tilt alone: their axis is normal to the ray's turn, so the smallest rotation is the same one
        assert seen[0].rotation.numpy() == pytest.approx(seen[1].rotation.numpy(), abs=1e-5)


# landmarks

POSES = [(0.0, 0.0, 0, 0), (0.7, 0.1, 100, 50), (-0.5, -0.3, -200, 80), (0.2, 0.4, 0, -90)]


@pytest.mark.parametrize("pose", POSES)
def test_rough_pose_is_the_pose_of_the_mean_face(model, pose):
    """From 1.1 m and within the usual turns: three degrees and two per cent, which is what perspective leaves."""
    truth = face(turned(*pose[:2], (*pose[2:], -1100)), 0)
    observed = marks(model, truth)[model.landmark_index].astype(np.float64)
    known = starts.of_pose(CAMERA, truth, WINDOW)
    mean = model.landmark_points(model.mean).astype(np.float64)
    T, focal = starts.rough_pose(mean, observed, known.principal)
    found = starts.of_pose(Camera(1, 1, focal, tuple(known.principal[0].tolist())), face(T), Window(0, 0, 1, 1))
    assert degrees(found, known) < 3
    assert found.centre[0].numpy() == pytest.approx(known.centre[0].numpy(), abs=0.02)
    assert float(found.log_width) == pytest.approx(float(known.log_width), abs=0.02)
    assert -T[2, 3] == pytest.approx(1100, rel=1e-5)
    assert np.linalg.det(T[:3, :3]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("pose", POSES)
def test_landmarks_of_a_face_that_the_priors_expect_give_it_back(model, fit, pose):
    """The mean face at 1.1 m whose expression is told right is the optimum itself; four damped steps end beside it.

    What hardly shows comes last: distance, and the size of the head (the first mode of shape), one against the other.
    """
    truth = face(turned(*pose[:2], (*pose[2:], -1100)))
    known = starts.of_pose(CAMERA, truth, WINDOW)
    found = fit(marks(model, truth), truth.expression, known.principal[0].numpy())
    assert degrees(found, known) < 0.25
    assert found.centre[0].numpy() == pytest.approx(known.centre[0].numpy(), abs=2e-3)
    assert float(found.log_width) == pytest.approx(float(known.log_width), abs=0.02)
    assert float(found.log_distance) == pytest.approx(np.log(1100), abs=0.03)
    assert float(found.identity[0, 0].abs()) < 0.3
    assert float(found.identity[0, 1:].abs().max()) < 0.1
    assert found.expression[0].numpy() == pytest.approx(truth.expression, abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_landmarks_of_anybody_give_the_pose(model, fit, seed):
    """People of one standard deviation in every mode, at 0.8 to 1.4 m: three degrees, a hundredth of the crop.

    Landmarks are exact, and weighed as if they were off by 2.4 mm and more (`fit.landmarks`), so that a part of
    everybody's shape stays with the prior: 3 mm across half a face, 60 mm, are three degrees.
    """
    rng = np.random.default_rng(seed)
    offset = (*rng.uniform(-100, 100, 2), -rng.uniform(800, 1400))
    truth = face(turned(*rng.uniform(-0.4, 0.4, 2), offset), 0.1, rng.normal(size=IDENTITY).astype(np.float32))
    known = starts.of_pose(CAMERA, truth, WINDOW)
    found = fit(marks(model, truth), truth.expression, known.principal[0].numpy())
    assert degrees(found, known) < 3
    assert found.centre[0].numpy() == pytest.approx(known.centre[0].numpy(), abs=0.01)
    points = [
        model.vertices(i, truth.expression) for i in (found.identity[0].numpy(), truth.identity, 0 * truth.identity)
    ]
    miss = [np.linalg.norm(x - points[1], axis=1) @ model.regions["face"] for x in (points[0], points[2])]
    assert miss[0] < miss[1]  # nearer to the person than the mean face is


def test_the_start_is_the_optimisers_landmark_fit(model, fit, monkeypatch):
    """Both converge (a dozen steps) from first guesses of their own on the same landmarks, a millimetre off."""
    rng = np.random.default_rng(5)
    side = starts.FIT_SIDE
    camera, whole = Camera(side, side, 2500.0, (side / 2, side / 2)), Window(0, 0, side, side)
    truth = face(turned(0.3, -0.1, (15.0, -10.0, -900.0)), 0.15, rng.normal(size=IDENTITY).astype(np.float32))
    seen = marks(model, truth, camera, whole) + rng.normal(0, 1 / 360, (478, 2)).astype(np.float32)
    points = model.landmark_points(model.vertices(truth.identity, truth.expression))
    depth = np.zeros(478, np.float32)
    depth[model.landmark_index] = -(points @ truth.T_camera_head[:3, :3].T)[:, 2] * 2500 / 900
    told = dict(zip(model.expression_names, truth.expression.tolist(), strict=True))
    capture = Capture(seen * side, depth, told, 1.0, whole, 1, segmentation=np.zeros((1, 1, 6), np.float32))
    photo = Photo(np.zeros((side, side, 3), np.float32), np.zeros((side, side), bool), "", "", False)
    expected = fit_landmarks(model, capture, photo, iterations=12)
    monkeypatch.setattr(starts, "FIT_STEPS", 12)
    found = fit(seen, truth.expression, np.array([0.5, 0.5]))
    own = starts.of_pose(expected.camera, expected.face, whole)
    for name in own.__dataclass_fields__:
        # a thousandth of a radian, a side, a log and a hundredth of a standard deviation
        tolerance = 0.01 if name == "identity" else 1e-3
        assert getattr(found, name).numpy() == pytest.approx(getattr(own, name).numpy(), abs=tolerance), name
    monkeypatch.setattr(starts, "FIT_STEPS", 4)
    quick = fit(seen, truth.expression, np.array([0.5, 0.5]))
    assert float((quick.identity - own.identity).abs().mean()) < 0.1  # `FIT_STEPS` says 0.03


# no landmarks


def test_faces_without_landmarks_get_the_neutral_start():
    T = turned(0.4, 0, (9, 9, -800))
    own = face(T, 1, np.ones(IDENTITY, np.float32))
    start = starts.of_pose(Camera(64, 64, 80.0, (30.0, 31.0)), own, Window(0, 0, 64, 64))
    two = Start(*(torch.cat([t, t]) for t in start.tensors()))
    mixed = two.where(torch.tensor([True, False]))
    plain = starts.neutral(start.principal, EXPRESSION)
    for name in start.__dataclass_fields__:
        assert torch.equal(getattr(mixed, name)[:1], getattr(start, name)), name
        assert torch.equal(getattr(mixed, name)[1:], getattr(plain, name)), name


def test_an_undetected_item_begins_at_the_neutral_start(model, fit):
    truth = face(turned(0.3, 0.1, (50, 20, -900)))
    item = {
        "principal": torch.tensor([0.4, 0.6]), "landmarks": torch.from_numpy(marks(model, truth)),
        "blendshapes": torch.from_numpy(truth.expression),
    }  # fmt: skip
    blind = begun(fit, item | {"detected": torch.tensor(False)})
    plain = starts.neutral(torch.tensor([[0.4, 0.6]]), EXPRESSION)
    assert all(torch.equal(blind[name], getattr(plain, name)[0]) for name in plain.__dataclass_fields__)
    told = begun(fit, item | {"detected": torch.tensor(True)})
    assert {name: t.shape for name, t in told.items()} == {name: t.shape for name, t in blind.items()}
    assert all(t.dtype == torch.float32 for t in told.values())
    assert float((told["rotation"] - blind["rotation"]).abs().max()) > 0.1


def test_a_start_goes_to_processes_that_load_photos(model):
    """It is sent by pickle, between processes of one run; what it says there is what it says here."""
    principal = np.array([0.5, 0.5], np.float32)
    seen = np.random.default_rng(4).uniform(0.3, 0.7, (478, 2)).astype(np.float32)
    here = starts.LandmarkStart(model)
    here(seen, np.zeros(EXPRESSION, np.float32), principal)  # what it opens for itself stays behind
    there = pickle.loads(pickle.dumps(here))
    one, other = (s(seen, np.zeros(EXPRESSION, np.float32), principal) for s in (here, there))
    assert all(torch.equal(a, b) for a, b in zip(one.tensors(), other.tensors(), strict=True))
