"""Rationale: an edit of nothing changes nothing; every other follows from light, geometry and the photo."""

from __future__ import annotations

from dataclasses import replace

import imageio_ffmpeg
import numpy as np
import pytest

from lightstage.environment import sh_basis
from lightstage.rig import AreaLights, geodesic, rig
from lightstage.solve import condense
from raytrace_face.edit import illumination, pose, relight, shadows, trace, transfer, video
from raytrace_face.edit.composite import blend, changed_share, composite, face_matte, resized
from raytrace_face.errors import InputError, OutputError
from raytrace_face.export import write_exr
from raytrace_face.face.camera import project, to_camera
from raytrace_face.picture import check_file, write_picture, write_video
from raytrace_face.result import Reconstruction
from raytrace_face.types import FaceParams

SPP = 16
CALLS = 1e-5
"""Difference of equal calls of the tracer when Dr.Jit has several threads (`tracer.render.render`), relative."""


@pytest.fixture(scope="module")
def face(reconstruction: Reconstruction) -> Reconstruction:
    """The synthetic reconstruction with a photo that it explains but for 20 % of texture, fitted where the head is."""
    size = reconstruction.window.size
    picture = trace.trace(reconstruction, spp=64, seed=9)
    texture = 1 + 0.2 * np.sin(np.arange(size))[:, None, None] * np.cos(np.arange(size))[None, :, None]
    head = picture.sum(axis=2) > 0
    photo = np.where(head[..., None], picture * texture, 0.3).astype(np.float32)
    shown = replace(reconstruction.pictures, photo=photo, mask=head.astype(np.float32))
    return replace(reconstruction, pictures=shown)


@pytest.fixture(scope="module")
def convex(face: Reconstruction, tiny_model) -> Reconstruction:
    """The egg alone: nothing on it can cast a shadow on anything else."""
    skin = tiny_model.triangle_part == 0
    model = replace(tiny_model, triangles=tiny_model.triangles[skin], triangle_part=tiny_model.triangle_part[skin])
    return replace(face, model=model, face=replace(face.face, expression=np.zeros(2, np.float32)))


@pytest.fixture(scope="module")
def shaded(face: Reconstruction) -> Reconstruction:
    """One small lamp at the side, in which the ball casts a long shadow over the front of the egg."""
    towards = np.array([[-0.85, 0.1, 0.5]]) / np.linalg.norm([-0.85, 0.1, 0.5])
    lamp = condense(rig("icosahedron"), towards, np.full((1, 3), 2.0), angular_radius_deg=2.0)
    return replace(face, lights=lamp)


# --- relight ---


def test_relighting_with_the_fitted_light_gives_the_photo_back(face):
    edited = relight.relit_photo(face, illumination.of_result(face), spp=SPP)
    assert edited == pytest.approx(face.pictures.photo, abs=CALLS)


def test_other_noise_is_all_that_another_seed_changes(face):
    camera = trace.window_camera(face)
    old, new = (trace.trace(face, camera=camera, spp=256, seed=seed) for seed in (0, 1))
    edited = composite(face, old, new)
    # 256 rays on materials with F0 up to 0.06 and two lamps: 5 % a pixel, nothing on average
    assert np.abs(edited - face.pictures.photo).mean() < 0.05 * face.pictures.photo.mean()
    assert edited.mean() == pytest.approx(face.pictures.photo.mean(), rel=0.01)


def test_twice_the_light_is_twice_the_face_and_the_same_surroundings(face):
    edited = relight.relit_photo(face, illumination.of_result(face).scaled(2.0), spp=SPP)
    matte = face_matte(face, face.window.size)
    assert np.array_equal(edited[matte == 0], face.pictures.photo[matte == 0])
    inside = matte == 1
    assert inside.sum() > 300
    # exactly 2 where the detail is within its bounds; darkness next to zero and eye borders a little less
    assert np.median(edited[inside] / face.pictures.photo[inside]) == pytest.approx(2, rel=0.02)


