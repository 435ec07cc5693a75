"""Rationale: identical is perfect, a known fault gets its known figure, and what is outside of the mask is not seen."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from lightstage.environment import latlong_directions
from raytrace_face.capture.colour import linear_to_srgb
from raytrace_face.errors import InputError
from raytrace_face.measure import appearance, light, perceptual

ALL = np.ones((40, 48), bool)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def half():
    mask = np.zeros((40, 48), bool)
    mask[4:36, 4:24] = True
    return mask


# pictures


def test_scores_are_those_of_scikit_image_on_srgb(rng):
    truth = rng.random((40, 48, 3))
    predicted = np.clip(truth + 0.1 * rng.normal(size=truth.shape), 0, 1)
    p, t = linear_to_srgb(predicted).astype(float), linear_to_srgb(truth).astype(float)
    found = appearance.face_scores(predicted, truth, ALL)
    assert found.psnr_db == pytest.approx(peak_signal_noise_ratio(t, p, data_range=1), abs=1e-4)  # float32 encoding
    full = structural_similarity(t, p, data_range=1, channel_axis=-1, full=True)[1]
    assert found.ssim == pytest.approx(full.mean(), abs=1e-6)
    assert np.isnan(found.perceptual)


def test_equal_pictures_are_perfect_and_clipped_light_counts_as_white(rng):
    truth = rng.random((40, 48, 3))
    assert appearance.face_scores(truth, truth, ALL).psnr_db == np.inf
    assert appearance.face_scores(truth, truth, ALL).ssim == pytest.approx(1)
    white = np.ones((40, 48, 3))
    assert appearance.face_scores(7 * white, white, ALL).psnr_db == np.inf


def test_only_the_masked_region_is_scored(rng, half):
    truth = rng.random((40, 48, 3))
    predicted = np.where(half[..., None], truth, 0)
    assert appearance.face_scores(predicted, truth, half).psnr_db == np.inf
    seen = []
    appearance.face_scores(truth, truth, half, lambda p, t, m: float(seen.append(m) or 3))
    assert seen[0] is half


def test_face_mask_is_what_counts_more_than_half_in_the_fit(reconstruction):
    assert np.array_equal(appearance.face_mask(reconstruction), reconstruction.pictures.mask > 0.5)


@pytest.mark.parametrize(
    ("shape", "mask", "message"), [((40, 47, 3), ALL, "do not fit"), ((40, 48, 3), ~ALL, "mask is empty")]
)
def test_what_cannot_be_scored_is_refused(shape, mask, message):
    with pytest.raises(InputError, match=message):
        appearance.face_scores(np.ones(shape), np.ones((40, 48, 3)), mask)
    with pytest.raises(InputError, match=message):
        appearance.albedo_errors(np.ones(shape), np.ones((40, 48, 3)), mask)


def test_results_of_different_face_models_are_no_pair(reconstruction):
    with pytest.raises(InputError, match="do not fit each other"):
        appearance.transfer(reconstruction, replace(reconstruction, model_name="other"))


# albedo


def test_albedo_errors_lose_the_scales_that_are_taken_out(rng):
    truth = 0.2 + 0.5 * rng.random((40, 48, 3))
    perfect = appearance.albedo_errors(truth, truth, ALL)
    assert (perfect.as_it_stands, perfect.one_scale) == pytest.approx((0, 0), abs=1e-12)
    dark = appearance.albedo_errors(0.5 * truth, truth, ALL)
    # sqrt(mean (t / 2)^2) / mean t, by hand
    assert dark.as_it_stands == pytest.approx(0.5 * np.sqrt((truth**2).mean()) / truth.mean())
    assert (dark.one_scale, dark.scale_per_channel) == pytest.approx((0, 0), abs=1e-12)
    red = appearance.albedo_errors(truth * [1.3, 1.0, 0.8], truth, ALL)
    assert red.one_scale > 0.1
    assert red.scale_per_channel == pytest.approx(0, abs=1e-12)


def test_more_freedom_never_scores_worse(rng, half):
    truth, guess = rng.random((40, 48, 3)), rng.random((40, 48, 3))
    found = appearance.albedo_errors(guess, truth, half)
    assert found.scale_per_channel <= found.one_scale <= found.as_it_stands
    assert found == appearance.albedo_errors(np.where(half[..., None], guess, 9), truth, half)
    black = appearance.albedo_errors(0 * guess, truth, half)
    assert black.as_it_stands == black.one_scale == black.scale_per_channel
    with pytest.raises(InputError, match="black"):
        appearance.albedo_errors(guess, 0 * truth, half)


# environment maps


def lamp(azimuth_deg: float, elevation_deg: float, height: int = 64) -> np.ndarray:
    """A soft lamp (cosine to the 20th power) in a dim room."""
    cosine = latlong_directions(height) @ light.direction(azimuth_deg, elevation_deg)
    return 0.1 + 5 * np.maximum(cosine, 0)[..., None] ** 20 * [1.0, 0.9, 0.7]


def test_equal_and_scaled_environments():
    truth = lamp(30, 20)
    same = light.environment_errors(truth, truth)
    assert (same.relative_rmse, same.relative_rmse_one_scale) == pytest.approx((0, 0), abs=1e-12)
    assert same.dominant_deg == pytest.approx(0, abs=1e-5)
    twice = light.environment_errors(2 * truth, truth)
    assert twice.relative_rmse > 0.5
    assert (twice.relative_rmse_one_scale, twice.dominant_deg) == pytest.approx((0, 0), abs=1e-5)


def test_a_turned_environment_is_off_by_its_angle():
    truth = lamp(0, 0)
    # 8 of 128 columns about the vertical axis: 22.5 degrees, exact because the pixels are moved as they are
    turned = np.roll(truth, 8, axis=1)
    assert light.environment_errors(turned, truth).dominant_deg == pytest.approx(22.5, abs=1e-6)
    # a lamp is symmetric about its axis; the midpoint rule on 64 rows is off by far less than a pixel of 2.8 degrees
    found = light.environment_errors(lamp(25, 40), lamp(-10, 15)).dominant_deg
    assert found == pytest.approx(float(light.angle_deg(light.direction(25, 40), light.direction(-10, 15))), abs=0.05)


def test_direction_of_a_map_is_where_the_lamp_stands():
    for azimuth, elevation in ((0, 0), (90, 0), (-35, 40), (180, 0)):
        found = light.dominant_direction(lamp(azimuth, elevation))
        assert found == pytest.approx(light.direction(azimuth, elevation), abs=1e-3)
    assert not light.dominant_direction(np.ones((16, 32, 3))).any()
    assert np.isnan(light.environment_errors(np.ones((16, 32, 3)), lamp(0, 0, 16)).dominant_deg)


def test_poles_count_by_their_solid_angle():
    # a fault in the top row of H: its share of the sphere is (1 - cos(pi / H)) / 2, not 1 / H
    truth = np.ones((32, 64, 3))
    fault = truth.copy()
    fault[0] += 1
    expected = np.sqrt((1 - np.cos(np.pi / 32)) / 2)
    assert light.environment_errors(fault, truth).relative_rmse == pytest.approx(expected)


def test_maps_of_other_shapes_are_refused():
    with pytest.raises(InputError, match=r"\(H, 2H, 3\)"):
        light.environment_errors(np.ones((16, 16, 3)), np.ones((16, 16, 3)))
    with pytest.raises(InputError, match="black"):
        light.environment_errors(np.ones((16, 32, 3)), np.zeros((16, 32, 3)))


# ST-LPIPS

with_weights = pytest.mark.skipif(
    not perceptual.available(), reason='the extra "perceptual" (stlpips_pytorch) is not installed'
)


@with_weights
def test_perceptual_distance_is_that_of_the_authors_code(rng):
    a = rng.random((48, 64, 3))
    b = np.clip(a + 0.1 * rng.normal(size=a.shape), 0, 1)
    # computed with stlpips_pytorch 0.0.2: LPIPS(net="alex", variant="shift_tolerant", spatial=True), mean of the map
    assert perceptual.st_lpips(b, a) == pytest.approx(0.0071394518, rel=1e-4)


@with_weights
def test_perceptual_distance_is_zero_for_equals_symmetric_and_grows_with_noise(rng):
    image = rng.random((64, 64, 3))
    noise = rng.normal(size=image.shape)
    assert perceptual.st_lpips(image, image) == 0
    distances = [perceptual.st_lpips(np.clip(image + s * noise, 0, 1), image) for s in (0.02, 0.05, 0.1, 0.2, 0.4)]
    assert all(a < b for a, b in pairwise(distances))
    other = np.clip(image + 0.1 * noise, 0, 1)
    assert perceptual.st_lpips(other, image) == pytest.approx(perceptual.st_lpips(image, other), rel=1e-6)


@with_weights
def test_perceptual_distance_sees_only_the_masked_region(rng, half):
    truth = rng.random((40, 48, 3))
    predicted = np.clip(truth + 0.1 * rng.normal(size=truth.shape), 0, 1)
    outside = np.where(half[..., None], predicted, rng.random(truth.shape))
    assert perceptual.st_lpips(outside, truth, half) == perceptual.st_lpips(predicted, truth, half)
    assert perceptual.st_lpips(np.where(half[..., None], truth, 0), truth, half) == 0
    assert perceptual.st_lpips(predicted, truth, half) > 0


def test_missing_weights_are_one_line_that_says_what_to_install(monkeypatch, rng):
    perceptual._weights.cache_clear()
    monkeypatch.setattr(perceptual, "PACKAGE", "weights_that_are_not_there")
    assert not perceptual.available()
    image = rng.random((40, 48, 3))
    with pytest.raises(InputError, match=r"raytrace-face\[perceptual\]"):
        perceptual.st_lpips(image, image)


def test_other_weights_are_refused(monkeypatch, tmp_path, rng):
    perceptual._weights.cache_clear()
    path = tmp_path / "other_weights" / perceptual.FILE
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not the weights")
    (tmp_path / "other_weights" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(perceptual, "PACKAGE", "other_weights")
    image = rng.random((40, 48, 3))
    with pytest.raises(InputError, match=r"not that of version 0\.0\.2"):
        perceptual.st_lpips(image, image)


def test_pictures_of_other_sizes_are_refused():
    for shape in ((40, 48), (20, 48, 3), (3000, 2000, 3)):
        with pytest.raises(InputError):
            perceptual.st_lpips(np.broadcast_to(1.0, shape), np.broadcast_to(1.0, shape))
