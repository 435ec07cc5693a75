"""What is known about skin before the photo is seen: chromophores for colour, facial regions for gloss.

Diffuse albedo. Skin's diffuse reflectance falls with the absorption mu_a and reduced scattering mu_s' about as
`log R = -A sqrt(mu_a / mu_s')` (diffusion theory; Jacques, "Optical properties of biological tissues: a review",
Phys. Med. Biol. 58, 2013). Linearised at average skin, log albedo is linear in two chromophores, melanin and
haemoglobin, with direction `mu_chromophore / sqrt(mu_a mu_s')` in colour space: the "skin-tone manifold" of Tsumura
et al. 2003 and Alotaibi & Smith 2017. Regional modes (lips, cheeks, eye sockets, beard, brows) move along the same
axes.

Specular. F0 and roughness by region follow measured skin: index of refraction about 1.4-1.45 gives F0 0.028-0.034
(Donner & Jensen 2006); Weyrich et al. 2006 (table of Torrance-Sparrow fits, 149 people, 10 regions) find forehead and
nose more specular than cheeks and chin, lips shiniest; Ghosh et al. 2011 and Riviere et al. 2020 the same order.

A model that brings measured statistics of reflectance (AlbedoMM: Smith et al., CVPR 2020) is believed instead, except
for the tone of skin over all people, which its sample does not span.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raytrace_face.face.model import AlbedoBasis, FaceModel
from raytrace_face.types import Array

HAEMOGLOBIN = np.array(
    [
        (400, 266232, 223296), (410, 466840, 303956), (420, 480360, 407560), (430, 246072, 528600),
        (440, 102580, 413280), (450, 62816, 103292), (460, 44480, 23388.8), (470, 33209.2, 16156.4),
        (480, 26629.2, 14550), (490, 23684.4, 16684), (500, 20932.8, 20862), (510, 20035.2, 25773.6),
        (520, 24202.4, 31589.6), (530, 39956.8, 39036.4), (540, 53236, 46592), (550, 43016, 53412),
        (560, 32613.2, 53788), (570, 44496, 45072), (580, 50104, 37020), (590, 14400.8, 28324.4),
        (600, 3200, 14677.2), (610, 1506, 9443.6), (620, 942, 6509.6), (630, 610, 5148.8), (640, 442, 4345.2),
        (650, 368, 3750.12), (660, 319.6, 3226.56), (670, 294, 2795.12), (680, 277.6, 2407.92),
        (690, 276, 2051.96), (700, 290, 1794.28),
    ]
)  # fmt: skip
"""Wavelength (nm), molar extinction of oxy- and deoxyhaemoglobin (1/cm/M): S. Prahl, "Tabulated molar extinction
coefficient for hemoglobin in water", omlc.org, 1998."""
OXYGENATION = 0.75
BLOOD_FRACTION = 0.008
"""Volume of blood in the tissue that diffuse light samples."""
VESSEL_RADIUS_CM = 0.005
"""Blood sits in vessels, not in solution: where it is opaque (blue) its effective absorption saturates by the factor
(1 - exp(-2 mu r)) / (2 mu r) (van Veen et al., Opt. Lett. 27, 2002)."""
MELANIN_FRACTION = 0.006
"""Melanosome volume averaged over the depth that diffuse light samples (thin epidermis over dermis)."""
BAND_NM = {"red": (605.0, 30.0), "green": (545.0, 32.0), "blue": (455.0, 25.0)}
"""Centre and standard deviation of Gaussians that stand for Rec. 709 camera sensitivities."""

MEAN_ALBEDO = (0.31, 0.195, 0.14)
"""Median over people, linear Rec. 709. With the sigmas below +1 sigma is light, -2.5 sigma very dark skin."""
MELANIN_SIGMA, HAEMOGLOBIN_SIGMA = 0.5, 0.14
"""Standard deviation of log albedo (mean over the channels) over people."""

PERSONAL_SIGMA = 0.30
"""Standard deviation of a person's log albedo about the statistical one: freckles, moles, uneven tone."""
PERSONAL_SIGMA_BY_REGION = {"beard": 0.40, "eyelids": 0.35, "lips": 0.40, "brows": 0.80}
"""The same where it is larger: stubble, make-up, and the hairs of the brows."""