def test_relit_reconstruction_renders_under_its_new_light_and_says_what_it_is(face, tmp_path, tiny_model):
    light = illumination.named("-60,10", face)
    out = relight.relit(face, light, "relit from the left")
    assert out.warnings[-1] == "edited: relit from the left"
    assert "psnr_db" not in out.metrics
    assert out.dominant_light_angles() == pytest.approx((-60, 10), abs=0.1)
    expected = trace.trace(face, light, spp=64)
    # a lamp of 5 degrees in another shape (the rig's face): penumbras differ
    assert out.render(spp=64).mean() == pytest.approx(expected.mean(), rel=0.03)
    back = Reconstruction.load(out.save(tmp_path / "out"), tiny_model)
    assert np.array_equal(back.pictures.photo, out.pictures.photo)


# --- illumination ---


def test_turned_surroundings_are_the_old_ones_in_turned_directions():
    rng = np.random.default_rng(0)
    R, sh = pose.Rotation.from_rotvec([0.3, -1.2, 0.7]).as_matrix(), rng.normal(size=(9, 3))
    w = rng.normal(size=(50, 3))
    w /= np.linalg.norm(w, axis=1, keepdims=True)
    assert sh_basis(w @ R.T) @ illumination.rotated_sh(sh, R) == pytest.approx(sh_basis(w) @ sh, abs=1e-12)


def test_white_card_reads_one_under_unit_light():
    dark = AreaLights(np.zeros((0, 3, 3)), np.zeros((0, 3)))
    one = np.zeros((9, 3))
    one[0] = np.sqrt(4 * np.pi)
    assert illumination.Illumination(dark, one).white_card() == pytest.approx(1)
    even = illumination.Illumination(dark, np.zeros((9, 3)), np.ones((32, 64, 3)))
    assert even.white_card() == pytest.approx(1, abs=1e-3)  # the quadrature over 32 rows
    lamp = illumination.lamp(0, 0)
    strength, rest, _ = illumination.LAMP
    # of 162 directions of the card the best is up to 5 degrees off
    assert lamp.white_card() == pytest.approx(strength + rest, rel=0.01)


def test_named_direction_is_the_cameras_and_as_strong_as_the_photos_light(face):
    light = illumination.named("40,-10,3", face)
    towards, _ = illumination.centre_irradiance(light.area)
    x, y, z = face.face.T_camera_head[:3, :3] @ towards[0]
    assert np.degrees([np.arctan2(x, z), np.arcsin(y)]) == pytest.approx([40, -10], abs=1e-4)
    assert illumination.angular_radius_deg(light.area)[0] == pytest.approx(3, abs=1e-6)
    assert light.white_card() == pytest.approx(illumination.of_result(face).white_card())


def test_rotation_moves_a_lamp_to_the_images_right(face):
    light, expected = illumination.named("10,0", face, rotate_deg=25.0), illumination.named("35,0", face)
    assert light.area.corners.mean(axis=1) == pytest.approx(expected.area.corners.mean(axis=1), abs=1e-6)


def test_stage_keeps_the_irradiance_of_lamps_and_map(face, tmp_path):
    light = illumination.named("rembrandt", face)
    stage, ambient = illumination.on_stage(light, "icosahedron")
    assert stage.irradiance().sum(axis=0) == pytest.approx(illumination.centre_irradiance(light.area)[1].sum(axis=0))
    assert np.array_equal(ambient, light.ambient_sh)
    sky = np.random.default_rng(0).random((64, 128, 3)).astype(np.float32)
    write_exr(tmp_path / "sky.exr", sky)
    light = illumination.environment_map(tmp_path / "sky.exr")
    stage, _ = illumination.on_stage(light, "icosahedron")
    solid = 2 * np.pi / 128 * np.diff(-np.cos(np.linspace(0, np.pi, 65)))
    flux = (sky * solid[:, None, None]).sum(axis=(0, 1)) / np.pi
    assert stage.irradiance().sum(axis=0) == pytest.approx(flux, rel=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rembrant", "did you mean 'rembrandt'"),
        ("10", "azimuth,elevation"),
        ("10,95", "elevation in"),
        ("10,5,90", "size in"),
        ("nan,0", "azimuth,elevation"),
        ("nowhere.exr", "does not exist"),
    ],
)
def test_unknown_light_is_refused(face, text, message):
    with pytest.raises(InputError, match=message):
        illumination.named(text, face)


