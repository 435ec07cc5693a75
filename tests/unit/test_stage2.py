"""Stage 2 on pictures whose albedo, shading and highlight are known: what it recovers and what it must not bake."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from raytrace_face.config import Stage2Config
from raytrace_face.fit import stage2

S = 128
"""Side of window and texture: the texture lies flat in the window, texel on pixel."""
STATISTICAL = 0.3
CONFIG = Stage2Config(size=S, texture=S, iterations=60)


def flat(value: float | np.ndarray, channels: int = 3) -> np.ndarray:
    return np.broadcast_to(np.asarray(value, np.float32), (S, S, channels)).astype(np.float32)


@pytest.fixture
def texels() -> stage2.Texels:
    y, x = np.mgrid[:S, :S] + 0.5
    return stage2.Texels(np.stack([x, y], axis=2).astype(np.float32), np.ones((S, S), np.float32), flipped(S))


def flipped(size: int) -> np.ndarray:
    """The mirror of a texture whose middle column is the face's middle."""
    return np.arange(size * size).reshape(size, size)[:, ::-1].ravel().copy()


def lit(albedo: np.ndarray, shading: np.ndarray, shine: np.ndarray | None = None, f0: float = 0.03) -> stage2.Lit:
    """Photo of a flat square with a given albedo (S, S, 3) under a given shading and highlight (S, S, 3)."""
    y, x = np.mgrid[:S, :S] + 0.5
    uv = np.stack([x / S, 1 - y / S], axis=2).astype(np.float32)
    gloss = np.zeros((S, S, 3), np.float32) if shine is None else shine
    highlight = np.stack([gloss * k for k in (1.4, 1.0, 0.7)])
    return stage2.Lit(
        image=(albedo * shading + f0 * gloss).astype(np.float32),
        weight=np.ones((S, S), np.float32),
        shading=shading,
        highlight=highlight.astype(np.float32),
        roughness_steps=np.array([0.7, 1.0, 1.4], np.float32),
        uv=uv,
        skin=np.ones((S, S), bool),
        personal_sigma=np.full((S, S), 0.3, np.float32),
        mm_per_px=1.0,
    )


def fit(window: stage2.Lit, texels: stage2.Texels, config: Stage2Config = CONFIG) -> tuple[stage2.Maps, list[float]]:
    f0, rough = np.full((S, S), 0.03, np.float32), np.full((S, S), 0.5, np.float32)
    return stage2.fit_maps(window, texels, flat(STATISTICAL), f0, rough, config, lambda phase, loss: None)


def mole() -> np.ndarray:
    """Albedo with one dark mole, 4 pixels across, on the left cheek."""
    y, x = np.mgrid[:S, :S]
    return flat(np.where((x - 16) ** 2 + (y - 40) ** 2 < 5, 0.2, STATISTICAL)[..., None].astype(np.float32))


def test_a_mole_in_full_light_is_albedo(texels):
    maps, _ = fit(lit(mole(), flat(1.0)), texels)
    assert maps.diffuse[40, 16] == pytest.approx(0.2, rel=0.15)  # the prior holds a quarter of its log contrast at most
    assert maps.diffuse[10, 50] == pytest.approx(STATISTICAL, rel=0.01)
    assert maps.confidence[40, 16] > 0.7


def test_a_known_shadow_is_divided_out(texels):
    shading = flat(1.0).copy()
    shading[:, :20] = 0.15  # deep: what is left comes from the surroundings
    maps, _ = fit(lit(flat(STATISTICAL), shading), texels)
    assert maps.diffuse == pytest.approx(STATISTICAL, rel=0.02)


def test_a_shadow_edge_that_is_a_little_off_is_not_baked_into_the_albedo(texels):
    """Predicted and true edge 1.5 mm apart: dividing leaves a stripe of a factor of 3, of which little may stay."""
    true, predicted = flat(1.0).copy(), flat(1.0).copy()
    true[:, :31] = 0.33
    predicted[:, :30] = 0.33
    window = replace(lit(flat(STATISTICAL), true), shading=predicted)
    naive = window.image / predicted
    maps, _ = fit(window, texels)
    stripe = np.abs(np.log(maps.diffuse[:, 28:34] / STATISTICAL)).max()
    assert np.abs(np.log(naive[:, 28:34] / STATISTICAL)).max() == pytest.approx(np.log(3), rel=0.02)
    assert stripe < 0.5 * np.log(3)
    assert maps.confidence[32, 30] < 0.5 * maps.confidence[32, 50]


def test_a_wide_patch_without_cause_is_trusted_less_than_a_mole(texels):
    """A shadow the geometry does not explain: a third of the light over 20 x 20 mm."""
    missing = flat(1.0).copy()
    missing[20:40, 40:60] = 0.33
    window = replace(lit(mole(), missing), shading=flat(1.0))
    maps, _ = fit(window, texels)
    assert maps.confidence[30, 50] < 0.5 * maps.confidence[40, 16]