ALBEDO_MODES = 40
"""Most modes of a brought albedo basis that are fitted, by falling variance. Stage 1 counts a face of 128 px (6,000
pixels) as 15 independent colours (`fit.albedo.CORRELATED`), 45 numbers; more coefficients would follow the prior."""
DIFFUSE_RANGE = (0.002, 0.98)
"""Of diffuse albedo that is fitted or predicted: black hair in a texel, and less than all light back."""
ALBEDO_RANGE = (0.01, 0.95)
"""Range that a brought mean albedo is clipped to before its logarithm is taken."""
LOG_MODE_LIMIT = 1.0
"""Largest log albedo per standard deviation of a brought mode: beyond, where the mean is nearly black, the linear basis
says nothing about ratios."""
SPECULAR_RANGE = (0.5, 2.0)
"""Range of a brought mean specular albedo relative to its median on the face: F0 0.015 to 0.06."""
F0_FACE = 0.030
"""F0 of average facial skin: index of refraction 1.42."""


@dataclass(frozen=True)
class SkinPrior:
    """Gaussian prior over log albedo: log_mean + offset + coefficients . modes, coefficients ~ N(0, 1)."""

    log_mean: Array
    """(3,) log of the average albedo, linear Rec. 709."""
    offset: Array
    """(V, 3) how regions differ from it on average (lips, brows, cheeks)."""
    modes: Array
    """(M, V, 3) log albedo per standard deviation; 0 and 1 are global melanin (positive: darker) and haemoglobin."""
    names: tuple[str, ...]
    """(M,) names of the modes."""


def absorption() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Colour directions (3,) of melanin and haemoglobin in log albedo (negative), channel mean -1.

    Melanosome: mu_a = 6.6e11 lambda^-3.33 / cm (Jacques 1998); blood: 150 g/l haemoglobin of 64,500 g/mol; baseline
    0.244 + 85.3 exp(-(lambda - 154) / 66.2) / cm; reduced scattering 46 (lambda / 500)^-1.42 / cm (Jacques 2013).
    """
    wavelength = HAEMOGLOBIN[:, 0]
    melanosome = 6.6e11 * wavelength**-3.33
    blood = 2.303 * (OXYGENATION * HAEMOGLOBIN[:, 1] + (1 - OXYGENATION) * HAEMOGLOBIN[:, 2]) * 150 / 64500
    packed = 2 * VESSEL_RADIUS_CM * blood
    blood = blood * (1 - np.exp(-packed)) / packed
    baseline = 0.244 + 85.3 * np.exp(-(wavelength - 154) / 66.2)
    scattering = 46.0 * (wavelength / 500) ** -1.42
    total = MELANIN_FRACTION * melanosome + BLOOD_FRACTION * blood + baseline
    bands = np.array([np.exp(-0.5 * ((wavelength - c) / s) ** 2) for c, s in BAND_NM.values()])
    bands /= bands.sum(1, keepdims=True)
    melanin, haemoglobin = (bands @ (mu / np.sqrt(total * scattering)) for mu in (melanosome, blood))
    return -melanin / melanin.mean(), -haemoglobin / haemoglobin.mean()


def _region(model: FaceModel, name: str) -> NDArray[np.float64]:
    """(V,) weight of a region, zero where the model does not know it."""
    return np.asarray(model.regions.get(name, np.zeros(model.vertex_count)), np.float64)


def skin_prior(model: FaceModel) -> SkinPrior:
    """The diffuse prior on a model's vertices: of its own albedo basis, else of chromophores and the regions it has."""
    return _regional_prior(model) if model.albedo is None else _measured_prior(model, model.albedo)


def _measured_prior(model: FaceModel, basis: AlbedoBasis) -> SkinPrior:
    """A linear albedo basis in log space: log(mean + c b) = log mean + c b / mean to first order in c b / mean.

    One standard deviation of skin is some 10 %, where the error is half a per cent; and in log space albedo stays
    positive for every c. Melanin and haemoglobin over the whole face stay free with their full spread: published bases
    are of a few dozen mostly light-skinned people (AlbedoMM: 73), so their own tone falls far short of dark skin.
    """
    melanin, haemoglobin = absorption()
    mean = np.clip(np.asarray(basis.diffuse, np.float64), *ALBEDO_RANGE)
    log = np.log(mean)
    weight = _region(model, "face")
    log_mean = (weight @ log) / weight.sum()
    own = np.clip(basis.diffuse_modes[:ALBEDO_MODES] / mean, -LOG_MODE_LIMIT, LOG_MODE_LIMIT)
    tone = np.stack([MELANIN_SIGMA * melanin, HAEMOGLOBIN_SIGMA * haemoglobin])
    everywhere = np.repeat(tone[:, None], model.vertex_count, axis=1)
    return SkinPrior(
        log_mean=log_mean.astype(np.float32),
        offset=(log - log_mean).astype(np.float32),
        modes=np.concatenate([everywhere, own]).astype(np.float32),
        names=("melanin", "haemoglobin", *(f"albedo {k + 1}" for k in range(len(own)))),
    )