def test_map_of_the_wrong_shape_is_refused(tmp_path):
    write_exr(tmp_path / "square.exr", np.ones((64, 64, 3)))
    with pytest.raises(InputError, match="twice as wide"):
        illumination.environment_map(tmp_path / "square.exr")


# --- composite ---


def blended(photo: float, old: float, new: float, everywhere: bool = False) -> float:
    """Result in the middle of a grey patch; around it nothing changes, or (`everywhere`) all is like the patch."""
    values = []
    for value in (photo, old, new):
        picture = np.full((31, 31, 3), value if everywhere else 0.4, np.float32)
        picture[11:20, 11:20] = value
        values.append(picture)
    one, zero = np.ones((31, 31), np.float32), np.zeros((31, 31), np.float32)
    return float(blend(*values, one, zero, 1.0)[15, 15, 0])


def test_another_exposure_keeps_all_detail():
    for new in (0.1, 0.2, 0.8, 4.0):
        assert blended(0.44, 0.4, new, everywhere=True) == pytest.approx(0.44 * new / 0.4, rel=0.02)


def test_small_changes_keep_the_detail_and_strong_ones_the_rendering():
    assert blended(0.44, 0.4, 0.39) == pytest.approx(0.44 * 0.39 / 0.4, rel=0.01)
    # under a light that is 20 times weaker there the leftover of the old light means nothing
    assert blended(0.44, 0.4, 0.02) == pytest.approx(0.02, rel=0.02)


def test_fine_texture_stays_under_any_light():
    stripes = 1 + 0.04 * np.cos(np.pi * np.arange(31))[:, None, None] * np.ones((31, 31, 3))
    old, new = np.full((31, 31, 3), 0.4, np.float32), np.full((31, 31, 3), 0.4, np.float32)
    new[8:23, 8:23] = 0.1
    one, zero = np.ones((31, 31), np.float32), np.zeros((31, 31), np.float32)
    out = blend((0.4 * stripes).astype(np.float32), old, new, one, zero, px_per_mm=2.0)
    # a tenth of it, 1 / (1 + (0.04 / 0.12)^2), goes with what may be the edge of a shadow
    assert out[14:16, 15, 0] / 0.1 == pytest.approx(stripes[14:16, 15, 0], abs=0.008)


def test_a_shadow_that_the_model_missed_goes_when_the_light_does():
    photo = np.full((61, 61, 3), 0.4, np.float32)
    photo[:, 20:] *= 0.5  # a shadow's edge: where the model has light before and after
    old, new = np.full((61, 61, 3), 0.4, np.float32), np.full((61, 61, 3), 0.4, np.float32)
    old[40:] = 0.04  # it has a shadow below, which the new light removes
    one, zero = np.ones((61, 61), np.float32), np.zeros((61, 61), np.float32)
    out = blend(photo, old, new, one, zero, px_per_mm=1.0)
    before, after = photo[20, 19, 0] / photo[20, 20, 0], out[20, 19, 0] / out[20, 20, 0]
    # trust is two thirds, its share of the face: with t^2 of the photo and detail^t the step of 2 becomes 1.5 to 1.75;
    # judged by its own pixels alone, all of it would stay
    assert before == pytest.approx(2)
    assert after < 1.75


def test_equal_renderings_leave_the_photo_as_it_is():
    for photo in (0.0, 0.01, 0.4, 3.0):
        assert blended(photo, 0.3, 0.3) == np.float32(photo)


def test_shadow_that_the_photo_does_not_have_is_not_taken_off_it():
    """The model says shadow (0.05), the photo says none (0.5): without it, 0.5 and not 5."""
    assert 0.4 < blended(0.5, 0.05, 0.5) < 0.6


def test_dark_spot_of_the_photo_does_not_go_below_zero():
    assert blended(0.02, 0.4, 0.1) >= 0
    assert blended(0.0, 0.4, 0.8) >= 0


