"""Between the light on the face and the file: background, exposure, lens, sensor, response curve, JPEG.

What is linear and known (exposure, white balance) is returned, so that the truth of the lights can be told in the
units of the photo; the rest is what a network has to see through.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from scipy.ndimage import gaussian_filter

from raytrace_face.capture.colour import linear_to_srgb, luminance, srgb_to_linear
from raytrace_face.types import Array

MONOCHROME = 0.15
"""Share of monochrome photos."""
EXPOSURE, EXPOSURE_SIGMA = 0.46, 0.36
"""Radiance of the brightest tenth of the face's skin, log-normal: from deep shade to burnt out."""

CAST, CAST_SIGMA = (0.07, -0.03, -0.02), (0.07, 0.03, 0.08)
"""Log gain of white balance by channel: mean and standard deviation."""
SATURATION = (1.25, 0.22)
"""Factor on the distance of codes from grey, mean and standard deviation. Exposure, cast and saturation are such that
the skin of the photos has the brightness and colours of studio portraits and of press photos (docs/encoder.md)."""


@dataclass(frozen=True)
class Shot:
    """A photo and what is known of its exposure."""

    codes: NDArray[np.uint8]
    """(S, S, 3) sRGB."""
    gain: NDArray[np.float64]
    """(3,) factor on all light of the scene: exposure and white balance."""
    monochrome: bool


def shoot(linear: Array, coverage: Array, mask: Array, rng: np.random.Generator) -> Shot:
    """Photograph a head (S, S, 3) in linear light before a random background.

    Args:
        coverage: (S, S) share of the pixel that the head covers.
        mask: (S, S) share that the skin of the face covers: the camera exposes for it, more or less.
    """
    size = linear.shape[0]
    skin = luminance(linear[mask > 0.5]) if (mask > 0.5).sum() > 20 else luminance(linear[coverage > 0.5])
    bright = float(np.percentile(skin, 90)) if skin.size else 1.0
    target = float(np.clip(EXPOSURE * np.exp(EXPOSURE_SIGMA * rng.normal()), 0.04, 1.6))
    cast = np.exp(rng.normal(CAST, CAST_SIGMA))
    gain = target / max(bright, 1e-5) * cast
    alpha = gaussian_filter(coverage, 0.4)[..., None] if rng.random() < 0.7 else coverage[..., None]
    image = linear * gain.astype(np.float32) * alpha + background(size, rng) * (1 - alpha)
    image = _vignetted(image, rng)
    image = _softened(image, rng)
    image = _noisy(image, rng)
    monochrome = bool(rng.random() < MONOCHROME)
    codes = _developed(image, monochrome, rng)
    codes = _cut_off(codes, rng)
    return Shot(_compressed(codes, monochrome, rng), gain, monochrome)


