"""Rationale: a prediction is made to be quick, so its pictures are left to those who ask; nothing else may differ.

Expected behaviour: the folder of a prediction is two files, from which every command goes on; the pictures that are
traced from it are those that are traced at once; many photos give one result each, whoever does them, and what cannot
be used is named. Weights are those of an untrained network, which says the mean face in the landmarks' pose.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from raytrace_face.cli import run
from raytrace_face.pictures import Pictures
from raytrace_face.result import Reconstruction

BOTH = {"arrays.safetensors", "result.json"}
leaky = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
"""imageio leaves the pipes of ffmpeg to the garbage collector."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    import torch
    from safetensors.torch import save_file

    from raytrace_face.learn.network import FaceNetwork
    from raytrace_face.learn.recipe import Network
    from raytrace_face.learn.weights import FORMAT

    torch.manual_seed(0)
    sizes = Network(crop=64, width=16, latent=32, texture=32, decoder_width=16)
    tensors = {name: value.half().contiguous() for name, value in FaceNetwork(sizes).state_dict().items()}
    figures = {"strange": 1e3, "unlike_landmarks": 1.0}
    card = {"format": FORMAT, "network": asdict(sizes), "decoded": False, "held_out": figures}
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(tensors, path, {"about": json.dumps(card)})
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Two photos of a face, one of them in a folder; one without; one damaged."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "sub").mkdir()
    Image.fromarray(astronaut()).save(folder / "a.png")
    Image.fromarray(astronaut()[:, ::-1]).save(folder / "sub" / "b.png")
    Image.fromarray(astronaut()[300:]).save(folder / "none.png")
    (folder / "broken.jpg").write_bytes((folder / "a.png").read_bytes()[:5000])
    return folder


@pytest.fixture(scope="module")
def folder(weights, photos, tmp_path_factory) -> Path:
    """The prediction of one photo."""
    out = tmp_path_factory.mktemp("out") / "face"
    assert run(["predict", str(photos / "a.png"), "--weights", str(weights), "--out", str(out), "--quiet"]) == 0
    return out


def files(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir()}


# --- pictures that come later ---


def test_a_prediction_is_two_files_of_the_newer_format(folder):
    assert files(folder) == BOTH
    assert json.loads((folder / "result.json").read_text())["format_version"] == 2
    result = Reconstruction.load(folder)
    assert not result.traced
    assert "psnr_db" not in result.metrics


def test_the_photo_is_there_without_tracing(folder, photos):
    from raytrace_face.capture import load_photo, resample

    result = Reconstruction.load(folder)
    shown, _ = resample(load_photo(photos / "a.png").linear, result.window)
    assert result.pictures.photo == pytest.approx(shown, abs=1e-4)  # Pillow keeps the edges of a window in float32
    assert not result.traced


def test_saved_and_loaded_without_pictures_it_is_the_same_to_the_last_bit(folder, tmp_path):
    first = Reconstruction.load(folder)
    again = Reconstruction.load(first.save(tmp_path / "again"))
    assert not again.traced
    assert first.arrays().keys() == again.arrays().keys()
    assert all(np.array_equal(value, again.arrays()[name]) for name, value in first.arrays().items())


def test_pictures_are_traced_once_and_stay_those_of_the_photo_in_an_edited_face(folder):
    result = Reconstruction.load(folder)
    edited = replace(result, lights=replace(result.lights, intensity=0 * result.lights.intensity))
    assert edited.pictures.render.max() > 0
    assert edited.pictures.render is result.pictures.render
    assert result.traced
    with pytest.raises(AttributeError, match="no 'colour'"):
        result.pictures.colour  # noqa: B018


