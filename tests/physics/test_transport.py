"""Rationale: light is linear, travels straight, and arrives as Lambert said in 1760.

Every picture here is a Monte-Carlo estimate. Two estimates A and B of the same picture are compared by the ratio of
their mean squared difference to the variance that their own noise explains, measured from a second seed: 1 where they
agree, and larger by (bias / noise)^2 where they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightstage.rig import AreaLights, directional_lights, geodesic
from tests.physics.bodies import ball, both, inputs_of, model_of, plane, portrait, triangle_light

Picture = Callable[[int], np.ndarray]
KEY = triangle_light((300, 250, 600), 120, (14, 12, 9))
FILL = triangle_light((-500, -50, 400), 200, (2, 3, 4))
AGREE = 1.25
"""Largest ratio of squared difference to noise. 3000 values of heavy-tailed noise scatter its estimate by some 10 %."""


@pytest.fixture(scope="module")
def tracer(mi):
    """The tracer's modules; they import Mitsuba, which has to be started first."""
    from raytrace_face.tracer import onelight, render, scene

    return onelight, render, scene


@pytest.fixture(scope="module")
def shadowed(tracer):
    """A ball that throws its shadow on a larger one and on a wall."""
    model = model_of(ball(70), ball(22, (62, 45, 75), 2), plane(300, -60, 4))
    return model, tracer[2].HeadScene(model)


def noise_ratio(a: Picture, b: Picture) -> float:
    """Squared difference of two estimators over the variance of their difference (four pictures)."""
    a0, a1, b0, b1 = a(1), a(2), b(3), b(4)
    # the mean of two pictures has half their variance, which half their squared difference measures
    variance = ((a0 - a1) ** 2).mean() / 4 + ((b0 - b1) ** 2).mean() / 4
    return float((((a0 + a1) / 2 - (b0 + b1) / 2) ** 2).mean() / variance)


def painter(tracer, shadowed, lights: AreaLights, samples: int = 64, **changes) -> Picture:
    """Pictures of the shadowed body by the differentiable tracer, by seed."""
    _, render, _ = tracer
    model, head = shadowed
    camera, T = portrait()
    view = render.View(camera, render.all_pixels(camera), samples, changes.pop("shadows", True))
    inputs = inputs_of(model, T, camera, lights, **changes)

    def picture(seed: int) -> np.ndarray:
        with torch.no_grad():
            return render.render(head, view, inputs, seed).numpy()

    return picture


# linearity


def test_light_of_two_lamps_is_the_sum_of_their_light(tracer, shadowed):
    key, fill = painter(tracer, shadowed, KEY), painter(tracer, shadowed, FILL)
    together = painter(tracer, shadowed, both(KEY, FILL))
    assert noise_ratio(together, lambda seed: key(seed) + fill(seed + 100)) < AGREE


def test_lamp_and_surroundings_add_up(tracer, shadowed):
    sky = np.zeros((9, 3))
    sky[0], sky[1], sky[3] = [0.8, 0.9, 1.0], 0.2, -0.15
    nothing = AreaLights(np.zeros((0, 3, 3)), np.zeros((0, 3)))
    lamp = painter(tracer, shadowed, KEY)
    surroundings = painter(tracer, shadowed, nothing, ambient=sky)
    together = painter(tracer, shadowed, KEY, ambient=sky)
    assert noise_ratio(together, lambda seed: lamp(seed) + surroundings(seed + 100)) < AGREE


def test_twice_the_radiance_is_twice_the_picture(tracer, shadowed):
    twice = AreaLights(KEY.corners, 2 * KEY.radiance)
    # same seed, same samples: rounding only (the tracer's threads round 5e-7 apart)
    once = painter(tracer, shadowed, KEY, 16)(5)
    assert painter(tracer, shadowed, twice, 16)(5) == pytest.approx(2 * once, rel=1e-4, abs=1e-5)


