"""Faces, windows and segmentation, on scikit-image's astronaut (public domain, NASA)."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from raytrace_face.capture import (
    CLASSES,
    capture,
    detect_faces,
    landmarks,
    load_photo,
    photo_from_array,
    resample,
    segment,
    sight,
)
from raytrace_face.capture.colour import encode_u8
from raytrace_face.capture.detector import Roi, crop, merge, overlap
from raytrace_face.capture.glimpse import glimpse, regard
from raytrace_face.capture.landmarks import EYE_CORNERS, IRISES, NOSE_TIP
from raytrace_face.capture.networks import FOLDER, network, read_verified, tables
from raytrace_face.capture.photo import codes_of
from raytrace_face.errors import InputError, ModelError, NoFaceError
from raytrace_face.types import Window


@pytest.fixture(scope="module")
def astronaut():
    return skimage.data.astronaut()


@pytest.fixture(scope="module")
def face(astronaut):
    (found,) = detect_faces(astronaut)
    return found


@pytest.fixture(scope="module")
def seen(astronaut):
    return capture(photo_from_array(astronaut))


def rms(a, b):
    """Root mean square distance of points (N, 2), pixels."""
    return float(np.sqrt(((np.asarray(a) - np.asarray(b)) ** 2).sum(1).mean()))


# -- landmarks ---------------------------------------------------------------------------------------------------


def test_irises_nose_and_mouth_lie_where_one_sees_them(face):
    # read off the picture by eye, to 3 pixels (5 % of the eye distance)
    left, right = face.landmarks_px[list(IRISES)]
    assert np.abs(left - (204, 101)).max() < 3
    assert np.abs(right - (246.5, 103.5)).max() < 3
    assert left[0] < face.landmarks_px[NOSE_TIP][0] < right[0]
    assert face.landmarks_px[NOSE_TIP][1] > right[1] + 15
    assert face.landmarks_px[13][1] > face.landmarks_px[NOSE_TIP][1]
    assert face.score > 0.99


def test_a_smile_is_a_smile(seen):
    assert seen.blendshapes["mouthSmileLeft"] > 0.5
    assert seen.blendshapes["mouthSmileRight"] > 0.5
    assert seen.blendshapes["eyeBlinkLeft"] < 0.4
    assert len(seen.blendshapes) == 52
    assert all(0 <= w <= 1 for w in seen.blendshapes.values())


def test_landmarks_do_not_depend_on_resolution(astronaut, face):
    double = np.asarray(Image.fromarray(astronaut).resize((1024, 1024), Image.Resampling.BICUBIC))
    (large,) = detect_faces(double)
    assert rms(large.landmarks_px / 2, face.landmarks_px) < 1


def test_landmarks_of_the_mirrored_photo_are_mirrored(astronaut, face):
    (other,) = detect_faces(astronaut[:, ::-1])
    back = other.landmarks_px[tables()["mirror"]] * (-1, 1) + (astronaut.shape[1], 0)
    assert rms(back, face.landmarks_px) < 1


def test_landmarks_follow_a_turned_head(astronaut, face):
    angle = 25.0
    turned = np.asarray(Image.fromarray(astronaut).rotate(angle, Image.Resampling.BILINEAR))
    (other,) = detect_faces(turned)
    c, s = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    expected = (face.landmarks_px - 256) @ np.array([[c, -s], [s, c]]) + 256
    assert rms(other.landmarks_px, expected) < 1.5


def test_upside_down_photo_is_found(astronaut, face):
    (other,) = detect_faces(np.ascontiguousarray(astronaut[::-1, ::-1]))
    assert rms(512 - other.landmarks_px, face.landmarks_px) < 2


@pytest.mark.parametrize("gain", [0.02, 0.15])
def test_dark_photo_is_found_at_the_same_place(astronaut, face, gain):
    linear = photo_from_array(astronaut).linear * gain
    found = capture(photo_from_array(linear, "linear"))
    assert rms(found.landmarks_px, face.landmarks_px) < 2
    assert any("dark" in w for w in found.warnings) == (gain < 0.05)


def test_half_black_face_is_found(astronaut, face):
    half = astronaut.copy()
    half[:, : int(face.landmarks_px[NOSE_TIP][0])] //= 20
    found = detect_faces(half)
    assert found
    assert rms(found[0].landmarks_px, face.landmarks_px) < 0.08 * face.eyes_px


def test_tight_crop_is_found(astronaut, face):
    left, top, right, bottom = face.box.astype(int)
    found = detect_faces(astronaut[top:bottom, left:right])
    assert found
    assert rms(found[0].landmarks_px + np.array([left, top]), face.landmarks_px) < 0.08 * face.eyes_px


def test_small_face_in_a_large_photo_is_found(astronaut, face):
    large = np.full((1600, 2000, 3), 90, np.uint8)
    large[900:1412, 1300:1812] = astronaut
    (found,) = detect_faces(large)
    assert rms(found.landmarks_px - (1300, 900), face.landmarks_px) < 1


def test_detection_is_deterministic(astronaut, face):
    (again,) = detect_faces(astronaut)
    assert np.array_equal(again.landmarks_px, face.landmarks_px)


def test_yaw_is_small_and_odd_under_mirroring(astronaut, face):
    (other,) = detect_faces(astronaut[:, ::-1])
    assert abs(face.yaw_deg + other.yaw_deg) < 2
    assert abs(face.yaw_deg) < 25


# -- several faces, none, too small ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(astronaut):
    """A large face on the left and a smaller one on the right."""
    small = np.asarray(Image.fromarray(astronaut).resize((358, 358), Image.Resampling.LANCZOS))
    both = np.full((512, 870, 3), 120, np.uint8)
    both[:, :512] = astronaut
    both[100:458, 512:] = small
    return photo_from_array(both)


def test_largest_face_is_taken_and_others_can_be_chosen(pair):
    first, second = capture(pair), capture(pair, face=1)
    assert first.faces_found == second.faces_found == 2
    assert first.landmarks_px[NOSE_TIP][0] < 512 < second.landmarks_px[NOSE_TIP][0]
    assert any("2 faces" in w for w in first.warnings)
    assert not any("faces found" in w for w in second.warnings)
    with pytest.raises(NoFaceError, match="face 2 does not exist: 2 found"):
        capture(pair, face=2)
    with pytest.raises(NoFaceError, match="face -1"):
        capture(pair, face=-1)


def test_no_face_is_an_error_of_one_line():
    noise = np.random.default_rng(0).integers(0, 256, (200, 240, 3), np.uint8)
    for picture in (noise, skimage.data.coffee()):
        with pytest.raises(NoFaceError, match="no face found") as caught:
            capture(photo_from_array(picture, name="still.png"))
        assert "\n" not in str(caught.value)
        assert "still.png" in str(caught.value)


def test_too_small_a_face_says_how_small(astronaut):
    small = np.asarray(Image.fromarray(astronaut).resize((220, 220), Image.Resampling.LANCZOS))
    with pytest.raises(InputError, match=r"too small: \d+ pixels between the eyes, at least 24"):
        capture(photo_from_array(small))


def test_monochrome_and_closed_in_photos_are_warned_about(astronaut, face):
    grey = np.asarray(Image.fromarray(astronaut).convert("L"))
    assert any("monochrome" in w for w in capture(photo_from_array(grey)).warnings)
    left, top, right, bottom = face.box.astype(int)
    cut = capture(photo_from_array(astronaut[top - 20 : bottom + 20, left - 20 : int(right - 0.1 * (right - left))]))
    assert any("outside the photo" in w for w in cut.warnings)


def test_ordinary_photo_has_no_warnings(seen):
    assert seen.warnings == ()


# -- window and resampling ---------------------------------------------------------------------------------------


def test_window_holds_the_face_with_a_margin(seen):
    inside = seen.window.to_window(seen.landmarks_px) / seen.window.size
    assert inside.min() > 0.12
    assert inside.max() < 0.88


@pytest.mark.parametrize("side", [40.0, 97.3, 256.0, 700.0])
def test_resampling_a_linear_ramp_gives_the_ramp_at_the_right_place(side):
    y, x = np.mgrid[:800, :900] + 0.5
    ramp = np.stack([x / 900, y / 800, 0.5 * np.ones_like(x)], -1)
    window = Window(51.7, 33.2, side, 64)
    out, valid = resample(ramp, window)
    centre = (np.arange(64) + 0.5) * side / 64
    assert valid.all()
    assert np.abs(out[..., 0] - (window.left_px + centre)[None] / 900).max() < 1e-3
    assert np.abs(out[..., 1] - (window.top_px + centre)[:, None] / 800).max() < 1e-3
    assert np.abs(out[..., 2] - 0.5).max() < 1e-6


def test_shrinking_keeps_the_light():
    # a checkerboard of single pixels averages to grey: nothing aliases
    board = (np.indices((256, 256)).sum(0) % 2).astype(np.float32)
    out, _ = resample(board, Window(0, 0, 256, 32))
    assert out.shape == (32, 32, 1)
    assert np.abs(out[2:-2, 2:-2] - 0.5).max() < 1e-3


def test_window_of_the_whole_photo_at_its_size_is_the_photo(astronaut):
    linear = photo_from_array(astronaut).linear
    out, valid = resample(linear, Window(0, 0, 512, 512))
    assert valid.all()
    assert np.abs(out - linear).max() < 1e-6


def test_outside_the_photo_is_black_and_not_valid():
    out, valid = resample(np.ones((100, 100, 3)), Window(-50, 20, 100, 50))
    assert not valid[:, :25].any()
    assert valid[:40, 25:].all()
    assert not valid[40:].any()
    assert (out[~valid] == 0).all()
    assert np.abs(out[valid] - 1).max() < 1e-6
    assert not resample(np.ones((100, 100, 3)), Window(500, 500, 50, 20))[1].any()


# -- segmentation ------------------------------------------------------------------------------------------------


def test_segmentation_knows_face_hair_and_background(seen):
    s = seen.segmentation
    assert s.shape == (256, 256, 6)
    assert s.dtype == np.float32
    assert np.abs(s.sum(-1) - 1).max() < 1e-5
    x, y = seen.window.to_window(seen.landmarks_px[[NOSE_TIP, 205, 425]]).astype(int).T
    assert (s[y, x].argmax(-1) == CLASSES.index("face skin")).all()
    labels = s.argmax(-1)
    assert (labels[:50, 100:150] == CLASSES.index("hair")).mean() > 0.5
    assert (labels[:20, :20] == CLASSES.index("background")).mean() > 0.8


def test_there_is_no_background_inside_the_face(seen, astronaut):
    dark = photo_from_array(astronaut).linear.copy()
    dark[:, :225] *= 0.003
    labels = segment(dark, seen.window, seen.landmarks_px).argmax(-1)
    x, y = seen.window.to_window(seen.landmarks_px[[NOSE_TIP, 205, 425, 50, 280]]).astype(int).T
    assert (labels[y, x] != CLASSES.index("background")).all()


def test_outside_the_photo_is_background(astronaut):
    s = segment(photo_from_array(astronaut).linear, Window(-100, 0, 300, 90))
    assert (s[:, :29, 0] == 1).all()


# -- networks ----------------------------------------------------------------------------------------------------


def test_mirror_permutation_is_an_involution_that_swaps_the_eyes():
    mirror = np.array(tables()["mirror"])
    assert np.array_equal(mirror[mirror], np.arange(478))
    assert mirror[EYE_CORNERS[0]] == EYE_CORNERS[1]
    assert mirror[IRISES[0]] == IRISES[1]
    assert mirror[NOSE_TIP] == NOSE_TIP


def test_vendored_files_have_licence_and_provenance():
    for name in ("LICENSE", "NOTICE", "networks.md", "networks.json"):
        assert (FOLDER / name).stat().st_size > 100
    assert "Apache License" in (FOLDER / "LICENSE").read_text("utf-8")


def test_damaged_or_missing_network_is_a_model_error(tmp_path):
    (tmp_path / "networks.json").write_bytes((FOLDER / "networks.json").read_bytes())
    with pytest.raises(ModelError, match="cannot be read"):
        read_verified("landmarks.json", tmp_path)
    (tmp_path / "landmarks.json").write_bytes(b"{}")
    with pytest.raises(ModelError, match="damaged"):
        read_verified("landmarks.json", tmp_path)


def test_networks_are_loaded_once_and_say_nothing(capfd):
    from raytrace_face.capture.networks import _load

    _load.cache_clear()
    assert network("detector") is network("detector")
    assert capfd.readouterr() == ("", "")


# -- geometry of crops and boxes ---------------------------------------------------------------------------------


def test_crop_of_a_ramp_is_a_ramp():
    y, x = np.mgrid[:200, :200]
    picture = np.stack([x, y, 0 * x], -1).astype(np.uint8)
    roi = Roi(100.0, 90.0, 64.0, 0.3)
    out = crop(picture, roi, 64).astype(float)
    at = np.stack(np.meshgrid(np.arange(64) + 0.5, np.arange(64) + 0.5), -1).reshape(-1, 2)
    expected = roi.to_photo(at, 64) - 0.5  # the value of the pixel whose centre is there
    assert np.abs(out[..., :2].reshape(-1, 2) - expected).max() < 1.01


def test_overlap_of_boxes():
    a, b = np.array([0.0, 0, 2, 2]), np.array([1.0, 0, 3, 2])
    assert overlap(a, a) == pytest.approx(1)
    assert overlap(a, b) == pytest.approx(1 / 3)
    assert overlap(a, b + 5) == 0
    assert merge([]) == []


# -- hard light, on data that is not in the repository -----------------------------------------------------------


@pytest.mark.skipif("RAYTRACE_FACE_DATA" not in os.environ, reason="RAYTRACE_FACE_DATA (a folder with yaleb/) not set")
def test_one_pose_under_hard_lights_gives_the_same_landmarks():
    """Extended Yale B, one subject: landmarks agree over the lights to 3 % of the eye distance."""
    lights = ("A+000E+00", "A-035E+40", "A+050E+00", "A-070E+00", "A+035E+65")
    folder = Path(os.environ["RAYTRACE_FACE_DATA"]) / "yaleb" / "yaleB02"
    found = [capture(load_photo(folder / f"yaleB02_P00{light}.pgm")) for light in lights]
    points = np.stack([f.landmarks_px[:468] for f in found])
    middle = np.median(points, 0)
    eyes = np.linalg.norm(np.subtract(*found[0].landmarks_px[list(IRISES)]))
    assert np.sqrt(((points - middle) ** 2).sum(2).mean()) < 0.035 * eyes


def test_window_size_is_the_users(astronaut):
    photo = photo_from_array(astronaut)
    half = capture(photo, size=64)
    assert half.segmentation.shape == (64, 64, 6)
    assert half.window == replace(half.window, size=64)
    with pytest.raises(InputError, match="window size 4"):
        capture(photo, size=4)


# -- a quick look ------------------------------------------------------------------------------------------------


def on_canvas(picture, height, width, top, left):
    """The picture on a grey canvas."""
    out = np.full((height, width, 3), 90, np.uint8)
    out[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return out


@pytest.mark.parametrize("case", ["as it is", "mirrored", "turned", "tight", "dark"])
def test_a_quick_look_sees_the_landmarks_of_capture_within_their_noise(astronaut, face, case):
    left, top, right, bottom = face.box.astype(int)
    picture = {
        "as it is": astronaut,
        "mirrored": astronaut[:, ::-1],
        "turned": np.asarray(Image.fromarray(astronaut).rotate(20, Image.Resampling.BILINEAR)),
        "tight": astronaut[top - 20 : bottom + 20, left - 20 : right + 20],
        "dark": (astronaut // 4).astype(np.uint8),
    }[case]
    photo = photo_from_array(np.ascontiguousarray(picture))
    quick, slow = sight(photo), capture(photo)
    # by which the views that are averaged disagree
    assert rms(quick.landmarks_px, slow.landmarks_px) < 0.01 * face.eyes_px
    assert max(abs(quick.blendshapes[k] - slow.blendshapes[k]) for k in slow.blendshapes) < 0.05
    assert quick.score == pytest.approx(slow.score, abs=0.01)
    assert (quick.faces_found, quick.warnings) == (slow.faces_found, slow.warnings)
    assert not hasattr(quick, "segmentation")


def test_a_quick_look_searches_on_for_a_small_face(astronaut):
    small = photo_from_array(on_canvas(astronaut, 1500, 1200, 700, 300))
    quick, slow = sight(small), capture(small)
    assert np.array_equal(quick.landmarks_px, slow.landmarks_px)
    assert quick.warnings == slow.warnings


def test_a_quick_look_takes_the_largest_of_several_faces_and_counts_them(astronaut, monkeypatch):
    close = np.ascontiguousarray(astronaut[:256, 96:352])
    small = np.asarray(Image.fromarray(close).resize((192, 192)))
    pair = photo_from_array(np.concatenate([on_canvas(small, 256, 192, 30, 0), close], axis=1))
    slow = capture(pair)
    monkeypatch.setattr(landmarks, "detect_faces", None)  # the long search is not needed
    quick = sight(pair)
    assert quick.faces_found == slow.faces_found == 2
    assert "2 faces found" in quick.warnings[0]
    assert rms(quick.landmarks_px, slow.landmarks_px) < 0.4  # of 42 pixels between the eyes
    assert quick.landmarks_px[:, 0].min() > 192


def test_a_quick_look_finds_no_face_where_there_is_none(astronaut):
    with pytest.raises(NoFaceError, match="no face found"):
        sight(photo_from_array(astronaut[300:]))


@pytest.mark.skipif("RAYTRACE_FACE_DATA" not in os.environ, reason="needs photos in $RAYTRACE_FACE_DATA/photos")
def test_a_quick_look_agrees_on_real_photos():
    for path in sorted((Path(os.environ["RAYTRACE_FACE_DATA"]) / "photos").glob("*.*g")):
        photo = load_photo(path)
        quick, slow = sight(photo), capture(photo)
        left, right = slow.landmarks_px[list(IRISES)]
        assert rms(quick.landmarks_px, slow.landmarks_px) < 0.01 * np.hypot(*(left - right)), path.name


# -- what is kept of a photo ---------------------------------------------------------------------------------------


def test_codes_of_a_photo_are_those_of_its_file():
    codes = np.arange(256 * 64 * 3, dtype=np.uint32).reshape(64, 256, 3).astype(np.uint8)
    photo = photo_from_array(codes)
    assert np.array_equal(codes_of(photo), codes)
    assert np.array_equal(encode_u8(photo.linear), codes)  # so that it makes no difference whether they are kept
    grey = photo_from_array(codes[..., 0])
    assert np.array_equal(codes_of(grey), np.repeat(codes[..., :1], 3, 2))
    for other in (photo_from_array(codes, "linear"), photo_from_array(codes.astype(np.uint16) * 257)):
        assert other.codes is None
        assert np.array_equal(codes_of(other), encode_u8(other.linear))


@pytest.mark.parametrize("shift", [(0, 0), (-150, -90), (300, 20), (-500, 0)], ids=["inside", "left", "right", "out"])
def test_a_glimpse_is_the_window_and_what_is_round_it(astronaut, seen, shift):
    photo = photo_from_array(astronaut)
    window = replace(seen.window, left_px=seen.window.left_px + shift[0], top_px=seen.window.top_px + shift[1])
    if shift == (-500, 0):
        window = replace(window, side_px=1200.0)  # larger than the photo
    kept = glimpse(photo, window)
    small, again = regard(kept, seen.landmarks_px, window)
    exact, valid = resample(photo.linear, window)
    back, inside = resample(small.linear, again.window)
    assert back == pytest.approx(exact, abs=1e-4)  # Pillow keeps the edges of a window in float32
    assert np.array_equal(inside, valid)
    points = again.landmarks_px - (again.window.left_px, again.window.top_px)
    assert points == pytest.approx(window.to_window(seen.landmarks_px), abs=1e-3)


def test_a_glimpse_is_segmented_as_the_photo_is(astronaut, seen):
    photo = photo_from_array(astronaut)
    _, again = regard(glimpse(photo, seen.window), seen.landmarks_px, seen.window)
    # it is resampled twice for the network, so that borders move by parts of a pixel
    assert np.abs(again.segmentation - seen.segmentation).mean() < 0.01
    assert (again.segmentation.argmax(2) == seen.segmentation.argmax(2)).mean() > 0.98


def test_clipped_pixels_are_kept_in_a_glimpse(astronaut, seen):
    x, y = seen.landmarks_px[NOSE_TIP].astype(int)
    bright = astronaut.copy()
    bright[y - 8 : y + 8, x - 8 : x + 8] = 255
    before, kept = (glimpse(photo_from_array(picture), seen.window) for picture in (astronaut, bright))
    scale = seen.window.size / seen.window.side_px
    # pixels count from a quarter of them on: the square of 16 grows by a quarter of a pixel on each side
    more = int(kept.saturated.sum()) - int(before.saturated.sum())
    assert more == pytest.approx((16.5 * scale) ** 2, rel=0.06)
    column, row = (seen.window.to_window(np.array([[x, y]])) + kept.corner)[0].astype(int)
    assert kept.saturated[row, column]
