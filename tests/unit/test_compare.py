"""`compare`: a result against itself differs in nothing, and known changes get known figures."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.transform import Rotation

from raytrace_face import compare, compare_sheet, panel
from raytrace_face.capture.colour import encode_u8
from raytrace_face.capture.photo import photo_from_array
from raytrace_face.cli import run
from raytrace_face.errors import InputError
from raytrace_face.measure import perceptual
from raytrace_face.result import Reconstruction
from raytrace_face.types import Window

QUICK = (compare.Setting(spp=4),)
PIXEL = 280 / 48
"""Photo pixels in a pixel of the fixture's window."""


def with_mask(result: Reconstruction, rows: slice, columns: slice) -> Reconstruction:
    mask = np.zeros((48, 48), np.float32)
    mask[rows, columns] = 1
    return replace(result, pictures=replace(result.pictures, mask=mask))


def moved(result: Reconstruction, right: int, down: int) -> Reconstruction:
    """The same result with its window so many of its pixels further on; its pictures are left as they are."""
    w = result.window
    return replace(result, window=Window(w.left_px + right * PIXEL, w.top_px + down * PIXEL, w.side_px, w.size))


# --- what is one photo, and where it is compared ---


def test_photos_are_told_by_their_bytes_and_arrays_by_name_and_size(reconstruction):
    array = replace(reconstruction, photo_sha256="")
    assert compare.same_photo(reconstruction, replace(reconstruction, photo_name="a copy"))
    assert not compare.same_photo(reconstruction, replace(reconstruction, photo_sha256="cd" * 32))
    assert not compare.same_photo(reconstruction, array)
    assert not compare.same_photo(array, reconstruction)
    assert compare.same_photo(array, array)
    assert not compare.same_photo(array, replace(array, photo_name="other"))
    assert not compare.same_photo(array, replace(array, camera=replace(array.camera, width=641)))


def test_common_region_is_that_of_both_masks_on_one_window(reconstruction):
    """The second window begins 5 pixels further right and 3 further down: its pixel (0, 0) is (5, 3) of the first."""
    a = with_mask(reconstruction, slice(10, 30), slice(8, 28))
    b = moved(with_mask(reconstruction, slice(0, 20), slice(10, 40)), 5, 3)
    (view,) = compare.views({"a": a, "b": b})
    wanted = np.zeros((48, 48), bool)
    wanted[10:23, 15:28] = True
    assert np.array_equal(view.mask, wanted)
    assert view.window == a.window
    assert view.photo is a.pictures.photo


def test_pictures_move_with_the_window_and_are_black_outside(reconstruction):
    ramp = np.broadcast_to(np.arange(48, dtype=np.float32), (48, 48))
    w = reconstruction.window
    shifted = compare.on_window(ramp, w, moved(reconstruction, 4, 0).window)
    assert np.allclose(shifted[:, :42], ramp[:, 4:46], atol=1e-4)
    assert not shifted[:, 45:].any()
    half = compare.on_window(ramp, w, w.resized(24))
    assert np.allclose(half[:, 1:-1], ramp[::2, 2:-2:2] + 0.5, atol=1e-4)  # means of two pixels
    assert compare.on_window(ramp, w, w) is ramp


def test_different_photos_are_scored_each_in_its_own(reconstruction):
    other = replace(with_mask(reconstruction, slice(0, 5), slice(0, 5)), photo_sha256="cd" * 32)
    first, second = compare.views({"a": reconstruction, "b": other})
    assert (first.names, second.names) == (("a",), ("b",))
    assert second.mask.sum() == 25
    found = compare.entries({"a": reconstruction, "b": other}, [first, second], QUICK)
    assert [e.to_first for e in found] == [None, None]


def test_faces_without_a_common_region_are_refused(reconstruction):
    a = with_mask(reconstruction, slice(0, 5), slice(0, 5))
    b = with_mask(reconstruction, slice(20, 25), slice(0, 5))
    with pytest.raises(InputError, match="a, b do not overlap"):
        compare.views({"a": a, "b": b})


