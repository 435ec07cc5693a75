"""Rationale: whatever the network says is a face: bounded, lit, posed; and what it says is what the program takes.

Expected behaviour: the zero vector is the start; poses survive the way into crop units and back; the stage in torch is
the stage of `lightstage`; projection is that of `face.camera`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lightstage.environment import lobes
from lightstage.rig import geodesic, rig, triangle_form_factor
from lightstage.solve import _face_hit
from raytrace_face.capture.landmarks import WINDOW_SCALE
from raytrace_face.face.camera import project as project_numpy
from raytrace_face.face.camera import to_camera
from raytrace_face.face.store import load_embedded
from raytrace_face.fit.albedo import EXPOSURE
from raytrace_face.learn import start as starts
from raytrace_face.learn.decoders import DIFFUSE_LOG, SPECULAR_LOG, Decoders, StatisticalSkin, statistical_maps
from raytrace_face.learn.encoder import Encoder, EncoderConfig, Hint
from raytrace_face.learn.head import TorchHead, project
from raytrace_face.learn.light import Lights, form_factor
from raytrace_face.learn.parameters import ALBEDO, BLOCKS, EXPRESSION, IDENTITY, SIZE, bounded, deviations, unpack
from raytrace_face.types import Camera, Window
from tests.unit.conftest import turned

SMALL = EncoderConfig(crop=32, width=16, latent=32)


@pytest.fixture(scope="module")
def model():
    return load_embedded(0)


def neutral(batch: int = 1) -> starts.Start:
    return starts.neutral(torch.full((batch, 2), 0.5), EXPRESSION)


def vector(**blocks: np.ndarray) -> torch.Tensor:
    """(1, SIZE) zero but for given blocks, each the network's output before scale and bounds."""
    parts = [torch.as_tensor(blocks.get(b.name, np.zeros(b.size)), dtype=torch.float32).reshape(-1) for b in BLOCKS]
    return torch.cat(parts)[None]


# the vector


def test_blocks_tile_the_vector_and_stay_within_their_bounds():
    raw = torch.linspace(-300, 300, 7, dtype=torch.float64)[:, None].repeat(1, SIZE).requires_grad_()
    found = deviations(raw)
    assert [found[b.name].shape[1] for b in BLOCKS] == [b.size for b in BLOCKS]
    for block in BLOCKS:
        values = found[block.name].detach()
        assert block.low <= float(values.min()) < 0 < float(values.max()) <= block.high
    sum(v.sum() for v in found.values()).backward()
    assert raw.grad is not None
    assert torch.isfinite(raw.grad).all()


def test_each_entry_of_the_vector_moves_one_entry_of_one_block():
    """The Jacobian is diagonal in the order of the blocks, with the scale as its value at zero."""
    jacobian = torch.func.jacrev(lambda raw: torch.cat(list(deviations(raw[None]).values()), dim=1)[0])(
        torch.zeros(SIZE)
    )
    scale = torch.cat([torch.full((b.size,), b.scale) for b in BLOCKS])
    assert torch.equal(jacobian, torch.diag(scale))


def test_bending_into_bounds_is_smooth_and_increasing():
    x = torch.linspace(-9, 9, 181, dtype=torch.float64).requires_grad_()
    y = bounded(x, -1.2, 0.7)
    (slope,) = torch.autograd.grad(y.sum(), x)
    # tanh rounds to one eight bounds out, where the slope is 1e-6
    assert float(slope.min()) > 0
    assert float(slope[90]) == 1
    assert float(torch.diff(slope).abs().max()) < 0.12  # no kink: steps of 0.1 under a curvature of at most 1.1


def test_a_vector_of_another_length_is_refused():
    with pytest.raises(ValueError, match=str(SIZE)):
        unpack(torch.zeros(1, SIZE + 1), neutral())


