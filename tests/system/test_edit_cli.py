"""Rationale: the edit commands work on a real reconstruction, and say in one line what is wrong with their input."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file
from skimage.data import astronaut

from raytrace_face import Config, Reconstruction, reconstruct
from raytrace_face.cli import run
from raytrace_face.config import Stage2Config
from raytrace_face.export import write_exr

FAST = ["--spp", "4", "--size", "64"]
WINDOW = 128
"""Pixels a side of the fitted window: edits do not get better by a finer one."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A result of the demo photo, saved as a file first so that it has a sha256."""
    root = tmp_path_factory.mktemp("edit")
    Image.fromarray(astronaut()).save(root / "astronaut.png")
    config = Config(quality="preview", stage2=Stage2Config(size=WINDOW))
    return reconstruct(root / "astronaut.png", config, progress=False).save(root / "face")


@pytest.fixture
def here(folder, tmp_path, monkeypatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def pixels(path: Path | str) -> np.ndarray:
    if str(path).endswith(".exr"):
        with OpenEXR.File(str(path)) as file:
            return np.array(file.channels()["RGB"].pixels)
    with Image.open(path) as picture:
        return np.asarray(picture)


# --- what they do ---


@pytest.mark.parametrize("light", ["rembrandt", "-60,20,3", "sky.exr"])
def test_relight_changes_the_face_and_nothing_else(folder, here, light, capsys):
    sky = np.full((64, 128, 3), 0.2, np.float32)
    sky[20:24, 90:96] = 30
    write_exr(here / "sky.exr", sky)
    photo = folder.parent / "astronaut.png"
    options = ["--photo", str(photo), "--out", "a.png", *FAST]
    assert run(["relight", str(folder), f"--light={light}", *options]) == 0
    assert capsys.readouterr().out == "picture     a.png\n"
    before, after = pixels(photo), pixels("a.png")
    window = Reconstruction.load(folder).window
    assert before.shape == after.shape
    outside = np.ones(before.shape[:2], bool)
    top, left = int(window.top_px), int(window.left_px)
    outside[max(top, 0) : int(top + window.side_px) + 1, max(left, 0) : int(left + window.side_px) + 1] = False
    assert np.array_equal(before[outside], after[outside])
    changed = (np.abs(before.astype(int) - after) > 8).any(axis=2)
    assert 0.02 < changed.mean() < 0.2  # the face covers a tenth of the photo


def test_light_exr_of_the_result_gives_the_photo_back(folder, here):
    """The exported environment is the fitted light: map, its frame, and the importance sampling agree with the fit."""
    options = ["--out", "a.exr", "--spp", "64", "--quiet"]
    assert run(["relight", str(folder), "--light", str(folder / "light.exr"), *options]) == 0
    photo, edited = Reconstruction.load(folder).pictures.photo, pixels("a.exr")
    assert edited.shape == photo.shape
    assert np.array_equal(edited[:8], photo[:8])  # hair and background
    # noise of two renderings, and lamps that the map spreads over pixels of 1.4 degrees
    assert np.abs(edited - photo).mean() < 0.02 * photo.mean()


def test_relit_result_can_be_edited_again(folder, here, capsys):
    assert run(["relight", str(folder), "--light", "split", "--save", "lit", "--exposure", "-1"]) == 0
    assert "result      lit" in capsys.readouterr().out
    assert Reconstruction.load("lit").warnings[-1] == "edited: relit with split, rotated 0 degrees, -1 stops"
    assert run(["shadows", "lit", "--strength", "0", "--out", "a.png", *FAST]) == 0
    assert "of the face by more than 1/255" in capsys.readouterr().out
    assert pixels("a.png").shape == (64, 64, 3)


def test_stage_replaces_the_map_by_the_lights_of_the_rig(folder, here):
    assert run(["relight", str(folder), "--light", str(folder / "light.exr"), "--stage", "--out", "a.png", *FAST]) == 0
    assert pixels("a.png").shape == (64, 64, 3)


def test_shadows_at_full_strength_give_the_photo_back(folder, here, capsys):
    assert run(["shadows", str(folder), "--photo", str(folder.parent / "astronaut.png"), "--out", "a.png", *FAST]) == 0
    assert "changed     0.0 %" in capsys.readouterr().out
    assert np.array_equal(pixels("a.png"), astronaut())


def test_transfer_onto_itself_gives_the_photo_back(folder, here, capsys):
    given = ["--light", str(folder), "--albedo", str(folder), "--shadow", str(folder)]
    options = ["--onto", str(folder), "--out", "a.exr", "--spp", "4"]
    assert run(["transfer", *given, *options]) == 0
    assert "changed     0.0 %" in capsys.readouterr().out
    # equal calls of the tracer differ by 5e-7 with several threads
    assert pixels("a.exr") == pytest.approx(Reconstruction.load(folder).pictures.photo, abs=1e-4)


def test_transferred_light_and_skin_make_a_result(folder, here):
    given = ["--light", str(folder), "--albedo", str(folder), "--onto", str(folder)]
    assert run(["transfer", *given, "--save", "both", "--spp", "4", "--quiet"]) == 0
    assert Reconstruction.load("both").warnings[-1] == "edited: light of astronaut.png and skin of astronaut.png"


def test_animate_opens_the_mouth_in_the_photo(folder, here):
    assert run(["animate", str(folder), "--expression", "jawOpen=0.6", "--out", "a.exr", "--spp", "4"]) == 0
    photo, edited = Reconstruction.load(folder).pictures.photo, pixels("a.exr")
    changed = np.abs(edited - photo).max(axis=2) > 0.02
    S = WINDOW
    assert changed[S // 2 :].mean() > 0.05  # mouth and chin
    assert not changed[: S // 4].any()  # hair and forehead
    assert run(["animate", str(folder), "--expression", "", "--out", "b.exr", "--spp", "4"]) == 0
    assert pixels("b.exr") == pytest.approx(photo, abs=1e-4)


def test_animate_shows_a_turned_head_over_nothing(folder, here):
    options = ["--yaw=20", "--focal", "85mm", "--save", "turned", "--out", "a.png", *FAST]
    assert run(["animate", str(folder), *options]) == 0
    picture = pixels("a.png")
    assert picture.shape == (64, 64, 4)
    assert 0.2 < (picture[..., 3] == 255).mean() < 0.8
    turned, face = Reconstruction.load("turned"), Reconstruction.load(folder)
    assert turned.camera.focal_px == pytest.approx(85 / 43.27 * np.hypot(512, 512), rel=1e-4)
    assert turned.dominant_light == pytest.approx(face.dominant_light, abs=0.02)  # fixed to the room


def test_video_goes_round(folder, here, monkeypatch):
    monkeypatch.setattr("raytrace_face.edit.video.FRAMES", 3)
    for turn in ("light", "camera"):
        options = ["--turn", turn, "--video", f"{turn}.mp4", "--quiet", *FAST]
        assert run(["relight", str(folder), "--light", "30,10", *options]) == 0
        assert Path(f"{turn}.mp4").stat().st_size > 500


# --- what is wrong with the input ---

COMMANDS = {
    "relight": ["relight", "FACE", "--light", "rembrandt", "--out", "a.png"],
    "shadows": ["shadows", "FACE", "--strength", "0", "--out", "a.png"],
    "transfer": ["transfer", "--light", "FACE", "--onto", "FACE", "--out", "a.png"],
    "animate": ["animate", "FACE", "--yaw", "5", "--out", "a.png"],
}


def not_a_number(folder: Path, source: Path) -> None:
    """A result whose albedo holds a NaN, with a sha256 that fits."""
    arrays = load_file(source / "arrays.safetensors")
    arrays["maps.diffuse"][3, 4, 1] = np.nan
    save_file(arrays, folder / "arrays.safetensors")
    described(folder, source, arrays_sha256=hashlib.sha256((folder / "arrays.safetensors").read_bytes()).hexdigest())


def described(folder: Path, source: Path, **changes: object) -> None:
    description = json.loads((source / "result.json").read_text("utf-8"))
    (folder / "result.json").write_text(json.dumps({**description, **changes}), "utf-8")


FOLDERS = {
    "missing": (lambda folder, source: folder.rmdir(), "not a result folder"),
    "empty": (lambda folder, source: None, "not a result folder"),
    "foreign JSON": (lambda folder, source: (folder / "result.json").write_text('{"name": "x"}'), "not a result"),
    "broken JSON": (lambda folder, source: (folder / "result.json").write_text("{"), "damaged"),
    "newer version": (lambda folder, source: described(folder, source, format_version=99), "newer"),
    "NaN map": (not_a_number, "NaN or infinite values in maps.diffuse"),
}


def refused(arguments: list[str], message: str, capsys) -> None:
    before = sorted(str(p) for p in Path().rglob("*"))
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("raytrace-face: error: ")
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert sorted(str(p) for p in Path().rglob("*")) == before


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("case", FOLDERS)
def test_bad_result_folder(case, command, folder, here, capsys):
    make, message = FOLDERS[case]
    Path("bad").mkdir()
    make(Path("bad"), folder)
    refused([part.replace("FACE", "bad") for part in COMMANDS[command]], message, capsys)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "a.jpg"], ".png, .exr"),
        (["--out", "no/a.png"], "make it first"),
        (["--out", "taken.png"], "--force"),
        (["--spp", "0"], "spp is 0"),
        (["--size", "5"], "size is 5"),
        (["--seed", "-1"], "seed is -1"),
        (["--photo", "nowhere.png"], "nowhere.png"),
        (["--photo", "other.png"], "other.png"),
    ],
)
def test_bad_common_option(command, options, message, folder, here, capsys):
    Path("taken.png").touch()
    Image.fromarray(astronaut()[::-1]).save("other.png")
    given = [part.replace("FACE", str(folder)) for part in COMMANDS[command]]
    if command == "animate" and options[0] == "--photo":
        message = "--photo does not go with"
    refused([*given, *options], message, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["relight", "FACE", "--light", "rembrant", "--out", "a.png"], "did you mean 'rembrandt'"),
        (["relight", "FACE", "--light", "10,99", "--out", "a.png"], "elevation in [-90, 90]"),
        (["relight", "FACE", "--light", "sky.hdr", "--out", "a.png"], "sky.hdr does not exist"),
        (["relight", "FACE", "--light", "rim", "--exposure", "99", "--out", "a.png"], "stops"),
        (["relight", "FACE", "--light", "rim"], "--out"),
        (["relight", "FACE", "--light", "rim", "--video", "a.avi"], ".mp4"),
        (["shadows", "FACE", "--strength", "2", "--out", "a.png"], "strength is 2"),
        (["shadows", "FACE", "--soften", "-3", "--out", "a.png"], "soften is -3"),
        (["transfer", "--onto", "FACE", "--out", "a.png"], "--light, --albedo or --shadow"),
        (["transfer", "--onto", "FACE", "--shadow", "FACE", "--save", "b"], "--save does not go with --shadow"),
        (["animate", "FACE", "--expression", "jawOpn=0.5", "--out", "a.png"], "did you mean 'jawOpen'"),
        (["animate", "FACE", "--expression", "jawOpen", "--out", "a.png"], "jawOpen=0.6"),
        (["animate", "FACE", "--focal", "wide", "--out", "a.png"], "85mm"),
    ],
)
def test_bad_option(arguments, message, folder, here, capsys):
    refused([part.replace("FACE", str(folder)) for part in arguments], message, capsys)


def test_albedo_of_another_face_model_is_refused(folder, here, capsys, monkeypatch):
    result = Reconstruction.load(folder)
    other = replace(result, model_name="mine", model=replace(result.face_model(), name="mine")).save("other")
    message = f"different face models, '{result.model_name}' and 'mine'"
    refused(["transfer", "--albedo", str(other), "--onto", str(folder), "--out", "a.png"], message, capsys)