def test_given_photo_is_what_all_are_scored_against(reconstruction):
    grey = photo_from_array(np.tile(np.linspace(0, 200, 640).astype(np.uint8)[None, :, None], (480, 1, 3)))
    other = replace(reconstruction, photo_sha256="cd" * 32)
    (view,) = compare.views({"a": reconstruction, "b": other}, grey)
    assert view.names == ("a", "b")
    column = int(reconstruction.window.left_px + 24.5 * PIXEL)
    assert np.allclose(view.photo[24, 24], grey.linear[260, column], atol=0.01)
    small = photo_from_array(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (200, 1, 3)))
    with pytest.raises(InputError, match="200 x 200, the photo of a was 640 x 480"):
        compare.views({"a": reconstruction}, small)


# --- pictures ---


def test_result_against_itself_differs_in_nothing(reconstruction):
    """Also when its window was cut elsewhere: both are traced on the first one's, in one camera."""
    results = {"a": reconstruction, "b": moved(reconstruction, 3, 2)}
    first, second = compare.entries(results, compare.views(results), QUICK)
    assert first.to_first is None
    assert second.to_first.psnr_db > 80  # one thread, one seed: the same up to the rounding of the window's position
    assert second.scores.psnr_db == pytest.approx(first.scores.psnr_db, abs=1e-3)


def test_scores_are_those_of_the_picture_in_the_region(reconstruction):
    view = replace(compare.views({"a": reconstruction})[0])
    (entry,) = compare.entries({"a": reconstruction}, [view], QUICK, lambda p, t, mask: float(mask.sum()))
    from raytrace_face.measure.appearance import face_scores

    assert np.array_equal(entry.picture, reconstruction.render(spp=4))
    wanted = face_scores(entry.picture, reconstruction.pictures.photo, reconstruction.pictures.mask > 0.5)
    assert (entry.scores.psnr_db, entry.scores.ssim) == (wanted.psnr_db, wanted.ssim)
    assert entry.scores.perceptual == view.mask.sum()


def test_settings_are_every_renderer_with_every_number_of_rays():
    found = compare.settings(("own", "mitsuba"), (16, 256), no_shadows=True)
    assert [s.label for s in found] == [
        "own, 16 spp",
        "own, 256 spp",
        "mitsuba, 16 spp",
        "mitsuba, 256 spp",
        "own, 16 spp, no shadows",
        "own, 256 spp, no shadows",
    ]


def test_more_rays_come_nearer_to_many_rays_and_shadows_only_darken(reconstruction):
    result = with_mask(reconstruction, slice(12, 36), slice(12, 36))
    chosen = (*compare.settings(spp=(256, 4, 64)), compare.Setting(spp=256, shadows=False))
    many, few, more, open_ = compare.entries({"a": result}, compare.views({"a": result}), chosen)
    assert few.to_first.psnr_db + 3 < more.to_first.psnr_db  # noise falls by 12 dB from 4 to 64 rays
    assert open_.picture.mean() > many.picture.mean()


def test_mitsuba_renders_the_exported_scene_to_our_picture(reconstruction):
    """Means of 4 x 4 pixels inside the region, against the same picture mirrored: 5 times as far at least."""
    result = with_mask(reconstruction, slice(12, 36), slice(12, 36))
    chosen = compare.settings(("own", "mitsuba"), (256,))
    ours, theirs = (e.picture for e in compare.entries({"a": result}, compare.views({"a": result}), chosen))

    def blocks(image: np.ndarray) -> np.ndarray:
        return image[12:36, 12:36].reshape(6, 4, 6, 4, 3).mean((1, 3))

    distance = np.abs(blocks(ours) - blocks(theirs)).mean()
    assert distance < 0.2 * np.abs(blocks(ours) - blocks(theirs[:, ::-1])).mean()
    assert distance < 0.03 * blocks(ours).mean()


# --- light, shape, albedo ---


