"""Rationale: skin neither makes nor swallows light, treats both directions alike, and is sampled as it says.

Expected behaviour is stated for the BSDF alone, and for a ball in the furnace scene.
"""

from __future__ import annotations

import numpy as np
import pytest

import scenes

ROUGHNESS = (0.1, 0.25, 0.5, 0.75, 1.0)
F0 = (0.0, 0.04, 0.3, 1.0)
COS = (0.05, 0.2, 0.5, 0.8, 1.0)


@pytest.fixture(scope="module")
def skin(mi):
    from raytrace_face.tracer import skin as module

    return module


def bsdf(mi, diffuse: float, f0: float, roughness: float):
    return mi.load_dict(
        {
            "type": "skin",
            "diffuse": {"type": "rgb", "value": [diffuse] * 3},
            "specular": {"type": "rgb", "value": [f0] * 3},
            "roughness": {"type": "uniform", "value": roughness},
        }
    )


def sampled_albedo(mi, plugin, cos_i: float, count: int = 1 << 15) -> tuple[float, float]:
    """Directional albedo by the plugin's own sampling, and its standard error."""
    import drjit as dr

    rng = np.random.default_rng(0)
    si = dr.zeros(mi.SurfaceInteraction3f, count)
    si.wi = mi.Vector3f((1 - cos_i**2) ** 0.5, 0, cos_i)
    sample2 = mi.Point2f(mi.Float(rng.random(count, np.float32)), mi.Float(rng.random(count, np.float32)))
    _, weight = plugin.sample(mi.BSDFContext(), si, mi.Float(rng.random(count, np.float32)), sample2, True)
    values = weight.x.numpy()
    return float(values.mean()), float(values.std() / count**0.5)


