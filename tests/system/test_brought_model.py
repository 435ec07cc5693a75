"""Rationale: a brought model that lacks much of what the embedded one has is fitted like it, and found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from skimage.data import astronaut

from raytrace_face import Config, Reconstruction, reconstruct
from raytrace_face.config import Stage2Config
from raytrace_face.errors import InputError
from raytrace_face.face import archive, library
from raytrace_face.face.model import FaceModel
from raytrace_face.measure.light import angle_deg
from tests.unit.brought_model import brought

pytestmark = pytest.mark.slow

QUICK = Config(quality="preview", stage2=Stage2Config(size=128))


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return brought("mine")


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory, model) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAYTRACE_FACE_HOME", str(tmp_path_factory.mktemp("home")))
        library.add(model)
        yield


@pytest.fixture(scope="module")
def found() -> Reconstruction:
    return reconstruct(astronaut(), replace(QUICK, face_model="mine"), progress=False)


def test_skin_alone_with_few_regions_is_fitted(found, model):
    """About as well as the embedded model; its light is the same light."""
    embedded = reconstruct(astronaut(), QUICK, progress=False)
    # the teeth of a smile are no skin, and here skin is all there is: some 3 dB
    assert found.metrics["psnr_db"] > embedded.metrics["psnr_db"] - 4
    assert angle_deg(found.dominant_light, embedded.dominant_light) < 20
    assert found.face.identity.shape == (len(model.identity),)
    assert np.abs(found.face.identity).max() < 3.5
    assert found.maps.confidence.max() > 0.5


def test_its_result_is_stored_and_found_again(found, model, tmp_path):
    loaded = Reconstruction.load(found.save(tmp_path / "face"))
    assert loaded.config.face_model == "mine"
    assert loaded.model_sha256 == archive.fingerprint(model)
    assert np.array_equal(loaded.vertices(), found.vertices())


def test_a_model_given_in_python_wins_over_the_name(tmp_path):
    given = replace(brought("other", seed=5), albedo=None)
    result = reconstruct(astronaut(), replace(QUICK, face_model="mine"), model=given, progress=False)
    assert result.model_name == "other"
    loaded = Reconstruction.load(result.save(tmp_path / "face"))
    with pytest.raises(InputError, match="'other', which is not in the library"):
        loaded.face_model()
    place = archive.save(given, tmp_path / "place")
    moved = replace(loaded, config=replace(loaded.config, face_model=str(place)))
    assert np.array_equal(moved.vertices(), result.vertices())


def test_a_checkpoint_belongs_to_its_model(tmp_path, model):
    """Another model of the same name starts anew: it does not take the coefficients of the first."""
    config = replace(QUICK, face_model="mine", stage1=replace(QUICK.stage1, rounds=1))
    first = reconstruct(astronaut(), config, progress=False, checkpoint=tmp_path)
    files = {p.name: p.read_bytes() for p in Path(tmp_path).iterdir()}
    assert files
    again = reconstruct(astronaut(), config, progress=False, checkpoint=tmp_path)
    assert {p.name: p.read_bytes() for p in Path(tmp_path).iterdir()} == files
    other = replace(model, mean=(model.mean * np.float32(0.9)).astype(np.float32))
    moved = reconstruct(astronaut(), config, model=other, progress=False, checkpoint=tmp_path)
    assert np.array_equal(first.face.identity, again.face.identity)
    assert not np.array_equal(first.face.identity, moved.face.identity)