def test_result_has_no_distance_from_itself(reconstruction):
    found = compare.pair(("a", "b"), reconstruction, reconstruction)
    assert (found.light_camera_deg, found.light_head_deg) == pytest.approx((0, 0), abs=1e-6)
    assert found.rigid.p90 < 1e-3
    assert found.similar.p90 < 1e-3
    assert found.scale == pytest.approx(1, abs=1e-4)
    assert found.albedo.as_it_stands == 0


def test_lights_of_heads_and_cameras_are_told_apart(reconstruction):
    """The camera sees the same light; the head has turned 20 degrees about an axis across it."""
    light = reconstruction.dominant_light
    across = np.cross(light, [0, 1, 0])
    turn = Rotation.from_rotvec(np.radians(20) * across / np.linalg.norm(across)).as_matrix()
    T = reconstruction.face.T_camera_head.copy()
    T[:3, :3] = turn @ T[:3, :3]
    turned = replace(reconstruction, face=replace(reconstruction.face, T_camera_head=T.astype(np.float32)))
    found = compare.pair(("a", "b"), reconstruction, turned)
    assert found.light_camera_deg == pytest.approx(0, abs=1e-3)
    assert found.light_head_deg == pytest.approx(20, abs=1e-3)


def test_larger_face_is_near_only_after_scale_and_expressions_do_not_count(reconstruction, tiny_model):
    """5 % of radii of 75 to 100 mm; sixty-odd triangles an ellipse leave a tenth of a millimetre."""
    large = replace(tiny_model, mean=1.05 * tiny_model.mean, identity=1.05 * tiny_model.identity)
    face = replace(reconstruction.face, expression=np.ones(2, np.float32))
    found = compare.pair(("a", "b"), reconstruction, replace(reconstruction, model=large, face=face))
    assert 2 < found.rigid.median < 6
    assert found.similar.median < 0.1
    assert found.scale == pytest.approx(1.05, abs=2e-3)


def test_albedo_is_compared_where_both_photos_show_it(reconstruction):
    maps = reconstruction.maps
    seen = np.zeros_like(maps.confidence)
    seen[:32] = 1
    dark = np.where(seen[..., None] > 0, 0.5 * maps.diffuse, 0)
    a = replace(reconstruction, maps=replace(maps, confidence=np.ones_like(seen)))
    b = replace(reconstruction, maps=replace(maps, diffuse=dark, confidence=seen))
    found = compare.pair(("a", "b"), a, b).albedo
    upper = maps.diffuse[:32]
    assert found.as_it_stands == pytest.approx(np.sqrt((0.25 * upper**2).mean()) / upper.mean(), rel=1e-5)
    assert found.one_scale == pytest.approx(0, abs=1e-6)
    none = replace(b, maps=replace(b.maps, confidence=0 * seen))
    assert compare.pair(("a", "b"), a, none).albedo is None


def test_maps_of_different_sizes_are_compared(reconstruction):
    """A linear ramp at half the size is the same ramp: only the border texels differ."""
    maps = reconstruction.maps
    whole = replace(maps, confidence=np.ones_like(maps.confidence))
    half = replace(
        maps, diffuse=maps.diffuse.reshape(32, 2, 32, 2, 3).mean((1, 3)), confidence=np.ones((32, 32), np.float32)
    )
    a, b = (replace(reconstruction, maps=m) for m in (whole, half))
    assert compare.pair(("a", "b"), a, b).albedo.as_it_stands < 0.01


# --- sheet, tables, command ---


def test_sheet_shows_the_photo_first_and_maps_once_a_result(reconstruction):
    results = {"a": reconstruction}
    found = compare.entries(results, compare.views(results), compare.settings(spp=(1, 2)))
    sheet = np.asarray(compare_sheet.draw(found, results, compare.pairs(results)))
    top = panel.GAP + compare_sheet.HEADLINE + panel.LABEL
    middle = ((np.arange(48) + 0.5) * panel.TILE / 48).astype(int)
    step = panel.TILE + panel.GAP

    def tile(row: int, column: int) -> np.ndarray:
        y, x = top + row * (len(sheet) - panel.GAP) // 2, panel.GAP + column * step
        return sheet[y : y + panel.TILE, x : x + panel.TILE][middle][:, middle]

    for row, entry in enumerate(found):
        assert np.array_equal(tile(row, 0), encode_u8(reconstruction.pictures.photo))
        assert np.array_equal(tile(row, 1), encode_u8(entry.picture))
    assert np.array_equal(tile(0, 4), encode_u8(reconstruction.pictures.diffuse))
    assert (tile(1, 4) == panel.BACKGROUND).all()


