"""Rationale: the commands score any two files, print one table, and say in one line what is wrong with a file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from raytrace_face.capture.colour import encode_u8
from raytrace_face.capture.photo import load_values
from raytrace_face.cli import run
from raytrace_face.errors import InputError
from raytrace_face.export import linear_u8, write_exr, write_png
from tests.unit.test_measure_appearance import lamp, with_weights


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def picture() -> np.ndarray:
    return np.random.default_rng(0).random((72, 96, 3)).astype(np.float32)


@pytest.fixture
def half() -> np.ndarray:
    """(72, 96) true in the left half; also written as half.png."""
    mask = np.zeros((72, 96), bool)
    mask[:, :48] = True
    write_png(Path("half.png"), (255 * mask).astype(np.uint8))
    return mask


def score(capsys, command: str, *arguments: str) -> dict[str, float]:
    """Scores of a command, as kept; the printed table must say the same."""
    kept = Path("kept.json")
    kept.unlink(missing_ok=True)
    assert run(["evaluate", command, *arguments, "--json", str(kept)]) == 0
    found = json.loads(kept.read_text())
    header, rule, row = capsys.readouterr().out.splitlines()
    assert header.strip("| ").split(" | ") == list(found)
    assert rule == "|" + "---|" * len(found)
    for cell, value in zip(row.strip("| ").split(" | "), found.values(), strict=True):
        assert value is None or float(cell) == pytest.approx(value, rel=1e-3)
    return found


def files(predicted: str, truth: str) -> list[str]:
    return ["--predicted", predicted, "--truth", truth]


def test_images_of_a_known_error(capsys, half):
    grey = np.full((72, 96, 3), 100, np.uint8)
    grey[0] = 0  # a picture of one single value is refused
    off = grey.copy()
    off[1:, :48] += 10
    off[1:, 48:] += 60
    write_png(Path("a.png"), off)
    write_png(Path("b.png"), grey)
    found = score(capsys, "images", *files("a.png", "b.png"), "--mask", "half.png")
    # ten codes of 255 in 71 of 72 rows
    assert found["PSNR dB"] == pytest.approx(-10 * np.log10((10 / 255) ** 2 * 71 / 72), abs=1e-3)
    assert found["pixels"] == half.sum()
    same = score(capsys, "images", *files("b.png", "b.png"))
    assert same["PSNR dB"] is None  # infinite: null in standard JSON
    assert same["SSIM"] == pytest.approx(1)


def test_gain_is_taken_out_in_linear_light(capsys, picture):
    write_exr(Path("a.exr"), 0.3 * picture)
    write_exr(Path("b.exr"), picture)
    plain = score(capsys, "images", *files("a.exr", "b.exr"))
    free = score(capsys, "images", *files("a.exr", "b.exr"), "--gain-free")
    assert plain["PSNR dB"] < 20
    assert free["PSNR dB"] > 100  # float32
    assert plain["relative rmse, gain-free"] == pytest.approx(0, abs=1e-6)


def test_srgb_and_linear_codes(capsys, picture):
    write_png(Path("srgb.png"), encode_u8(picture))
    write_png(Path("linear.png"), linear_u8(picture))
    write_exr(Path("truth.exr"), picture)
    # rounding to 8 bits
    assert score(capsys, "images", *files("srgb.png", "truth.exr"))["PSNR dB"] > 45
    assert score(capsys, "images", *files("linear.png", "truth.exr"), "--colour", "linear")["PSNR dB"] > 40
    assert score(capsys, "images", *files("linear.png", "truth.exr"))["PSNR dB"] < 20


@with_weights
def test_perceptual_column_bears_its_own_name(capsys, picture):
    write_exr(Path("a.exr"), picture)
    write_exr(Path("b.exr"), picture[::-1])
    found = score(capsys, "images", *files("a.exr", "b.exr"), "--st-lpips")
    assert found["ST-LPIPS (AlexNet)"] > 0.01
    assert "ST-LPIPS (AlexNet)" not in score(capsys, "images", *files("a.exr", "b.exr"))


def test_missing_weights_are_one_line(capsys, picture, monkeypatch):
    from raytrace_face.measure import perceptual

    perceptual._weights.cache_clear()
    monkeypatch.setattr(perceptual, "PACKAGE", "weights_that_are_not_there")
    write_exr(Path("a.exr"), picture)
    assert run(["evaluate", "images", *files("a.exr", "a.exr"), "--st-lpips"]) == 2
    said = capsys.readouterr().err
    assert "raytrace-face[perceptual]" in said
    assert said.count("\n") == 1


def test_albedo_with_ever_more_scale_taken_out(capsys, picture):
    write_exr(Path("a.exr"), picture * np.float32([0.6, 0.5, 0.4]))
    write_exr(Path("b.exr"), picture)
    found = score(capsys, "albedo", *files("a.exr", "b.exr"))
    assert found["rmse as it stands"] > found["one scale"] > 0.05
    assert found["a scale per channel"] == pytest.approx(0, abs=1e-6)


def test_normals_turned_by_an_angle(capsys, half):
    a = np.radians(20)
    flat, tipped = np.zeros((72, 96, 3)), np.zeros((72, 96, 3))
    flat[..., 2] = 1
    tipped[:] = [-np.sin(a), 0, np.cos(a)]
    tipped[half] = [0, -np.sin(a / 2), np.cos(a / 2)]
    tipped[:4] = np.nan  # nothing there
    write_exr(Path("a.exr"), tipped)
    write_exr(Path("b.exr"), flat)
    found = score(capsys, "normals", *files("a.exr", "b.exr"))
    assert found["mean deg"] == pytest.approx(15, abs=1e-4)  # float32
    assert found["below 11.25 deg"] == 0.5
    assert found["below 22.5 deg"] == 1
    assert found["pixels"] == 68 * 96
    assert score(capsys, "normals", *files("a.exr", "b.exr"), "--mask", "half.png")["mean deg"] == pytest.approx(10)
    write_png(Path("a.png"), linear_u8(0.5 + 0.5 * np.nan_to_num(tipped, nan=0)))
    # 8 bits are good to about 0.3 degrees; grey codes (128) are within rounding of no vector, and left out
    found = score(capsys, "normals", *files("a.png", "b.exr"))
    assert found["mean deg"] == pytest.approx(15, abs=0.4)
    assert found["pixels"] == 68 * 96


def test_depth_of_a_scaled_and_of_a_tilted_plane(capsys):
    x = np.broadcast_to(np.arange(96) + 0.5, (72, 96))
    slope = np.tan(np.radians(10))
    flat = np.full((72, 96), 500.0)
    tilted = 500 / (1 - slope * (x - 48) / 160)  # turned about the vertical axis by 10 degrees
    flat[:3] = np.inf  # nothing there
    for name, depth in (("flat", flat), ("scaled", 0.2 * flat), ("tilted", tilted)):
        write_exr(Path(f"{name}.exr"), depth)
    same = score(capsys, "depth", *files("scaled.exr", "flat.exr"), "--focal", "160")
    assert (same["SIDE x100"], same["MAD deg"]) == pytest.approx((0, 0), abs=1e-3)  # float32
    found = score(capsys, "depth", *files("tilted.exr", "flat.exr"), "--focal", "160")
    assert found["MAD deg"] == pytest.approx(10, abs=1e-3)
    assert found["pixels"] == 67 * 94  # less the empty rows and the rim
    ratio = np.log(tilted[4:-1, 1:-1] / 500)
    assert found["SIDE x100"] == pytest.approx(100 * ratio.std(), rel=1e-4)
    assert "MAD deg" not in score(capsys, "depth", *files("tilted.exr", "flat.exr"))


def test_directions_of_light(capsys):
    assert score(capsys, "light", *files("-35,40", "-35, 40"))["angle deg"] == pytest.approx(0, abs=1e-6)
    found = score(capsys, "light", *files("90,0", "0,90"))["angle deg"]
    assert found == pytest.approx(90)


def test_environment_maps(capsys):
    write_exr(Path("a.exr"), 3 * np.roll(lamp(0, 0, 64), 8, axis=1))
    write_exr(Path("b.exr"), lamp(0, 0, 64))
    found = score(capsys, "light", *files("a.exr", "b.exr"))
    assert found["main direction deg"] == pytest.approx(22.5, abs=1e-3)
    assert found["relative rmse"] > found["relative rmse, one scale"] > 0.1


def test_values_come_as_they_stand(half):
    values = np.float32([[-1.5, np.nan], [0.25, np.inf]])
    write_exr(Path("v.exr"), np.tile(values, (40, 40)))
    assert load_values("v.exr")[:2, :2, 0] == pytest.approx(values, nan_ok=True)
    assert np.array_equal(load_values("half.png")[..., 0] == 1, half)
    with pytest.raises(InputError, match="does not exist"):
        load_values("nowhere.exr")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["images", *files("nowhere.png", "a.png")], "does not exist"),
        (["images", *files("a.png", "small.png")], "a.png is 96 x 72, small.png is 64 x 70"),
        (["images", *files("a.png", "a.png"), "--mask", "small.png"], "mask small.png is 64 x 70"),
        (["images", *files("a.png", "a.png"), "--mask", "black.png"], "mask is empty"),
        (["images", *files("a.png", "a.png"), "--json", "a.png"], "exists"),
        (["images", *files("a.png", "a.png"), "--json", "no/s.json"], "make it first"),
        (["albedo", *files("text.png", "a.png")], "not a picture"),
        (["normals", *files("grey.exr", "a.png")], "one channel"),
        (["normals", *files("grey.png", "grey.png")], "no pixel holds a normal"),
        (["depth", *files("grey.exr", "grey.exr"), "--focal", "-3"], "focal is -3"),
        (["depth", *files("black.png", "black.png")], "mask less one pixel"),
        (["light", *files("10,20", "a.png")], "two of one kind"),
        (["light", *files("10,95", "10,20")], "elevation"),
        (["light", *files("a.png", "a.png")], "(H, 2H, 3)"),
        (["light", *files("hole.exr", "hole.exr")], "NaN"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(capsys, picture, arguments, message):
    write_png(Path("a.png"), encode_u8(picture))
    write_png(Path("small.png"), encode_u8(picture[:70, :64]))
    write_png(Path("black.png"), np.zeros((72, 96), np.uint8))
    write_png(Path("grey.png"), np.full((72, 96, 3), 128, np.uint8))
    write_exr(Path("grey.exr"), picture[..., 0])
    write_exr(Path("hole.exr"), np.full((64, 128, 3), np.nan))
    Path("text.png").write_text("no picture")
    before = sorted(Path().iterdir())
    assert run(["evaluate", *arguments]) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""
    assert sorted(Path().iterdir()) == before


def test_help_names_every_command(capsys):
    assert run(["--help"]) == 0
    assert "evaluate" in capsys.readouterr().out
    assert run(["evaluate", "--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in ("images", "albedo", "normals", "depth", "light"))
    assert run(["evaluate", "depth", "--help"]) == 0
    assert "Unsup3d" in capsys.readouterr().out
    assert run(["evaluate", "nonsense"]) == 2
