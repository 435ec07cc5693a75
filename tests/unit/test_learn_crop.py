"""The encoder's crop: what the camera saw in the photo it sees in the crop, and back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from raytrace_face.face.camera import project, to_camera
from raytrace_face.learn.crop import JITTER_LOG_SIDE, JITTER_SHIFT, aligned_crop, camera_of_photo, jittered
from raytrace_face.types import Camera, Window

CAMERA = Camera(400, 300, 520.0, (200.0, 150.0))


@pytest.fixture
def landmarks():
    """Points of a face that fills a third of the photo."""
    rng = np.random.default_rng(0)
    return rng.uniform((150, 90), (260, 210), (478, 2))


def test_crop_shows_what_its_window_says(landmarks):
    """A soft dot in the photo has its centre of mass where the window maps it."""
    y, x = np.mgrid[:300, :400] + 0.5
    at = np.array([[215.3, 141.7]])
    dot = np.exp(-((x - at[0, 0]) ** 2 + (y - at[0, 1]) ** 2) / (2 * 6.0**2))
    photo = np.repeat((dot * 255).astype(np.uint8)[..., None], 3, axis=2)
    crop, window = aligned_crop(photo, landmarks, 128)
    assert crop.shape == (128, 128, 3)
    v, u = np.mgrid[:128, :128] + 0.5
    weight = crop[..., 0].astype(float)
    found = [(weight * u).sum() / weight.sum(), (weight * v).sum() / weight.sum()]
    assert found == pytest.approx(window.to_window(at)[0], abs=0.05)  # codes are rounded, sampling is bilinear


def test_projection_commutes_with_cropping(landmarks):
    _, window = aligned_crop(np.zeros((300, 400, 3), np.uint8), landmarks, 96)
    T = np.eye(4)
    T[:3, :3] = Rotation.from_euler("xyz", [10, -35, 20], degrees=True).as_matrix()
    T[:3, 3] = [40, -25, -800]
    points = to_camera(T, np.random.default_rng(1).normal(0, 60, (50, 3)))
    inside_crop = project(CAMERA.windowed(window), points)
    assert inside_crop == pytest.approx(window.to_window(project(CAMERA, points)), abs=1e-9)


def test_camera_comes_back_from_its_crop(landmarks):
    _, window = aligned_crop(np.zeros((300, 400, 3), np.uint8), landmarks, 96)
    back = camera_of_photo(CAMERA.windowed(window), window, 400, 300)
    assert (back.width, back.height) == (400, 300)
    assert back.focal_px == pytest.approx(CAMERA.focal_px, rel=1e-12)
    assert back.principal_px == pytest.approx(CAMERA.principal_px, abs=1e-9)
    half = camera_of_photo(CAMERA.windowed(window.resized(48)), window, 400, 300)
    assert half.focal_px == pytest.approx(CAMERA.focal_px, rel=1e-12), "whatever the crop's resolution"


def test_the_crop_is_black_where_the_photo_ends(landmarks):
    crop, window = aligned_crop(np.full((300, 400, 3), 200, np.uint8), landmarks - (150, 0), 128)
    assert window.left_px < 0
    outside = int(np.floor(-window.left_px * 128 / window.side_px)) - 1
    assert outside > 5
    assert (crop[:, :outside] == 0).all()
    assert (crop[40:80, outside + 3 : 100] == 200).all()


def test_jitter_spreads_windows_as_it_says():
    rng = np.random.default_rng(2)
    base = Window(100.0, 50.0, 200.0, 64)
    moved = [jittered(base, rng) for _ in range(4000)]
    side = np.log([w.side_px / 200 for w in moved])
    middle = np.array([(w.left_px + w.side_px / 2 - 200, w.top_px + w.side_px / 2 - 150) for w in moved]) / 200
    # the standard error of a standard deviation from n samples is sigma / sqrt(2 n): 1.1 %
    assert side.std() == pytest.approx(JITTER_LOG_SIDE, rel=0.05)
    assert middle.std(axis=0) == pytest.approx([JITTER_SHIFT] * 2, rel=0.05)
    assert abs(side.mean()) < 4 * JITTER_LOG_SIDE / np.sqrt(4000)
