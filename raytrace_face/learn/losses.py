"""Losses of the encoder: pure functions of tensors, each a mean, so that no weight depends on resolution or batch.

Supervised losses compare what a picture can show, not how it is written down: vertices and not coefficients, light on
the sphere and not slots, albedo on the texture and not chromophores. Self-supervised ones compare pictures and
landmarks, and hold what the photo does not tell to its priors.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from raytrace_face.face.skin_prior import PERSONAL_SIGMA
from raytrace_face.fit.albedo import EXPOSURE, EXPOSURE_SIGMA, WHITENESS_SIGMA
from raytrace_face.fit.landmarks import CORRELATED, DISTANCE_MM, DISTANCE_SIGMA, EXPRESSION_SIGMA, NOISE_MM
from raytrace_face.fit.losses import charbonnier, edge_aware_smoothness
from raytrace_face.learn.light import Lights, luminance, radiance_on_sphere

SCALES = (2.0, 8.0, 32.0)
"""Concentrations at which light is compared on the sphere: lobes some 40, 20 and 10 degrees wide. Broad ones pull a
light from the other side of the face, narrow ones set its direction."""
CONFIDENCE_FLOOR = 0.05
"""Least standard deviation of log albedo that confidence can claim."""

# Self-supervised: the picture against the photo


def photometric(predicted: Tensor, observed: Tensor, weight: Tensor) -> Tensor:
    """Robust difference of pictures (B, S, S, 3), linear, relative to the photo's own mean luminance.

    Smooth L1 as in MoFA (Tewari et al., ICCV 2017), weighted by (B, S, S) and divided by the sum of the weights, so
    that neither the size of the face nor the exposure counts. Photos without any weight count nothing.
    """
    total = weight.sum(dim=(1, 2))
    mean = (luminance(observed) * weight).sum(dim=(1, 2)) / total.clamp_min(1e-9)
    error = charbonnier((predicted - observed) / mean.clamp_min(1e-3).view(-1, 1, 1, 1), 0.01).mean(dim=3)
    each = (error * weight).sum(dim=(1, 2)) / total.clamp_min(1e-9)
    return each.sum() / (total > 0).sum().clamp_min(1)


def landmark_reprojection(
    predicted: Tensor, observed: Tensor, mm_per_side: Tensor, embedding_sigma_mm: Tensor, usable: Tensor
) -> Tensor:
    """Distance of landmarks (B, N, 2), sides of the crop, in standard deviations; robust beyond three.

    The deviations are those of the landmark fit (`fit.landmarks`): detection and embedding, in mm on the face.

    Args:
        mm_per_side: (B, N) side of the crop at the depth of each landmark: depth over focal length.
        embedding_sigma_mm: (N,).
        usable: (B,) bool, photos whose landmarks are known.
    """
    sigma = ((NOISE_MM**2 + embedding_sigma_mm**2) * CORRELATED).sqrt()
    error = charbonnier((predicted - observed) * (mm_per_side / sigma)[..., None], 3.0).mean(dim=(1, 2))
    return (error * usable).sum() / usable.sum().clamp_min(1)


# Priors


def gaussian(x: Tensor, sigma: float = 1.0) -> Tensor:
    """Mean square in standard deviations: the negative log of a Gaussian prior, times two."""
    return ((x / sigma) ** 2).mean()


def distance_prior(T_camera_head: Tensor) -> Tensor:
    """Log-normal prior of the camera's distance, from poses (B, 4, 4): 1.1 m (`fit.landmarks`)."""
    return gaussian((-T_camera_head[:, 2, 3] / DISTANCE_MM).log(), DISTANCE_SIGMA)


def expression_prior(expression: Tensor, start: Tensor) -> Tensor:
    """Closeness of expression weights (B, E) to the landmark network's (`fit.landmarks.EXPRESSION_SIGMA`)."""
    return gaussian(expression - start, EXPRESSION_SIGMA)


def exposure_prior(lights: Lights) -> Tensor:
    """Skin and light share one unknown scale and colour: photos are exposed for skin, lights about white.

    The prior of `fit.albedo`, here on the light of a surface that faces straight ahead, shadows apart.
    """
    log = lights.facing_irradiance().clamp_min(1e-4).log()
    grey = log.mean(dim=1, keepdim=True)
    return gaussian(grey - math.log(EXPOSURE), EXPOSURE_SIGMA) + gaussian(log - grey, WHITENESS_SIGMA)


def light_spread(lights: Lights) -> Tensor:
    """Entropy of the irradiance over the lights, in [0, 1]: few lights before many.

    Least squares spreads light over directions that graze the face at no cost; sparsity is what finds it
    (docs/method.md, section 7). The entropy is that form of it that is smooth and scale-free.
    """
    strength = luminance(lights.irradiance)
    share = strength / strength.sum(dim=1, keepdim=True)
    entropy = -(share * share.clamp_min(1e-9).log()).sum(dim=1)
    return entropy.mean() / math.log(share.shape[1])


# Maps


def symmetry(log_map: Tensor) -> Tensor:
    """Difference of a log map (B, T, T, C) from its mirror image in u, robust (EG 2021, section 5)."""
    return charbonnier(log_map - log_map.flip(2), 0.05).mean()


