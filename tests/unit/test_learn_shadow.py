"""Rationale: a texel that is dark for want of light must not be taken for dark skin.

Expected behaviour: the table is what tracing the mean face says; a light takes from it what lies in its direction; and
lights from the left and the right cast mirrored shadows.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from raytrace_face.backend import start
from raytrace_face.face.mesh import vertex_normals
from raytrace_face.face.store import load_embedded
from raytrace_face.learn.parameters import SIZE, unpack
from raytrace_face.learn.shadow import COARSER, open_sky, reach, towards
from tests.unit.learned import neutral

TEXTURE = 128
SIDE = TEXTURE // COARSER


@pytest.fixture(scope="module")
def table():
    start("auto")
    return open_sky(TEXTURE)


def nearest(direction) -> int:
    return int((towards().numpy() @ (np.array(direction) / np.linalg.norm(direction))).argmax())


def test_the_table_is_what_shadow_rays_say(table):
    """By the transport of the light stage: a small far light in the same direction, at some hundred texels."""
    from lightstage.rig import AreaLights
    from raytrace_face.tracer.scene import HeadScene
    from raytrace_face.tracer.texture import texel_map
    from raytrace_face.tracer.visibility import cast_visibility

    model = load_embedded(0)
    texels = texel_map(model, SIDE)
    points, normal = (
        texels.spread(x).reshape(-1, 3) for x in (model.mean, vertex_normals(model.mean, model.triangles))
    )
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(texels.inside.ravel()))[:400]
    k = nearest((0.7, 0.2, 0.7))
    to = towards()[k].numpy()
    across = np.linalg.qr(np.stack([to, [0, 1, 0], [1, 0, 0]], axis=1))[0][:, 1:]
    corners = 5000 * to + 20 * np.array([across @ c for c in ((1, 0), (-0.5, 0.9), (-0.5, -0.9))])
    if np.cross(corners[1] - corners[0], corners[2] - corners[0]) @ to > 0:
        corners = corners[::-1]
    light = AreaLights(corners[None].copy(), np.ones((1, 3)))
    unit = normal[chosen] / np.linalg.norm(normal[chosen], axis=1, keepdims=True)
    traced = cast_visibility(HeadScene(model), points[chosen], unit, light, 4, 0) > 0.5
    ahead = unit @ to > 0.1  # at grazing angles facets and smooth normals differ
    agree = traced[ahead] == (table[k].ravel().numpy()[chosen] > 0.5)[ahead]
    assert agree.mean() > 0.95
    assert 0.05 < 1 - traced[ahead].mean() < 0.6  # there are shadows to agree on


def test_shadows_of_left_and_right_are_mirrored(table):
    """The mean face is symmetric; so is the atlas."""
    left, right = (table[nearest((x, 0.0, 0.6))] for x in (-0.8, 0.8))
    inner = slice(SIDE // 8, -SIDE // 8)
    same = (left == right.flip(1))[inner, inner].float().mean()
    assert float(same) > 0.97
    assert float((left == right)[inner, inner].float().mean()) < 0.8


def test_nothing_is_lit_from_behind_and_a_cheek_is_from_ahead(table):
    middle = (slice(SIDE // 2, 5 * SIDE // 8), slice(SIDE // 8, SIDE // 4))
    assert float(table[nearest((0, 0, -1))][middle].mean()) == 0
    assert float(table[nearest((0, 0, 1))][middle].mean()) == 1


def test_a_light_takes_the_shadow_of_its_direction(table):
    """Of each light, the mix is nearest to the table's own entry in that direction, out of all entries."""
    lights = unpack(torch.randn(2, SIZE, generator=torch.Generator().manual_seed(1)), neutral(2)).lights
    found = reach(lights, table, SIDE)
    assert found.shape == (2, 20, SIDE, SIDE)
    assert float(found.min()) >= 0
    assert float(found.max()) <= 1 + 1e-5
    for item, slot in ((0, 3), (1, 17)):
        miss = (table - found[item, slot]).abs().mean(dim=(1, 2))
        own = towards() @ lights.directions()[item, slot]
        assert float(own[miss.argmin()]) > np.cos(np.radians(15))
