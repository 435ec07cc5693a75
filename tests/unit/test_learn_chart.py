"""Rationale: what a texel of the chart shows must be what the photo shows there, or the network learns from noise.

Expected behaviour: a painted head, photographed and unwrapped, has its paint back; normals are the head's; light on
them is Lambert's law and the harmonics of `lightstage`; and where a photo is as predicted there is no evidence.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from lightstage.environment import sh_basis
from raytrace_face.capture.colour import linear_to_srgb
from raytrace_face.face.camera import project as project_numpy
from raytrace_face.face.camera import to_camera
from raytrace_face.face.mesh import vertex_normals
from raytrace_face.face.model import FaceModel
from raytrace_face.face.store import load_embedded
from raytrace_face.learn import start as starts
from raytrace_face.learn.chart import (
    CHANNELS,
    DARK,
    MEAN,
    RATIO,
    SPREAD,
    Chart,
    encoded,
    evidence,
    exposure,
    irradiance,
    linear_of,
    normals,
    unwrap,
)
from raytrace_face.learn.head import TorchHead
from raytrace_face.learn.light import LIGHTS
from raytrace_face.learn.parameters import EXPRESSION, SIZE, as_it_is, unpack
from raytrace_face.learn.start import IDENTITY, Start
from raytrace_face.types import Camera, FaceParams, Window
from tests.unit.conftest import turned
from tests.unit.learned import neutral

TEXELS, SIDE = 128, 256
CAMERA, WINDOW = Camera(1000, 1000, 1500.0, (480.0, 510.0)), Window(300.0, 300.0, 400.0, SIDE)


class Posed:
    """The embedded head of one person in one pose, and its chart."""

    def __init__(self, model: FaceModel, texels, chart: Chart, T: np.ndarray, window: Window = WINDOW) -> None:
        rng = np.random.default_rng(0)
        identity = rng.normal(size=IDENTITY).astype(np.float32)
        weights = rng.uniform(0.02, 0.3, EXPRESSION).astype(np.float32)  # a start holds them in [0.01, 0.99]
        whole = np.concatenate([identity, np.zeros(len(model.identity) - IDENTITY)])
        self.T, self.window, self.chart = T, window, chart
        self.vertices = model.vertices(whole, weights)
        self.start = starts.of_pose(CAMERA, FaceParams(T, identity, weights), window)
        self.head = TorchHead.of(model)
        self.points = texels.spread(self.vertices)
        n = texels.spread(vertex_normals(self.vertices, model.triangles, model.weld))
        self.normals = n / np.linalg.norm(n, axis=2, keepdims=True)

    def towards_eye(self) -> np.ndarray:
        """(T, T) cosine of the head's own normals to the eye."""
        eye = -self.T[:3, :3].T @ self.T[:3, 3] - self.points
        return (self.normals * eye).sum(axis=2) / np.linalg.norm(eye, axis=2)

    def xy(self) -> np.ndarray:
        """(T, T, 2) where the crop shows the texels, sides of it, hidden or not."""
        seen = to_camera(self.T, self.points.reshape(-1, 3))
        return (project_numpy(CAMERA.windowed(self.window), seen) / self.window.size).reshape(TEXELS, TEXELS, 2)

    def unwrapped(self, crop: np.ndarray) -> np.ndarray:
        """(CHANNELS, T, T) of a crop (S, S, 3) of codes."""
        photo = torch.from_numpy(np.ascontiguousarray(crop.transpose(2, 0, 1), np.float32))[None]
        found = unwrap(self.head, self.chart, as_it_is(self.start), photo)
        assert found.shape == (1, CHANNELS, TEXELS, TEXELS)
        return found[0].numpy()