def test_specular_and_diffuse_pictures_add_up(tracer, shadowed):
    whole = painter(tracer, shadowed, KEY, 16)(5)
    matte = painter(tracer, shadowed, KEY, 16, diffuse=(0, 0, 0))(5)
    half = painter(tracer, shadowed, KEY, 16, diffuse=(0.3, 0.21, 0.17))(5)
    # linear in the diffuse albedo above the highlight: same samples, rounding only
    assert half == pytest.approx((whole + matte) / 2, rel=1e-4, abs=1e-5)


# one light at a time


def columns(tracer, shadowed, lights: AreaLights, samples: int = 64, shadows: bool = True) -> Picture:
    """Pictures by the transport matrix: (albedo T_d + F0 T_s) times radiance."""
    onelight, render, _ = tracer
    _, head = shadowed
    camera, T = portrait()
    view = render.View(camera, render.all_pixels(camera), samples, shadows)
    strength = lights.radiance.mean(axis=1, keepdims=True)

    def picture(seed: int) -> np.ndarray:
        t = onelight.head_transport(head, view, T, lights, np.full((8, 8), 0.035), np.full((8, 8), 0.5), seed)
        albedo = np.array([0.6, 0.42, 0.34])
        return np.einsum("pl,lc,c->pc", t.diffuse, lights.radiance / strength, albedo) + 0.035 * (
            t.specular @ (lights.radiance / strength)
        )

    return picture


def test_transport_times_light_is_the_traced_picture(tracer, shadowed):
    lights = both(KEY, FILL)
    assert noise_ratio(columns(tracer, shadowed, lights), painter(tracer, shadowed, lights)) < AGREE


def stock(mi, shadowed, lights: AreaLights, folder) -> Picture:
    """The same scene by Mitsuba's own camera, emitters and path tracer; only the BSDF is ours."""
    _, head = shadowed
    camera, T = portrait()
    R, t = T[:3, :3].astype(float), T[:3, 3].astype(float)
    eye = -R.T @ t
    scene = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 2, "hide_emitters": True},
        "sensor": {
            "type": "perspective", "fov_axis": "x",
            "fov": float(2 * np.degrees(np.arctan(camera.width / 2 / camera.focal_px))),
            "principal_point_offset_x": 0.5 - camera.principal_px[0] / camera.width,
            "principal_point_offset_y": 0.5 - camera.principal_px[1] / camera.height,
            "to_world": mi.ScalarTransform4f().look_at(
                origin=eye.tolist(), target=(eye - R[2]).tolist(), up=R[1].tolist()
            ),
            "sampler": {"type": "independent"},
            "film": {
                "type": "hdrfilm", "width": camera.width, "height": camera.height, "rfilter": {"type": "box"},
                "pixel_format": "rgb", "component_format": "float32",
            },
        },
    }  # fmt: skip
    for k, shape in enumerate(head.scene.shapes()):
        shape.write_ply(str(folder / f"body{k}.ply"))
        scene[f"body{k}"] = {
            "type": "ply", "filename": str(folder / f"body{k}.ply"),
            "bsdf": {
                "type": "skin", "diffuse": {"type": "rgb", "value": [0.6, 0.42, 0.34]},
                "specular": {"type": "rgb", "value": [0.035] * 3}, "roughness": {"type": "uniform", "value": 0.5},
            },
        }  # fmt: skip
    for k, (corners, radiance) in enumerate(zip(lights.corners, lights.radiance, strict=True)):
        props = mi.Properties()
        props["emitter"] = mi.load_dict({"type": "area", "radiance": {"type": "rgb", "value": radiance.tolist()}})
        mesh = mi.Mesh(f"light{k}", 3, 1, has_vertex_normals=False, has_vertex_texcoords=False, props=props)
        params = mi.traverse(mesh)
        params["vertex_positions"] = mi.Float(corners.astype(np.float32).ravel())
        params["faces"] = mi.UInt32([0, 1, 2])
        params.update()
        scene[f"light{k}"] = mesh
    loaded = mi.load_dict(scene)
    return lambda seed: np.array(mi.render(loaded, spp=128, seed=seed)).reshape(-1, 3)


