"""Rationale: training must learn, go on exactly where it was stopped, and stop before it spoils what it has.

Expected behaviour: on eight small sittings the loss falls well below its start; a run in two pieces, or one that was
killed, ends in the same bytes as one in one piece (one thread); a loss that is no number and light that dies stop with
a message and leave the last good checkpoint; two processes make the steps of one with the double batch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from raytrace_face.errors import InputError, TrainingError
from raytrace_face.learn.recipe import Network, Recipe, Stage
from raytrace_face.learn.stream import Batches, side_by_side

pytest.importorskip("lightning_fabric", reason="needs the extra [train]")
pytest.importorskip("tensorboard", reason="needs the extra [train]")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::UserWarning:lightning_fabric"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SIZE = 64
OFF = Stage(epochs=0, synthetic=1, real=0, learning_rate=1e-3)
TINY = Recipe(
    network=Network(crop=SIZE, width=16, latent=32, texture=32, decoder_width=16),
    supervised=Stage(epochs=40, synthetic=2, real=0, learning_rate=2e-3),
    traced=OFF, textures=OFF, joint=OFF, hints=1.0, picture=32, samples=2, validate=1000,
)  # fmt: skip
"""Six of the eight sittings train: three steps an epoch, 120 in all."""


@pytest.fixture(scope="module")
def sittings(tmp_path_factory) -> Path:
    from raytrace_face.learn.synthesis.make import make_synthetic

    folder = tmp_path_factory.mktemp("data") / "sittings"
    make_synthetic(folder, 8, size=SIZE, quiet=True)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Two real photos: the demo's, and its mirror image; and one without a face."""
    from skimage.data import astronaut

    from raytrace_face.learn.pack import pack

    folder = tmp_path_factory.mktemp("photos")
    for name, codes in {"a": astronaut(), "b": astronaut()[:, ::-1], "c": astronaut()[300:]}.items():
        Image.fromarray(codes).save(folder / f"{name}.png")
    packed = pack(folder, tmp_path_factory.mktemp("packed") / "shards", size=SIZE, quiet=True)
    assert packed.photos == 2
    assert [name for name, _ in packed.skipped] == ["c.png"]
    return folder.parent / "packed0" / "shards"


def run(recipe: Recipe, sittings: Path, out: Path, real: Path | None = None, steps: int | None = None):
    from raytrace_face.learn.train import train

    return train(recipe, sittings, out, real, steps=steps, threads=1, quiet=True)


def log(out: Path, name: str = "log.jsonl") -> list[dict]:
    return [json.loads(line) for line in (out / name).read_text().splitlines()]


def toml(recipe: Recipe, path: Path) -> Path:
    lines, tables = [], []
    for key, value in recipe.to_dict().items():
        if isinstance(value, dict):
            tables += [f"[{key}]", *(f"{k} = {json.dumps(v)}" for k, v in value.items())]
        else:
            lines.append(f"{key} = {json.dumps(value)}")
    path.write_text("\n".join([*lines, *tables]))
    return path


@pytest.fixture(scope="module")
def whole(mi, sittings, tmp_path_factory) -> Path:
    """The run in one piece."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(TINY, sittings, out)
    return out


def test_the_loss_falls_well_below_its_start(whole):
    losses = [line["loss"] for line in log(whole)]
    assert len(losses) == 12
    # six people by heart, but under new lights every time: a third of the loss is what a tiny network removes
    assert losses[-1] < 0.75 * losses[0]
    last = log(whole, "validation.jsonl")[-1]
    assert last["step"] == 120
    assert np.isfinite([last["vertex_mm"], last["landmark_px"], last["strange"]]).all()
    assert next((whole / "pictures").iterdir()).suffix == ".png"


def test_a_run_in_pieces_ends_in_the_same_bytes(whole, sittings, tmp_path):
    """The second piece begins within an epoch, and on moments of the optimiser."""
    state = run(TINY, sittings, tmp_path / "run", steps=20)
    assert (state.step, state.total) == (20, 20)
    run(TINY, sittings, tmp_path / "run")
    assert_same(whole, tmp_path / "run")


def test_kill_9_in_the_middle_costs_at_most_the_steps_since_the_last_checkpoint(whole, sittings, tmp_path):
    out = tmp_path / "run"
    run(TINY, sittings, out, steps=10)
    command = [
        *(sys.executable, "-m", "raytrace_face", "train", "run", "--synthetic", str(sittings), "--out", str(out)),
        *("--recipe", str(toml(TINY, tmp_path / "recipe.toml")), "--threads", "1", "--quiet"),
    ]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    limit = time.monotonic() + 300
    while log(out)[-1]["step"] < 30 and time.monotonic() < limit:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert log(out)[-1]["step"] >= 30
    run(TINY, sittings, out)
    assert_same(whole, out)


PRESSED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background passes it on as ignored
from raytrace_face.cli import main
main()
"""