def test_any_vector_is_a_face():
    raw = 20 * torch.randn(50, SIZE, generator=torch.Generator().manual_seed(0))
    p = unpack(raw, neutral(50))
    assert float(p.identity.abs().max()) <= 3.5
    assert 0 <= float(p.expression.min()) <= float(p.expression.max()) <= 1
    R = p.T_camera_head[:, :3, :3]
    assert torch.allclose(R @ R.mT, torch.eye(3).expand(50, 3, 3), atol=1e-5)  # float32 products
    assert torch.allclose(torch.linalg.det(R), torch.ones(50), atol=1e-5)
    assert float(p.T_camera_head[:, 2, 3].max()) < -200  # in front of the camera, and not nearer than a face can be
    assert float(p.focal.min()) > 0
    assert float(p.lights.irradiance.min()) >= 0
    assert float(p.lights.irradiance.sum(dim=(1, 2)).min()) > 0.005  # the lights never all die
    assert float(p.lights.distance.min()) + 1e-6 >= 0.5
    assert float(p.lights.distance.max()) <= 5 + 1e-6
    assert float(p.lights.area.max()) <= 1 + 1e-6
    stage = p.lights.stage(7)
    assert all(np.isfinite(v).all() for v in (stage.corners_mm(), stage.radiance(), stage.intensity))


# the start


def test_zero_is_the_mean_face_under_soft_frontal_light(model):
    p = unpack(vector(), neutral())
    assert not p.identity.any()
    assert not p.albedo.any()
    assert p.expression.numpy() == pytest.approx(starts.NEUTRAL_EXPRESSION, rel=1e-5)
    # KEY is rounded to two digits
    assert p.lights.facing_irradiance().numpy() == pytest.approx(EXPOSURE, rel=0.01)
    assert float(p.lights.irradiance.std(dim=2).max()) == pytest.approx(0, abs=1e-6)  # white
    towards = (p.lights.irradiance.mean(dim=2)[..., None] * p.lights.directions()).sum(dim=1)
    assert torch.nn.functional.normalize(towards)[0].numpy() == pytest.approx([0, 0, 1], abs=1e-3)
    assert p.face(0, model).identity.shape == (100,)


def test_neutral_crop_is_the_window_of_the_mean_face(model):
    """Where the mean face stands at the neutral start, its landmarks fill the crop as `capture` would cut it."""
    head = TorchHead.of(model)
    p = unpack(vector(), neutral())
    zero = torch.zeros(1, EXPRESSION)
    xy, _ = project(p, head.landmarks(head.vertices(p.identity, zero)))
    low, high = xy[0].min(dim=0).values, xy[0].max(dim=0).values
    # the constants are rounded to 1 mm and 0.01 sides, and half a degree of pitch comes with looking down at the face
    assert float((high - low).max()) * WINDOW_SCALE == pytest.approx(1, abs=0.01)
    assert ((low + high) / 2).numpy() == pytest.approx([0.5, 0.5], abs=0.01)


def test_pose_survives_the_way_into_a_crop_and_back():
    camera, T = Camera(1600, 1200, 1300.0, (790.0, 611.0)), turned(0.5, -0.2, (180.0, -120.0, -700.0))
    window = Window(900.0, 500.0, 350.0, 256)
    start = starts.of_pose(camera, T, window, np.full(EXPRESSION, 0.3, np.float32))
    p = unpack(vector(), start)
    assert p.T_camera_head[0].numpy() == pytest.approx(T, abs=2e-3)  # float32 of 700 mm through exp and log: 1e-6 of it
    back = p.photo_camera(0, 1600, 1200, window)
    assert back.focal_px == pytest.approx(1300, rel=1e-5)
    assert back.principal_px == pytest.approx(camera.principal_px, abs=1e-3)
    assert p.expression.numpy() == pytest.approx(0.3, rel=1e-5)
    seen = camera.windowed(window)
    assert p.crop_camera(0, 256).focal_px == pytest.approx(seen.focal_px, rel=1e-5)
    assert p.crop_camera(0, 256).principal_px == pytest.approx(seen.principal_px, abs=1e-3)


def test_a_head_moved_across_the_photo_has_the_same_rotation_against_its_ray():
    """Turning the camera about its centre moves a head over the picture and changes nothing that the crop shows."""
    camera = Camera(1000, 1000, 800.0, (500.0, 500.0))
    T = turned(0.2, 0.1, (0.0, 0.0, -900.0))
    for pan in (turned(0.3, 0.0, (0, 0, 0)), turned(0.0, -0.25, (0, 0, 0))):
        seen = [starts.of_pose(camera, M, Window(0, 0, 100, 100), np.zeros(EXPRESSION)) for M in (T, pan @ T)]
        # pan and tilt alone: their axis is normal to the ray's turn, so the smallest rotation is the same one
        assert seen[0].rotation.numpy() == pytest.approx(seen[1].rotation.numpy(), abs=1e-5)