def test_transport_times_light_is_what_a_stock_path_tracer_sees(mi, tracer, shadowed, tmp_path):
    lights = both(KEY, FILL)
    reference = stock(mi, shadowed, lights, tmp_path)
    # pixels of the camera agree too: a shift of a tenth of a pixel would show at the shadow's edge
    assert noise_ratio(columns(tracer, shadowed, lights), reference) < AGREE
    assert noise_ratio(painter(tracer, shadowed, lights), reference) < AGREE


def test_a_lamp_that_looks_away_gives_no_light(tracer, shadowed):
    backwards = AreaLights(KEY.corners[:, ::-1], KEY.radiance)
    assert columns(tracer, shadowed, backwards, 4)(0).max() == 0
    assert painter(tracer, shadowed, backwards, 4)(0).max() == 0


def test_shadows_only_take_light_away(tracer, shadowed):
    onelight, render, _ = tracer
    camera, T = portrait()
    view = render.View(camera, render.all_pixels(camera), 8)
    lights = directional_lights(geodesic(0).vertices)
    maps = np.full((8, 8), 0.035), np.full((8, 8), 0.5)
    t = onelight.head_transport(shadowed[1], view, T, lights, *maps, 0)
    assert np.all(t.diffuse <= t.unshadowed * (1 + 1e-5))  # sums in another order
    assert (t.diffuse < 0.5 * t.unshadowed).mean() > 0.01  # and there are shadows
    assert t.diffuse.min() >= 0
    assert t.specular.min() >= 0
    blind = onelight.head_transport(shadowed[1], replace(view, shadows=False), T, lights, *maps, 0)
    assert blind.diffuse == pytest.approx(t.unshadowed, rel=1e-5, abs=1e-7)


def test_columns_do_not_depend_on_which_other_lights_are_traced(tracer, shadowed):
    onelight, render, _ = tracer
    camera, T = portrait()
    view = render.View(camera, render.all_pixels(camera), 64)
    stage = directional_lights(geodesic(0).vertices)
    some = [3, 9]
    few = AreaLights(stage.corners[some], stage.radiance[some])
    maps = np.full((8, 8), 0.035), np.full((8, 8), 0.5)

    def traced(lights: AreaLights, pick: list[int] | slice) -> Picture:
        return lambda seed: onelight.head_transport(shadowed[1], view, T, lights, *maps, seed).diffuse[:, pick]

    # another place in the launch is another noise, not another value
    assert noise_ratio(traced(stage, some), traced(few, slice(None))) < AGREE


def test_noise_falls_with_the_samples(tracer, shadowed):
    def spread(samples: int) -> float:
        picture = columns(tracer, shadowed, KEY, samples)
        return float((picture(0) - picture(1)).std())

    # at least as 1 / sqrt(n): 4 times fewer for 16 times more samples, stratification makes it better
    assert spread(64) < spread(4) / 3.5


# closed forms