def test_ctrl_c_ends_with_one_line_and_the_same_command_goes_on(whole, sittings, tmp_path):
    """As a terminal does it: the signal goes to the process that trains and to the one that loads photos."""
    from raytrace_face.learn import checkpoint

    out = tmp_path / "run"
    run(TINY, sittings, out, steps=10)
    command = [
        *(sys.executable, "-c", PRESSED, "train", "run", "--synthetic", str(sittings), "--out", str(out)),
        *("--recipe", str(toml(TINY, tmp_path / "recipe.toml")), "--threads", "1", "--workers", "1", "--quiet"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    limit = time.monotonic() + 300
    while log(out)[-1]["step"] < 30 and time.monotonic() < limit:
        time.sleep(0.05)
    try:
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()  # nothing happens to one that has ended
    assert process.returncode == 130
    assert "Traceback" not in said
    line = said.splitlines()[-1]
    assert line.startswith("raytrace-face: interrupted: the checkpoint is ")
    assert str(out / "checkpoint.safetensors") in line
    assert line.endswith("the same command goes on")
    _, state, _ = checkpoint.load(out / "checkpoint.safetensors")
    assert 30 <= state.total < 100  # the last one that is written anyway is of step 10
    run(TINY, sittings, out)
    assert_same(whole, out, logs=False)  # means of the log end where the run was stopped


def assert_same(a: Path, b: Path, logs: bool = True) -> None:
    one, two = (load_file(p / "checkpoint.safetensors") for p in (a, b))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert not logs or log(a) == log(b)


def test_all_stages_run_with_real_photos_and_train_what_they_should(mi, sittings, shards, tmp_path):
    one = Stage(epochs=1, synthetic=2, real=1, learning_rate=1e-3)
    recipe = replace(
        TINY, supervised=replace(one, real=0), traced=one, joint=replace(one, decoders=True),
        textures=replace(one, encoder=False, decoders=True),
    )  # fmt: skip
    tensors = []
    for _ in range(4):
        run(recipe, sittings, tmp_path / "run", shards, steps=3)
        tensors.append(load_file(tmp_path / "run" / "checkpoint.safetensors"))
    lines = log(tmp_path / "run")
    assert list(dict.fromkeys(line["stage"] for line in lines)) == ["supervised", "traced", "textures", "joint"]
    assert all(("real/photometric" in line) == (line["stage"] != "supervised") for line in lines)

    def changed(before: int, part: str) -> bool:
        names = [k for k in tensors[0] if k.startswith(f"network.{part}.")]
        return any(not torch.equal(tensors[before][k], tensors[before + 1][k]) for k in names)

    assert [changed(k, "encoder") for k in range(3)] == [True, False, True]
    assert [changed(k, "decoders") for k in range(3)] == [False, True, True]


# what stops


def test_a_loss_that_is_no_number_stops_and_keeps_the_last_good_checkpoint(mi, sittings, tmp_path, monkeypatch):
    from raytrace_face.learn import losses

    run(TINY, sittings, tmp_path / "run", steps=10)
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    monkeypatch.setattr(losses, "dominant_light", lambda lights, truth, weight: lights.irradiance.sum() * np.nan)
    with pytest.raises(TrainingError, match=r"step 10 \(synthetic/dominant\).*last good checkpoint is"):
        run(TINY, sittings, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


def test_light_that_has_died_stops(mi, sittings, tmp_path):
    from safetensors import safe_open

    from raytrace_face.learn.parameters import BLOCKS

    path = tmp_path / "run" / "checkpoint.safetensors"
    run(TINY, sittings, tmp_path / "run", steps=10)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    first = 0
    for block in BLOCKS:
        if block.name in ("strength", "ambient"):
            tensors["network.encoder.out.bias"][first : first + block.size] = -40
        first += block.size
    save_file(tensors, path, metadata)
    with pytest.raises(TrainingError, match="light has died"):
        run(TINY, sittings, tmp_path / "run")


def test_another_recipe_is_refused_and_no_data_too(mi, whole, sittings, tmp_path):
    with pytest.raises(InputError, match="another recipe"):
        run(replace(TINY, seed=1), sittings, whole)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no sittings"):
        run(TINY, tmp_path / "empty", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_damaged_sitting_is_named_and_left_out(mi, sittings, tmp_path, capsys):
    import shutil

    from raytrace_face.learn.train import train

    shutil.copytree(sittings, tmp_path / "data")
    file = tmp_path / "data" / "000" / "000003.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    train(TINY, tmp_path / "data", tmp_path / "run", steps=1, threads=1)
    assert "000003.safetensors" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "recipe.json").read_text())["sittings"] == 7


# several processes


def test_processes_share_the_batch_of_one():
    one = list(Batches(50, 8, 0, 3, range(2, 9)))
    two = [list(Batches(50, 4, 0, 3, range(2, 9), rank, 2)) for rank in range(2)]
    assert [set(b) for b in one] == [set(a) | set(b) for a, b in zip(*two, strict=True)]


def test_photos_of_one_person_come_side_by_side():
    order, people = np.array([4, 0, 3, 1, 2]), np.array([7, -1, 5, 7, -1])
    assert side_by_side(order, people).tolist() == [4, 1, 0, 3, 2]


def test_two_processes_make_the_steps_of_one_with_the_double_batch(mi, sittings, tmp_path):
    """But for the main light, whose weighted mean over a batch is not the mean of two means; it is left out here."""
    one = replace(TINY, weights=replace(TINY.weights, dominant=0.0))
    two = replace(one, supervised=replace(TINY.supervised, synthetic=1))
    run(one, sittings, tmp_path / "one", steps=20)
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"),
        *("-m", "raytrace_face", "train", "run", "--synthetic", str(sittings), "--out", str(tmp_path / "two")),
        *("--recipe", str(toml(two, tmp_path / "recipe.toml")), "--steps", "20", "--threads", "1", "--quiet"),
    ]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("loss", "synthetic/vertices", "synthetic/light", "synthetic/albedo"):
        ours, theirs = ([line[name] for line in log(tmp_path / p)] for p in ("one", "two"))
        # sums in another order, in float32, twenty steps long
        np.testing.assert_allclose(theirs, ours, rtol=0.01, err_msg=name)


# prediction


def test_prediction_of_barely_trained_weights_is_a_result_within_bounds(whole, tmp_path):
    from skimage.data import astronaut

    from raytrace_face.capture.photo import photo_from_array
    from raytrace_face.learn import weights
    from raytrace_face.learn.predict import Predictor
    from raytrace_face.result import Reconstruction

    card = weights.export(whole / "checkpoint.safetensors", tmp_path / "w.safetensors")
    assert card["stages"] == ["supervised"]
    assert not card["decoded"]
    predictor = Predictor(tmp_path / "w.safetensors")
    result = predictor.predict(photo_from_array(astronaut(), name="astronaut.png"))
    result.save(tmp_path / "face")
    again = Reconstruction.load(tmp_path / "face")
    assert np.array_equal(again.maps.diffuse, result.maps.diffuse)
    assert np.abs(again.face.identity).max() <= 3.5
    assert 0 <= again.face.expression.min() <= again.face.expression.max() <= 1
    assert 200 < -again.face.T_camera_head[2, 3] < 10000  # within e^1.4 of the landmark fit's distance
    assert np.linalg.norm(again.dominant_light) == pytest.approx(1, abs=1e-5)
    assert 0 < again.pictures.render.max() < 20
    # the landmark fit covers the face: a tenth of the crop would be another place
    assert again.metrics["landmark_rms_px"] < 0.1 * again.window.side_px


def test_refinement_explains_the_photo_better(whole, tmp_path):
    from skimage.data import astronaut

    from raytrace_face.capture.photo import photo_from_array
    from raytrace_face.learn import weights
    from raytrace_face.learn.predict import Predictor

    weights.export(whole / "checkpoint.safetensors", tmp_path / "w.safetensors")
    result = Predictor(tmp_path / "w.safetensors").predict(photo_from_array(astronaut()), refine=20)
    curve = result.history["refine"]
    assert len(curve) == 20
    assert np.mean(curve[-3:]) < np.mean(curve[:3])