def test_start_of_landmarks_is_the_pose_of_the_mean_face(model):
    """From 1.1 m and within the usual turns: three degrees and two per cent, which is what perspective leaves."""
    points = torch.from_numpy(model.landmark_points(model.mean))
    starting, truth, observed = [], [], []
    for yaw, pitch, x, y in ((0.0, 0.0, 0, 0), (0.7, 0.1, 100, 50), (-0.5, -0.3, -200, 80), (0.2, 0.4, 0, -90)):
        camera, window = Camera(1000, 1000, 1500.0, (480.0, 510.0)), Window(300, 300, 380, 192)
        T = turned(yaw, pitch, (x, y, -1100))
        truth.append(starts.of_pose(camera, T, window, np.full(EXPRESSION, 0.1)))
        observed.append(project_numpy(camera.windowed(window), to_camera(T, points.numpy())) / 192)
        starting.append(truth[-1].principal)
    marks = torch.from_numpy(np.stack(observed).astype(np.float32))
    found = starts.of_landmarks(points, marks, torch.cat(starting), torch.full((4, EXPRESSION), 0.1))
    for i, true in enumerate(truth):
        error = Rotation.from_matrix(found.rotation[i].numpy() @ true.rotation[0].numpy().T).magnitude()
        assert np.degrees(error) < 3
        assert found.centre[i].numpy() == pytest.approx(true.centre[0].numpy(), abs=0.02)
        assert float(found.log_width[i]) == pytest.approx(float(true.log_width[0]), abs=0.02)
        assert float(torch.linalg.det(found.rotation[i])) == pytest.approx(1, abs=1e-5)


def test_faces_without_landmarks_get_the_neutral_start():
    start = starts.of_pose(
        Camera(64, 64, 80.0, (30.0, 31.0)), turned(0.4, 0, (9, 9, -800)), Window(0, 0, 64, 64), np.ones(52)
    )
    two = starts.Start(*(torch.cat([t, t]) for t in start.tensors()))
    mixed = two.where(torch.tensor([True, False]))
    for name in start.__dataclass_fields__:
        assert torch.equal(getattr(mixed, name)[:1], getattr(start, name))
        plain = getattr(starts.neutral(start.principal, 52), name)
        assert torch.equal(getattr(mixed, name)[1:], plain)


# geometry


def test_head_in_torch_is_the_head(model):
    rng = np.random.default_rng(3)
    identity, expression = rng.normal(size=IDENTITY), rng.random(EXPRESSION)
    head = TorchHead.of(model)
    to = lambda x: torch.from_numpy(x.astype(np.float32))[None]  # noqa: E731
    found = head.vertices(to(identity), to(expression))
    truth = model.vertices(np.concatenate([identity, np.zeros(len(model.identity) - IDENTITY)]), expression)
    assert found[0].numpy() == pytest.approx(truth, abs=1e-3)  # sums of 112 float32 products of 100 mm
    assert head.landmarks(found)[0].numpy() == pytest.approx(model.landmark_points(truth), abs=1e-3)


def test_projection_is_that_of_the_camera(model):
    start = starts.of_pose(
        Camera(640, 480, 700.0, (300.0, 250.0)),
        turned(0.3, 0.1, (40, -30, -600)),
        Window(200, 100, 260, 128),
        np.zeros(52),
    )
    raw = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(1))
    p = unpack(raw, start)
    points = torch.from_numpy(model.mean[::50].copy())[None]
    xy, depth = project(p, points)
    T = p.T_camera_head[0].numpy()
    expected = project_numpy(p.crop_camera(0, 128), to_camera(T, points[0].numpy()))
    assert 128 * xy[0].numpy() == pytest.approx(expected, abs=1e-3)
    assert depth[0].numpy() == pytest.approx(-to_camera(T, points[0].numpy())[:, 2], rel=1e-5)


# light


def stage_of(**changes: torch.Tensor) -> Lights:
    return replace(unpack(vector(), neutral()).lights, **changes)


