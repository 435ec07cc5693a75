"""Rationale: an encoder is scored as the optimiser is, and what is measured beside it is what the encoder said.

Expected behaviour: what a process of the benchmark scores is the prediction, to the last digits that threads leave, and
other weights are scored anew; a prediction agrees with itself perfectly.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import trimesh
from PIL import Image

from benchmarks import encoder_doubts, encoder_photos
from raytrace_face.benchmark import execute, scans
from raytrace_face.benchmark.methods import encoder
from raytrace_face.benchmark.spec import Item, load
from raytrace_face.benchmark.spec import write as write_benchmark
from raytrace_face.capture import load_photo
from raytrace_face.cli import run
from raytrace_face.config import Config
from raytrace_face.measure import meshes
from tests.unit import untrained

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    return untrained.write(tmp_path_factory.mktemp("weights") / "small.safetensors")


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    from skimage.data import astronaut as data

    return data()[:300, 80:380]


@pytest.fixture(scope="module")
def bench(tmp_path_factory, astronaut) -> Path:
    """One photo, scored against a small scan: the front of a face that is wider than the mean."""
    folder = tmp_path_factory.mktemp("bench") / "one"
    (folder / "photos").mkdir(parents=True)
    Image.fromarray(astronaut).save(folder / "photos" / "a.png")
    face = meshes.mean_face()
    wide = np.array([1.08, 1.0, 1.0])
    skin = face.vertices[np.unique(face.triangles)]
    front = skin[(skin[:, 2] > -20) & (np.abs(skin[:, 0]) < 70)][::5]
    trimesh.PointCloud(front * wide).export(folder / "scan.ply")
    np.savetxt(folder / "scan.txt", face.landmarks * wide)
    values = {"photo": "photos/a.png", "scan": "scan.ply", "landmarks": "scan.txt", "challenge": ""}
    write_benchmark(folder, "now", "One", {"unit": "mm"}, [Item("a", values)])
    return folder


def test_an_encoder_is_scored_by_its_prediction(mi, weights, bench, tmp_path):
    from raytrace_face.learn.predict import Predictor

    arguments = ["benchmark", "run", str(bench), "--method", str(weights), "--out", str(tmp_path), "--jobs", "1"]
    assert run([*arguments, "--quiet", "--set", "quality=preview"]) == 0
    done = json.loads((tmp_path / "small" / "items" / "a.json").read_text())
    assert done["error"] == ""
    row = done["row"]
    benchmark = load(bench)
    predicted = Predictor(weights).predict(load_photo(benchmark.path("photos/a.png")), Config(quality="preview"))
    expected = scans.score(benchmark, benchmark.items[0], predicted).row
    for key in ("aligned_median_mm", "unscaled_median_mm"):
        assert row[key] == pytest.approx(expected[key], rel=1e-3)
        assert row[key] != row[f"mean face.{key}"], "untrained weights say their start, which is the landmark fit"
    assert "encoder, small" in (tmp_path / "table.md").read_text()


def test_other_weights_of_the_same_name_are_scored_anew(weights, bench, tmp_path):
    copy = tmp_path / "small.safetensors"
    shutil.copy(weights, copy)

    def key() -> str:
        return execute.plan(load(bench), encoder(copy), {}, tmp_path)[0].key

    first = key()
    assert first == execute.plan(load(bench), encoder(weights), {}, tmp_path)[0].key
    untrained.write(copy, seed=1)
    assert key() != first


def test_a_prediction_agrees_with_itself_and_is_kept(mi, weights, astronaut, tmp_path):
    from raytrace_face.capture import photo_from_array
    from raytrace_face.learn.predict import Predictor
    from raytrace_face.retrace import completed

    photo = photo_from_array(astronaut, name="astronaut")
    predictor = Predictor(weights)
    result = predictor.predict(photo, encoder_photos.PREVIEW)
    both = encoder_photos.Both("astronaut", result, result)
    found = encoder_photos.agreement(both)
    assert (
        found["psnr_db"] == found["optimiser_psnr_db"] == pytest.approx(completed(result).metrics["psnr_db"], abs=0.1)
    )
    assert found["light_apart_deg"] == pytest.approx(0, abs=1e-3)
    # the metric is of the same model with a quarter of the vertices
    percent = 100 * result.metrics["landmark_rms_px"] / result.window.side_px
    assert found["landmarks_percent"] == pytest.approx(percent, rel=0.02)
    picture = np.asarray(encoder_photos.sheet([both, both]))
    assert picture.shape[1] > 7 * 256
    result.save(tmp_path / "kept")
    again = encoder_photos.optimised(photo, encoder_photos.PREVIEW, tmp_path / "kept")
    assert np.array_equal(again.pictures.render, result.pictures.render), "read, not made by the optimiser"
    times = encoder_photos.times(predictor, photo)
    assert 0 < times["network_s"] < times["look_s"]
    assert not predictor.weights.network._forward_hooks


def test_broken_photos_are_refused_or_looked_at(mi, weights, astronaut, tmp_path):
    from raytrace_face.learn.predict import Predictor

    (tmp_path / "a").mkdir()
    Image.fromarray(astronaut).save(tmp_path / "a" / "face.png")
    Image.fromarray(np.full_like(astronaut, 90)).save(tmp_path / "a" / "none.png")
    paths = sorted((tmp_path / "a").iterdir())
    rows = encoder_doubts.rows_of(Predictor(weights), {"two": paths}, paths, quiet=True)
    assert [(r["set"], r["photo"], r["refused"]) for r in rows[:2]] == [
        ("two", "face.png", False), ("two", "none.png", True)
    ]  # fmt: skip
    assert [r["set"] for r in rows[2:]] == list(encoder_doubts.BROKEN), "where there is no face, nothing is broken"
    noise = rows[2]
    assert not noise["refused"], "it is told where the face was"
    assert all(r["warned"] == (max(r["code"], r["landmarks"]) > 1) for r in rows if not r["refused"])
