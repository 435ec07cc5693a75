"""What the report packs into text comes back within stated errors."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image

from raytrace_face.face.store import load_embedded
from raytrace_face.report import packing


def test_quantised_vertices_are_wrong_by_at_most_half_a_step():
    vertices = load_embedded().mean
    codes, low, step = packing.quantise(vertices)
    error = np.abs(low + step * codes.astype(np.float64) - vertices)
    assert np.all(error <= 0.5 * step + 2e-5)  # float32 rounding of 200 mm
    assert error.max() < 0.003  # mm, of a head 290 mm high


def test_a_flat_coordinate_survives_quantisation():
    points = np.array([[1.0, 2.0, 7.0], [3.0, 2.5, 7.0]])
    codes, low, step = packing.quantise(points)
    assert np.allclose(low + step * codes, points)


def test_morph_targets_come_back_to_a_hundredth_of_a_millimetre():
    model = load_embedded()
    for shape in model.expression[::7]:
        index, codes, step = packing.sparse(shape)
        back = np.zeros_like(shape)
        back[index] = step * codes
        still = np.ones(len(shape), bool)
        still[index] = False
        assert np.abs(back - shape)[index].max() <= 0.5 * step + 1e-6
        assert np.linalg.norm(shape[still], axis=1).max(initial=0) <= packing.STILL_MM
        assert step < 0.002  # mm: the largest displacement is 41 mm


def test_an_empty_morph_target_is_empty():
    index, codes, step = packing.sparse(np.zeros((5, 3), np.float32))
    assert len(index) == len(codes) == 0
    assert step > 0


def test_root_codes_keep_radiance_to_half_a_code():
    """|decoded - x| <= scale (c + 1/4) / 255^2: half a step of the square root, squared."""
    values = np.linspace(0, 3, 100_001)
    codes = packing.root_codes(values, 3.0)
    bound = 3.0 * (codes.astype(float) + 0.25) / 255**2
    assert np.all(np.abs(packing.root_values(codes, 3.0) - values) <= bound + 1e-6)  # float32 decoding
    assert packing.root_codes(np.array([-1.0, 9.0]), 3.0).tolist() == [0, 255]


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_jpeg_of_a_shaded_ball_errs_by_a_code():
    """Radiance of a matte ball with a hard shadow edge, 1 % noise: rms error of codes below 2, none above 24."""
    y, x = np.mgrid[-1:1:256j, -1:1:256j]
    inside = x**2 + y**2 < 0.9
    z = np.sqrt(np.maximum(1 - x**2 - y**2, 0))
    radiance = np.maximum(0.5 * x + 0.3 * y + 0.8 * z, 0) * np.where(x + y < 0.4, 1, 0.1)
    radiance *= 1 + 0.01 * np.random.default_rng(0).normal(size=x.shape)
    codes = packing.root_codes(packing.grown(radiance, inside), 1.0)
    error = decoded(packing.data_uri(codes, "jpeg")).astype(int)[inside] - codes[inside]
    assert np.sqrt((error**2).mean()) < 2
    assert np.abs(error).max() < 24


def test_png_is_lossless_and_grown_keeps_the_inside():
    image = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    assert np.array_equal(decoded(packing.data_uri(image)), image)
    inside = np.zeros((20, 30), bool)
    inside[5:9, 7:11] = True
    plane = image[..., 0]
    out = packing.grown(plane, inside)
    assert np.array_equal(out[inside], plane[inside])
    assert out[0, 0] == plane[5, 7]
    assert out[-1, -1] == plane[8, 10]


def test_typed_arrays_are_little_endian():
    assert base64.b64decode(packing.text_of(np.array([1, 258], ">u2"))) == b"\x01\x00\x02\x01"