def codes_of(unwrapped: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Codes (T, T, 3) of an unwrapped photo, and how well they are seen (T, T)."""
    seen = unwrapped[3]
    return (unwrapped[:3] / np.maximum(seen, 1e-3) * SPREAD + MEAN).transpose(1, 2, 0), seen


@pytest.fixture(scope="module")
def world(mi):
    """The head, its texels and its chart; `mi` lays them out."""
    from raytrace_face.learn.decoders import embedded_skin

    model, (_, texels) = load_embedded(0), embedded_skin(TEXELS)
    return model, texels, Chart.of(model, texels)


FRONT = turned(0.2, -0.1, (10.0, -20.0, -900.0))
SIDEWAYS = turned(1.0, 0.0, (0.0, 0.0, -900.0))


# the unwrapped photo


def test_the_charts_points_are_those_of_the_texture(world):
    model, texels, chart = world
    two = torch.from_numpy(np.stack([model.mean, 2 * model.mean]))
    found = chart.points(two).numpy()
    expected = texels.spread(model.mean)
    assert found == pytest.approx(np.stack([expected, 2 * expected]), abs=1e-4)


def test_normals_of_the_chart_are_the_heads_within_a_facet(world):
    """Off the smooth normals by no more than the mesh's own facets are; nine in ten texels within 8 degrees."""
    model, texels, chart = world
    smooth = texels.spread(vertex_normals(model.mean, model.triangles, model.weld))
    corners = model.mean[texels.corners].reshape(TEXELS, TEXELS, 3, 3)
    flat = np.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    found = normals(chart.points(torch.from_numpy(model.mean)[None]))[0].numpy()

    def miss(n: np.ndarray) -> np.ndarray:
        skin = chart.inside.numpy() > 0
        n, m = n[skin], smooth[skin]
        return np.degrees(np.arctan2(np.linalg.norm(np.cross(n, m), axis=1), (n * m).sum(axis=1)))

    share = (50, 90)
    assert (np.percentile(miss(found), share) < 1.2 * np.percentile(miss(flat), share)).all()
    assert np.percentile(miss(found), 90) < 8


def test_a_ramp_on_the_photo_reads_as_the_place_of_each_texel(world):
    """Bilinear sampling of a ramp is exact, up to half a pixel from the border."""
    posed = Posed(*world, FRONT)
    along = (np.arange(SIDE) + 0.5) / SIDE
    ramp = np.stack([*np.meshgrid(along, along), np.full((SIDE, SIDE), 0.5)], axis=2)
    codes, seen = codes_of(posed.unwrapped(ramp))
    xy = posed.xy()
    well = (seen > 0.01) & (np.abs(xy - 0.5).max(axis=2) < 0.5 - 0.5 / SIDE)
    assert well.mean() > 0.4
    assert codes[well][:, :2] == pytest.approx(xy[well], abs=1e-3)  # float32 over a seen of 0.01
    assert codes[well][:, 2] == pytest.approx(0.5, abs=1e-4)


def test_a_painted_head_comes_back_from_its_photo(world):
    """Stripes in the head's frame, traced by the program's own camera. What a nose hides is not known to the chart."""
    from raytrace_face.tracer.render import gbuffer
    from raytrace_face.tracer.scene import HeadScene

    model, texels, _ = world
    posed = Posed(*world, FRONT)
    paint = (0.5 + 0.4 * np.sin(model.mean / [15.0, 20.0, 25.0])).astype(np.float32)
    scene = HeadScene(model)
    scene.move(posed.vertices)
    g = gbuffer(scene, CAMERA.windowed(WINDOW), posed.T)
    crop = g.interpolate(paint).reshape(SIDE, SIDE, 3) * (g.part != 255).reshape(SIDE, SIDE, 1)
    codes, seen = codes_of(posed.unwrapped(crop))
    well = seen > 0.9
    assert well.mean() > 0.3
    error = np.abs(codes - texels.spread(paint)).max(axis=2)[well]
    # a pixel is 0.9 mm here, over which the paint changes by up to 0.024; one texel in twenty is behind the nose,
    # a lid or a lip
    assert np.median(error) < 0.01
    assert np.percentile(error, 95) < 0.05


def test_texels_that_look_away_or_lie_outside_have_no_weight(world):
    """A head turned by 57 degrees in a crop that cuts off its left half."""
    posed = Posed(*world, SIDEWAYS, replace(WINDOW, left_px=480.0))
    found = posed.unwrapped(np.full((SIDE, SIDE, 3), 0.7))
    codes, seen = found[:3], found[3]
    skin, cosine, xy = world[2].inside.numpy() > 0, posed.towards_eye(), posed.xy()
    # facets are off the smooth normals by up to a dozen degrees, 0.2 in a grazing cosine; folds of the chart by more
    away = (cosine < -0.1) & skin
    assert (seen[away] == 0).mean() > 0.99
    outside = ((xy < 0) | (xy > 1)).any(axis=2)
    for blind in (outside, ~skin):
        assert blind.mean() > 0.1
        assert not seen[blind].any()
    assert not codes[:, seen == 0].any()
    plain = skin & ~outside & (cosine > 0.6)
    assert plain.mean() > 0.05
    assert (seen[plain] == 1).mean() > 0.98
    assert np.abs(found[7] - cosine)[skin].mean() < 0.05


def test_each_photo_of_a_batch_has_its_own_face(world):
    front, side = Posed(*world, FRONT), Posed(*world, SIDEWAYS)
    both = Start(*(torch.cat(pair) for pair in zip(front.start.tensors(), side.start.tensors(), strict=True)))
    crop = np.random.default_rng(2).random((2, 3, SIDE, SIDE), np.float32)
    found = unwrap(front.head, front.chart, as_it_is(both), torch.from_numpy(crop)).numpy()
    for one, posed, photo in zip(found, (front, side), crop, strict=True):
        assert one == pytest.approx(posed.unwrapped(photo.transpose(1, 2, 0)), abs=1e-3)  # float32 in another order


# light on the chart


def random_normals(seed: int, side: int = 16) -> Tensor:
    n = torch.randn(1, side, side, 3, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(n, dim=3)


def lights():
    """All that a random vector lights."""
    return unpack(torch.randn(1, SIZE, generator=torch.Generator().manual_seed(3)), neutral()).lights


def test_irradiance_of_one_light_is_lamberts_law():
    """Under the strongest light of a stage alone, by the direction that `lightstage` gives it."""
    whole, n = lights(), random_normals(1)
    slot = int(whole.irradiance[0].sum(dim=1).argmax())
    lone = torch.zeros_like(whole.irradiance)
    lone[0, slot] = whole.irradiance[0, slot]
    found = irradiance(replace(whole, irradiance=lone, ambient=0 * whole.ambient), n)[0].numpy()
    towards = whole.stage(0).directions()[slot]
    cos = np.maximum(n[0].numpy() @ towards, 0)
    assert found == pytest.approx(cos[..., None] * lone[0, slot].numpy(), abs=1e-5)
    assert 0.3 < (cos > 0).mean() < 0.7


def test_irradiance_of_the_ambient_is_that_of_its_harmonics():
    """Bands times pi, 2 pi / 3, pi / 4 (Ramamoorthi & Hanrahan 2001), over pi: exact for lobes of degree two."""
    whole, n = lights(), random_normals(2)
    found = irradiance(replace(whole, irradiance=0 * whole.irradiance), n)[0].numpy()
    bands = np.repeat([1, 2 / 3, 1 / 4], [1, 3, 5])
    expected = (sh_basis(n[0].numpy()) * bands) @ whole.ambient_of(0)
    assert found == pytest.approx(expected, rel=1e-4)
    both = irradiance(whole, n) - irradiance(replace(whole, ambient=0 * whole.ambient), n)
    assert both[0].numpy() == pytest.approx(found, rel=1e-3, abs=1e-5)


def test_irradiance_ahead_is_what_the_lights_say_themselves():
    whole = lights()
    ahead = torch.tensor([0.0, 0.0, 1.0]).expand(1, 2, 2, 3)
    assert irradiance(whole, ahead)[0, 0, 0].numpy() == pytest.approx(whole.facing_irradiance()[0].numpy(), rel=1e-5)


# evidence


def photographed(factor: Tensor | float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """An unwrapped photo of albedo times irradiance times a factor, the log albedo, what is shaded, and seen."""
    g = torch.Generator().manual_seed(5)
    n = random_normals(6)
    log_albedo = -1.5 + 0.6 * torch.rand(1, 16, 16, 3, generator=g)
    shaded = log_albedo.exp() * irradiance(dimmed(), n)
    codes = torch.from_numpy(linear_to_srgb((factor * shaded).numpy())).permute(0, 3, 1, 2)
    seen = torch.rand(1, 1, 16, 16, generator=g) * (torch.rand(1, 1, 16, 16, generator=g) > 0.3)
    parts = ((codes - MEAN) / SPREAD * seen, seen, n.permute(0, 3, 1, 2), torch.ones_like(seen))
    return torch.cat(parts, dim=1), log_albedo, shaded, seen


def dimmed():
    """Light under which nothing is clipped, whatever the factor."""
    whole = lights()
    level = 0.4 / float(whole.irradiance.sum(dim=1).max() + 4 * whole.ambient.max())
    return replace(whole, irradiance=level * whole.irradiance, ambient=level * whole.ambient)


def test_a_photo_that_is_as_predicted_is_no_evidence():
    unwrapped, log_albedo, _, seen = photographed(1.0)
    found = evidence(unwrapped, dimmed(), log_albedo, everywhere())
    # float32 codes over a seen of a thousandth and more: 1e-4 of a code, twenty times that where it is dark
    assert float(found[:, :3].abs().max()) < 2e-3
    assert torch.equal(found[:, 3:4], seen)
    level = torch.log(irradiance(dimmed(), unwrapped[:, 4:7].permute(0, 2, 3, 1)).mean(dim=3) + DARK)
    assert torch.allclose(found[:, 4], level, atol=1e-5)
    assert not found[:, 5].any()  # every light arrives


def test_evidence_tells_what_cast_shadows_leave():
    """Without any area light the ambient is left, in the ratio's units; the ratio itself knows of no shadow."""
    unwrapped, log_albedo, _, _ = photographed(1.0)
    whole, n = dimmed(), unwrapped[:, 4:7].permute(0, 2, 3, 1)
    lit, dark = (evidence(unwrapped, whole, log_albedo, share * everywhere()) for share in (1.0, 0.0))
    assert torch.equal(lit[:, :5], dark[:, :5])
    sky = irradiance(replace(whole, irradiance=0 * whole.irradiance), n)
    expected = ((sky.mean(dim=3) + DARK) / (irradiance(whole, n).mean(dim=3) + DARK)).log().clamp_min(-RATIO)
    assert torch.allclose(dark[:, 5], expected, atol=1e-5)
    assert float(expected.min()) < -0.5


def test_evidence_is_the_log_factor_on_what_was_predicted():
    """Skin twice as bright in red and half as bright in blue; what is dark counts less; weighted by how well seen."""
    factor = torch.tensor([2.0, 1.0, 0.5])
    unwrapped, log_albedo, shaded, seen = photographed(factor)
    found = evidence(unwrapped, dimmed(), log_albedo, everywhere())[:, :3].permute(0, 2, 3, 1)
    well = seen[:, 0] > 0.1
    expected = torch.log((factor * shaded + DARK) / (shaded + DARK))
    each = found / seen[:, 0, ..., None].clamp_min(1e-9)
    assert torch.allclose(each[well], expected[well], atol=2e-3)
    assert not found[seen[:, 0] == 0].any()
    bright = well & (shaded.amin(dim=3) > 10 * DARK)
    assert torch.allclose(each[bright], factor.log().expand_as(each)[bright], atol=0.1)


def test_evidence_is_bounded():
    """Black hair and white paper over the skin: a ratio beyond e^2 is something else."""
    for code, sign in ((0.0, -1), (1.0, 1)):
        unwrapped, log_albedo, _, _ = photographed(1.0)
        unwrapped[:, :3], unwrapped[:, 3] = (code - MEAN) / SPREAD, 1
        bright = torch.full_like(log_albedo, 3.0 if code == 0 else -6.0)
        found = evidence(unwrapped, lights(), bright, everywhere())[:, :3]
        assert float((sign * found).max()) == RATIO
        assert float(found.abs().max()) == RATIO


def everywhere() -> Tensor:
    """Every light arrives at every texel."""
    return torch.ones(1, LIGHTS, 16, 16)


def exposed(factor: Tensor | float, shadow: float = 0.0, seen: float = 1.0) -> Tensor:
    """(3,) the exposure of a photo of albedo times irradiance times a factor, a share of it in the dark."""
    unwrapped, log_albedo, shaded, _ = photographed(1.0)
    dark = torch.rand(1, 16, 16, 1, generator=torch.Generator().manual_seed(8)) < shadow
    linear = torch.where(dark, 0.3, 1.0) * (factor * (shaded + DARK)) - DARK  # the factor is then exact in the ratio
    unwrapped[:, :3] = (
        torch.from_numpy(linear_to_srgb(linear.clamp_min(0).numpy())).permute(0, 3, 1, 2) - MEAN
    ) / SPREAD
    unwrapped[:, :3] *= seen
    unwrapped[:, 3] = seen
    return exposure(unwrapped, dimmed(), log_albedo, everywhere())[0]


def test_exposure_is_the_factor_between_photo_and_prediction():
    factor = torch.tensor([1.6, 1.2, 1.05])
    assert torch.allclose(exposed(factor), factor.log(), atol=5e-3)  # float32 codes
    assert torch.allclose(exposed(1.0), torch.zeros(3), atol=5e-3)


def test_exposure_does_not_mind_a_third_of_the_face_in_shadow():
    """Texels count by their codes, dark ones less; nine tenths in the dark set the exposure, which a test
    must be able to see."""
    factor = torch.tensor([1.6, 1.2, 1.05])
    assert torch.allclose(exposed(factor, shadow=0.33), factor.log(), atol=5e-3)
    assert float(exposed(factor, shadow=0.9).max()) < -0.5


def test_where_no_face_is_seen_exposure_stays_as_predicted():
    assert not exposed(1.6, seen=0.2).any()


def test_exposed_lights_are_brighter_by_the_gain_in_every_channel():
    gain = torch.tensor([[0.3, 0.0, -0.2]])
    n = random_normals(4)
    assert torch.allclose(irradiance(lights().exposed(gain), n), irradiance(lights(), n) * gain.exp(), rtol=1e-5)


def test_codes_are_linear_light_by_the_standard():
    """IEC 61966-2-1 at the toe's end, in the middle and at white."""
    found = linear_of(torch.tensor([0.0, 0.04045, 0.5, 1.0]))
    assert found.tolist() == pytest.approx([0, 0.04045 / 12.92, 0.21404, 1], rel=1e-4)
    assert encoded(found).tolist() == pytest.approx([0, 0.04045, 0.5, 1], rel=1e-4)