def test_full_photo_is_untouched_outside_and_edited_at_the_same_place(face):
    rng = np.random.default_rng(0)
    photo = rng.random((480, 640, 3)).astype(np.float32)
    old = trace.trace(face, spp=SPP)
    out = composite(face, old, 2 * old, photo)
    changed = np.argwhere((out != photo).any(axis=2))
    matte = np.argwhere(face_matte(face, face.window.size) > 0) + 0.5
    corners = face.window.to_photo(np.array([matte.min(axis=0), matte.max(axis=0)])[:, ::-1])
    # a texel of the window is 280 / 48 photo pixels wide
    assert changed.min(axis=0)[::-1] == pytest.approx(corners[0], abs=7)
    assert changed.max(axis=0)[::-1] == pytest.approx(corners[1], abs=7)
    assert out.dtype == np.float32


def test_nothing_is_drawn_beyond_the_border_of_the_photo(face):
    cut = replace(face, camera=replace(face.camera, width=320))
    window = face.window
    beyond = window.to_photo(np.stack([np.arange(window.size) + 0.5] * 2, 1))[:, 0] > 320
    assert face_matte(face, window.size)[:, beyond].max() == 1
    assert face_matte(cut, window.size)[:, beyond].max() == 0


def test_resizing_keeps_linear_ramps():
    ramp = np.linspace(0, 1, 16, dtype=np.float32)[None, :] * np.ones((16, 1), np.float32)
    large = resized(ramp, 64)
    inner = np.s_[8:-8, 8:-8]  # the borders are continued
    assert np.diff(large, axis=1)[inner] == pytest.approx(1 / 15 / 4, abs=1e-6)


def test_changed_share_counts_visible_changes_of_the_face():
    photo = np.full((10, 10, 3), 0.2, np.float32)
    edited, matte = photo.copy(), np.ones((10, 10), np.float32)
    edited[:3, :, 0] += 0.05
    edited[3:, :, 1] += 0.0005  # a third of a code
    matte[:, 5:] = 0
    assert changed_share(photo, edited, matte) == pytest.approx(0.3)


# --- shadows ---


def test_full_strength_leaves_the_photo_as_it_is(face):
    old, new = shadows.reshadowed(face, 1.0, 0.0, spp=SPP)
    edited = composite(face, old, new)
    outside = face_matte(face, face.window.size) == 0
    assert np.array_equal(edited[outside], face.pictures.photo[outside])
    assert np.abs(edited - face.pictures.photo).max() < 1 / 255


def test_a_face_without_shadows_has_none_to_remove(convex):
    old, new = shadows.reshadowed(convex, 0.0, 0.0, spp=SPP)
    # rays that start on facets just behind the terminator graze their neighbours
    assert np.abs(new - old).mean() < 0.002 * old.mean()


def test_removing_shadows_only_adds_light_and_only_in_shadow(face):
    old, new = shadows.reshadowed(face, 0.0, 0.0, spp=SPP)
    assert (new - old).min() >= -CALLS
    brighter = (new - old).max(axis=2) > 0.01 * old.mean()
    assert 0.005 < brighter.mean() < 0.5  # the ball before the egg casts one


def test_half_strength_is_half_way(face):
    old, half = shadows.reshadowed(face, 0.5, 0.0, spp=SPP)
    _, none = shadows.reshadowed(face, 0.0, 0.0, spp=SPP)
    assert half == pytest.approx((old + none) / 2, abs=1e-4)


def test_grown_lamps_are_larger_and_as_strong(face):
    lamps = face.lights.area_lights()
    large = shadows.grown(lamps, 10.0)
    grown_by = illumination.angular_radius_deg(large) - illumination.angular_radius_deg(lamps)
    assert grown_by == pytest.approx(10, abs=1e-9)
    before, after = (illumination.centre_irradiance(x)[1] for x in (lamps, large))
    assert after == pytest.approx(before, rel=1e-12)


def test_softer_shadows_have_wider_edges(shaded):
    soft = [shadows.reshadowed(shaded, 1.0, degrees, size=128, spp=64)[1] for degrees in (0.0, 20.0)]
    open_ = shadows.reshadowed(shaded, 0.0, 0.0, size=128, spp=64)[1]
    V = [np.where(open_ > 0.02, x / np.maximum(open_, 0.02), 1).mean(axis=2) for x in soft]
    steep = [np.percentile(np.abs(np.diff(v, axis=1)), 99.5) for v in V]
    assert steep[1] < 0.8 * steep[0]