def test_pictures_traced_later_are_those_of_the_photo_itself(folder, photos, mi):
    """Against observation and tracing as the optimiser does them: the photo whole, and segmented at its own size."""
    from raytrace_face.capture import capture, load_photo
    from raytrace_face.fit.observation import observe
    from raytrace_face.retrace import retraced

    later = Reconstruction.load(folder)
    photo = load_photo(photos / "a.png")
    seen = replace(capture(photo, None, later.window.size), window=later.window)
    now = retraced(later, observe(photo, seen, later.window.size), later.config.seed)
    for f in fields(Pictures):
        a, b = getattr(later.pictures, f.name), getattr(now, f.name)
        if f.name == "mask":
            # the photo is resampled twice for the network of the segmentation: its borders move by parts of a pixel
            assert np.abs(a - b).mean() < 0.01
        else:  # equal seeds and the same geometry; one thread more or less changes the last bits
            assert a == pytest.approx(b, abs=1e-4), f.name


# --- every command that reads results ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["render", "{}", "--out", "o.png", "--spp", "2"],
        ["relight", "{}", "--light", "rembrandt", "--out", "o.png", "--save", "o", "--spp", "2", "--size", "64"],
        ["shadows", "{}", "--strength", "0", "--out", "o.png", "--spp", "2", "--size", "64"],
        ["transfer", "--onto", "{}", "--albedo", "{}", "--out", "o.png", "--spp", "2", "--size", "64"],
        ["animate", "{}", "--expression", "jawOpen=0.6", "--out", "o.png", "--spp", "2", "--size", "64"],
        ["compare", "{}", "--out", "o.png", "--spp", "2"],
        ["export", "{}", "--format", "obj", "--out", "o"],
        ["export", "{}", "--format", "blender", "--out", "o"],
        ["export", "{}", "--format", "glb", "--out", "o.glb"],
        ["export", "{}", "--format", "ply", "--out", "o.ply"],
        ["export", "{}", "--format", "light-exr", "--out", "o.exr"],
        ["report", "copy"],
    ],
    ids=lambda a: " ".join(a[:1] + [x for x in a if x in ("obj", "blender", "glb", "ply", "light-exr")]),
)
def test_every_command_takes_a_prediction(folder, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    if "copy" in arguments:
        Reconstruction.load(folder).save("copy")
    before = {name: (folder / name).read_bytes() for name in BOTH}
    assert run([a.format(folder) for a in arguments]) == 0
    assert {name: (folder / name).read_bytes() for name in BOTH} == before
    assert (tmp_path / "copy" / "report.html").exists() if "copy" in arguments else any(tmp_path.glob("o*"))
    if "--save" in arguments:  # an edit is a result with pictures
        assert Reconstruction.load("o").traced


def test_what_is_exported_of_a_prediction_is_what_a_whole_result_holds(folder, weights, photos, tmp_path):
    whole = tmp_path / "whole"
    given = ["--weights", str(weights), "--out", str(whole), "--pictures"]
    assert run(["predict", str(photos / "a.png"), *given, "--quiet"]) == 0
    assert files(whole) > {"panel.png", "render.png", "face.glb", *BOTH}
    assert json.loads((whole / "result.json").read_text())["format_version"] == 1
    assert np.isfinite(Reconstruction.load(whole).metrics["psnr_db"])
    for to, name in {"glb": "face.glb", "ply": "mesh_posed.ply", "light-exr": "light.exr"}.items():
        out = tmp_path / f"o{Path(name).suffix}"
        assert run(["export", str(folder), "--format", to, "--out", str(out)]) == 0
        assert out.read_bytes() == (whole / name).read_bytes(), to


# --- many ---


@pytest.fixture(scope="module")
def many(weights, photos, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("out") / "many"
    assert run(["predict", str(photos), "--weights", str(weights), "--out", str(out), "--quiet"]) == 0
    return out


def test_a_folder_gives_a_result_a_photo_and_names_what_was_skipped(many, folder):
    assert files(many) == {"a.png", "sub", "contact.png", "skipped.txt", "result.json"}
    assert files(many / "a.png") == files(many / "sub" / "b.png") == BOTH
    assert (many / "a.png" / "arrays.safetensors").read_bytes() == (folder / "arrays.safetensors").read_bytes()
    lines = (many / "skipped.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["broken.jpg", "none.png"]
    assert "no face found" in lines[1]
    about = json.loads((many / "result.json").read_text())
    assert (about["predictions"], about["skipped"]) == (2, 2)
    sheet = np.asarray(Image.open(many / "contact.png"))
    height = sheet.shape[0] // 2
    assert sheet.shape[0] == 2 * height
    assert np.abs(sheet[:height].astype(float) - sheet[height:]).mean() > 5  # two photos, two rows


def test_workers_give_the_same_results(many, weights, photos, tmp_path):
    pytest.importorskip("ray", reason="needs the extra [ray]")
    out = tmp_path / "many"
    given = ["--weights", str(weights), "--out", str(out), "--workers", "2"]
    assert run(["predict", str(photos), *given, "--quiet"]) == 0
    assert (out / "skipped.txt").read_bytes() == (many / "skipped.txt").read_bytes()
    for name in ("a.png", "sub/b.png"):
        one, two = (Reconstruction.load(p / name) for p in (many, out))
        for key, value in one.arrays().items():  # threads change the last bits of sums
            assert value == pytest.approx(two.arrays()[key], abs=1e-4), key


def test_without_ray_workers_are_one_clear_line(weights, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = tmp_path / "many"
    assert run(["predict", str(photos), "--weights", str(weights), "--out", str(out), "--workers", "2"]) == 2
    said = capsys.readouterr().err
    assert "pip install 'raytrace-face[ray]', or leave out --workers" in said
    assert not out.exists()


@leaky
def test_a_video_gives_a_result_a_frame(weights, tmp_path):
    import imageio.v3 as imageio

    face, nothing = astronaut()[:256, 96:352], np.zeros((256, 256, 3), np.uint8)
    imageio.imwrite(tmp_path / "clip.mp4", np.stack([face, nothing, face, nothing]), plugin="FFMPEG", fps=4)
    out = tmp_path / "out"
    given = ["--weights", str(weights), "--out", str(out), "--every", "2"]
    assert run(["predict", str(tmp_path / "clip.mp4"), *given, "--quiet"]) == 0
    assert files(out) == {"frame-000000", "frame-000002", "contact.png", "skipped.txt", "result.json"}


WRONG = {
    "no photo": (["nowhere.png"], "does not exist"),
    "an empty folder": (["empty"], "holds no photos"),
    "no face in any": (["faceless"], "no photo with a face (1 skipped)"),
    "no face": (["faceless/a.png"], "no face found"),
    "a face that is not there": (["a.png", "--face", "3"], "face 3 does not exist"),
    "damaged": (["broken.jpg"], "damaged"),
    "a video that is none": (["fake.mp4"], "cannot be read"),
    "no workers": (["a.png", "--workers", "0"], "workers 0"),
    "workers for one photo": (["a.png", "--workers", "2"], "leave out --workers"),
    "a face of a folder": (["faceless", "--face", "0"], "goes with one photo"),
    "no weights": (["a.png", "--weights", "gone"], "do not exist"),
}


@leaky
@pytest.mark.parametrize("case", WRONG)
def test_what_cannot_be_predicted_is_one_line_and_leaves_nothing(case, weights, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "faceless"):
        Path(name).mkdir()
    Path("faceless/a.png").write_bytes((photos / "none.png").read_bytes())
    for name in ("a.png", "broken.jpg"):
        Path(name).write_bytes((photos / name).read_bytes())
    Path("fake.mp4").write_bytes(b"no video" * 100)
    arguments, message = WRONG[case]
    given = [] if "--weights" in arguments else ["--weights", str(weights)]
    assert run(["predict", *arguments, *given, "--out", "out", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(files(tmp_path)) == ["a.png", "broken.jpg", "empty", "faceless", "fake.mp4"]