def directions(mi, count: int = 2000, seed: int = 0):
    """Random pairs of directions above the horizon, not closer to it than 3 degrees (cos is a divisor)."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(2):
        z, phi = rng.uniform(0.05, 1, count), rng.uniform(0, 2 * np.pi, count)
        s = np.sqrt(1 - z * z)
        axes = [s * np.cos(phi), s * np.sin(phi), z]
        out.append(mi.Vector3f(*(mi.Float(a.astype(np.float32)) for a in axes)))
    return out


# furnace


@pytest.mark.parametrize("f0", F0)
@pytest.mark.parametrize("roughness", ROUGHNESS)
def test_white_skin_reflects_no_more_than_it_receives(mi, f0, roughness):
    plugin = bsdf(mi, 1.0, f0, roughness)
    for cos_i in COS:
        albedo, error = sampled_albedo(mi, plugin, cos_i)
        # five standard errors of the estimate: 100 of these are taken, chance of a false alarm below 1e-4
        assert albedo <= 1 + 5 * error + 1e-6, f"cos {cos_i}"


@pytest.mark.parametrize("roughness", ROUGHNESS)
def test_without_gloss_all_light_comes_back(mi, roughness):
    for rho in (1.0, 0.3):
        for cos_i in COS:
            albedo, error = sampled_albedo(mi, bsdf(mi, rho, 0.0, roughness), cos_i)
            assert albedo == pytest.approx(rho, abs=5 * error + 1e-5)


@pytest.mark.parametrize("cos_i", [0.3, 1.0])
def test_mirror_like_white_metal_reflects_nearly_everything(mi, cos_i):
    # F0 = 1 and little roughness: only what the Smith term masks (below a percent at alpha = 0.01) is lost
    albedo, error = sampled_albedo(mi, bsdf(mi, 0.0, 1.0, 0.1), cos_i)
    assert albedo == pytest.approx(1, abs=0.01 + 5 * error)


def furnace(mi, seed: int, **parameters: str) -> np.ndarray:
    scene = mi.load_file(str(scenes.path("furnace")), size=32, spp=256, **parameters)
    return np.array(mi.render(scene, seed=seed))


@pytest.mark.parametrize("f0", ["0, 0, 0", "0.04, 0.04, 0.04", "0.3, 0.3, 0.3", "1, 1, 1"])
@pytest.mark.parametrize("roughness", ["0.1", "0.5", "1.0"])
def test_ball_in_the_furnace_is_never_brighter_than_it(mi, f0, roughness):
    a, b = (furnace(mi, seed, specular=f0, roughness=roughness) for seed in (0, 1))
    error = float((a - b).std()) / 2  # of the mean of two pictures, per pixel
    mean = (a + b) / 2
    # 1024 pixels: five standard deviations leave no false alarm, and 1e-5 is rounding
    assert mean.max() <= 1 + 5 * error + 1e-5
    assert mean.min() > 0.2  # and no hole: single scattering at alpha = 1 and grazing loses most, some 70 %
    if f0 == "0, 0, 0":
        # the ball vanishes in the light
        assert mean == pytest.approx(np.ones_like(mean), abs=5 * error + 1e-5)


# reciprocity and linearity


@pytest.mark.parametrize("f0", F0)
@pytest.mark.parametrize("roughness", ROUGHNESS)
def test_light_path_can_be_walked_both_ways(mi, skin, f0, roughness):
    wi, wo = directions(mi)
    n = mi.Vector3f(0, 0, 1)
    there = (skin.evaluate(wi, wo, n, mi.Color3f(0.7), mi.Color3f(f0), roughness) / wo.z).numpy()
    back = (skin.evaluate(wo, wi, n, mi.Color3f(0.7), mi.Color3f(f0), roughness) / wi.z).numpy()
    # the half vector is the same both ways; float32 rounding of some 30 operations
    assert there == pytest.approx(back, rel=3e-5)


@pytest.mark.parametrize("roughness", ROUGHNESS)
def test_highlight_is_linear_in_f0_where_skin_lies(mi, skin, roughness):
    wi, wo = directions(mi)
    n = mi.Vector3f(0, 0, 1)
    full = skin.evaluate(wi, wo, n, mi.Color3f(0), mi.Color3f(0.04), roughness).numpy()
    for share in (0.1, 0.5, 0.8):
        part = skin.evaluate(wi, wo, n, mi.Color3f(0), mi.Color3f(0.04 * share), roughness).numpy()
        assert part == pytest.approx(share * full, rel=1e-5)  # float32


def test_zero_f0_has_no_highlight(mi, skin):
    wi, wo = directions(mi)
    value = skin.evaluate(wi, wo, mi.Vector3f(0, 0, 1), mi.Color3f(0), mi.Color3f(0), 0.4).numpy()
    assert np.abs(value).max() == 0
    matte = skin.evaluate(wi, wo, mi.Vector3f(0, 0, 1), mi.Color3f(0.5), mi.Color3f(0), 0.4).numpy()
    assert matte == pytest.approx(0.5 / np.pi * wo.z.numpy()[None].repeat(3, 0), rel=1e-5)


@pytest.mark.parametrize("f0", [0.0, 0.02, 0.035, 0.04])
@pytest.mark.parametrize("roughness", ROUGHNESS)
def test_lobes_of_the_transport_add_up_to_the_bsdf(mi, skin, f0, roughness):
    """What the transport solve calls linear is the BSDF that the tracer renders."""
    wi, wo = directions(mi)
    n = mi.Vector3f(0, 0, 1)
    base, layer = skin.lobes(wi, wo, n, f0, roughness)
    whole = skin.evaluate(wi, wo, n, mi.Color3f(0.45), mi.Color3f(f0), roughness).x.numpy()
    assert (0.45 * base + f0 * layer).numpy() == pytest.approx(whole, rel=1e-5)  # float32


def test_nothing_is_reflected_from_behind_or_to_behind(mi, skin):
    n = mi.Vector3f(0, 0, 1)
    up, down = mi.Vector3f(0.6, 0, 0.8), mi.Vector3f(0.6, 0, -0.8)
    for wi, wo in ((up, down), (down, up), (down, down)):
        assert skin.evaluate(wi, wo, n, mi.Color3f(0.7), mi.Color3f(0.04), 0.5).numpy().max() == 0


def test_bsdf_does_not_depend_on_the_frame(mi, skin):
    """The transport evaluates in the head frame, the plugin in the local one."""
    wi, wo = directions(mi)
    frame = mi.Frame3f(mi.Vector3f(2 / 7, 3 / 7, 6 / 7))
    local = skin.evaluate(wi, wo, mi.Vector3f(0, 0, 1), mi.Color3f(0.4), mi.Color3f(0.03), 0.3).numpy()
    world = skin.evaluate(
        frame.to_world(wi), frame.to_world(wo), frame.n, mi.Color3f(0.4), mi.Color3f(0.03), 0.3
    ).numpy()
    # a rotation rounds h.n by 1e-7, which the peak of alpha = 0.09 magnifies by 1 / alpha^2
    assert world == pytest.approx(local, rel=1e-4, abs=1e-6)


# sampling


@pytest.mark.parametrize("f0", [0.0, 0.04, 0.5])
@pytest.mark.parametrize("roughness", [0.3, 0.6, 1.0])
def test_density_integrates_to_one_less_what_falls_below_the_horizon(mi, f0, roughness):
    import drjit as dr

    plugin = bsdf(mi, 0.5, f0, roughness)
    context = mi.BSDFContext()
    steps = 512  # midpoint rule on the hemisphere; alpha = 0.09 is a lobe some 40 steps wide
    z, phi = np.meshgrid((np.arange(steps) + 0.5) / steps, (np.arange(steps) + 0.5) / steps * 2 * np.pi, indexing="ij")
    s = np.sqrt(1 - z * z)
    wo = mi.Vector3f(*(mi.Float(a.astype(np.float32).ravel()) for a in (s * np.cos(phi), s * np.sin(phi), z)))
    for cos_i in (0.2, 0.7, 1.0):
        si = dr.zeros(mi.SurfaceInteraction3f, steps * steps)
        si.wi = mi.Vector3f((1 - cos_i**2) ** 0.5, 0, cos_i)
        integral = float(plugin.pdf(context, si, wo, True).numpy().mean(dtype=np.float64)) * 2 * np.pi
        count = 1 << 16
        rng = np.random.default_rng(1)
        u = [mi.Float(rng.random(count, np.float32)) for _ in range(3)]
        few = dr.zeros(mi.SurfaceInteraction3f, count)
        few.wi = si.wi
        drawn, _ = plugin.sample(context, few, u[0], mi.Point2f(u[1], u[2]), True)
        above = float((drawn.pdf.numpy() > 0).mean())
        # binomial error of 65536 draws is below 0.002; quadrature adds a few 1e-3 for the narrowest lobe
        assert integral == pytest.approx(above, abs=0.01)
        assert integral <= 1.005


@pytest.mark.parametrize(
    ("cos_i", "f0", "roughness"),
    [(1.0, 0.04, 0.3), (0.6, 0.04, 0.5), (0.25, 0.04, 0.8), (0.6, 0.5, 0.4), (0.8, 0.0, 0.5)],
)
def test_directions_are_drawn_with_the_density_that_is_claimed(mi, tmp_path, monkeypatch, cos_i, f0, roughness):
    import drjit as dr

    monkeypatch.chdir(tmp_path)  # a failing test writes its histogram to the working folder
    plugin, context = bsdf(mi, 0.5, f0, roughness), mi.BSDFContext()

    def interaction(count: int):
        si = dr.zeros(mi.SurfaceInteraction3f, count)
        si.wi = mi.Vector3f((1 - cos_i**2) ** 0.5, 0, cos_i)
        return si

    def sample(u, *_):
        drawn, weight = plugin.sample(context, interaction(dr.width(u)), u[0], mi.Point2f(u[1], u[2]), True)
        return drawn.wo, dr.select(weight.x > 0, mi.Float(1), 0)

    def pdf(wo, *_):
        return plugin.pdf(context, interaction(dr.width(wo)), wo, True)

    test = mi.chi2.ChiSquareTest(
        domain=mi.chi2.SphericalDomain(),
        sample_func=sample,
        pdf_func=pdf,
        sample_dim=3,
        sample_count=200000,
        res=51,
        ires=8,
    )
    # Sidak-corrected for the five cases: a correct sampler fails one run in twenty thousand
    assert test.run(significance_level=1e-5, test_count=5, quiet=True), test.messages


def test_sample_weight_is_value_over_density(mi):
    import drjit as dr

    plugin = bsdf(mi, 0.5, 0.04, 0.4)
    count = 4096
    rng = np.random.default_rng(2)
    si = dr.zeros(mi.SurfaceInteraction3f, count)
    si.wi = mi.Vector3f(0.6, 0, 0.8)
    u = [mi.Float(rng.random(count, np.float32)) for _ in range(3)]
    context = mi.BSDFContext()
    drawn, weight = plugin.sample(context, si, u[0], mi.Point2f(u[1], u[2]), True)
    value, density = plugin.eval_pdf(context, si, drawn.wo, True)
    valid = drawn.pdf.numpy() > 0
    assert valid.mean() > 0.95
    assert density.numpy()[valid] == pytest.approx(drawn.pdf.numpy()[valid], rel=1e-4)
    assert (value / density).x.numpy()[valid] == pytest.approx(weight.x.numpy()[valid], rel=1e-4)