@pytest.mark.parametrize(("strength", "soften"), [(-0.1, 0), (1.1, 0), (1, -1), (1, 90), (float("nan"), 0)])
def test_impossible_shadows_are_refused(face, strength, soften):
    with pytest.raises(InputError, match="must lie in"):
        shadows.reshadowed(face, strength, soften)


# --- transfer ---


@pytest.mark.parametrize("what", [("light",), ("albedo",), ("shadow",), ("light", "albedo", "shadow")])
def test_transfer_onto_itself_is_the_identity(face, what):
    old, new = transfer.transfer_renderings(face, **{name: face for name in what}, spp=SPP)
    assert new == pytest.approx(old, abs=CALLS)
    out = transfer.transferred(face, face if "light" in what else None, face if "albedo" in what else None)
    assert np.array_equal(out.lights.corners_mm(), face.lights.corners_mm())
    assert np.array_equal(out.maps.diffuse, face.maps.diffuse)


def turned_by(face: Reconstruction, rotation_vector: list[float]) -> Reconstruction:
    T = face.face.T_camera_head.astype(np.float64)
    T[:3, :3] = pose.Rotation.from_rotvec(rotation_vector).as_matrix() @ T[:3, :3]
    return replace(face, face=replace(face.face, T_camera_head=T.astype(np.float32)))


def in_camera(result: Reconstruction) -> np.ndarray:
    """Corners of the lamps seen from the head's centre, in the camera's axes."""
    return result.lights.area_lights().corners @ result.face.T_camera_head[:3, :3].astype(np.float64).T


def test_transferred_light_stays_where_the_camera_sees_it(face):
    other = turned_by(face, [0.1, 0.8, -0.2])
    out = transfer.transferred(face, light=other)
    assert in_camera(out) == pytest.approx(in_camera(other), abs=0.01)  # mm at 1.2 m: float32 poses
    assert out.lights.irradiance() == pytest.approx(other.lights.irradiance(), rel=1e-5)


def test_albedo_and_shadow_need_a_common_model(face):
    foreign = replace(face, model_name="other")
    for what in ("albedo", "shadow"):
        with pytest.raises(InputError, match="different face models, 'tiny' and 'other'"):
            transfer.transfer_renderings(face, **{what: foreign}, spp=SPP)
    transfer.transferred(face, light=foreign)  # light knows no mesh


def test_shadow_of_a_head_without_one_takes_the_shadow_away(shaded):
    dark = replace(shaded, lights=replace(shaded.lights, intensity=np.zeros((20, 3))))
    old, taken = transfer.transfer_renderings(shaded, shadow=dark, size=128, spp=64)
    _, removed = shadows.reshadowed(shaded, 0.0, 0.0, size=128, spp=64)
    wide = (removed - old).max(axis=2) > 0.2 * old.mean()
    assert wide.sum() > 100
    gain = (taken - old)[wide].sum() / (removed - old)[wide].sum()
    assert gain == pytest.approx(1, abs=0.15)  # diffuse visibility stands for that of the highlights, too


# --- expression, pose, camera ---


def test_no_change_is_the_identity(face):
    same = pose.animated(face)
    assert np.array_equal(same.vertices(), face.vertices())
    assert np.array_equal(same.face.T_camera_head, face.face.T_camera_head)
    assert (same.camera, same.lights) == (face.camera, face.lights)
    own = dict(zip(face.face_model().expression_names, face.face.expression.tolist(), strict=True))
    again = pose.expressed_photo(face, pose.animated(face, own), spp=SPP)
    assert again == pytest.approx(face.pictures.photo, abs=CALLS)


def test_light_stays_fixed_to_the_room_when_the_head_turns(face):
    out = pose.animated(face, yaw_deg=30, pitch_deg=-10, roll_deg=5)
    assert in_camera(out) == pytest.approx(in_camera(face), abs=0.01)
    w = geodesic(1).vertices
    sky = [sh_basis(w @ r.face.T_camera_head[:3, :3]) @ r.ambient_sh for r in (face, out)]
    assert sky[1] == pytest.approx(sky[0], abs=1e-4)


