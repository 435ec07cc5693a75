"""Rationale: the weights that come with the program must be the ones that its model card tells of, and see a face.

Expected behaviour: the file is the card's; a prediction of the demo photo agrees with the optimiser about light, pose
and picture within what held-out photos were off by; and a fit that begins there ends where the other does.
"""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.common import demo_photo
from raytrace_face.config import Config
from raytrace_face.measure.light import angle_deg
from raytrace_face.output import sha256


@pytest.fixture(scope="module")
def shipped(mi):
    from raytrace_face.learn.weights import shipped

    return shipped()


@pytest.fixture(scope="module")
def optimised(mi):
    from raytrace_face import reconstruct

    return reconstruct(demo_photo(), Config(quality="preview"), progress=False)


@pytest.fixture(scope="module")
def predicted(shipped):
    from raytrace_face.learn.predict import loaded
    from raytrace_face.retrace import completed

    return completed(loaded(shipped).predict(demo_photo()))


def test_weights_are_those_of_their_card(shipped):
    card = json.loads(shipped.with_suffix(".json").read_text("utf-8"))
    assert card["sha256"] == sha256(shipped)
    assert card["decoded"]
    assert {"licence", "machine", "limits", "data", "hours", "held_out"} <= card.keys()
    assert shipped.stat().st_size < 50e6


def test_prediction_agrees_with_the_optimiser_about_the_demo_photo(predicted, optimised):
    assert not predicted.warnings
    # 11 degrees are the mean of held-out photos, 25 is beyond nine in ten
    assert angle_deg(predicted.dominant_light, optimised.dominant_light) < 25
    turn = predicted.face.T_camera_head[:3, :3] @ optimised.face.T_camera_head[:3, :3].T
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) < 12  # 6 degrees are their mean
    assert predicted.metrics["psnr_db"] > 18  # statistical skin under a wrong light has 14


def test_a_fit_from_the_encoder_ends_where_one_from_landmarks_does(shipped, optimised):
    from raytrace_face import reconstruct

    found = reconstruct(demo_photo(), Config(quality="preview", start="encoder"), progress=False)
    assert not found.warnings
    assert angle_deg(found.dominant_light, optimised.dominant_light) < 8  # both are good to 5 degrees
    assert found.metrics["psnr_db"] > optimised.metrics["psnr_db"] - 1.5


def test_a_photo_unlike_those_of_training_is_flagged(shipped):
    """A film negative, told the face's landmarks: shadows for light, and blue skin."""
    from raytrace_face.capture import capture
    from raytrace_face.capture.photo import codes_of, photo_from_array
    from raytrace_face.learn.predict import loaded

    photo, predictor = demo_photo(), loaded(shipped)
    seen = capture(photo)
    usual, negative = (predictor.look(p, seen) for p in (photo, photo_from_array(255 - codes_of(photo))))
    assert negative.strange > 1.5 * usual.strange
    assert not predictor.doubts(usual)
    assert any("unlike those of training" in line for line in predictor.doubts(negative))
