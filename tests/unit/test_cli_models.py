"""Rationale: models come into the library whole, are listed and shown for what they are, and every command takes them.

Readers and `adopt` are replaced here: they have tests of their own.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from brought_model import brought
from PIL import Image

from raytrace_face.cli import run
from raytrace_face.doctor import examine
from raytrace_face.errors import InputError, ModelError
from raytrace_face.face import archive, library
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.model import FaceModel
from raytrace_face.result import Reconstruction
from raytrace_face.types import FaceParams

SHEET = (200, 40, 90)


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return brought()


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("RAYTRACE_FACE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "home"


def raw_of(model: FaceModel) -> RawModel:
    return RawModel(
        format="BFM 2019",
        version="1.0",
        mean=model.mean,
        identity=model.identity,
        triangles=model.triangles,
        licence="for research only",
        citation="Gerig et al. 2018",
        provenance={"bfm.h5": "cd" * 32},
        expression=model.expression[:0],
        expression_names=(),
        expression_modes=model.expression[:5],
        limits=("no back of the head",),
    )


@pytest.fixture
def makers(model, monkeypatch) -> list[tuple]:
    """Calls of the readers and of `adopt`, in order; a file whose name says so is refused."""
    calls: list[tuple] = []

    def read(path: Path, albedo: Path | None = None, modes: int = 100) -> RawModel:
        calls.append(("read", path.name, albedo and albedo.name, modes))
        if "wrong" in path.name:
            raise InputError(f"{path.name} is no face model: give the file as it was published")
        return raw_of(model)

    def adopt(raw: RawModel, name: str, seed: int = 0, quiet: bool = True) -> FaceModel:
        calls.append(("adopt", name, seed, quiet))
        if name == "faceless":
            raise ModelError("no face is found on the mean")
        return replace(model, name=name, licence=raw.licence, provenance=raw.provenance)

    def get_ict(folder: Path, quiet: bool = False) -> Path:
        calls.append(("get_ict", folder, quiet))
        folder.mkdir(parents=True)
        return folder

    def module(name: str, **content: object) -> None:
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    module("raytrace_face.adopt", adopt=adopt)
    module("raytrace_face.adopt.sheet", draw=lambda model: Image.new("RGB", (8, 8), SHEET))
    module("raytrace_face.face.formats.detect", read=read)
    module("raytrace_face.face.formats.download", get_ict=get_ict)
    return calls


@pytest.fixture
def file(home) -> Path:
    path = home.parent / "model2019_fullHead.h5"
    path.write_bytes(b"as published")
    return path


def refused(arguments: list[str], message: str, capsys) -> None:
    """One line on standard error, exit code 2."""
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


# --- add, list, show, remove ---


def test_a_model_is_added_with_what_it_says_of_itself(file, home, makers, capsys):
    (file.parent / "albedo.h5").touch()
    assert run(["models", "add", str(file), "--albedo", "albedo.h5", "--modes", "7", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    for fact in (
        "recognised  BFM 2019 1.0",
        "12 identity modes",
        "52 expressions",
        "for research only",
        "Gerig et al. 2018",
        "no back of the head",
        "bfm.h5",
        "time",
        "--face-model bfm-2019",
    ):
        assert fact in said
    assert makers == [("read", file.name, "albedo.h5", 7), ("adopt", "bfm-2019", 3, False)]
    folder = home / "models" / "bfm-2019"
    assert sorted(p.name for p in folder.iterdir()) == ["model.json", "model.safetensors", "sheet.png"]
    assert library.find("bfm-2019").name == "bfm-2019"
    assert [p.name for p in home.iterdir()] == ["models"]


def test_what_is_added_is_listed_shown_and_removed(file, home, makers, capsys):
    assert run(["models", "add", str(file), "--name", "basel", "--quiet"]) == 0
    assert capsys.readouterr().out == ""
    assert run(["models", "list"]) == 0
    said = capsys.readouterr().out
    assert "embedded" in said
    assert "basel     BFM 2019 1.0: " in said
    assert str(home) in said
    assert run(["models", "show", "basel", "--out", "sheet.png"]) == 0
    said = capsys.readouterr().out
    for fact in ("basel", "for research only", "no back of the head", str(home / "models" / "basel" / "sheet.png")):
        assert fact in said
    with Image.open("sheet.png") as picture:
        assert picture.getpixel((4, 4)) == SHEET
    assert run(["models", "remove", "basel"]) == 0
    assert list((home / "models").iterdir()) == []
    assert file.exists()


def test_the_embedded_model_is_shown_like_any_other(home, makers, capsys):
    assert run(["models", "show", "embedded", "--out", "sheet.png"]) == 0
    assert "100 identity modes" in capsys.readouterr().out
    assert Path("sheet.png").is_file()


def test_a_model_folder_is_taken_over_as_it_is(model, home, tmp_path, capsys):
    """From the library of another machine: the same arrays, and so the same digest, under any name."""
    archive.save(model, tmp_path / "theirs", archive.Source("GNM Head", limits=("a limit",)))
    assert run(["models", "add", "theirs"]) == 0
    assert run(["models", "add", "theirs", "--name", "again"]) == 0
    assert {e.name: e.about.arrays_sha256 for e in library.list_models()} == dict.fromkeys(
        ("again", "mine"), archive.fingerprint(model)
    )
    assert archive.about(home / "models" / "again").source.limits == ("a limit",)
    assert library.find("again").name == "again"


def test_ict_is_downloaded_into_the_home_and_added(home, makers):
    assert run(["models", "get", "ict", "--quiet"]) == 0
    assert makers[0] == ("get_ict", home / "downloads" / "ict", True)
    assert [entry.name for entry in library.list_models()] == ["ict"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["add", "nowhere.h5"], "does not exist"),
        (["add", "FILE", "--albedo", "nowhere.h5"], "albedo model"),
        (["add", "FILE", "--modes", "0"], "modes is 0"),
        (["add", "FILE", "--seed", "-1"], "seed is -1"),
        (["add", "FILE", "--name", "embedded"], "embedded"),
        (["add", "FILE", "--name", "a/b"], "not usable"),
        (["add", "FILE", "--name", "faceless"], "no face is found"),
        (["add", "wrong.h5"], "is no face model"),
        (["show", "nobody"], "neither in the library nor a folder"),
        (["show", "embedded", "--out", "sheet.jpg"], ".png"),
        (["show", "FILE"], "models add"),
        (["remove", "nobody"], "neither in the library"),
        (["remove", "embedded"], "cannot be removed"),
    ],
)
def test_a_wrong_request_is_one_line_and_leaves_nothing(file, home, makers, capsys, arguments, message):
    (file.parent / "wrong.h5").touch()
    refused(["models", *(a.replace("FILE", str(file)) for a in arguments)], message, capsys)
    assert not home.exists()


def test_a_name_that_is_taken_stops_before_the_work(file, home, makers, capsys):
    assert run(["models", "add", str(file), "--name", "basel", "--quiet"]) == 0
    makers.clear()
    refused(["models", "add", str(file), "--name", "basel"], "--force", capsys)
    refused(["models", "get", "ict", "--name", "basel"], "--force", capsys)
    assert makers == []
    assert run(["models", "add", str(file), "--name", "basel", "--force", "--quiet"]) == 0


def test_a_home_that_cannot_be_written_stops_before_the_work(file, home, makers, capsys):
    home.touch()
    refused(["models", "add", str(file), "--name", "basel"], "set RAYTRACE_FACE_HOME", capsys)
    assert makers == []


def test_an_interrupted_add_leaves_nothing(file, home, makers, monkeypatch):
    def interrupted(model: FaceModel) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["raytrace_face.adopt.sheet"], "draw", interrupted, raising=False)
    assert run(["models", "add", str(file)]) == 130
    assert [p for p in home.rglob("*") if p.is_file()] == []


# --- the other commands ---


def test_a_models_own_file_is_told_to_be_added_first(file, home, capsys):
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save("a.png")
    refused(["reconstruct", "a.png", "--face-model", str(file)], "raytrace-face models add", capsys)
    refused(["reconstruct", "a.png", "--face-model", "nobody"], "models list", capsys)
    refused(["demo", "--face-model", "nobody"], "models list", capsys)
    Path("c.toml").write_text("face_model = 'nobody'\n")
    refused(["reconstruct", "a.png", "--config", "c.toml"], "nobody", capsys)
    Path("d.toml").write_text("face_model = ''\n")
    refused(["reconstruct", "a.png", "--config", "d.toml"], "face_model is empty", capsys)


def test_the_doctor_looks_at_every_model(model, home):
    library.add(model)
    broken = library.add(replace(model, name="broken"))
    (broken / "model.safetensors").write_bytes(b"")
    report = examine()
    assert ("library", str(home)) in report.facts
    facts = dict(report.facts)
    assert "12 identity modes" in facts["model mine"]
    assert facts["model broken"] == "FAILED"
    assert any("broken" in problem and "add it again" in problem for problem in report.problems)


@pytest.fixture
def result(reconstruction, model, home) -> Path:
    """A stored result of a model of the library: its folder."""
    library.add(model)
    names = model.expression_names
    face = FaceParams(
        reconstruction.face.T_camera_head,
        np.linspace(-1, 1, len(model.identity)).astype(np.float32),
        np.where(np.arange(len(names)) == names.index("jawOpen"), 0.3, 0).astype(np.float32),
    )
    config = replace(reconstruction.config, face_model="mine")
    return replace(reconstruction, model_name="mine", model=model, face=face, config=config).save("face")


FAST = ["--spp", "4", "--size", "32", "--quiet"]
COMMANDS: dict[str, list[str]] = {
    "render": ["render", "face", "--out", "out.png", "--spp", "4"],
    "report": ["report", "face"],
    "relight": ["relight", "face", "--light", "rembrandt", "--out", "out.png", "--save", "saved", *FAST],
    "shadows": ["shadows", "face", "--strength", "0", "--out", "out.png", *FAST],
    "transfer": ["transfer", "--onto", "face", "--light", "face", "--shadow", "face", "--out", "out.png", *FAST],
    "animate": ["animate", "face", "--expression", "jawOpen=0.8", "--yaw", "10", "--out", "out.png", *FAST],
    "express": ["animate", "face", "--expression", "jawOpen=0.8", "--out", "out.png", "--save", "saved", *FAST],
    "compare": ["compare", "face", "--spp", "4", "--out", "out", "--quiet"],
    "obj": ["export", "face", "--format", "obj", "--out", "out"],
    "glb": ["export", "face", "--format", "glb", "--out", "out.glb"],
    "blender": ["export", "face", "--format", "blender", "--out", "out"],
    "mitsuba": ["export", "face", "--format", "mitsuba", "--out", "out"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_a_result_of_a_brought_model(result, name, capsys):
    assert run(COMMANDS[name]) == 0, capsys.readouterr().err
    written = Path("face/report.html") if name == "report" else next(Path().glob("out*"))
    assert written.exists()
    if "--save" in COMMANDS[name]:
        again = Reconstruction.load("saved")
        assert again.model_sha256 == archive.about(library.locate("mine")).arrays_sha256
        assert again.face_model().name == "mine"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_says_which_model_is_missing(result, name, capsys):
    library.remove("mine")
    if name == "glb":  # lies in the result folder already
        assert run(COMMANDS[name]) == 0
        return
    before = sorted(Path().rglob("*"))
    refused(COMMANDS[name], "raytrace-face models add PATH --name mine", capsys)
    assert sorted(Path().rglob("*")) == before


def test_the_render_is_that_of_the_model(result):
    """The stored result renders to the same bytes as the one in memory, single-threaded."""
    stored = Reconstruction.load(result)
    held = replace(stored, model=brought())
    assert stored.render(spp=4, seed=1).tobytes() == held.render(spp=4, seed=1).tobytes()
    assert stored.render(spp=4).max() > 0