def test_the_lit_side_teaches_the_side_that_was_not_seen(texels):
    hidden = replace(texels, visible=np.where(np.arange(S) < S // 2, 1, 0) * np.ones((S, 1), np.float32))
    maps, _ = fit(lit(mole(), flat(1.0)), hidden)
    mirrored = S - 1 - 16
    assert maps.confidence[40, mirrored] == 0
    assert maps.diffuse[40, mirrored] == pytest.approx(maps.diffuse[40, 16], rel=0.05)
    alone, _ = fit(lit(mole(), flat(1.0)), hidden, replace(CONFIG, symmetry=0.0))
    assert alone.diffuse[40, mirrored] == pytest.approx(STATISTICAL, rel=0.1)


def test_the_mirror_may_lie_anywhere_in_the_texture(texels):
    """Both cheeks on charts of one orientation, side by side: the mirror image is half a texture away."""
    index = np.arange(S * S).reshape(S, S)
    elsewhere = np.roll(index, S // 2, axis=1).ravel()
    hidden = replace(
        texels, visible=np.where(np.arange(S) < S // 2, 1, 0) * np.ones((S, 1), np.float32), mirror=elsewhere
    )
    maps, _ = fit(lit(mole(), flat(1.0)), hidden)
    assert maps.diffuse[40, 16 + S // 2] == pytest.approx(maps.diffuse[40, 16], rel=0.05)
    assert maps.diffuse[40, S - 1 - 16] == pytest.approx(STATISTICAL, rel=0.1)


def test_a_texel_without_a_mirror_lends_itself_nothing(texels):
    """Half-sure texels whose mirror is themselves are filled as if there were no mirror at all."""
    rng = np.random.default_rng(0)
    deviation = rng.normal(0, 0.3, (S, S, 3)).astype(np.float32)
    confidence = np.full((S, S), 0.5, np.float32)
    alone = stage2.complete(deviation, confidence, np.arange(S * S), 1.0)
    assert np.array_equal(alone, stage2.complete(deviation, confidence, flipped(S), 0.0))


@pytest.mark.parametrize(("size", "cells"), [(64, 8), (512, 64), (100, 12)])
def test_the_reduced_mirror_of_a_flip_is_a_flip(size, cells):
    assert np.array_equal(stage2.reduced_mirror(flipped(size), cells), flipped(cells))


def test_a_highlight_goes_to_f0_and_not_to_the_albedo(texels):
    """Five thirds of the prior's F0: descent must find more shine, and leave less of it in the albedo."""
    y, x = np.mgrid[:S, :S]
    spot = flat(np.exp(-((x - 32.0) ** 2 + (y - 32.0) ** 2) / 18)[..., None])
    window = lit(flat(STATISTICAL), flat(1.0), shine=8 * spot, f0=0.05)
    maps, history = fit(window, texels)
    plain, _ = fit(window, texels, replace(CONFIG, iterations=0))
    assert history[-1] < 0.7 * history[0]
    assert maps.specular[32, 32, 0] > 1.1 * 0.03
    assert maps.roughness[32, 32] < 0.5  # a narrower lobe is higher, too
    error, before = (np.abs(m.diffuse - STATISTICAL).mean() for m in (maps, plain))
    assert error < 0.75 * before


def test_brightness_of_the_photo_cancels(texels):
    window = lit(mole(), flat(1.0))
    bright = replace(window, image=window.image * 7, shading=window.shading * 7)
    assert fit(bright, texels)[0].diffuse == pytest.approx(fit(window, texels)[0].diffuse, rel=1e-3)


def test_maps_of_a_black_photo_are_finite(texels):
    window = replace(lit(flat(STATISTICAL), flat(0.0)), weight=np.zeros((S, S), np.float32))
    maps, _ = fit(window, texels)
    assert all(np.isfinite(x).all() for x in (maps.diffuse, maps.specular, maps.roughness, maps.confidence))
    assert maps.diffuse == pytest.approx(STATISTICAL, rel=1e-3)


@pytest.mark.parametrize("channels", [(), (1,), (3,)])
def test_lookups_are_bilinear_and_hold_the_border(channels):
    """By SciPy's spline of order one; in windows that are not square, and beyond them."""
    rng = np.random.default_rng(4)
    image = rng.random((20, 30, *channels), np.float32)
    xy = rng.uniform(-4, 34, (7, 50, 2)).astype(np.float32)
    planes = image.reshape(20, 30, -1)
    at = [xy[..., 1] - 0.5, xy[..., 0] - 0.5]
    expected = [ndimage.map_coordinates(planes[..., c], at, order=1, mode="nearest") for c in range(planes.shape[2])]
    found = stage2.sample_window(image, xy)
    assert found.shape == (7, 50, *channels)
    # weights are differences of coordinates of some 30 in float32
    assert found.reshape(7, 50, -1) == pytest.approx(np.stack(expected, axis=-1), abs=1e-5)