def test_stage_in_torch_is_the_stage():
    p = unpack(torch.randn(1, SIZE, generator=torch.Generator().manual_seed(2)), neutral())
    stage = p.lights.stage(0)
    on = stage.intensity.max(axis=1) > 0
    assert 0 < on.sum() < 20
    irradiance = p.lights.irradiance[0].numpy()
    assert stage.irradiance()[on] == pytest.approx(irradiance[on], rel=1e-4)
    assert irradiance[~on].sum() < 0.3 * irradiance.sum()
    assert stage.directions() == pytest.approx(p.lights.directions()[0].numpy(), abs=1e-5)
    corners = rig().face_corners * 1000
    assert form_factor(torch.from_numpy(corners)).numpy() == pytest.approx(triangle_form_factor(corners))


def test_every_direction_can_be_hit():
    """The barycentric bound keeps lights e^-6 off the edge of their face: a few tenths of a degree."""
    rng = np.random.default_rng(5)
    for direction in rng.normal(size=(200, 3)):
        direction /= np.linalg.norm(direction)
        hit = _face_hit(rig(), direction)
        face = int(np.argmax(hit.min(axis=1)))
        log = np.log(np.maximum(hit[face], 1e-9))
        centre, share = np.zeros((20, 3)), np.full(20, -6.0)
        centre[face] = 0.98 * 6 * np.arctanh(np.clip((log - log.mean()) / 6, -0.99, 0.99))
        share[face] = 6
        lights = unpack(vector(light_centre=centre, share=share), neutral()).lights
        found = lights.dominant()[0].numpy()
        assert np.degrees(np.arccos(min(found @ direction, 1))) < 1.5


def test_dominant_light_is_the_strongest_cluster_not_the_strongest_slot():
    """Two lights of 1 side by side outweigh one of 1.5 elsewhere, and the direction lies between the two."""
    faces, corners = rig().face_directions, rig().face_corners
    first = int(np.argmax(faces[:, 2]))
    near = np.argsort(-faces @ faces[first])
    second, far = int(near[1]), int(near[-1])
    edge = (faces[first] + faces[second]) / np.linalg.norm(faces[first] + faces[second])
    centre = torch.full((1, 20, 2), 1 / 3)
    for face in (first, second):  # a third of the way from the edge to the middle: 14 degrees apart
        towards = edge + (faces[face] - edge) / 3
        bary = np.linalg.solve(corners[face].T, towards)
        centre[0, face] = torch.from_numpy((bary / bary.sum())[:2])
    irradiance = torch.zeros(1, 20, 3)
    irradiance[0, [first, second]] = 1.0
    irradiance[0, far] = 1.5
    assert stage_of(irradiance=irradiance, centre=centre).dominant()[0].numpy() == pytest.approx(edge, abs=1e-3)
    irradiance[0, far] = 2.5
    assert stage_of(irradiance=irradiance, centre=centre).dominant()[0].numpy() == pytest.approx(faces[far], abs=1e-3)


def test_irradiance_of_the_ambient_is_the_integral_over_the_hemisphere():
    weights = torch.rand(1, 12, 3, generator=torch.Generator().manual_seed(4))
    lights = stage_of(irradiance=torch.zeros(1, 20, 3), ambient=weights)
    sky = geodesic(4).vertices
    cosine = np.maximum(sky[:, 2], 0)
    integral = (cosine[:, None] * (lobes(sky, geodesic(0).vertices) @ weights[0].numpy())).mean(axis=0) * 4
    assert lights.facing_irradiance()[0].numpy() == pytest.approx(integral, rel=0.01)  # 2562 directions


# networks


