"""Sittings: light adds up, the truth is where it says, and a number always makes the same sitting."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from raytrace_face.capture.colour import luminance
from raytrace_face.errors import InputError, OutputError
from raytrace_face.face.camera import project, to_camera
from raytrace_face.learn.synthesis import camera, lighting, people
from raytrace_face.types import Camera

SIZE, SEED = 64, 5


@pytest.fixture(scope="module")
def studio(mi):
    from raytrace_face.face.store import load_embedded
    from raytrace_face.learn.synthesis.sitting import Studio

    return Studio(load_embedded())


@pytest.fixture(scope="module")
def sittings(studio):
    """Three sittings and how they were posed."""
    from raytrace_face.learn.synthesis.sitting import pose_sitting, trace_sitting

    posed = [pose_sitting(studio, SIZE, np.random.default_rng([SEED, n])) for n in range(3)]
    return [(trace_sitting(studio, SIZE, SEED, n), p) for n, p in enumerate(posed)]


def lit(sitting, seed: int) -> lighting.Lighting:
    t = sitting.truth
    rng = np.random.default_rng(seed)
    return lighting.random_lighting(t.light_directions @ t.T_camera_head[:3, :3].T, t.light_radius_deg, rng)


def test_one_light_images_add_up_to_the_path_traced_picture(studio, sittings):
    """A photo put together from one-light images is that of the differentiable tracer under the same lights at once.

    Two light set-ups of three heads. The tracer takes 64 rays a pixel, a sitting 4, and it multiplies the pixel's mean
    albedo by its mean shading. Pixels span 3 mm here, so that single ones are noise; blocks of 16 are not.
    """
    from raytrace_face.learn.synthesis.sitting import area_lights
    from raytrace_face.tracer.render import RenderInputs, View, render

    for sitting, posed in sittings:
        inside = np.flatnonzero(sitting.mask.ravel() > 0.99)
        studio.head.move(posed.dress.vertices)
        for seed in range(2):
            light = lit(sitting, seed)
            lamps = area_lights(posed.light_directions[light.chosen], posed.light_radius_deg[light.chosen])
            sky = lighting.ambient_sh(sitting.truth.sky_axes, light.sky)
            skin = posed.skin
            inputs = RenderInputs.of(
                posed.dress.vertices, posed.sitter.face.T_camera_head, posed.sitter.camera.focal_px, skin.diffuse,
                np.repeat(skin.specular[..., None], 3, axis=2), skin.roughness, lamps.corners,
                lamps.radiance * light.irradiance, sky,
            )  # fmt: skip
            traced = render(studio.head, View(posed.sitter.camera, inside, 64), inputs, seed).numpy()
            added = lighting.photograph(sitting, light).reshape(-1, 3)[inside]
            assert added.mean(axis=0) == pytest.approx(traced.mean(axis=0), rel=0.03)
            a, b, whole = (blocks(v, inside) for v in (luminance(added), luminance(traced), np.ones(len(inside))))
            full = whole == 1
            assert full.sum() > 20
            assert np.corrcoef(a[full], b[full])[0, 1] > 0.98
            assert np.median(np.abs(a - b)[full]) < 0.04 * b[full].mean()


def blocks(values, pixels) -> np.ndarray:
    """Means of blocks of 4 x 4 pixels of values that are known at some pixels."""
    image = np.zeros(SIZE * SIZE)
    image[pixels] = values
    return image.reshape(SIZE // 4, 4, SIZE // 4, 4).mean(axis=(1, 3))


def test_light_is_linear_in_irradiance_and_sky(sittings):
    sitting, _ = sittings[0]
    one, two = lit(sitting, 3), lit(sitting, 4)
    both = lighting.Lighting(
        "both", np.concatenate([one.chosen, two.chosen]), np.concatenate([one.irradiance, 2 * two.irradiance]),
        one.sky + 2 * two.sky,
    )  # fmt: skip
    expected = lighting.photograph(sitting, one) + 2 * lighting.photograph(sitting, two)
    assert lighting.photograph(sitting, both) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_ambient_harmonics_are_the_radiance_of_the_lobes():
    from lightstage.environment import lobes, sh_basis

    rng = np.random.default_rng(0)
    axes = rng.normal(size=(6, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    d = rng.normal(size=(50, 3))
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    weights = rng.random((6, 3))
    assert sh_basis(d) @ lighting.ambient_sh(axes, weights) == pytest.approx(lobes(d, axes) @ weights, abs=1e-5)


def test_a_lobe_gives_the_irradiance_that_its_constant_says():
    from lightstage.environment import lobes
    from lightstage.rig import geodesic

    d = geodesic(3).vertices
    cos = np.maximum(d[:, 2], 0)
    irradiance = (lobes(d, np.array([[0.0, 0, 1]]))[:, 0] * cos).mean() * 4  # / pi
    assert irradiance == pytest.approx(lighting.LOBE_IRRADIANCE, rel=0.01)  # 642 directions


def test_truth_landmarks_lie_on_the_face_in_the_crop(studio, sittings):
    model = studio.model
    for sitting, _ in sittings:
        t = sitting.truth
        camera_ = Camera(SIZE, SIZE, t.focal_px, t.principal_px)
        points = model.landmark_points(model.vertices(t.identity, t.expression))
        assert t.landmarks_px == pytest.approx(project(camera_, to_camera(t.T_camera_head, points)), abs=1e-3)
        x, y = np.floor(t.landmarks_px).astype(int).T
        assert ((x >= 0) & (x < SIZE) & (y >= 0) & (y < SIZE)).all(), "the whole face is in the crop"
        assert sitting.coverage[y, x].mean() > 0.97  # the far outline of a turned head may miss by half a pixel


def test_detected_landmarks_are_near_the_true_ones(studio):
    """The landmark network, shown a photo of the sitting, finds the face where the truth says that it is.

    Its median error over 48 sittings of 160 pixels is 1.3 % of the crop; shadows and turned heads make it more.
    """
    from raytrace_face.learn.synthesis.sitting import trace_sitting

    found = [t for n in range(3) if np.isfinite((t := trace_sitting(studio, 128, SEED, n).truth).detected_px).all()]
    assert len(found) >= 2
    for t in found:
        error = np.linalg.norm(t.detected_px[studio.model.landmark_index] - t.landmarks_px, axis=1)
        assert np.median(error) < 0.035 * 128


def test_mask_is_the_skin_that_a_bare_head_shows_less_what_is_worn(studio, sittings):
    """Against an independent trace of the head without props: nothing outside its face is marked, and nothing that is
    not covered by a prop is left out."""
    from raytrace_face.tracer.render import gbuffer
    from raytrace_face.tracer.scene import HeadScene

    bare = HeadScene(studio.model)
    for sitting, posed in sittings:
        face = posed.sitter.face
        bare.move(studio.model.vertices(face.identity, face.expression))
        g = gbuffer(bare, posed.sitter.camera, face.T_camera_head)
        skin = ((g.part == 0) & (g.interpolate(studio.model.regions["face"]) > 0.5)).reshape(SIZE, SIZE)
        studio.head.move(posed.dress.vertices)
        dressed = gbuffer(studio.head, posed.sitter.camera, face.T_camera_head)
        hit = dressed.part != 255
        prop = (hit & (studio.clothes.owner[dressed.corners[:, 0]] >= 0)).reshape(SIZE, SIZE)
        expected = skin & ~prop
        # the mask is of 2 x 2 rays, `expected` of one: they differ in pixels of the border only
        assert (np.abs(sitting.mask - expected) > 0.75).mean() < 0.01
        assert sitting.mask[expected].mean() > 0.95
        assert sitting.mask[~expected].mean() < 0.05
        assert (sitting.mask <= sitting.coverage).all()


def test_hair_shadows_the_forehead(studio):
    """A fringe that stands off takes light from above from the skin below it; the same face without it has more."""
    from raytrace_face.learn.synthesis.sitting import area_lights, pose_sitting
    from raytrace_face.tracer.onelight import head_transport
    from raytrace_face.tracer.render import View

    seeds = (np.random.default_rng([SEED, n]) for n in range(200))
    posed = next(p for p in (pose_sitting(studio, SIZE, r) for r in seeds) if "fringe" in p.dress.worn)
    face = posed.sitter.face
    up = area_lights(np.array([[0.0, 0.8, 0.6]]), np.array([5.0]))
    view = View(posed.sitter.camera, np.arange(SIZE * SIZE), 8)
    sums = []
    for vertices in (posed.dress.vertices, _undressed(studio, posed)):
        studio.head.move(vertices)
        t = head_transport(studio.head, view, face.T_camera_head, up, posed.skin.specular, posed.skin.roughness, 1)
        sums.append((t.diffuse.sum(), t.unshadowed.sum()))
    (with_hair, with_hair_open), (bare, bare_open) = sums
    assert with_hair / with_hair_open < bare / bare_open


def _undressed(studio, posed) -> np.ndarray:
    from raytrace_face.learn.synthesis.props import HIDDEN

    face = posed.sitter.face
    head = studio.model.vertices(face.identity, face.expression)
    rest = len(posed.dress.vertices) - len(head)
    return np.concatenate([head, np.tile(HIDDEN, (rest, 1))]).astype(np.float32)


def test_exposure_and_balance_are_the_gain_that_is_told():
    """Without lens, noise and curve the codes of a matte card are those of its light times the gain."""
    rng = np.random.default_rng(3)
    card = np.full((64, 64, 3), 0.3, np.float32)
    whole = np.ones((64, 64), np.float32)
    ratios = []
    for _ in range(300):
        shot = camera.shoot(card, whole, whole, rng)
        middle = np.median(camera.decoded(shot.codes)[16:48, 16:48], axis=(0, 1))
        expected = 0.3 * shot.gain
        if not shot.monochrome and (expected > 0.1).all() and (expected < 0.6).all():
            ratios.append(np.log(middle / expected))
    # curves differ from camera to camera by some 40 % but are right on average
    assert len(ratios) > 80
    assert np.abs(np.mean(ratios, axis=0)) == pytest.approx([0, 0, 0], abs=0.15)


def test_monochrome_photos_are_grey(sittings):
    sitting, _ = sittings[0]
    linear = lighting.photograph(sitting, lit(sitting, 0))
    shots = [camera.shoot(linear, sitting.coverage, sitting.mask, np.random.default_rng(k)) for k in range(40)]
    assert {s.monochrome for s in shots} == {True, False}
    for shot in shots:
        spread = np.ptp(shot.codes.astype(int), axis=2).max()
        assert (spread == 0) == shot.monochrome


def test_expressions_stay_in_range_and_lids_close_sometimes(studio):
    rng = np.random.default_rng(0)
    names = studio.model.expression_names
    drawn = np.stack([people.random_expression(names, rng) for _ in range(400)])
    assert drawn.min() >= 0
    assert drawn.max() <= 1
    assert drawn[:, names.index("tongueOut")].max() == 0
    shut = (drawn[:, names.index("eyeBlinkLeft")] > 0.6) & (drawn[:, names.index("eyeBlinkRight")] > 0.6)
    assert 0.02 < shut.mean() < 0.12
    gaze = drawn[:, names.index("eyeLookInLeft")] * drawn[:, names.index("eyeLookOutLeft")]
    assert gaze.max() < 0.05, "an eye does not look both ways"


def test_file_keeps_the_sitting(tmp_path, sittings):
    """Eight bits and JPEG: planes come back within 2 % of their mean level, truth to the last bit."""
    from raytrace_face.learn.synthesis import files

    sitting, _ = sittings[1]
    path = tmp_path / "one.safetensors"
    files.save(path, sitting)
    files.check(path)
    back = files.load(path)
    assert not list(tmp_path.glob("*.part"))
    assert path.stat().st_size < 400_000
    t, u = sitting.truth, back.truth
    assert back.worn == sitting.worn
    assert (u.focal_px, *u.principal_px) == pytest.approx((t.focal_px, *t.principal_px), rel=1e-6)
    for name in ("identity", "expression", "T_camera_head", "landmarks_px", "light_directions", "albedo_coefficients"):
        assert np.array_equal(getattr(u, name), getattr(t, name)), name
    assert u.albedo_map == pytest.approx(t.albedo_map, rel=0.05, abs=1e-3)
    assert back.mask == pytest.approx(sitting.mask, abs=1 / 255)
    inside = sitting.coverage > 0
    light = lit(sitting, 1)
    a, b = lighting.photograph(sitting, light)[inside], lighting.photograph(back, light)[inside]
    assert np.abs(a - b).mean() < 0.03 * a.mean()
    assert b.mean() == pytest.approx(a.mean(), rel=0.01)


def test_damaged_files_are_named(tmp_path, sittings):
    from raytrace_face.learn.synthesis import files

    path = tmp_path / "one.safetensors"
    files.save(path, sittings[0][0])
    path.write_bytes(path.read_bytes()[:-1000])
    for read in (files.check, files.load):
        with pytest.raises(InputError, match=r"one\.safetensors is damaged"):
            read(path)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=r"one\.safetensors"):
        files.check(path)


@pytest.mark.slow
def test_sittings_do_not_depend_on_the_number_of_workers(tmp_path):
    """The same bytes from one process and from two, and after a stop; another seed has a folder of its own."""
    from raytrace_face.learn.synthesis.make import make_synthetic, sitting_path

    def digests(folder):
        return [hashlib.sha256(sitting_path(folder, n).read_bytes()).hexdigest() for n in range(4)]

    one, two = tmp_path / "one", tmp_path / "two"
    assert make_synthetic(one, 4, SIZE, 0, 1, quiet=True) == 4
    assert make_synthetic(two, 2, SIZE, 0, 2, quiet=True) == 2
    assert make_synthetic(two, 4, SIZE, 0, 2, quiet=True) == 2
    assert digests(one) == digests(two)
    sitting_path(two, 1).unlink()
    assert make_synthetic(two, 4, SIZE, 0, 1, quiet=True) == 1
    assert digests(one) == digests(two)
    assert len(set(digests(one))) == 4
    with pytest.raises(OutputError, match="another seed"):
        make_synthetic(two, 4, SIZE, 1, 1, quiet=True)
    with pytest.raises(OutputError, match="another size"):
        make_synthetic(two, 4, 2 * SIZE, 0, 1, quiet=True)


def test_folders_of_others_are_left_alone(tmp_path):
    from raytrace_face.learn.synthesis.make import about, make_synthetic

    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="holds no sittings"):
        make_synthetic(tmp_path, 1, SIZE, quiet=True)
    with pytest.raises(InputError, match="count 0"):
        make_synthetic(tmp_path / "new", 0, SIZE, quiet=True)
    with pytest.raises(InputError, match="no sittings"):
        about(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["letter.txt"]


def test_area_lights_give_unit_irradiance_where_they_point(studio):
    """A card at the head's centre that faces a light gets irradiance / pi of 1, from the sun to a window of 40 degrees.

    The integral of cos cos / r^2 over the triangle, by 10 000 points of it.
    """
    from raytrace_face.learn.synthesis.sitting import area_lights, random_lights

    rng = np.random.default_rng(0)
    directions, radii = random_lights(rng)
    assert np.linalg.norm(directions, axis=1) == pytest.approx(np.ones(len(radii)))
    assert ((radii >= 0.3) & (radii <= 20)).all()
    lights = area_lights(directions, radii)
    u, v = np.sqrt(rng.random(10_000)), rng.random(10_000)
    barycentric = np.stack([1 - u, u * (1 - v), u * v], axis=1)
    for corners, radiance, d in zip(lights.corners, lights.radiance[:, 0], directions, strict=True):
        points = barycentric @ corners
        normal = np.cross(corners[1] - corners[0], corners[2] - corners[0])
        r = np.linalg.norm(points, axis=1)
        form = ((points @ d) / r * -(points @ normal) / 2 / r / r**2).mean() / np.pi
        assert radiance * form == pytest.approx(1, abs=0.02)  # a triangle is no disc


def test_lightings_use_each_light_once_and_strongest_first(sittings):
    t = sittings[0][0].truth
    towards = t.light_directions @ t.T_camera_head[:3, :3].T
    rng = np.random.default_rng(1)
    kinds = set()
    for _ in range(300):
        light = lighting.random_lighting(towards, t.light_radius_deg, rng)
        kinds.add(light.kind)
        assert len(light.chosen) <= lighting.MAX_LIGHTS
        assert len(set(light.chosen.tolist())) == len(light.chosen)
        assert (np.diff(light.irradiance.mean(axis=1)) <= 0).all()
        assert (light.sky >= 0).all()
        assert light.irradiance.sum() + light.sky.sum() > 0
    assert kinds == {name for name, _ in lighting.KINDS}
    few = replace(t, light_radius_deg=np.full_like(t.light_radius_deg, 10.0))  # no hard light: a soft one stands in
    assert len(lighting.random_lighting(towards[:3], few.light_radius_deg[:3], rng).chosen) <= 3