def lambert_polygon(points: np.ndarray, normal: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """Irradiance / pi (N,) of a polygon of radiance 1 by Lambert's formula: |sum of angle times edge normal| / 2 pi."""
    d = corners[None] - points[:, None]
    d /= np.linalg.norm(d, axis=2, keepdims=True)
    total = np.zeros(len(points))
    for k in range(len(corners)):
        a, b = d[:, k], d[:, (k + 1) % len(corners)]
        cross = np.cross(a, b)
        size = np.linalg.norm(cross, axis=1)
        total += np.arctan2(size, (a * b).sum(1)) * (cross @ normal) / size
    return np.abs(total) / (2 * np.pi)


def plane_transport(mi, scene, points: np.ndarray, lights: AreaLights, samples: int):
    """Transport of points (N, 3) found by looking straight down."""
    from lightstage.transport import owned, transport

    repeated = np.repeat(points, samples, axis=0).astype(np.float32)
    origin = mi.Point3f(owned(mi.Float, repeated[:, 0]), owned(mi.Float, repeated[:, 1]), 5.0)
    si = scene.ray_intersect(mi.Ray3f(origin, mi.Vector3f(0, 0, -1)))
    return transport(scene, si, lights, samples, 0)


def test_irradiance_of_a_triangle_on_a_plane_is_lambert_s(mi):
    scene = mi.load_dict(
        {"type": "scene", "wall": {"type": "rectangle", "to_world": mi.ScalarTransform4f().scale(500)}}
    )
    x = np.linspace(-400, 400, 9)
    points = np.stack([*np.meshgrid(x, x), np.zeros((9, 9))], -1).reshape(-1, 3)
    lamp = triangle_light((120, -80, 400), 150, (2, 2, 2), towards=(60, 0, 0))
    found = plane_transport(mi, scene, points, lamp, 1024).diffuse[:, 0]
    expected = 2 * lambert_polygon(points, np.array([0, 0, 1.0]), lamp.corners[0])
    # 1024 stratified samples of a smooth integrand: 0.3 % at worst was measured
    assert found == pytest.approx(expected, rel=0.01)


def test_irradiance_falls_with_the_square_of_the_distance(mi):
    scene = mi.load_dict({"type": "scene", "wall": {"type": "rectangle"}})
    points = np.zeros((1, 3))
    near, far = (triangle_light((0, 0, z), 5, (1, 1, 1)) for z in (500, 1000))
    ratio = plane_transport(mi, scene, points, near, 256).diffuse / plane_transport(mi, scene, points, far, 256).diffuse
    # the lamp spans 1 / 100 of its distance: the inverse square law is off by its square, and sampling by as much
    assert ratio[0, 0] == pytest.approx(4, rel=1e-3)


def test_shadow_of_a_ball_falls_where_geometry_puts_it(mi):
    middle, size = np.array([30.0, -20.0, 22.0]), 8.0
    lamp = triangle_light((230, 150, 480), 0.5, (1, 1, 1), towards=(0, 0, 0))
    scene = mi.load_dict(
        {
            "type": "scene",
            "wall": {"type": "rectangle", "to_world": mi.ScalarTransform4f().scale(500)},
            "ball": {"type": "sphere", "center": middle.tolist(), "radius": size},
        }
    )
    source = lamp.corners[0].mean(axis=0)
    x = np.linspace(-40, 60, 81)
    y = np.linspace(-80, 40, 81)
    points = np.stack([*np.meshgrid(x, y), np.zeros((81, 81))], -1).reshape(-1, 3)
    # looking down, the ball is in the way
    away = np.hypot(points[:, 0] - middle[0], points[:, 1] - middle[1]) > size + 1
    points = points[away]
    t = plane_transport(mi, scene, points, lamp, 16)
    visible = t.diffuse[:, 0] / t.unshadowed[:, 0]
    # distance of the ball's centre from the ray towards the lamp
    d = source - points
    d /= np.linalg.norm(d, axis=1, keepdims=True)
    off = np.linalg.norm(np.cross(middle - points, d), axis=1)
    # a lamp of 1 mm at 500 mm blurs the edge, 25 mm behind the ball, by 0.05 mm
    assert np.all(visible[off < size - 0.1] == 0)
    assert visible[off > size + 0.1] == pytest.approx(1, abs=1e-5)
    assert (off < size - 0.1).sum() > 50


def test_half_covered_lamp_gives_half_its_light(mi):
    """Penumbra: a screen whose edge cuts the lamp in half leaves half of it."""
    lamp = triangle_light((0, 0, 400), 60, (1, 1, 1))
    other = AreaLights(lamp.corners[:, ::-1] * np.array([-1, 1, 1]), lamp.radiance)  # its mirror image in x = 0
    half = mi.ScalarTransform4f().translate([500, 0, 200]).scale(500)  # covers x > 0 seen from the origin
    scene = mi.load_dict(
        {"type": "scene", "floor": {"type": "rectangle"}, "screen": {"type": "rectangle", "to_world": half}}
    )
    points = np.array([[-1e-3, 0, 0]])
    t = plane_transport(mi, scene, points, both(lamp, other), 4096)
    # what the screen takes of one lamp it leaves of its mirror image; 4096 samples scatter by 1 / 64 of a half
    assert t.diffuse.sum() / t.unshadowed[0, 0] == pytest.approx(1, abs=0.02)
    assert 0.3 < t.diffuse[0, 0] / t.unshadowed[0, 0] < 0.7


def test_even_surroundings_light_a_convex_body_evenly(tracer):
    _, render, scene = tracer
    model = model_of(ball(80, level=4))
    camera, T = portrait(24)
    sky = np.zeros((9, 3))
    sky[0] = np.array([1.0, 0.5, 2.0]) / 0.28209479177387814  # radiance 1, 0.5, 2
    lights = AreaLights(np.zeros((0, 3, 3)), np.zeros((0, 3)))
    inputs = inputs_of(model, T, camera, lights, f0=0.0, ambient=sky)
    head = scene.HeadScene(model)
    g = render.gbuffer(head, camera, T)
    inside = np.flatnonzero((g.part == 0) & ((g.normal * g.view).sum(1) > 0.5))
    with torch.no_grad():
        colour = render.render(head, render.View(camera, inside, 64), inputs, 0).numpy()
    # cosine sampling of a constant has no variance; the facets' shading normals dip a percent of the samples below them
    assert colour / ([1.0, 0.5, 2.0] * np.array([0.6, 0.42, 0.34])) == pytest.approx(1, abs=0.03)


def test_order_2_surroundings_give_the_irradiance_of_ramamoorthi_and_hanrahan(tracer):
    from lightstage.environment import sh_basis
    from raytrace_face.fit.shape import IRRADIANCE_BAND

    _, render, scene = tracer
    model = model_of(ball(80, level=4))
    camera, T = portrait(24)
    sky = 0.15 * np.random.default_rng(3).normal(size=(9, 3))
    sky[0] = 3
    inputs = inputs_of(model, T, camera, AreaLights(np.zeros((0, 3, 3)), np.zeros((0, 3))), (1, 1, 1), 0.0, ambient=sky)
    head = scene.HeadScene(model)
    g = render.gbuffer(head, camera, T)
    inside = np.flatnonzero((g.part == 0) & ((g.normal * g.view).sum(1) > 0.5))
    with torch.no_grad():
        colour = render.render(head, render.View(camera, inside, 256, False), inputs, 0).numpy()
    expected = (sh_basis(g.normal[inside].astype(float)) * IRRADIANCE_BAND) @ sky
    # 256 stratified samples of a smooth sky, a pixel that spans normals: 0.6 % at worst, 0.12 % on average measured
    assert colour == pytest.approx(expected, rel=0.02)
    assert np.abs(colour / expected - 1).mean() < 0.004


def test_the_sky_in_a_grazing_highlight_makes_no_bright_dots(tracer):
    """Black body with a sharp highlight: a few samples a pixel must not leave outliers on its outline."""
    _, render, scene = tracer
    model = model_of(ball(80, level=4))
    camera, T = portrait(48)
    sky = np.zeros((9, 3))
    sky[0] = 1 / 0.28209479177387814
    dark = AreaLights(np.zeros((0, 3, 3)), np.zeros((0, 3)))
    inputs = inputs_of(model, T, camera, dark, (0, 0, 0), f0=0.04, roughness=0.3, ambient=sky)
    head = scene.HeadScene(model)
    view = [render.View(camera, render.all_pixels(camera), samples) for samples in (8, 512)]
    with torch.no_grad():
        few, many = (render.render(head, v, inputs, 1).numpy() for v in view)
    # visible-normal sampling: no sample weighs more than F <= 1. Cosine sampling alone gave 3.1
    assert few.max() < 1.0
    assert few.max() < 1.6 * many.max()
