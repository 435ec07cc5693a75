"""Rationale: the mirrored texel shows the mirrored point of the skin, whatever the layout of the texture."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from raytrace_face.face.model import FaceModel
from raytrace_face.face.store import load_embedded

SIZE = 128


def cut(model: FaceModel, x_mm: float) -> FaceModel:
    """What lies to the right of a plane on its own chart, turned by a quarter and half as large, as the other is."""
    V, right = model.vertex_count, model.mean[model.triangles].mean(axis=1)[:, 0] > x_mm
    beyond = model.mean[model.mirror][:, 0] > x_mm
    charts = (0.5 * model.uv, 0.5 * np.stack([1 - model.uv[:, 1], model.uv[:, 0]], axis=1) + [0.5, 0.5])
    return replace(
        model,
        mean=np.concatenate([model.mean, model.mean]),
        uv=np.concatenate(charts).astype(np.float32),
        triangles=np.where(right[:, None], model.triangles + V, model.triangles).astype(np.int32),
        mirror=np.tile(np.where(beyond, model.mirror + V, model.mirror), 2).astype(np.int32),
    )


def turned(model: FaceModel, x_mm: float) -> FaceModel:
    return replace(model, uv=np.ascontiguousarray(model.uv[:, ::-1]))


def test_the_mirror_of_the_embedded_model_is_the_flipped_texture(mi):
    from raytrace_face.tracer.texture import texel_map

    texels = texel_map(load_embedded(), 256)
    flip = np.arange(256 * 256).reshape(256, 256)[:, ::-1].ravel()
    assert np.array_equal(texels.mirror, flip)


@pytest.mark.parametrize(("layout", "x_mm"), [(turned, 0.0), (cut, 0.0), (cut, 12.0)])
def test_the_mirrored_texel_shows_the_mirrored_point(mi, layout, x_mm):
    """To a texel: half a texel each way by the rounding. The last layout's halves have no common seam."""
    from raytrace_face.tracer.texture import texel_map

    model = layout(load_embedded(0), x_mm)
    texels = texel_map(model, SIZE)
    points = np.einsum("tkc,tk->tc", model.mean[texels.corners], texels.barycentric)
    inside = np.flatnonzero(texels.inside)
    partner = texels.mirror[inside]
    assert (partner == inside).mean() < 0.02
    miss = np.linalg.norm(points[partner] - points[inside] * [-1, 1, 1], axis=1)[partner != inside]
    beside = points.reshape(SIZE, SIZE, 3)
    step = np.median(np.linalg.norm(np.diff(beside, axis=1), axis=2)[texels.inside[:, 1:] & texels.inside[:, :-1]])
    assert np.median(miss) < step
    assert np.percentile(miss, 99) < 5 * step  # scalp and neck are stretched
    outside = np.flatnonzero(~texels.inside)
    assert not texels.inside.ravel()[texels.mirror[outside]].any()


def test_a_model_whose_vertices_have_no_images_mirrors_nothing(mi, tiny_model):
    from raytrace_face.tracer.texture import texel_map

    texels = texel_map(tiny_model, 64)
    assert np.array_equal(texels.mirror, np.arange(64 * 64))