def _regional_prior(model: FaceModel) -> SkinPrior:
    """Chromophores over the face and by region; regions the model lacks give no mode."""
    melanin, haemoglobin = absorption()
    ones = np.ones(model.vertex_count)
    grey = np.array([-1.0, -1.0, -1.0])
    # name, region weight, mean and sigma along each of (melanin, haemoglobin, grey)
    lips, cheeks, nose = _region(model, "lips"), _region(model, "cheeks"), _region(model, "nose")
    red = np.maximum(cheeks, nose)
    regional: tuple[tuple[str, NDArray, tuple[float, float, float], tuple[float, float, float]], ...] = (
        ("lips", lips, (0.1, 0.3, 0.0), (0.05, 0.25, 0.0)),
        ("cheeks and nose", red, (0.0, 0.06, 0.0), (0.0, 0.1, 0.0)),
        ("eye sockets", _region(model, "eye_sockets"), (0.06, 0.03, 0.0), (0.15, 0.03, 0.0)),
        ("forehead", _region(model, "forehead"), (0.0, -0.02, 0.0), (0.08, 0.0, 0.0)),
        ("beard", _region(model, "beard"), (0.02, 0.0, 0.02), (0.03, 0.0, 0.25)),
        ("brows", _region(model, "brows"), (0.2, 0.0, 0.25), (0.1, 0.0, 0.3)),
        ("eyelids", _region(model, "eyelids"), (0.05, 0.04, 0.0), (0.08, 0.06, 0.0)),
        ("ears", _region(model, "ears"), (0.0, 0.06, 0.0), (0.0, 0.1, 0.0)),
    )
    axes = np.stack([melanin, haemoglobin, grey])
    modes = [MELANIN_SIGMA * ones[:, None] * melanin, HAEMOGLOBIN_SIGMA * ones[:, None] * haemoglobin]
    names = ["melanin", "haemoglobin"]
    offset = np.zeros((model.vertex_count, 3))
    for name, weight, mean, sigma in regional:
        if weight.max() > 0:
            offset += weight[:, None] * (np.array(mean) @ axes)
            modes.append(weight[:, None] * (np.array(sigma) @ axes))
            names.append(name)
    return SkinPrior(
        log_mean=np.log(np.array(MEAN_ALBEDO, np.float32)),
        offset=offset.astype(np.float32),
        modes=np.stack(modes).astype(np.float32),
        names=tuple(names),
    )


def albedo(prior: SkinPrior, coefficients: NDArray[np.floating]) -> Array:
    """Albedo (V, 3) in (0, 0.95] of coefficients (M,) in standard deviations."""
    log = prior.log_mean + prior.offset + np.tensordot(np.asarray(coefficients, np.float32), prior.modes, 1)
    return np.minimum(np.exp(log), 0.95).astype(np.float32)


def _by_region(model: FaceModel, base: float, values: dict[str, float]) -> Array:
    out = np.full(model.vertex_count, base)
    for name, value in values.items():
        weight = _region(model, name)
        out = (1 - weight) * out + weight * value
    return out.astype(np.float32)


def personal_sigma(model: FaceModel) -> Array:
    """(V,) standard deviation of a person's log albedo about the statistical albedo."""
    return _by_region(model, PERSONAL_SIGMA, PERSONAL_SIGMA_BY_REGION)


def specular_prior(model: FaceModel) -> Array:
    """Fresnel reflectance at normal incidence (V,), grey: 0.028 (index 1.4) raised where sebum adds an oily film.

    Of a model with specular statistics, their mean relative to its median on the face, about `F0_FACE`: the pattern is
    measured, the scale of such bases is that of a camera rig.
    """
    if model.albedo is not None and model.albedo.specular is not None:
        grey = np.asarray(model.albedo.specular, np.float64).mean(axis=1)
        middle = float(np.median(grey[_region(model, "face") > 0.5]))
        return (F0_FACE * np.clip(grey / max(middle, 1e-9), *SPECULAR_RANGE)).astype(np.float32)
    return _by_region(
        model, F0_FACE, {"forehead": 0.034, "cheeks": 0.030, "chin": 0.029, "nose": 0.037, "lips": 0.040, "neck": 0.028}
    )


def roughness_prior(model: FaceModel) -> Array:
    """Perceptual roughness (V,), alpha = r^2: Beckmann m 0.2-0.3 of Weyrich et al. is r 0.45-0.55 for skin."""
    values = {
        "forehead": 0.45, "cheeks": 0.52, "chin": 0.50, "nose": 0.42, "eyelids": 0.47, "beard": 0.53, "lips": 0.37,
        "neck": 0.55, "scalp": 0.55,
    }  # fmt: skip
    return _by_region(model, 0.50, values)
