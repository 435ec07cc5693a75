"""Rationale: a projected vertex is the rendered pixel, in every crop and at every size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raytrace_face.face.camera import project, projection_jacobian, rotated, to_camera
from raytrace_face.types import Camera, Window
from tests.physics.bodies import ball, inputs_of, model_of, plane, portrait, triangle_light

CAMERAS = {
    "centred": Camera(64, 64, 200.0, (32.0, 32.0)),
    "off-centre": Camera(64, 64, 200.0, (11.3, 47.9)),
    "wide": Camera(80, 40, 130.0, (52.5, 17.0)),
    "outside": Camera(48, 48, 400.0, (-30.0, 60.0)),
}


@pytest.fixture(scope="module")
def tracer(mi):
    from raytrace_face.tracer import render, scene

    return render, scene


@pytest.fixture(scope="module")
def body(tracer):
    model = model_of(ball(70), ball(15, (40, 30, 70), 1), plane(300, -60, 4))
    return model, tracer[1].HeadScene(model)


@pytest.mark.parametrize("name", CAMERAS)
def test_what_a_pixel_shows_projects_onto_its_centre(tracer, body, name):
    model, head = body
    camera, (_, T) = CAMERAS[name], portrait()
    T = rotated(T, np.array([0.1, -0.2, 0.3]), np.array([10.0, 5.0, -20.0]))
    g = tracer[0].gbuffer(head, camera, T)
    hit = np.flatnonzero(g.part == 0)
    assert len(hit) > 200
    points = g.interpolate(model.mean)[hit]
    xy = project(camera, to_camera(T, points))
    centre = np.stack([hit % camera.width + 0.5, hit // camera.width + 0.5], axis=1)
    # float32 hits 800 mm away are good to 1e-4 mm, barycentrics on 75-mm triangles to 1e-5: 0.005 px
    assert xy == pytest.approx(centre, abs=0.01)


def test_triangles_and_normals_of_the_gbuffer_face_the_camera(tracer, body):
    camera, T = portrait(48)
    g = tracer[0].gbuffer(body[1], camera, T)
    hit = g.part == 0
    eye = -T[:3, :3].T @ T[:3, 3]
    points = g.interpolate(body[0].mean)[hit]
    to_eye = (eye - points) / np.linalg.norm(eye - points, axis=1, keepdims=True)
    assert g.view[hit] == pytest.approx(to_eye, abs=1e-4)  # float32
    assert np.linalg.norm(g.normal[hit], axis=1) == pytest.approx(1, abs=1e-5)
    assert g.barycentric[hit].sum(1) == pytest.approx(1, abs=1e-5)
    # shading normals of the coarse ball lean over its rim a little
    assert (g.normal[hit] * g.view[hit]).sum(1).min() > -0.3


@pytest.mark.parametrize("name", CAMERAS)
def test_crop_and_projection_commute(name):
    camera = CAMERAS[name]
    points = np.random.default_rng(0).uniform([-200, -200, -1500], [200, 200, -400], (100, 3))
    window = Window(-13.5, 7.25, 41.0, 96)
    # double precision
    assert project(camera.windowed(window), points) == pytest.approx(
        window.to_window(project(camera, points)), rel=1e-12
    )
    assert window.to_photo(window.to_window(points[:, :2])) == pytest.approx(points[:, :2], rel=1e-12)


def test_twice_the_window_is_twice_the_pixels():
    camera = CAMERAS["off-centre"]
    points = np.random.default_rng(0).uniform([-200, -200, -1500], [200, 200, -400], (100, 3))
    window = Window(-13.5, 7.25, 41.0, 96)
    once, twice = (project(camera.windowed(window.resized(size)), points) for size in (96, 192))
    assert twice == pytest.approx(2 * once, rel=1e-12)


def test_cropped_picture_is_the_crop_of_the_picture(tracer, body):
    """Pixel by pixel: a window on whole pixels shows what the same pixels of the photo show."""
    camera, T = portrait(64)
    window = Window(21, 14, 24, 24)
    whole = tracer[0].gbuffer(body[1], camera, T)
    part = tracer[0].gbuffer(body[1], camera.windowed(window), T)
    crop = whole.uv.reshape(64, 64, 2)[14:38, 21:45].reshape(-1, 2)
    # a ray on an edge may fall to either side of it in float32
    same = np.abs(part.uv - crop).max(axis=1) < 1e-4
    assert same.mean() > 0.995


def test_picture_of_a_shifted_principal_point_is_the_shifted_picture(tracer, body):
    render, _ = tracer
    model, head = body
    camera, T = portrait(32)
    shifted = replace(camera, principal_px=(camera.principal_px[0] + 5, camera.principal_px[1] - 3))
    light = triangle_light((300, 250, 600), 120, (14, 12, 9))
    pictures = [
        render.render(head, render.View(c, render.all_pixels(c), 64, False), inputs_of(model, T, c, light), 0)
        .numpy()
        .reshape(32, 32, 3)
        for c in (camera, shifted)
    ]
    a, b = pictures[0][3:, :-5], pictures[1][:-3, 5:]
    # other pixels draw other samples: 64 of them leave 1-2 % of noise on average, a pixel's shift would leave 10 %
    assert np.abs(a - b).mean() / a.mean() < 0.02


def test_jacobian_of_the_projection_is_its_derivative():
    camera = CAMERAS["off-centre"]
    points = np.random.default_rng(0).uniform([-200, -200, -1500], [200, 200, -400], (20, 3))
    by_point, by_log_focal = projection_jacobian(camera, points)
    h = 1e-4
    for axis in range(3):
        shift = np.eye(3)[axis] * h
        difference = (project(camera, points + shift) - project(camera, points - shift)) / (2 * h)
        # central differences in double precision: h^2 / depth^2 and 1e-16 / h
        assert by_point[:, :, axis] == pytest.approx(difference, rel=1e-5, abs=1e-8)
    scaled = [project(replace(camera, focal_px=camera.focal_px * np.exp(s)), points) for s in (-h, h)]
    assert by_log_focal == pytest.approx((scaled[1] - scaled[0]) / (2 * h), rel=1e-5, abs=1e-8)


def test_a_head_that_was_moved_away_and_back_is_seen_as_before(tracer, body):
    """A head that is asked to stay is not built again; one that moved is."""
    model, head = body
    camera, T = portrait(48)
    head.move(model.mean)
    before = tracer[0].gbuffer(head, camera, T)
    head.move(model.mean + np.array([25, 0, 0], np.float32))
    assert np.abs(tracer[0].gbuffer(head, camera, T).normal - before.normal).max() > 0.1
    for _ in range(2):
        head.move(model.mean)
        after = tracer[0].gbuffer(head, camera, T)
        assert np.array_equal(after.corners, before.corners)
        assert after.normal == pytest.approx(before.normal, abs=1e-6)