def crops(batch: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(batch, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def hint_of(batch: int, given: bool) -> Hint:
    g = torch.Generator().manual_seed(9)
    return Hint(torch.rand(batch, 478, 2, generator=g), torch.rand(batch, 52, generator=g), torch.full((batch,), given))


def shaken(seed: int = 0) -> Encoder:
    """A small encoder whose last layer is not zero."""
    torch.manual_seed(seed)
    encoder = Encoder(SMALL)
    torch.nn.init.normal_(encoder.out.weight, std=0.1)
    return encoder


@torch.no_grad()
def test_the_untrained_network_predicts_the_start():
    raw, latent = Encoder(SMALL)(crops(2), neutral(2), hint_of(2, True))
    assert not raw.any()
    assert latent.shape == (2, 32)
    assert latent.any()


@torch.no_grad()
def test_a_photo_is_predicted_alike_alone_and_in_a_batch():
    """No batch statistics: two processes with half the batch each make the same step as one."""
    encoder, photos = shaken(), crops(4)
    together, _ = encoder(photos, neutral(4), hint_of(4, True))
    alone = torch.cat([encoder(photos[i : i + 1], neutral(), _one(hint_of(4, True), i))[0] for i in range(4)])
    assert torch.allclose(together, alone, atol=1e-4)  # float32 sums in another order
    assert float((together[0] - together[1]).abs().max()) > 0.01


def _one(hint: Hint, i: int) -> Hint:
    return Hint(hint.landmarks[i : i + 1], hint.blendshapes[i : i + 1], hint.given[i : i + 1])


@torch.no_grad()
def test_hints_taken_away_leave_no_trace():
    encoder, photos = shaken(), crops(3)
    bare, _ = encoder(photos, neutral(3))
    kept = torch.tensor([True, False, False])
    some, _ = encoder(photos, neutral(3), hint_of(3, True).only(kept))
    assert torch.equal(bare[1:], some[1:])
    assert not torch.allclose(bare[:1], some[:1])


@torch.no_grad()
def test_crops_of_any_multiple_of_32_fit():
    for size in (64, 96):
        raw, _ = shaken()(torch.rand(1, 3, size, size), neutral())
        assert raw.shape == (1, SIZE)


def test_every_weight_is_reached_by_the_gradient():
    encoder, decoders = shaken(), Decoders(32, 32, 16)
    for module in decoders.modules():  # past their first step, when the last layers are no longer zero
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.2)
    for module in encoder.modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.ones_(module.weight)
    raw, latent = encoder(crops(4), neutral(4), hint_of(4, True))
    maps = decoders(latent, unpack(raw, neutral(4)).albedo, flat_skin(32))
    (raw.square().sum() + maps.diffuse.sum() + maps.specular.sum() + maps.confidence.sum()).backward()
    for name, parameter in [*encoder.named_parameters(), *decoders.named_parameters()]:
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


def flat_skin(size: int) -> StatisticalSkin:
    """Even skin whose modes are even, too."""
    mode = torch.linspace(-0.3, 0.3, ALBEDO)[:, None, None, None].expand(ALBEDO, size, size, 3)
    even = torch.full((size, size), 0.03)
    return StatisticalSkin(torch.full((size, size, 3), -1.2), mode.contiguous(), even, torch.full((size, size), 0.5))


@torch.no_grad()
def test_untrained_decoders_give_the_statistical_maps():
    albedo = torch.randn(2, ALBEDO, generator=torch.Generator().manual_seed(7))
    maps, plain = (
        Decoders(32, 32, 16)(torch.rand(2, 32), albedo, flat_skin(32)),
        statistical_maps(flat_skin(32), albedo),
    )
    assert torch.equal(maps.diffuse, plain.diffuse)
    assert torch.equal(maps.specular, plain.specular)
    expected = np.exp(-1.2 + albedo.numpy() @ np.linspace(-0.3, 0.3, ALBEDO))
    assert plain.diffuse[:, 5, 9, 1].numpy() == pytest.approx(np.clip(expected, 0.002, 0.98), rel=1e-5)
    assert not plain.confidence.any()


@torch.no_grad()
@pytest.mark.parametrize("texture", [32, 128])
def test_decoders_stay_within_bounds(texture):
    torch.manual_seed(3)
    decoders = Decoders(32, texture, 16)
    for parameter in decoders.parameters():
        parameter.normal_(0, 2)
    maps = decoders(100 * torch.rand(2, 32), torch.zeros(2, ALBEDO), flat_skin(texture))
    assert maps.diffuse.shape == (2, texture, texture, 3)
    assert float(maps.diffuse_increment.abs().max()) == pytest.approx(DIFFUSE_LOG, abs=1e-6)
    gloss = maps.specular_increment
    assert (float(gloss.min()), float(gloss.max())) == pytest.approx(SPECULAR_LOG, abs=1e-6)  # reached, to rounding
    assert 0 <= float(maps.confidence.min()) <= float(maps.confidence.max()) <= 1
    one = maps.maps(1)
    assert one.specular.shape == (texture, texture, 3)
    assert 0.002 <= one.diffuse.min() <= one.diffuse.max() <= 0.98


def test_a_texture_that_five_doublings_do_not_reach_is_refused():
    with pytest.raises(ValueError, match="100"):
        Decoders(32, 100)
