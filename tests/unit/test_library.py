"""Rationale: a brought model comes back bit for bit, what is wrong with a folder is said, and nothing is half-added."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from brought_model import brought
from safetensors.numpy import load_file, save_file

from raytrace_face.errors import InputError, ModelError, OutputError, RaytraceFaceError
from raytrace_face.face import archive, library
from raytrace_face.face.model import AlbedoBasis, FaceModel
from raytrace_face.face.store import load_embedded
from raytrace_face.result import Reconstruction
from raytrace_face.types import FaceParams

SOURCE = archive.Source("BFM 2019", "1.0", "Someone et al. 2019", ("no back of the head",))
LANDMARK_FIELDS = ("index", "triangle", "barycentric", "sigma_mm")


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return brought()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYTRACE_FACE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def same(a: FaceModel, b: FaceModel) -> None:
    """Every array has the same type and bytes, every word is the same."""
    arrays, others = archive.arrays_of(a), archive.arrays_of(b)
    assert arrays.keys() == others.keys()
    for name, value in arrays.items():
        assert others[name].dtype == value.dtype, name
        assert others[name].tobytes() == value.tobytes(), name
    for word in ("name", "expression_names", "licence", "provenance"):
        assert getattr(a, word) == getattr(b, word)


# --- what is written ---


def test_a_model_comes_back_bit_for_bit(model, tmp_path):
    same(model, archive.load(archive.save(model, tmp_path / "a", SOURCE)))
    assert archive.about(tmp_path / "a").source == SOURCE


def test_nothing_of_a_face_model_is_left_out(model):
    """Every field is an array in the file, or a word of the description."""
    found = set(archive.arrays_of(model)) | {"name", "expression_names", "licence", "provenance"}
    for f in fields(FaceModel):
        assert f.name in found or any(key.startswith(f"{f.name}.") for key in found), f.name
    for f in fields(AlbedoBasis):
        assert f"albedo.{f.name}" in found or getattr(model.albedo, f.name) is None


def test_a_plain_model_comes_back_plain(tmp_path):
    """The embedded model has no albedo basis, native expressions or source; nothing stands for them."""
    same(load_embedded(0), archive.load(archive.save(load_embedded(0), tmp_path / "a")))
    again = archive.load(tmp_path / "a")
    assert (again.albedo, again.native_expression, again.source) == (None, None, None)


def test_a_model_without_expressions_comes_back(model, tmp_path):
    bare = replace(model, expression=model.expression[:0], expression_names=(), native_expression=None)
    same(bare, archive.load(archive.save(bare, tmp_path / "a")))


def test_same_model_gives_same_bytes_and_another_does_not(model, tmp_path):
    for name in ("a", "b"):
        archive.save(model, tmp_path / name)
    archive.save(brought(seed=4), tmp_path / "c")
    for file in ("model.safetensors", "model.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert (tmp_path / "a" / file).read_bytes() != (tmp_path / "c" / file).read_bytes()
    assert archive.about(tmp_path / "a").arrays_sha256 == archive.fingerprint(model)


def test_description_counts_what_is_there(model, tmp_path):
    counts = archive.about(archive.save(model, tmp_path / "a")).counts
    assert counts["vertices"] == len(model.mean)
    assert (counts["identity modes"], counts["diffuse albedo modes"], counts["specular albedo modes"]) == (12, 3, 0)


def test_an_interrupted_save_leaves_nothing(model, tmp_path):
    def interrupted(path: Path) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        archive.save(model, tmp_path / "a", sheet=interrupted)
    assert list(tmp_path.iterdir()) == []


# --- what is refused ---


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: {"mean": np.full_like(m.mean, np.nan)}, "mean holds values that are not finite"),
        (lambda m: {"identity": m.identity[:, :-1]}, "identity has shape"),
        (lambda m: {"triangles": m.triangles + m.vertex_count}, "triangles points outside"),
        (lambda m: {"triangles": m.triangles.astype(np.float32)}, "triangles holds float32"),
        (lambda m: {"mirror": m.mirror - 1}, "mirror points outside"),
        (lambda m: {"triangle_part": np.ones_like(m.triangle_part)}, "marks no skin"),
        (lambda m: {"landmark_index": m.landmark_index + 478}, "landmark_index points outside"),
        (lambda m: {f"landmark_{k}": getattr(m, f"landmark_{k}")[:19] for k in LANDMARK_FIELDS}, "19 landmarks"),
        (lambda m: {"regions": {"lips": m.regions["lips"]}}, "region 'face'"),
        (lambda m: {"regions": {**m.regions, "lips": np.zeros(3, np.float32)}}, "region 'lips' has shape"),
        (lambda m: {"expression_names": ("jawOpen",) * len(m.expression_names)}, "a name twice"),
        (lambda m: {"albedo": replace(m.albedo, diffuse=m.albedo.diffuse[:-1])}, "albedo.diffuse has shape"),
        (lambda m: {"albedo": replace(m.albedo, specular=m.albedo.specular * np.inf)}, "albedo.specular holds values"),
        (lambda m: {"native_expression": m.native_expression[:-1]}, "native_expression has shape"),
        (lambda m: {"source": m.source[:-1]}, "source has shape"),
        (lambda m: {"source": m.source - 2}, "source points outside"),
    ],
)
def test_a_model_that_does_not_fit_together_is_not_written(model, tmp_path, change, message):
    with pytest.raises(ModelError, match=message):
        archive.save(replace(model, **change(model)), tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def damage(folder: Path, kind: str) -> None:
    description, arrays = folder / "model.json", folder / "model.safetensors"
    values = json.loads(description.read_text())
    if kind == "no description":
        description.unlink()
    elif kind == "no arrays":
        arrays.unlink()
    elif kind == "half a description":
        description.write_text(description.read_text()[:200])
    elif kind == "half the arrays":
        arrays.write_bytes(arrays.read_bytes()[:1000])
    elif kind == "one bit":
        data = bytearray(arrays.read_bytes())
        data[-1] ^= 1
        arrays.write_bytes(data)
    elif kind == "newer":
        description.write_text(json.dumps({**values, "format_version": 99}))
    elif kind == "other json":
        description.write_text('{"format": "something else"}')
    elif kind == "no licence":
        del values["licence"]
        description.write_text(json.dumps(values))
    else:  # arrays that belong to the description, and are wrong
        held = load_file(arrays)
        if kind == "missing array":
            del held["mirror"]
        elif kind == "unknown array":
            held["surprise"] = held["mean"]
        elif kind == "unknown group":
            held["a.b"] = held["mean"]
        elif kind == "wrong shape":
            held["weld"] = held["weld"][:-1].copy()
        elif kind == "pickle":
            arrays.write_bytes(b"\x80\x04K\x01.")
        if kind != "pickle":
            save_file(held, arrays)
        digest = hashlib.sha256(arrays.read_bytes()).hexdigest()
        description.write_text(json.dumps({**values, "arrays_sha256": digest}))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("no description", "is no model folder"),
        ("no arrays", "lacks model.safetensors"),
        ("half a description", "damaged"),
        ("half the arrays", "other sha256"),
        ("one bit", "other sha256"),
        ("newer", "update raytrace-face"),
        ("other json", "does not say that it is"),
        ("no licence", "licence"),
        ("missing array", "mirror"),
        ("unknown array", "surprise"),
        ("unknown group", "damaged"),
        ("wrong shape", "weld has shape"),
        ("pickle", "damaged"),
    ],
)
def test_a_damaged_folder_is_one_clear_line(model, home, kind, message):
    folder = library.add(model)
    damage(folder, kind)
    with pytest.raises(RaytraceFaceError, match=message) as caught:
        archive.load(folder)
    assert "\n" not in str(caught.value)


def test_a_damaged_model_does_not_hide_the_others(model, home):
    library.add(model)
    damage(library.add(replace(model, name="broken")), "half a description")
    entries = {entry.name: entry for entry in library.list_models()}
    assert entries["mine"].about is not None
    assert (entries["broken"].about, "damaged" in entries["broken"].problem) == (None, True)


@pytest.mark.parametrize(
    "name", ["", ".hidden", "../up", "a/b", "a b", "-x", "x" * 65, "ümlaut", "embedded", "Embedded"]
)
def test_names_that_are_no_folder_names_are_refused(model, home, name):
    with pytest.raises(InputError, match="face model name"):
        library.add(replace(model, name=name))
    assert not home.exists()


@pytest.mark.parametrize(
    ("text", "name"), [("BFM 2019", "bfm-2019"), ("ICT-FaceKit", "ict-facekit"), ("...", "model"), ("Ü 1", "1")]
)
def test_suggested_names_may_be_borne(text, name):
    assert library.suggested_name(text) == name
    assert library.check_name(name) == name


def test_a_name_is_given_once_unless_by_force(model, home):
    library.add(model)
    for name in ("mine", "MINE"):  # some file systems do not tell them apart
        with pytest.raises(InputError, match="'mine' is in the library"):
            library.add(replace(model, name=name))
    other = brought(seed=4)
    library.add(other, force=True)
    same(other, library.find("mine"))
    assert [p.name for p in (home / "models").iterdir()] == ["mine"]


def test_a_home_that_cannot_be_written_is_named(model, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("RAYTRACE_FACE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="set RAYTRACE_FACE_HOME") as caught:
        library.add(model)
    assert "file" in str(caught.value)


def test_home_is_the_users_data_folder_unless_it_is_set(monkeypatch, tmp_path):
    monkeypatch.delenv("RAYTRACE_FACE_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert library.home() == tmp_path / "raytrace-face"
    monkeypatch.setenv("RAYTRACE_FACE_HOME", "~/faces")
    assert library.home() == Path.home() / "faces"


# --- what is found ---


def test_models_are_found_by_name_and_by_path(model, home, tmp_path):
    folder = library.add(model)
    assert library.find("embedded") is load_embedded()
    same(model, library.find("mine"))
    assert library.find("mine") is library.find(str(folder))  # read once
    archive.save(brought(seed=5), tmp_path / "elsewhere")
    same(brought(seed=5), library.find(str(tmp_path / "elsewhere")))


def test_a_replaced_model_is_read_again(model, home):
    library.add(model)
    library.find("mine")
    library.add(brought(seed=6), force=True)
    same(brought(seed=6), library.find("mine"))


def test_what_is_not_there_is_told_apart_from_what_is_not_added(model, home, tmp_path):
    library.add(model)
    with pytest.raises(InputError, match="did you mean 'mine'"):
        library.find("mien")
    raw = tmp_path / "model2019.h5"
    raw.touch()
    with pytest.raises(InputError, match=r"models add .*model2019\.h5 --name NAME"):
        library.find(str(raw))


def test_removing_takes_one_model(model, home):
    library.add(model)
    library.add(replace(model, name="other"))
    library.remove("mine")
    assert [entry.name for entry in library.list_models()] == ["other"]
    assert [p.name for p in (home / "models").iterdir()] == ["other"]
    for name in ("mine", "../models/other", "embedded"):
        with pytest.raises(InputError, match="face model"):
            library.remove(name)


# --- results ---


@pytest.fixture
def result(reconstruction, model, home, tmp_path) -> Path:
    """A stored result of a model of the library."""
    library.add(model)
    face = FaceParams(
        reconstruction.face.T_camera_head,
        np.linspace(-1, 1, 12).astype(np.float32),
        np.linspace(0, 0.5, len(model.expression_names)).astype(np.float32),
    )
    config = replace(reconstruction.config, face_model="mine")
    made = replace(reconstruction, model_name="mine", model=model, face=face, config=config)
    return made.save(tmp_path / "face")


def test_a_stored_result_finds_its_model(result, model):
    loaded = Reconstruction.load(result)
    assert loaded.model is None
    same(model, loaded.face_model())
    assert loaded.describe()["model_sha256"] == archive.fingerprint(model)


def test_a_stored_result_finds_its_model_under_another_name_and_place(result, model, home, tmp_path):
    library.remove("mine")
    with pytest.raises(InputError, match="raytrace-face models add PATH --name mine"):
        Reconstruction.load(result).face_model()
    library.add(replace(model, name="renamed"))
    assert Reconstruction.load(result).face_model().name == "renamed"
    library.remove("renamed")
    archive.save(model, tmp_path / "place")
    loaded = Reconstruction.load(result)
    moved = replace(loaded, config=replace(loaded.config, face_model=str(tmp_path / "place")))
    same(model, moved.face_model())


def test_another_model_of_the_same_name_is_not_taken(result):
    library.add(brought(seed=7), force=True)
    with pytest.raises(InputError, match="the one of this name in the library is another"):
        Reconstruction.load(result).face_model()