def background(size: int, rng: np.random.Generator) -> Array:
    """(S, S, 3) linear: black, plain, a gradient, blurred shapes, or clutter."""
    kind = rng.choice(5, p=(0.1, 0.15, 0.25, 0.3, 0.2))
    if kind == 0:
        return np.zeros((size, size, 3), np.float32)
    level = np.exp(rng.uniform(np.log(0.01), np.log(1.0)))
    colour = level * np.exp(rng.normal(0, 0.25, 3))
    if kind == 1:
        return np.broadcast_to(colour.astype(np.float32), (size, size, 3))
    cells = int(rng.integers(2, 5)) if kind == 2 else int(rng.integers(4, 24))
    small = np.clip(
        colour * np.exp(rng.normal(0, 0.5, (cells, cells, 1)) + rng.normal(0, 0.15, (cells, cells, 3))), 0, 1
    )
    picture = Image.fromarray((np.sqrt(small) * 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    if kind >= 3:
        draw = ImageDraw.Draw(picture)
        for _ in range(rng.integers(3, 14)):
            x, y, w, h = rng.uniform(-0.2, 1.1), rng.uniform(-0.2, 1.1), *rng.uniform(0.03, 0.7, 2)
            box = [size * x, size * y, size * (x + w), size * (y + h)]
            tone = np.clip(np.sqrt(colour * np.exp(rng.normal(0, 0.9))) + rng.normal(0, 0.05, 3), 0, 1) * 255
            (draw.rectangle if rng.random() < 0.6 else draw.ellipse)(box, fill=tuple(int(v) for v in tone))
        picture = picture.filter(ImageFilter.BoxBlur(float(rng.uniform(0, 8 if kind == 3 else 2))))
    return (np.asarray(picture, np.float32) / np.float32(255)) ** np.float32(2)


def _vignetted(image: Array, rng: np.random.Generator) -> Array:
    if rng.random() < 0.7:
        return image
    size = image.shape[0]
    x = (np.arange(size) + 0.5) / size - rng.uniform(0.3, 0.7)
    y = (np.arange(size) + 0.5) / size - rng.uniform(0.3, 0.7)
    fall = 1 - rng.uniform(0, 0.7) * (x[None, :] ** 2 + y[:, None] ** 2)
    return image * fall[..., None].astype(np.float32)


def _softened(image: Array, rng: np.random.Generator) -> Array:
    """Focus, motion and low resolution."""
    if rng.random() < 0.6:
        sigma = float(np.exp(rng.uniform(np.log(0.3), np.log(1.6))))
        image = gaussian_filter(image, (sigma, sigma * np.exp(rng.normal(0, 0.2)), 0), truncate=2.5)
    if rng.random() < 0.3:
        size = image.shape[0]
        few = int(size / rng.uniform(1.2, 3.2))
        planes = []
        for c in range(3):
            plane = Image.fromarray(np.ascontiguousarray(image[..., c])).resize((few, few), Image.Resampling.BOX)
            planes.append(np.asarray(plane.resize((size, size), Image.Resampling.BICUBIC)))
        image = np.stack(planes, axis=2)
    return image


def _noisy(image: Array, rng: np.random.Generator) -> Array:
    """Photons and electronics: variance read + shot * radiance."""
    read = np.exp(rng.uniform(np.log(1e-4), np.log(6e-3)))
    shot = np.exp(rng.uniform(np.log(5e-6), np.log(1.5e-3)))
    noise = rng.standard_normal(image.shape, np.float32)
    return image + noise * np.sqrt(np.float32(read * read) + np.float32(shot) * np.maximum(image, 0))


def _developed(image: Array, monochrome: bool, rng: np.random.Generator) -> Array:
    """(S, S, 3) codes in [0, 1]: clipped, encoded, with a camera's own contrast and colours."""
    held = np.maximum(image, 0)
    if rng.random() < 0.65:  # highlights roll off instead of clipping: 2 % less at 0.5, 16 % less at 1
        held = held / np.sqrt(np.sqrt(1 + held**4))
    clipped = np.minimum(held, 1)
    if monochrome:
        clipped = np.repeat(luminance(clipped)[..., None], 3, axis=2)
    v = linear_to_srgb(clipped)
    other = rng.random() < 0.2  # old films, machine vision
    v = v ** np.float32(rng.uniform(0.75, 1.5) if other else np.exp(rng.normal(0, 0.1)))
    contrast = rng.normal(0.1, 0.3)
    v = v + np.float32(contrast) * v * (1 - v) * (2 * v - 1)
    if not monochrome:
        grey = v.mean(axis=2, keepdims=True)
        v = grey + (v - grey) * np.float32(np.clip(rng.normal(*SATURATION), 0.4, 1.9))
    low, high = rng.uniform(-0.02, 0.04), rng.uniform(0.94, 1.03)
    return np.clip(low + (high - low) * v, 0, 1)


def _cut_off(codes: Array, rng: np.random.Generator) -> Array:
    """Black where the photo ends: crops reach beyond tight portraits, and far beyond those cut to the face alone."""
    kind = rng.random()
    if kind < 0.7:
        return codes
    tight = kind > 0.92
    size = codes.shape[0]
    out = codes.copy()
    for side in range(4):
        if tight or rng.random() < 0.4:
            width = int(size * (rng.uniform(0.12, 0.3) if tight else rng.uniform(0, 0.13)))
            if width:
                turned = np.rot90(out, side)
                turned[:width] = 0
    return out


def _compressed(codes: Array, monochrome: bool, rng: np.random.Generator) -> NDArray[np.uint8]:
    values = (codes * 255 + 0.5).astype(np.uint8)
    if rng.random() < 0.25:
        return values
    stream = io.BytesIO()
    picture = Image.fromarray(values[..., 0] if monochrome else values)
    picture.save(stream, "JPEG", quality=int(rng.integers(30, 97)))
    return np.asarray(Image.open(io.BytesIO(stream.getvalue())).convert("RGB"))


def decoded(codes: NDArray[np.uint8]) -> Array:
    """Linear light of 8-bit codes, by table."""
    return _LINEAR[codes]


_LINEAR = srgb_to_linear(np.arange(256, dtype=np.float32) / 255)
