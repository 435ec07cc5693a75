"""Rationale: a network can learn a lamp that turns, and the program knows lights by their slot on a rig.

Expected behaviour: hung on the stage, a lamp keeps its direction and its irradiance, and while it turns over an edge of
the rig nothing jumps; the stage in torch is that of `lightstage`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from lightstage.environment import lobes
from lightstage.rig import geodesic, rig, triangle_form_factor
from raytrace_face.learn.lamps import LAMPS, Lamps, nearest_on_faces
from raytrace_face.learn.light import LOBES, Lights, form_factor
from raytrace_face.learn.parameters import LAMP_START, SIZE, unpack
from tests.unit.learned import neutral, vector

F = np.ndarray


def hung(directions: F, strength: F | None = None) -> Lights:
    """White lamps at unit vectors (M, 3), or (B, M, 3), of irradiance / pi `strength` (M,), on the stage."""
    towards = torch.as_tensor(directions, dtype=torch.float64)
    towards = towards if towards.ndim == 3 else towards[None]
    B, M = towards.shape[:2]
    irradiance = torch.ones(M).double() if strength is None else torch.as_tensor(strength, dtype=torch.float64)
    even = torch.ones(B, M, dtype=torch.float64)
    lamps = Lamps(towards, irradiance[None, :, None].expand(B, M, 3), 3 * even, 0.1 * even)
    return lamps.on_stage(torch.zeros(B, LOBES, 3).double())


def unit(*shape: int, seed: int = 0) -> F:
    d = np.random.default_rng(seed).normal(size=(*shape, 3))
    return d / np.linalg.norm(d, axis=-1, keepdims=True)


def angle(a: F, b: F) -> F:
    """Degrees between vectors (..., 3)."""
    cross = np.linalg.norm(np.cross(a, b), axis=-1)
    return np.degrees(np.arctan2(cross, (a * b).sum(axis=-1)))


def mean_direction(lights: Lights) -> F:
    """(B, 3) of all light, by its irradiance; not normalised."""
    return (lights.irradiance[..., :1] * lights.directions()).sum(dim=1).numpy()


def irradiance_on(lights: Lights, normals: F) -> F:
    """(B, N) irradiance / pi of small surfaces with normals (N, 3), red."""
    cos = np.maximum(np.einsum("ni,bli->bnl", normals, lights.directions().numpy()), 0)
    return np.einsum("bnl,bl->bn", cos, lights.irradiance[..., 0].numpy())


# lamps on the stage


def test_on_its_own_face_a_lamp_stands_exactly_in_its_direction():
    """In 500 directions; those within 2e-4 of an edge are put 1e-4 inside it, a hundredth of a degree away."""
    d = unit(500, 1)
    own = np.argmax(d @ rig().face_directions.T, axis=2)
    found = hung(d).directions().numpy()
    assert angle(np.take_along_axis(found, own[..., None], axis=1), d).max() < 0.02


def test_the_nearest_points_lie_on_their_faces():
    bary = nearest_on_faces(torch.from_numpy(unit(200)))
    assert bary.shape == (200, 20, 3)
    assert float(bary.min()) > 0
    assert torch.allclose(bary.sum(dim=2), torch.ones(200, 20).double())


def test_a_lamp_keeps_its_irradiance():
    """As a sum over the stage to rounding; on surfaces within 2 % of the lamp's: some of it hangs on other faces."""
    d, normals = unit(300, 1, seed=1), unit(100, seed=2)
    lights = hung(d, np.array([1.7]))
    assert lights.irradiance.sum(dim=1).numpy() == pytest.approx(1.7, rel=1e-9)
    truth = 1.7 * np.maximum(normals @ d[:, 0].T, 0).T
    assert np.abs(irradiance_on(lights, normals) - truth).max() < 0.02 * 1.7
    assert angle(mean_direction(lights), d[:, 0]).max() < 1.0


