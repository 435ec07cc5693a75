"""Rationale: what a guess says is looked at first and trusted last; and settings that cannot be meant are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lightstage import solve
from lightstage.rig import StageLights, rig
from raytrace_face import recover
from raytrace_face.config import Config, LightConfig, Stage1Config
from raytrace_face.errors import InputError
from raytrace_face.fit.guess import Guess, nearer
from raytrace_face.learn import weights
from raytrace_face.measure.light import angle_deg, direction
from raytrace_face.types import Camera, FaceParams

LAMP, RIM = direction(40, 30), direction(-120, 10)


def guess(lights: StageLights) -> Guess:
    face = FaceParams(np.eye(4, dtype=np.float32), np.zeros(3, np.float32), np.zeros(2, np.float32))
    return Guess(Camera(64, 64, 100.0, (32.0, 32.0)), face, lights, np.zeros(10, np.float32))


def stage(directions: np.ndarray, strengths: np.ndarray) -> StageLights:
    return solve.condense(rig(), directions, np.repeat(strengths[:, None], 3, 1))


# its lights


def test_a_light_that_the_guess_spreads_over_the_stage_is_one_lamp():
    """A softmax over the faces of the rig, about a lamp: the lamp is where they balance."""
    faces = rig().face_directions
    share = np.exp(6 * (faces @ LAMP - 1))
    lamps = guess(stage(faces, share)).lamps(3)
    # only the faces within 35 degrees are averaged, and those of an icosahedron lie unevenly round any direction
    assert angle_deg(lamps[0], LAMP) < 8


def test_lamps_are_apart_strongest_first_and_no_more_than_wanted():
    lights = stage(np.stack([RIM, LAMP]), np.array([0.4, 1.0]))
    lamps = guess(lights).lamps(3)
    assert angle_deg(lamps, np.stack([LAMP, RIM])).max() < 1e-3
    assert len(guess(lights).lamps(1)) == 1


def test_faint_lights_are_no_lamps_and_darkness_has_none():
    assert len(guess(stage(np.stack([RIM, LAMP]), np.array([0.03, 1.0]))).lamps(3)) == 1
    assert guess(stage(LAMP[None], np.zeros(1))).lamps(3).shape == (0, 3)


def test_a_lamp_that_was_found_is_not_expected_twice():
    near = direction(60, 30)
    where = guess(stage(np.stack([RIM, LAMP]), np.array([0.4, 1.0]))).expected(3, near[None])
    assert np.array_equal(where[0], near)
    assert angle_deg(where[1:], RIM[None]).max() < 1e-3


# what it saves


def test_a_fit_that_begins_near_its_end_gets_by_with_less_and_never_with_more():
    for quality in ("preview", "standard", "high"):
        full = Config(quality=quality).resolved()
        less = nearer(full)
        assert less.stage1.size < full.stage1.size
        assert 1 <= less.stage1.samples < full.stage1.samples
        assert less.stage2.iterations < full.stage2.iterations
        assert less.stage2.size == full.stage2.size  # what is shown is as fine as from landmarks
    frugal = replace(Config(), stage1=Stage1Config(size=32, samples=1), iterations=0).resolved()
    assert nearer(frugal) == frugal


def test_the_ambient_at_every_second_pixel_is_the_ambient(mi):
    """It is smooth where nothing folds; the lamp and its shadow are traced in full."""
    from raytrace_face.face.store import load_embedded
    from raytrace_face.fit.observation import Observation
    from raytrace_face.fit.stage1 import Setting
    from raytrace_face.fit.window import light_window
    from raytrace_face.tracer.scene import HeadScene
    from raytrace_face.types import Window

    model, size = load_embedded(0), 96
    pose = np.eye(4, dtype=np.float32)
    pose[2, 3] = -1000
    face = FaceParams(pose, np.zeros(len(model.identity), np.float32), np.zeros(len(model.expression), np.float32))
    nothing, maps = None, (np.full((8, 8), 0.03, np.float32), np.full((8, 8), 0.5, np.float32))
    setting = Setting(model, nothing, HeadScene(model), nothing, nothing, Config(), nothing, *maps)
    image = np.ones((size, size, 3), np.float32)
    seen = Observation(image, image[..., 0], Window(0, 0, size, size))
    sky = np.zeros((9, 3), np.float32)
    sky[0], sky[1] = 1.0, 0.5  # brighter above
    lights = stage(LAMP[None], np.ones(1))
    camera = Camera(size, size, size * 1000 / 300, (size / 2, size / 2))
    full, thin = (light_window(setting, seen, camera, face, lights, sky, 8, 3, thinned) for thinned in (False, True))
    inside = full.lit.weight > 0.5
    error = np.abs(thin.lit.shading - full.lit.shading)[inside]
    assert error.mean() < 0.02 * full.lit.shading[inside].mean()  # two rays a pixel of 42 lights, in both
    assert np.array_equal(thin.light_shadow, full.light_shadow)
    assert (thin.lit.shading[full.lit.skin] > 0).all()  # no rim without light


# the search


@pytest.fixture(scope="module")
def lit(mi):
    """The embedded head from the front at 64 pixels: what traces it, and its picture under `LAMP` and an even sky."""
    from raytrace_face.face.skin_prior import specular_prior
    from raytrace_face.face.store import load_embedded
    from raytrace_face.fit.light import Surface, Tracing, radiance_columns
    from raytrace_face.tracer.render import View, gbuffer
    from raytrace_face.tracer.scene import HeadScene

    model = load_embedded(0)
    head, pose = HeadScene(model), np.eye(4, dtype=np.float32)
    pose[2, 3] = -1000
    camera = Camera(64, 64, 64 * 1000 / 250, (32.0, 28.0))
    g = gbuffer(head, camera, pose)
    pixels = np.flatnonzero((g.part == 0) & (g.interpolate(model.regions["face"]) > 0.5))
    f0 = g.interpolate(specular_prior(model))[pixels]
    maps = np.full((8, 8), 0.03, np.float32), np.full((8, 8), 0.5, np.float32)
    tracing = Tracing(head, View(camera, pixels, 8), pose, Surface(np.full((len(pixels), 3), 0.4), f0, *maps))
    lamp = radiance_columns(tracing.columns(LAMP[None], 4.0, 1), tracing.surface)[:, 0]
    from lightstage.rig import geodesic

    even = geodesic(1).vertices
    sky = radiance_columns(tracing.columns(even, 10.0, 2), tracing.surface).mean(axis=1)
    detail = np.random.default_rng(4).normal(1, 0.1, (len(pixels), 1))  # of skin, which no light explains
    return tracing, ((0.8 * lamp + 0.8 * sky) * detail).astype(np.float32)


@pytest.mark.parametrize("off_deg", [0, 15, 70, 180])
def test_the_lamp_is_found_wherever_it_was_expected(lit, off_deg):
    from raytrace_face.fit.light import estimate_light

    tracing, image = lit
    axis = np.cross(LAMP, [0.0, 1.0, 0.0])
    a, axis = np.radians(off_deg), axis / np.linalg.norm(axis)
    expected = (np.cos(a) * LAMP + np.sin(a) * np.cross(axis, LAMP))[None]
    found, columns = estimate_light(tracing, image, np.ones(len(image)), LightConfig(), 5, expected=expected)
    # 10 % of detail, sampling noise and the quadratic over a ring; a search of the whole stage was 1.5 degrees off
    assert angle_deg(found.dominant(), LAMP) < 3
    shading, highlight, visibility = columns.shade(tracing.surface, found)
    assert visibility.shape == (len(image), len(found.directions))
    # what was traced for the search explains all but the detail, whose mean deviation is 8 %, without another trace
    picture = 0.4 * shading + highlight
    assert np.abs(picture - image).mean() < 0.09 * image.mean()


def test_where_no_lamp_is_expected_one_is_found_all_the_same(lit):
    from raytrace_face.fit.light import estimate_light

    tracing, image = lit
    found, _ = estimate_light(tracing, image, np.ones(len(image)), LightConfig(), 5, expected=np.zeros((0, 3)))
    assert angle_deg(found.dominant(), LAMP) < 3


# the encoder's


@pytest.fixture
def network(monkeypatch, tmp_path, mi) -> SimpleNamespace:
    """A stand-in for the encoder that answers with `guess`, or doubts it."""
    seen = guess(stage(LAMP[None], np.ones(1)))
    predicted = SimpleNamespace(lights=SimpleNamespace(stage=lambda item: seen.lights), albedo=torch.arange(10.0)[None])
    found = SimpleNamespace(camera=seen.camera, face=seen.face, predicted=predicted)
    net = SimpleNamespace(
        look=lambda photo, capture, seed: found, doubts=lambda prediction, slack: (), path=tmp_path / "w"
    )
    net.path.write_bytes(b"")
    monkeypatch.setattr("raytrace_face.learn.predict._loaded", lambda path, changed: net)
    return net


def test_the_encoder_s_answer_is_the_guess_unless_it_doubts_itself(network):
    settings = Config(start="encoder", weights=str(network.path))
    look = recover.encoder(settings)
    answer = look(None, None, settings)
    assert angle_deg(answer.lamps(3)[0], LAMP) < 1e-3
    assert np.array_equal(answer.albedo, np.arange(10))
    network.doubts = lambda prediction, slack: () if slack > 1.4 else ("the photo is unlike those of training",)
    assert look(None, None, settings) is not None  # a little strange: a prediction warns, a fit begins there
    network.doubts = lambda prediction, slack: ("the photo is unlike those of training",)
    assert look(None, None, settings) is None


def test_weights_that_are_not_there_are_named(tmp_path, monkeypatch, mi):
    with pytest.raises(InputError, match=r"gone\.safetensors"):
        recover.encoder(Config(start="encoder", weights=str(tmp_path / "gone.safetensors")))
    monkeypatch.setattr(weights.resources, "files", lambda package: tmp_path)
    with pytest.raises(InputError, match="--weights"):
        recover.encoder(Config(start="encoder"))
    (tmp_path / "assets").mkdir()
    (tmp_path / "assets" / "encoder.safetensors").write_bytes(b"")
    assert weights.shipped() == Path(tmp_path / "assets" / "encoder.safetensors")


# settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": "landmark"}, "use one of landmarks, encoder"),
        ({"weights": "w.safetensors"}, "use start encoder"),
        ({"start": "encoder", "solver": "montecarlo"}, "solver is 'montecarlo'"),
        ({"start": "encoder", "face_model": "basel"}, "face_model is 'basel'"),
        ({"start": "encoder", "light": LightConfig(kind="sh")}, "light.kind is 'sh'"),
        ({"start": "encoder", "stage1": Stage1Config(shape="mean")}, "stage1.shape is 'mean'"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        replace(Config(), **change).resolved()


def test_a_model_handed_in_is_not_the_encoder_s(tiny_model, mi):
    with pytest.raises(InputError, match="embedded face model alone"):
        recover.reconstruct(np.zeros((8, 8, 3), np.uint8), Config(start="encoder"), model=tiny_model)
