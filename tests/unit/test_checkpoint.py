"""Rationale: a checkpoint gives back what was saved, to the run that saved it, and to no other."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raytrace_face.config import Config, LightConfig
from raytrace_face.errors import OutputError
from raytrace_face.fit.checkpoint import Checkpoint
from raytrace_face.types import Photo


def photo(seed: int = 0) -> Photo:
    linear = np.random.default_rng(seed).random((8, 9, 3), np.float32)
    return Photo(linear, np.zeros((8, 9), bool), "a.png", "", False)


@pytest.fixture
def state():
    rng = np.random.default_rng(1)
    return {
        "pose": rng.normal(size=(4, 4)).astype(np.float32), "directions": rng.normal(size=(2, 3)),
        "focal": np.array(813.25), "none": np.zeros((0, 3)), "history": np.array([3.5, np.nan]),
    }  # fmt: skip


def test_what_is_saved_comes_back_bit_for_bit(tmp_path, state):
    Checkpoint(tmp_path / "new" / "folder", photo(), Config()).save("stage1", state)
    back = Checkpoint(tmp_path / "new" / "folder", photo(), Config()).load("stage1")
    assert back is not None
    assert set(back) == set(state)
    for name, value in state.items():
        assert back[name].dtype == value.dtype
        assert back[name].tobytes() == value.tobytes()


def test_the_last_save_counts_and_names_are_apart(tmp_path, state):
    store = Checkpoint(tmp_path, photo(), Config())
    store.save("stage1", {"x": np.array(1)})
    store.save("stage2", state)
    store.save("stage1", {"x": np.array(2)})
    assert store.load("stage1") == {"x": np.array(2)}
    assert store.load("stage3") is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["stage1.npz", "stage2.npz"]  # nothing half-written is left


def test_without_a_folder_nothing_is_kept(state):
    store = Checkpoint(None, photo(), Config())
    store.save("stage1", state)
    assert store.load("stage1") is None


@pytest.mark.parametrize(
    "other",
    [Config(seed=1), Config(quality="high"), Config(deterministic=True), Config(light=LightConfig(max_lights=2))],
)
def test_another_configuration_is_not_resumed(tmp_path, state, other):
    Checkpoint(tmp_path, photo(), Config()).save("stage1", state)
    assert Checkpoint(tmp_path, photo(), other).load("stage1") is None


def test_another_photo_is_not_resumed(tmp_path, state):
    Checkpoint(tmp_path, photo(), Config()).save("stage1", state)
    assert Checkpoint(tmp_path, photo(1), Config()).load("stage1") is None
    renamed = replace(photo(), name="b.png")
    assert Checkpoint(tmp_path, renamed, Config()).load("stage1") is not None  # the same pixels under another name


BROKEN = {
    "empty": lambda data: b"",
    "text": lambda data: b"not an archive",
    "cut in half": lambda data: data[: len(data) // 2],
    "cut at the end": lambda data: data[:-10],
    "a byte turned": lambda data: data[:200] + bytes([data[200] ^ 0xFF]) + data[201:],
    "only the magic": lambda data: data[:4],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_damaged_file_is_ignored(tmp_path, state, kind):
    store = Checkpoint(tmp_path, photo(), Config())
    store.save("stage1", state)
    file = tmp_path / "stage1.npz"
    file.write_bytes(BROKEN[kind](file.read_bytes()))
    assert store.load("stage1") is None


def test_pickles_are_not_opened(tmp_path):
    np.savez(tmp_path / "stage1.npz", __key__=np.array([{"a": 1}], dtype=object))
    assert Checkpoint(tmp_path, photo(), Config()).load("stage1") is None


def test_a_folder_that_cannot_be_made_is_one_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="checkpoint folder"):
        Checkpoint(tmp_path / "file" / "folder", photo(), Config())