def test_a_lamp_that_turns_over_edges_makes_nothing_jump():
    """Round the stage four times in quarters of a degree, over some forty edges and past corners.

    The mean direction and the dominant one turn with the lamp, nowhere more than a fifth faster, nowhere at less than a
    quarter of its speed; irradiance / pi of a surface changes by at most the turn in radians (Lambert), and a fifth.
    """
    turn = np.radians(0.25)
    t = np.arange(0, 2 * np.pi, turn)[:, None]
    normals = unit(60, seed=3)
    for axis in unit(4, seed=4):
        e = np.cross(axis, [0.3, 0.2, 0.9])
        e /= np.linalg.norm(e)
        lights = hung((np.cos(t) * e + np.sin(t) * np.cross(axis, e))[:, None])
        slots = lights.irradiance[..., 0].argmax(dim=1)
        assert (slots[1:] != slots[:-1]).sum() > 5
        for path in (mean_direction(lights), lights.dominant().numpy()):
            speed = angle(path[1:], path[:-1]) / 0.25
            assert 0.25 < speed.min() < speed.max() < 1.2
        assert np.abs(np.diff(irradiance_on(lights, normals), axis=0)).max() < 1.2 * turn


def test_two_lamps_on_one_face_are_one_light_at_their_mean():
    """A slot has one place: irradiance adds, the place is the mean by strength, distance and area geometric means."""
    k, corners = 3, rig().face_corners[3]
    towards = np.stack([rig().face_directions[k] + 0.2 * corners[c] for c in (0, 1)])
    towards /= np.linalg.norm(towards, axis=1, keepdims=True)
    strength = torch.tensor([[2.0, 1.0]], dtype=torch.float64)
    lamps = Lamps(
        torch.as_tensor(towards)[None], strength[..., None].expand(1, 2, 3),
        torch.tensor([[1.0, 4.0]]).double(), torch.tensor([[0.8, 0.1]]).double(),
    )  # fmt: skip
    lights = lamps.on_stage(torch.zeros(1, LOBES, 3))
    near = lamps._near()[0, :, k]
    part = (strength[0] * near / (strength[0] * near).sum()).numpy()
    assert part == pytest.approx([2 / 3, 1 / 3], abs=0.01)  # both hang there almost whole
    assert float(lights.irradiance[0, k, 0]) == pytest.approx(3, rel=0.02)
    assert float(lights.irradiance[..., 0].sum()) == pytest.approx(3, rel=1e-9)
    places = np.linalg.solve(corners.T, towards.T).T
    places /= places.sum(axis=1, keepdims=True)
    assert lights.centre[0, k].numpy() == pytest.approx((part @ places)[:2], abs=1e-6)
    assert float(lights.distance[0, k]) == pytest.approx(4 ** part[1], rel=1e-6)
    assert float(lights.area[0, k]) == pytest.approx(0.8 ** part[0] * 0.1 ** part[1], rel=1e-6)


def test_colours_of_lamps_stay_apart():
    """A red and a blue lamp on faces that do not touch: each face has its own colour, to a hundredth."""
    faces = rig().face_directions
    far = int(np.argmin(faces @ faces[0]))
    one = torch.ones(1, 2, dtype=torch.float64)
    colour = torch.tensor([[[1.0, 0, 0], [0, 0, 1.0]]]).double()
    lights = Lamps(torch.as_tensor(faces[[0, far]])[None], colour, 3 * one, 0.1 * one).on_stage(torch.zeros(1, 12, 3))
    assert lights.irradiance[0, 0].numpy() == pytest.approx([1, 0, 0], abs=0.01)
    assert lights.irradiance[0, far].numpy() == pytest.approx([0, 0, 1], abs=0.01)


# lights of a vector


def test_every_direction_can_be_hit():
    """One lamp with all the light, anywhere: within a degree, the neighbours' share of it."""
    d = unit(200, seed=5)
    block = np.zeros((200, LAMPS, 3))
    share = np.tile([6.0, -6.0, -6.0], (200, 1))
    block[:, 0] = 3 * np.arctanh((1.9 * d - LAMP_START[0]) / 3) / 0.7  # through the bounds of 3, to a vector of 1.9
    raw = torch.cat([vector(lamp_direction=b, lamp_share=s) for b, s in zip(block, share, strict=True)])
    found = unpack(raw, neutral(200)).lights.dominant().numpy()
    assert angle(found, d).max() < 1.5


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


def stage_of(**changes: torch.Tensor) -> Lights:
    return replace(unpack(vector(), neutral()).lights, **changes)


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
