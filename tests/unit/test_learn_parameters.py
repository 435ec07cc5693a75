"""Rationale: whatever the network says is a face: bounded, lit, posed; and what it says is what the program takes.

Expected behaviour: the zero vector is the start; projection is that of `face.camera`, the head that of `face.model`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from raytrace_face.face.camera import project as project_numpy
from raytrace_face.face.camera import to_camera
from raytrace_face.face.store import load_embedded
from raytrace_face.fit.albedo import EXPOSURE
from raytrace_face.learn import start as starts
from raytrace_face.learn.head import TorchHead, project
from raytrace_face.learn.parameters import BLOCKS, EXPRESSION, SIZE, bounded, deviations, unpack
from raytrace_face.learn.start import IDENTITY
from raytrace_face.types import Camera, FaceParams, Window
from tests.unit.conftest import turned
from tests.unit.learned import neutral, vector


@pytest.fixture(scope="module")
def model():
    return load_embedded(0)


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
    assert float(p.lights.irradiance.sum(dim=(1, 2)).min()) > 0.01  # the lights never all die
    # places on the stage are geometric means, by float32 logarithms
    assert float(p.lights.distance.min()) >= 0.5 - 1e-5
    assert float(p.lights.distance.max()) <= 5 + 1e-5
    assert 0.005 - 1e-6 <= float(p.lights.area.min()) <= float(p.lights.area.max()) <= 1 + 1e-5
    stage = p.lights.stage(7)
    assert all(np.isfinite(v).all() for v in (stage.corners_mm(), stage.radiance(), stage.intensity))


def test_identity_is_added_to_that_of_the_start_within_bounds():
    start = neutral()
    start = replace(start, identity=torch.linspace(-3.5, 3.5, IDENTITY)[None])
    assert torch.equal(unpack(vector(), start).identity, start.identity)
    up = unpack(vector(identity=np.full(IDENTITY, 0.5)), start).identity - start.identity
    step = float(bounded(torch.tensor(0.5), -3.5, 3.5))
    assert up[0, :50].numpy() == pytest.approx(step, abs=1e-6)
    assert float((start.identity + up).max()) == 3.5


def test_zero_is_the_start_under_soft_frontal_light(model):
    p = unpack(vector(), neutral())
    assert not p.identity.any()
    assert not p.albedo.any()
    assert p.expression.numpy() == pytest.approx(starts.NEUTRAL_EXPRESSION, rel=1e-5)
    # KEY is rounded to two digits, and a lamp near an edge loses a hundredth of itself to other directions
    assert p.lights.facing_irradiance().numpy() == pytest.approx(EXPOSURE, rel=0.03)
    assert float(p.lights.irradiance.std(dim=2).max()) == pytest.approx(0, abs=1e-6)  # white
    towards = (p.lights.irradiance.mean(dim=2)[..., None] * p.lights.directions()).sum(dim=1)
    assert torch.nn.functional.normalize(towards)[0].numpy() == pytest.approx([0, 0, 1], abs=1e-3)
    assert p.face(0, model).identity.shape == (100,)


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
    face = FaceParams(turned(0.3, 0.1, (40, -30, -600)), np.zeros(IDENTITY), np.zeros(EXPRESSION))
    start = starts.of_pose(Camera(640, 480, 700.0, (300.0, 250.0)), face, Window(200, 100, 260, 128))
    raw = torch.randn(1, SIZE, generator=torch.Generator().manual_seed(1))
    p = unpack(raw, start)
    points = torch.from_numpy(model.mean[::50].copy())[None]
    xy, depth = project(p, points)
    T = p.T_camera_head[0].numpy()
    expected = project_numpy(p.crop_camera(0, 128), to_camera(T, points[0].numpy()))
    assert 128 * xy[0].numpy() == pytest.approx(expected, abs=1e-3)
    assert depth[0].numpy() == pytest.approx(-to_camera(T, points[0].numpy())[:, 2], rel=1e-5)