@pytest.mark.parametrize(
    ("turn", "axis", "moves"),
    [
        ({"yaw_deg": 20}, [0, 0, 1], [1, 0]),
        ({"pitch_deg": 20}, [0, 0, 1], [0, 1]),
        ({"roll_deg": 20}, [0, 1, 0], [1, 0]),
    ],
)
def test_positive_angles_turn_right_raise_and_lean_right(face, turn, axis, moves):
    straight = replace(face, face=FaceParams(np.eye(4, dtype=np.float32), face.face.identity, face.face.expression))
    R = pose.animated(straight, **turn).face.T_camera_head[:3, :3]
    moved = R @ np.array(axis, float)
    assert moved[:2] == pytest.approx(np.sin(np.radians(20)) * np.array(moves) + [0, 0], abs=1e-6) or (
        axis[1] and moved[0] == pytest.approx(np.sin(np.radians(20)))
    )


def test_another_lens_keeps_place_and_size_of_the_head(face):
    out = pose.animated(face, focal_mm=200.0)
    assert out.camera.focal_px == pytest.approx(200 / 43.27 * 800)  # a photo of 640 x 480 has a diagonal of 800
    points = np.array([[0, 0, 0], [30.0, 0, 0], [0, 30.0, 0]])
    before, after = (project(r.camera, to_camera(r.face.T_camera_head, points)) for r in (face, out))
    assert after[0] == pytest.approx(before[0], abs=1e-3)
    assert after == pytest.approx(before, abs=2)  # perspective across the face, which is what changes


def test_expression_moves_the_vertices_it_says(face):
    out = pose.animated(face, {"jawOpen": 1.0})
    change = out.face.expression - face.face.expression
    expected = np.tensordot(change, face.face_model().expression, 1)
    assert change[1] == 0
    assert out.vertices() - face.vertices() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({"jawOpn": 0.5},), "did you mean 'jawOpen'"),
        (({"zzz": 0.5},), "the model knows jawOpen"),
        (({"jawOpen": 1.5},), "must lie in"),
        (({}, float("nan")), "degrees"),
        (({}, 0, 0, 0, 5.0), "focal is 5 mm"),
    ],
)
def test_impossible_pose_is_refused(face, arguments, message):
    with pytest.raises(InputError, match=message):
        pose.animated(face, *arguments)


def test_head_over_nothing_is_opaque_inside_and_fades_at_its_outline(face):
    picture, cover = pose.rendered(pose.animated(face, yaw_deg=10), spp=SPP)
    assert cover.min() == 0
    assert cover.max() == 1
    assert 0 < ((cover > 0) & (cover < 1)).mean() < 0.15
    assert (picture[cover == 0] == 0).all()


# --- files ---


def test_cover_becomes_alpha_and_premultiplied_exr(tmp_path):
    import OpenEXR
    from PIL import Image

    picture, cover = np.full((4, 6, 3), 0.5, np.float32), np.full((4, 6), 0.25, np.float32)
    write_picture(tmp_path / "a.png", picture, cover)
    assert Image.open(tmp_path / "a.png").getpixel((0, 0)) == (188, 188, 188, 64)  # sRGB of 0.5, alpha as it is
    write_picture(tmp_path / "a.exr", picture, cover)
    with OpenEXR.File(str(tmp_path / "a.exr")) as file:
        assert file.channels()["RGB"].pixels == pytest.approx(0.125)


def test_existing_file_is_kept_without_force(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(OutputError, match="--force"):
        check_file(tmp_path / "a.png", force=False)
    check_file(tmp_path / "a.png", force=True)


def test_turntables_are_videos_of_all_their_frames(face, tmp_path):
    light = illumination.named("60,10", face)
    frames = list(video.light_turntable(face, light, size=32, spp=4, frames=4))
    outside = face_matte(face, 32) == 0
    assert all(np.array_equal(frame[outside], frames[0][outside]) for frame in frames)
    assert np.abs(frames[2] - frames[0]).mean() > 0.01  # from the other side
    frames += list(video.camera_turntable(face, light, size=32, spp=4, frames=4))
    write_video(tmp_path / "t.mp4", frames)
    count, seconds = imageio_ffmpeg.count_frames_and_secs(str(tmp_path / "t.mp4"))
    assert (count, seconds) == (8, pytest.approx(8 / 24, abs=0.02))
    assert [p.name for p in tmp_path.iterdir()] == ["t.mp4"]
