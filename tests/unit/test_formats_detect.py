"""A model's format is told from its content under any name; what is not known is refused with a list of what is."""

from __future__ import annotations

import os
import pickle
import sys
import types
from pathlib import Path

import h5py
import numpy as np
import pytest

from raytrace_face.errors import ModelError
from raytrace_face.face.formats import detect
from tests.formats.layouts import head, write_albedomm, write_bfm_2009, write_bfm_2017

NAME = "a file.jpg"
"""Says nothing, or something wrong."""
FLAME = {name: np.zeros((4, 3)) for name in ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "weights")}
GNM = ("template_vertex_positions", "vertex_identity_basis", "expression_basis", "triangles", "triangle_uvs")


class Malicious:
    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def make(kind: str, path: Path) -> None:
    face = head(2, 2)
    if kind == "BFM 2009":
        write_bfm_2009(path, face)
    elif kind == "BFM 2009 as 7.3":
        write_bfm_2009(path, face, hdf5=True)
    elif kind == "BFM 2017/2019":
        write_bfm_2017(path, face)
    elif kind == "AlbedoMM":
        write_albedomm(path, face, face.colour, face.colour_modes)
    elif kind == "FLAME pickle":
        path.write_bytes(pickle.dumps(FLAME, protocol=2))
    elif kind == "FLAME pickle of protocol 0":
        path.write_bytes(pickle.dumps(FLAME, protocol=0))
    elif kind == "ICT-FaceKit":
        (path / "FaceXModel").mkdir(parents=True)
        (path / "FaceXModel" / "generic_neutral_mesh.obj").touch()
    elif kind == "raytrace_face":
        path.mkdir()
        for name in ("model.json", "model.safetensors"):
            (path / name).touch()
    else:
        names = {
            "FLAME npz": tuple(FLAME),
            "GNM Head": GNM,
            "AlbedoMM-FLAME": ("MU", "PC", "specMU", "specPC", "vt", "ft"),
        }
        with path.open("wb") as file:
            np.savez(file, **dict.fromkeys(names[kind], np.zeros(3)))


@pytest.mark.parametrize("kind", [*detect.KNOWN, "BFM 2009 as 7.3", "FLAME pickle of protocol 0"])
def test_format_is_told_from_content(kind, tmp_path):
    path = tmp_path / NAME
    make(kind, path)
    assert detect.recognise(path) == kind.split(" as ")[0].split(" of ")[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"solid teapot\n",
        b"\x89PNG\r\n\x1a\n" + bytes(200),
        pickle.dumps({"weights": 1}),
        b"\x80",
        b"# OBJ\nv 0 0 0\n",
    ],
    ids=["empty", "stl", "png", "another pickle", "one byte", "obj"],
)
def test_anything_else_is_unknown_and_the_answer_lists_what_is_known(content, tmp_path):
    path = tmp_path / "flame2023.pkl"
    path.write_bytes(content)
    assert detect.recognise(path) is None
    with pytest.raises(ModelError, match=r"flame2023\.pkl' is no face model that is known") as caught:
        detect.read(path)
    assert all(name in str(caught.value) for name in detect.KNOWN)


def test_containers_of_something_else_are_unknown(tmp_path):
    np.savez(tmp_path / "gnm_head.npz", triangles=np.zeros(3))
    with h5py.File(tmp_path / "model2019_face12.h5", "w") as file:
        file["shape/points"] = np.zeros(3)
    (tmp_path / "FaceXModel").mkdir()
    for name in ("gnm_head.npz", "model2019_face12.h5", "FaceXModel"):
        assert detect.recognise(tmp_path / name) is None


@pytest.mark.parametrize("kind", ["GNM Head", "BFM 2009", "BFM 2017/2019"])
def test_damaged_container_is_named(kind, tmp_path):
    path = tmp_path / NAME
    make(kind, path)
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ModelError, match=r"'a file\.jpg' cannot be read as .* cut off or damaged"):
        detect.read(path)


def test_nothing_of_a_pickle_is_run(tmp_path):
    path, mark = tmp_path / NAME, tmp_path / "mark"
    path.write_bytes(pickle.dumps({**FLAME, "extra": Malicious(mark)}))
    assert detect.recognise(path) == "FLAME pickle"
    assert not mark.exists()


def test_missing_path_is_named(tmp_path):
    with pytest.raises(ModelError, match="nowhere' does not exist"):
        detect.recognise(tmp_path / "nowhere")


@pytest.mark.parametrize(("kind", "module"), [("FLAME pickle", "flame"), ("FLAME npz", "flame"), ("GNM Head", "gnm")])
def test_the_reader_of_the_format_is_called_and_its_model_checked(kind, module, tmp_path, monkeypatch):
    path, calls = tmp_path / NAME, []
    make("BFM 2017/2019", path)
    raw = detect.read(path)
    make(kind, path)
    name = f"raytrace_face.face.formats.{module}"
    reader = types.ModuleType(name)
    reader.read = lambda *arguments: calls.append(arguments) or raw
    monkeypatch.setitem(sys.modules, name, reader)
    monkeypatch.setattr(sys.modules["raytrace_face.face.formats"], module, reader, raising=False)
    assert detect.read(path, modes=7) is raw
    assert calls == [(path, None, 7) if module == "flame" else (path, 7)]
    raw.mean[5, 1] = np.nan
    with pytest.raises(ModelError, match="mean holds values that are not finite"):
        detect.read(path)


def test_bfm_is_read_with_its_albedo(tmp_path):
    make("BFM 2017/2019", tmp_path / "shape")
    make("AlbedoMM", tmp_path / "albedo")
    raw = detect.read(tmp_path / "shape", tmp_path / "albedo", modes=1)
    assert raw.format == "BFM 2017"
    assert len(raw.identity) == 1
    assert raw.albedo is not None
    assert raw.albedo.specular is not None


@pytest.mark.parametrize(
    ("kind", "says"), [("AlbedoMM", "is albedo only"), ("raytrace_face", "already: use it as it is")]
)
def test_what_is_no_published_face_model_says_so(kind, says, tmp_path):
    make(kind, tmp_path / NAME)
    with pytest.raises(ModelError, match=says):
        detect.read(tmp_path / NAME)


@pytest.mark.parametrize("kind", ["ICT-FaceKit", "GNM Head", "raytrace_face"])
def test_albedo_for_a_format_that_has_none_is_refused(kind, tmp_path):
    make(kind, tmp_path / NAME)
    with pytest.raises(ModelError, match="takes no albedo model"):
        detect.read(tmp_path / NAME, tmp_path / "albedo.h5")
