"""Rationale: every bad input gets one clear line on stderr, exit code 2, and nothing is written.

The command runs in this process where it can, so that the whole list takes seconds; the GPU case, which depends on
the state of the process, and one plain case run as a user would run them.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raytrace_face.capture.landmarks import MIN_EYES_PX
from raytrace_face.cli import run
from raytrace_face.export import write_exr


def noise(height: int = 128, width: int = 128) -> np.ndarray:
    """A picture without a face."""
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def astronaut() -> Image.Image:
    from skimage.data import astronaut as data

    return Image.fromarray(data())


def bomb(path: Path) -> None:
    """A PNG whose header promises 20,000 x 20,000 pixels in a few hundred bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)


def truncated(path: Path) -> None:
    astronaut().save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:2000])


def not_finite(path: Path) -> None:
    image = noise().astype(np.float32) / 255
    image[3, 4] = np.nan
    write_exr(path, image)


def far_away(path: Path) -> None:
    """A face that is found, but whose eyes are only about 20 pixels apart."""
    scene = Image.new("RGB", (512, 512), (90, 110, 130))
    scene.paste(astronaut().resize((200, 200)), (150, 150))
    scene.save(path)


def flat(value: int):
    return lambda path: Image.new("RGB", (256, 256), (value, value, value)).save(path)


CASES = {
    "not an image": ("a.jpg", lambda p: p.write_text("hello"), "not a picture"),
    "empty file": ("a.jpg", lambda p: p.touch(), "empty"),
    "truncated file": ("a.jpg", truncated, "damaged"),
    "one pixel": ("a.png", lambda p: Image.new("RGB", (1, 1)).save(p), "at least 64"),
    "decompression bomb": ("a.png", bomb, "megapixels"),
    "no face": ("a.png", lambda p: Image.fromarray(noise(256, 256)).save(p), "no face"),
    "face too small": ("a.png", far_away, f"{MIN_EYES_PX:.0f}"),
    "all black": ("a.png", flat(0), "all black"),
    "all white": ("a.png", flat(255), "one single value"),
    "NaN in EXR": ("a.exr", not_finite, "NaN"),
    "folder": ("a.jpg", lambda p: p.mkdir(), "folder"),
    "missing file": ("a.jpg", lambda p: None, "does not exist"),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_photo(case, tmp_path, monkeypatch, capsys):
    name, make, message = CASES[case]
    monkeypatch.chdir(tmp_path)
    make(tmp_path / name)
    before = sorted(p.name for p in tmp_path.iterdir())
    assert run(["reconstruct", name, "--out", "out", "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("raytrace-face: error: ")
    assert said.count("\n") == 1
    assert message.lower() in said.lower()
    assert sorted(p.name for p in tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "/proc/face"], "cannot be written"),
        (["--out", "full"], "--force"),
        (["--out", "full", "--force"], "not a result folder"),
        (["--seed", "-1"], "must lie in"),
        (["--config", "nowhere.toml"], "cannot be read"),
        (["--config", "bad.toml"], "did you mean"),
        (["--checkpoint", "a.png"], "--checkpoint"),
    ],
)
def test_bad_option(options, message, tmp_path, monkeypatch, capsys):
    """Found before any work: the photo has no face, and that is never reached."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(noise()).save("a.png")
    Path("full").mkdir()
    Path("full/precious").touch()
    Path("bad.toml").write_text("qualty = 'high'")
    before = sorted(p.name for p in tmp_path.rglob("*"))
    assert run(["reconstruct", "a.png", *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(p.name for p in tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "suggestion"),
    [
        (["reconstruct", "a.png", "--qualty", "high"], "--quality"),
        (["reconstruct", "a.png", "--quality", "best"], "preview"),
        (["reconstruct", "a.png", "--seed", "many"], "--seed"),
        (["reconstrct", "a.png"], "reconstruct"),
        (["reconstruct"], "PATH"),
    ],
)
def test_unknown_option_gets_a_suggestion(arguments, suggestion, capsys):
    assert run(arguments) == 2
    assert suggestion in capsys.readouterr().err


def command(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, "-m", "raytrace_face", *arguments],
        capture_output=True, text=True, cwd=folder, env=environment, timeout=60,
    )  # fmt: skip


@pytest.mark.skipif(Path("/dev/nvidia0").exists(), reason="there is a GPU")
def test_missing_gpu_is_one_line(tmp_path):
    Image.fromarray(noise()).save(tmp_path / "a.png")
    done = command(["reconstruct", "a.png", "--device", "cuda"], tmp_path)
    assert done.returncode == 2
    assert "--device llvm" in done.stderr
    assert done.stderr.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("first", ["", "import raytrace_face.backend as b; b.start()"])
def test_broken_exr_is_an_error_also_after_the_tracer_has_started(first, tmp_path):
    """The C++ runtime that is loaded for libLLVM must not catch the exceptions of other libraries (process aborts)."""
    (tmp_path / "a.exr").write_bytes(b"\x76\x2f\x31\x01garbage")
    code = f"{first}\nimport sys; from raytrace_face.cli import run; sys.exit(run(['reconstruct', 'a.exr']))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment.pop("DRJIT_LIBLLVM_PATH", None)  # set by the tracer of this process; the libraries are then not loaded
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 2, done.stderr
    assert "EXR" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_real_command_exits_with_2_and_one_line(tmp_path):
    done = command(["reconstruct", "nothing.jpg"], tmp_path)
    assert done.returncode == 2
    assert done.stderr == "raytrace-face: error: nothing.jpg does not exist: check the path\n"
    assert done.stdout == ""
