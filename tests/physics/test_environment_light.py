"""Rationale: an environment map is light: even light makes a furnace, one bright texel is a lamp far away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from lightstage.environment import latlong_directions, latlong_solid_angles, sh_to_latlong
from lightstage.rig import AreaLights, directional_lights
from raytrace_face.types import Maps
from tests.physics.bodies import ball, inputs_of, model_of, plane, portrait

DARK = AreaLights(np.zeros((0, 3, 3)), np.zeros((0, 3)))
ALBEDO = (0.6, 0.42, 0.34)


@pytest.fixture(scope="module")
def tracer(mi):
    from raytrace_face.tracer import environment, render, scene

    return environment, render, scene


def constant_maps(diffuse: tuple[float, ...] = ALBEDO, f0: float = 0.035, roughness: float = 0.5) -> Maps:
    """Maps of one value, as `bodies.inputs_of` makes them."""
    return Maps(
        np.full((8, 8, 3), diffuse, np.float32), np.full((8, 8, 3), f0, np.float32),
        np.full((8, 8), roughness, np.float32), np.ones((8, 8), np.float32),
    )  # fmt: skip


def under(tracer: Any, body: Any, sky: np.ndarray, maps: Maps, spp: int = 256, R: Any = None, seed: int = 0) -> Any:
    """Picture (P, 3) of the pixels of a body that face the camera, and its G-buffer there."""
    environment, render, scene = tracer
    camera, T = portrait(24)
    head = scene.HeadScene(body)
    g = render.gbuffer(head, camera, T)
    inside = np.flatnonzero((g.part == 0) & ((g.normal * g.view).sum(1) > 0.5))
    view = render.View(camera, inside, spp)
    turn = np.eye(3) if R is None else R
    return environment.render_environment(head, view, T, maps, sky, turn, seed), view, T, head


def traced(tracer: Any, body: Any, view: Any, T: np.ndarray, head: Any, lights: AreaLights, sky: Any, f0: float) -> Any:
    """The same pixels by the tracer of the fit."""
    inputs = inputs_of(body, T, view.camera, lights, ALBEDO, f0, ambient=sky)
    with torch.no_grad():
        return tracer[1].render(head, view, inputs, 5).numpy()


def test_ball_in_an_even_sky_shows_its_albedo(tracer):
    colour, *_ = under(tracer, model_of(ball(80, level=4)), np.full((16, 32, 3), [1, 0.5, 2.0]), constant_maps(f0=0.0))
    # balance heuristic of two densities, 256 rays: 2 %; facets take a percent
    assert colour / ([1.0, 0.5, 2.0] * np.array(ALBEDO)) == pytest.approx(1, abs=0.1)
    assert (colour.mean(axis=0) / ([1.0, 0.5, 2.0] * np.array(ALBEDO))) == pytest.approx(1, abs=0.015)


def test_white_ball_in_a_furnace_reflects_no_more_than_it_receives(tracer):
    colour, *_ = under(tracer, model_of(ball(80, level=4)), np.ones((16, 32, 3)), constant_maps((1, 1, 1), 0.04, 0.4))
    assert colour.mean() <= 1
    assert colour.mean() > 0.9  # Schlick's two passages lose a few per cent


@pytest.mark.parametrize("f0", [0.0, 0.035])
def test_one_bright_texel_is_a_lamp_far_away(tracer, f0):
    body = model_of(ball(70), ball(15, (40, 30, 70), 1), plane(300, -60, 4))
    height = 256
    row, column = 90, 300
    sky = np.zeros((height, 2 * height, 3))
    # irradiance / pi of 1 where it is faced
    sky[row, column] = np.pi / latlong_solid_angles(height)[row, 0]
    towards = latlong_directions(height)[row, column]
    colour, view, T, head = under(tracer, body, sky, constant_maps(f0=f0))
    lamp = directional_lights(towards[None], 0.5, radius_mm=5e5)
    expected = traced(tracer, body, view, T, head, lamp, np.zeros((9, 3)), f0)
    assert expected.max() > 0.3  # it is in the light
    assert (expected.max(axis=1) == 0).any()  # and casts a shadow
    # a texel is 0.7 degrees wide, and Mitsuba stretches the rows to the poles by half of one
    assert np.abs(colour - expected).mean() < 0.02 * expected.mean()


def test_smooth_sky_is_the_ambient_of_the_fit(tracer):
    body = model_of(ball(70), plane(300, -60, 4))
    sh = 0.15 * np.random.default_rng(3).normal(size=(9, 3))
    sh[0] = 3
    colour, view, T, head = under(tracer, body, sh_to_latlong(sh, 128), constant_maps())
    expected = traced(tracer, body, view, T, head, DARK, sh, 0.035)
    assert colour.mean(axis=0) == pytest.approx(expected.mean(axis=0), rel=0.01)  # 256 rays, 200 pixels
    assert np.abs(colour - expected).mean() < 0.04 * expected.mean()  # noise of both


def test_turning_the_map_is_turning_the_light(tracer):
    body, height = model_of(ball(70)), 64
    sky = np.zeros((height, 2 * height, 3))
    sky[20:24, 90:94] = 50
    half_turn = np.diag([-1.0, 1.0, -1.0])
    rolled = np.roll(sky, height, axis=1)
    turned, *_ = under(tracer, body, sky, constant_maps(), R=half_turn)
    assert turned.max() > 0
    assert turned == pytest.approx(under(tracer, body, rolled, constant_maps())[0], rel=0.05, abs=0.02)