def test_tables_leave_out_what_nobody_has():
    text = compare_sheet.markdown([{"a": "x|y", "b": math.nan, "c": 1.23456}, {"a": "z", "b": math.nan, "c": math.nan}])
    assert text.splitlines() == ["| a | c |", "|---|---|", "| x\\|y | 1.235 |", "| z | - |"]


@pytest.fixture
def folders(reconstruction, tiny_model, tmp_path, monkeypatch) -> list[Path]:
    """Two result folders of one photo, whose model is not the embedded one; no network that scores."""
    load = Reconstruction.load.__func__
    monkeypatch.setattr(Reconstruction, "load", classmethod(lambda cls, path: load(cls, path, tiny_model)))
    monkeypatch.setattr(perceptual, "available", lambda: False)
    dark = replace(reconstruction, maps=replace(reconstruction.maps, diffuse=0.5 * reconstruction.maps.diffuse))
    return [reconstruction.save(tmp_path / "in" / "light"), dark.save(tmp_path / "in" / "dark")]


def test_command_writes_sheet_tables_and_figures(folders, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["compare", *map(str, folders), "--out", str(out), "--spp", "1", "2"]
    assert run(arguments) == 0
    assert sorted(p.name for p in out.iterdir()) == ["compare.json", "compare.md", "sheet.png"]
    said = json.loads((out / "compare.json").read_text())
    names = [(row["result"], row["rendered"]) for row in said["rendered"]]
    assert names == [(n, f"own, {k} spp") for n in ("light", "dark") for k in (1, 2)]
    assert said["pairs"][0]["albedo rmse, one scale"] == pytest.approx(0, abs=1e-6)
    assert said["rendered"][0][perceptual.NAME] is None
    table = (out / "compare.md").read_text()
    assert perceptual.NAME not in table
    assert "light - dark" in table
    assert table in capsys.readouterr().out + "\n"
    assert run(arguments) == 2
    assert run([*arguments, "--force", "--quiet"]) == 0
    assert "| result |" not in capsys.readouterr().out


def test_command_writes_the_sheet_alone(folders, tmp_path):
    out = tmp_path / "sheet.png"
    assert run(["compare", str(folders[0]), "--out", str(out), "--spp", "1", "--no-shadows", "--quiet"]) == 0
    with Image.open(out) as sheet:
        assert sheet.width > 7 * panel.TILE
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "sheet.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere", "--out", "a.png"], "not a result folder"),
        (["nowhere", "nowhere", "--out", "a"], "given twice"),
        (["--out", "a"], "no result is given"),
        (["nowhere", "--out", "a", "--spp", "0"], "spp is 0"),
        (["nowhere", "--out", "no/a.png"], "make it first"),
        (["nowhere", "--out", "a", "--renderer", "cycles"], "cycles"),
    ],
)
def test_bad_comparisons_exit_2_and_write_nothing(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert run(["compare", *arguments]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert message == "cycles" or said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_wrong_photo_is_one_line(folders, tmp_path, capsys):
    Image.fromarray(np.tile(np.arange(99, dtype=np.uint8)[:, None, None], (1, 99, 3))).save(tmp_path / "p.png")
    arguments = ["compare", str(folders[0]), "--out", str(tmp_path / "o"), "--photo", str(tmp_path / "p.png")]
    assert run(arguments) == 2
    assert "640 x 480" in capsys.readouterr().err
    assert not (tmp_path / "o").exists()