def consistency(increment: Tensor) -> Tensor:
    """Mean square of the decoders' increments: maps stay near the statistical ones (EG 2021, section 5)."""
    return (increment**2).mean()


def smoothness(log_map: Tensor) -> Tensor:
    """Mean squared gradient of a log map (B, T, T, C), in units of a hundredth of the texture."""
    return edge_aware_smoothness(log_map.permute(0, 3, 1, 2), None)


# Several photos of one person


def same_person(coefficients: Tensor, person: Tensor) -> Tensor:
    """Half the mean squared difference of coefficients (B, N) over all pairs of photos of one person; 0 without pairs.

    Identity and skin do not change from photo to photo (Tewari et al., "FML", CVPR 2019).

    Args:
        person: (B,) number of the person; negative where it is not known.
    """
    pair = (person[:, None] == person[None]) & (person >= 0)[:, None]
    pair = torch.triu(pair, diagonal=1)
    square = ((coefficients[:, None] - coefficients[None]) ** 2).mean(dim=2)
    return 0.5 * (square * pair).sum() / pair.sum().clamp_min(1)


# Supervised: the truth of a synthetic photo


def vertex_distance(predicted: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Mean distance of vertices (B, V, 3), mm, head frame; weights (V,), smooth below half a millimetre."""
    distance = charbonnier(((predicted - truth) ** 2).sum(dim=2).clamp_min(1e-12).sqrt(), 0.5)
    return (distance * weight).sum() / (weight.sum() * len(predicted)).clamp_min(1e-9)


def rotation_distance(predicted: Tensor, truth: Tensor) -> Tensor:
    """Mean square of the angle between rotations (B, 3, 3), radians, for small angles: |A - B|^2 = 4 (1 - cos)."""
    return ((predicted - truth) ** 2).sum(dim=(1, 2)).mean() / 2


def light_distance(lights: Lights, directions: Tensor, irradiance: Tensor, ambient_sh: Tensor) -> Tensor:
    """Difference of two lights on the sphere at several blurs, relative to the strength of the true one.

    Args:
        directions: (B, N, 3) unit vectors to the true lights, head frame; any number.
        irradiance: (B, N, 3) irradiance / pi of each, 0 for none.
        ambient_sh: (B, 9, 3) true ambient radiance.
    """
    own = (lights.directions(), lights.irradiance, lights.ambient_sh())
    total = lights.irradiance.new_zeros(())
    for k in SCALES:
        truth = radiance_on_sphere(directions, irradiance, ambient_sh, k)
        scale = luminance(truth).abs().mean(dim=1).clamp_min(1e-4)
        error = (radiance_on_sphere(*own, k) - truth).abs().mean(dim=(1, 2))
        total = total + (error / scale).mean() / len(SCALES)
    return total


def dominant_light(lights: Lights, truth: Tensor, weight: Tensor) -> Tensor:
    """Distance on the unit sphere of the dominant light from the true one (B, 3), head frame; smooth below 3 degrees.

    Not 1 - cos, whose slope dies with the angle: 12 degrees would count a thirtieth of 70.

    Args:
        weight: (B,) how much it matters, e.g. the main light's part in all light: an even sky has no direction.
    """
    miss = charbonnier(((lights.dominant() - truth) ** 2).sum(dim=1).clamp_min(1e-12).sqrt(), 0.05)
    return (miss * weight).sum() / weight.sum().clamp_min(1e-9)


def albedo_map(log_diffuse: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """Robust difference of log diffuse albedo (B, T, T, 3); weights (B, T, T)."""
    error = charbonnier(log_diffuse - truth, 0.05).mean(dim=3)
    return (error * weight).sum() / weight.sum().clamp_min(1e-9)


def albedo_detail(log_diffuse: Tensor, truth: Tensor, weight: Tensor) -> Tensor:
    """The same of what is left without its mean over the face, photo by photo and channel by channel.

    The mean is what one photo cannot tell, skin from exposure, and is off by more than most detail is deep: in a sum
    of magnitudes detail under it would change nothing, and decoders would learn to leave it alone.
    """
    error = log_diffuse - truth
    area = weight.sum(dim=(1, 2)).clamp_min(1e-9)
    mean = (error * weight[..., None]).sum(dim=(1, 2)) / area[:, None]
    return albedo_map(error, mean[:, None, None].expand_as(error), weight)


def confidence(log_diffuse: Tensor, truth: Tensor, certain: Tensor, weight: Tensor) -> Tensor:
    """Negative log likelihood of the error of an albedo map under the error that its confidence claims.

    Confidence c is the gain of a posterior mean, as in stage 2 (`fit.stage2.gain`), so that what is left has the
    variance (1 - c) of the prior's. The map is held, only c learns (Kendall & Gal, NeurIPS 2017, eq. 5).

    Args:
        log_diffuse, truth: (B, T, T, 3).
        certain: (B, T, T) c in [0, 1].
        weight: (B, T, T).
    """
    variance = PERSONAL_SIGMA**2 * (1 - certain) + CONFIDENCE_FLOOR**2
    square = ((log_diffuse.detach() - truth) ** 2).mean(dim=3)
    each = 0.5 * (square / variance + variance.log())
    return (each * weight).sum() / weight.sum().clamp_min(1e-9)
