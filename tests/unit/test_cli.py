"""The command line: options, summary, exit codes. The fit is replaced by the synthetic reconstruction."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import OpenEXR
import pytest
from PIL import Image

import raytrace_face.fit.reconstruct
from raytrace_face import __version__
from raytrace_face.capture.photo import load_photo
from raytrace_face.cli import default_folder, run
from raytrace_face.config import Config
from raytrace_face.doctor import Report, examine
from raytrace_face.result import Reconstruction


@pytest.fixture
def photo(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "in" / "noise.png"
    path.parent.mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (96, 96, 3), np.uint8)).save(path)
    return path


@pytest.fixture
def fit(reconstruction, monkeypatch) -> list[tuple]:
    """Calls of the fit, which answers with the synthetic reconstruction."""
    calls: list[tuple] = []

    def fake(photo, config, *, progress, checkpoint):
        calls.append((photo, config, progress, checkpoint))
        return replace(reconstruction, config=config)

    monkeypatch.setattr(raytrace_face.fit.reconstruct, "reconstruct", fake)
    return calls


def test_reconstruct_writes_beside_the_working_folder_and_says_what_it_found(photo, fit, capsys):
    assert run(["reconstruct", str(photo)]) == 0
    assert Path("noise_face/result.json").is_file()
    said = capsys.readouterr().out
    for fact in ("30.0 dB after stage 1, 33.0 dB after stage 2", "41 deg from the image's right", "one thing is odd"):
        assert fact in said
    assert "noise_face" in said
    assert fit[0][1:] == (Config(), True, None)


def test_report_is_in_the_folder_unless_it_is_declined(photo, fit, capsys):
    assert run(["reconstruct", str(photo), "--quality", "preview", "--quiet"]) == 0
    assert Path("noise_face/report.html").stat().st_size > 1e5
    assert run(["reconstruct", str(photo), "--out", "b", "--no-report"]) == 0
    assert "panel.png)" in capsys.readouterr().out
    assert not Path("b/report.html").exists()


def test_options_reach_the_fit(photo, fit, capsys):
    options = "--quality preview --solver montecarlo --seed 3 --iterations 2 --face 1 --colour linear --no-shadows"
    places = ["--out", "a/b", "--checkpoint", "c"]
    assert run(["reconstruct", str(photo), *places, "--quiet", *options.split()]) == 0
    given, config, progress, checkpoint = fit[0]
    assert given.linear.tobytes() == load_photo(photo, "linear").linear.tobytes()
    assert config == replace(
        Config(quality="preview", solver="montecarlo", seed=3, iterations=2, face=1, colour="linear"),
        light=replace(Config().light, shadows=False),
    )
    assert (progress, checkpoint) == (False, Path("c"))
    assert capsys.readouterr().out == ""
    assert Path("a/b/panel.png").is_file()


def test_options_override_the_file(photo, fit):
    Path("c.toml").write_text("seed = 1\nquality = 'high'\n[stage2]\ntexture = 128\n")
    assert run(["reconstruct", str(photo), "--config", "c.toml", "--seed", "5", "--quiet"]) == 0
    config = fit[0][1]
    assert (config.seed, config.quality, config.stage2.texture) == (5, "high", 128)


def test_existing_output_stops_before_the_fit(photo, fit, capsys):
    Path("noise_face").mkdir()
    Path("noise_face/notes.txt").touch()
    assert run(["reconstruct", str(photo)]) == 2
    assert run(["reconstruct", str(photo), "--force"]) == 2
    assert "not a result folder" in capsys.readouterr().err
    assert fit == []


def test_force_replaces_a_result(photo, fit):
    for options in ([], ["--force"]):
        assert run(["reconstruct", str(photo), "--quiet", *options]) == 0
    assert run(["reconstruct", str(photo), "--quiet"]) == 2
    assert len(fit) == 2


def test_render_command_writes_the_picture(reconstruction, tiny_model, tmp_path, monkeypatch):
    folder = reconstruction.save(tmp_path / "face")
    load = Reconstruction.load.__func__
    monkeypatch.setattr(Reconstruction, "load", classmethod(lambda cls, path: load(cls, path, tiny_model)))
    for name in ("a.png", "a.exr"):
        assert run(["render", str(folder), "--out", str(tmp_path / name), "--spp", "4", "--seed", "1"]) == 0
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        assert np.array_equal(file.channels()["RGB"].pixels, reconstruction.render(spp=4, seed=1))
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (48, 48)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.exr", "a.png", "face"]
    assert run(["render", str(folder), "--out", str(tmp_path / "a.png")]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["render", "nowhere", "--out", "a.png"], "not a result folder"),
        (["render", "nowhere", "--out", "a.jpg"], ".png, .exr"),
        (["render", "nowhere", "--out", "a.png", "--spp", "0"], "spp is 0"),
        (["render", "nowhere", "--out", "no/a.png"], "make it first"),
    ],
)
def test_render_errors_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_default_folder_carries_the_stem():
    assert default_folder(Path("/photos/a.b.jpg")) == Path("a.b_face")


def test_version_and_help(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"raytrace-face {__version__}\n"
    assert run([]) == 0
    assert "reconstruct" in capsys.readouterr().out


def test_out_of_memory_is_one_line(photo, monkeypatch, capsys):
    def hungry(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(raytrace_face.fit.reconstruct, "reconstruct", hungry)
    assert run(["reconstruct", str(photo)]) == 2
    assert "--quality preview" in capsys.readouterr().err


INTERRUPTED = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background passes it on as ignored
import time, raytrace_face.fit.reconstruct as r
def slow(*a, **k):
    print("fitting", flush=True)
    time.sleep(60)
r.reconstruct = slow
from raytrace_face.cli import main
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_quietly_with_its_code_and_leaves_nothing(photo, number, code):
    environment = {**os.environ, "PYTHONPATH": str(Path(raytrace_face.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, "reconstruct", str(photo)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "fitting\n"
    try:
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()  # nothing happens to one that has ended
    assert process.returncode == code
    assert "Traceback" not in said
    assert [p.name for p in Path().iterdir()] == ["in"]


# --- doctor ---


def test_doctor_finds_everything_and_nothing_wrong(capsys):
    assert run(["doctor"]) == 0
    said = capsys.readouterr().out
    for fact in ("mitsuba", "drjit", "libLLVM", "cores", "memory", "sha256", "face_model.npz", "All is well."):
        assert fact in said


def test_doctor_says_what_to_do_about_a_missing_library(monkeypatch):
    monkeypatch.setenv("DRJIT_LIBLLVM_PATH", "/nowhere/libLLVM.so")
    report = examine()
    assert any("DRJIT_LIBLLVM_PATH" in problem and "unset it" in problem for problem in report.problems)
    assert "PROBLEM" in report.text()


def test_doctor_survives_what_it_examines():
    report = Report()

    def broken() -> str:
        raise OSError("two\nlines")

    report.attempt("thing", broken)
    assert report.problems == ["thing: OSError: two lines: reinstall raytrace-face"]


def test_doctor_with_a_problem_exits_1(monkeypatch, capsys):
    monkeypatch.setattr("raytrace_face.doctor.NEEDED_BYTES", 2**60)
    assert run(["doctor"]) == 1
    assert "--quality preview" in capsys.readouterr().out
