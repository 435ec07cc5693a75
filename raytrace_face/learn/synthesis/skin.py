"""Random skins on the atlas of the model: the statistical albedo of the prior, and what people have beyond it.

The truth that a network can learn of the former are its coefficients, of the whole the map itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from raytrace_face.face.model import FaceModel
from raytrace_face.face.skin_prior import absorption, roughness_prior, skin_prior, specular_prior
from raytrace_face.types import Array

if TYPE_CHECKING:
    from raytrace_face.tracer.texture import TexelMap

Reals = NDArray[np.floating]

TEXTURE = 256
"""Texels a side: the face spans about as many as a crop has pixels."""
MELANIN_RANGE = (-1.5, 2.7)
"""Coefficient of melanin, even over all tones: a Gaussian would make very dark skin as rare as it is in few places."""
HAIR = np.array(
    [(0.012, 0.010, 0.009), (0.03, 0.02, 0.014), (0.07, 0.04, 0.022), (0.16, 0.095, 0.05), (0.33, 0.23, 0.13),
     (0.20, 0.075, 0.03), (0.30, 0.29, 0.27), (0.55, 0.53, 0.50)]
)  # fmt: skip
"""Albedo of hair: black, dark and light brown, dark and light blond, red, grey, white."""
HAIR_SHARE = (0.30, 0.22, 0.15, 0.09, 0.07, 0.03, 0.09, 0.05)
EYELIDS = (
    (33, 246, 161, 160, 159, 158, 157, 173, 133),
    (362, 398, 384, 385, 386, 387, 388, 466, 263),
)
"""Network landmarks along the upper lids: lashes and eyeliner grow there."""
IRISES = np.array(
    [(0.06, 0.033, 0.02), (0.035, 0.022, 0.015), (0.11, 0.075, 0.035), (0.10, 0.13, 0.16), (0.09, 0.11, 0.07)]
)
"""Albedo of irises: dark brown (twice), hazel, blue, green."""


@dataclass(frozen=True)
class Skin:
    """Reflectance on the atlas, row 0 at v = 1, and how it was made."""

    diffuse: Array
    """(T, T, 3)"""
    specular: Array
    """(T, T) F0."""
    roughness: Array
    """(T, T)"""
    coefficients: Array
    """(M,) of the albedo prior, standard deviations."""
    hair: Array
    """(3,) albedo of hair and brows."""
    iris: Array
    """(3,)"""


class Atlas:
    """What does not change from skin to skin."""

    def __init__(self, model: FaceModel, texels: TexelMap) -> None:
        prior = skin_prior(model)
        self.size = texels.size
        self.log_base = texels.spread(prior.log_mean + prior.offset)
        """(T, T, 3) log albedo of the average."""
        self.modes = np.stack([texels.spread(mode) for mode in prior.modes])
        """(M, T, T, 3)"""
        self.regions = {name: texels.spread(weight) for name, weight in model.regions.items()}
        self.specular, self.roughness = texels.spread(specular_prior(model)), texels.spread(roughness_prior(model))
        points = np.full((478, 2), np.nan)
        corner_uv = model.uv[model.triangles[model.landmark_triangle]]
        uv = np.einsum("nc,ncd->nd", model.landmark_barycentric, corner_uv)
        points[model.landmark_index] = np.stack([uv[:, 0], 1 - uv[:, 1]], axis=1) * texels.size
        self.landmarks = points
        """(478, 2) texels; NaN where the model has none."""


def fields(rng: np.random.Generator, size: int, spectrum: tuple[tuple[float, float], ...]) -> tuple[Array, Array]:
    """Two independent smooth Gaussian noises (size, size), periodic.

    Args:
        spectrum: (correlation length in texels, standard deviation) of the parts that they are the sum of.
    """
    f = np.fft.fftfreq(size)
    r2 = f[:, None] ** 2 + f[None, :] ** 2
    power = np.zeros_like(r2)
    for length, sigma in spectrum:
        part = np.exp(-((2 * np.pi * length) ** 2) * r2)  # |Fourier transform of a Gaussian|^2
        power += sigma**2 * part / part.mean()
    white = rng.normal(size=(2, size, size))
    noise = np.fft.ifft2(np.fft.fft2(white[0] + 1j * white[1]) * np.sqrt(power))
    return noise.real.astype(np.float32), noise.imag.astype(np.float32)


def random_skin(atlas: Atlas, rng: np.random.Generator) -> Skin:
    """A skin of any tone with uneven melanin and blood, freckles, moles, brows, lashes, stubble, make-up."""
    T = atlas.size
    coefficients = np.clip(rng.normal(size=len(atlas.modes)), -2.5, 2.5).astype(np.float32)
    coefficients[0] = rng.uniform(*MELANIN_RANGE)
    log = atlas.log_base + np.tensordot(coefficients, atlas.modes, 1)
    melanin, blood = (axis.astype(np.float32) for axis in absorption())
    uneven = rng.uniform(0.3, 1.1)
    spectrum = ((0.8, 0.03), (3, 0.04), (10, 0.06), (30, 0.06))
    brown, red = fields(rng, T, tuple((length, uneven * sigma) for length, sigma in spectrum))
    brown = brown + _spots(rng, T) * rng.uniform(0.2, 0.8)
    log = log + brown[..., None] * melanin + red[..., None] * blood
    diffuse: Reals = np.exp(log)
    share = np.array(HAIR_SHARE) * ([1, 0.6, 0.1, 0, 0.02, 0, 0.7, 0.5] if coefficients[0] > 0.7 else 1)
    hair = (HAIR[rng.choice(len(HAIR), p=share / share.sum())] * rng.uniform(0.7, 1.3)).astype(np.float32)
    diffuse = _made_up(atlas, diffuse, rng)
    diffuse = _hairs(atlas, diffuse, hair, rng)
    shine, rough = fields(rng, T, ((0.7, 0.06), (4, 0.06), (30, 0.08)))
    specular = atlas.specular * np.exp(0.2 * rng.normal() + shine)
    roughness = atlas.roughness * np.exp(0.12 * rng.normal() + 0.4 * rough)
    iris = IRISES[rng.choice(len(IRISES), p=(0.4, 0.2, 0.15, 0.15, 0.1))] * rng.uniform(0.7, 1.3)
    return Skin(
        np.clip(diffuse, 0.005, 0.9).astype(np.float32),
        np.clip(specular, 0.01, 0.06).astype(np.float32),
        np.clip(roughness, 0.25, 0.85).astype(np.float32),
        coefficients,
        hair,
        iris.astype(np.float32),
    )


def _spots(rng: np.random.Generator, size: int) -> Array:
    """(T, T) freckles (of one in five) and a few moles, as amounts of melanin."""
    freckled = rng.random() < 0.2
    share = rng.uniform(0.005, 0.03) if freckled else 0.0
    small = gaussian_filter((rng.random((size, size), np.float32) < share).astype(np.float32), 0.9) * 4
    moles = np.zeros((size, size), np.float32)
    moles[tuple(rng.integers(0, size, (2, rng.integers(0, 12))))] = rng.uniform(1, 3)
    return small + gaussian_filter(moles, 0.8) * 4


def _blend(diffuse: Reals, amount: Reals, colour: Reals) -> Reals:
    """Colour laid over the diffuse map where `amount` (T, T) is 1."""
    a = np.clip(amount, 0, 1)[..., None]
    return diffuse * (1 - a) + colour * a


def _made_up(atlas: Atlas, diffuse: Reals, rng: np.random.Generator) -> Reals:
    """Lipstick, blush and eye shadow of one in four."""
    if rng.random() > 0.25:
        return diffuse
    lipstick = np.array([1.0, rng.uniform(0.15, 0.7), rng.uniform(0.2, 0.75)]) * rng.uniform(0.6, 1.2)
    strength = rng.uniform(0.4, 1.0)
    lips = atlas.regions["lips"][..., None]
    diffuse = diffuse * (1 - strength * lips * (1 - lipstick))
    blush = rng.uniform(0, 0.3) * atlas.regions["cheeks"][..., None]
    diffuse = diffuse * (1 - blush * np.array([0.1, 0.7, 0.5]))
    shadow = rng.uniform(0, 0.5) * atlas.regions["eyelids"][..., None]
    return diffuse * (1 - shadow * rng.uniform(0.2, 1, 3))


def _hairs(atlas: Atlas, diffuse: Reals, hair: Array, rng: np.random.Generator) -> Reals:
    """Brows, lashes and stubble."""
    strands, coarse = fields(rng, atlas.size, ((0.6, 1.0),))
    low = rng.uniform(0.15, 0.4)
    brows = np.clip((atlas.regions["brows"] - low) / 0.3, 0, 1)
    brows = brows * rng.uniform(0.35, 0.95) * np.clip(0.85 + 0.35 * strands, 0, 1.2)
    diffuse = _blend(diffuse, brows, np.minimum(hair, 0.2) * rng.uniform(0.4, 1.0))
    canvas = Image.new("L", (atlas.size, atlas.size))
    for lid in EYELIDS:
        points = atlas.landmarks[list(lid)]
        points = points[np.isfinite(points).all(axis=1)]
        ImageDraw.Draw(canvas).line([tuple(p) for p in points], fill=255, width=2)
    lashes = gaussian_filter(np.asarray(canvas, np.float32) / 255, 0.6) * rng.uniform(0.2, 0.9)
    diffuse = _blend(diffuse, lashes, np.array([0.02, 0.015, 0.012]))
    if rng.random() < 0.3:
        stubble = atlas.regions["beard"] * rng.uniform(0.1, 0.7) * np.clip(0.8 + 0.5 * coarse, 0, 1.5)
        diffuse = _blend(diffuse, stubble, hair * 0.6 + 0.01)
    return diffuse
