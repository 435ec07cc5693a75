"""The statistical albedo: chromophore and region coefficients that explain the photo under a given light.

Skin albedo is log-linear in the chromophores (Beer-Lambert), so that log I - log S = log rho is a linear problem in
the coefficients. Light and albedo share one unknown scale and colour; the split is a question of priors: skin lies
on the chromophore manifold, lights are about white, exposures about right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightstage.solve import cauchy_weight
from raytrace_face.capture.colour import REC709_LUMINANCE
from raytrace_face.types import Array

F = NDArray[np.float64]

LOG_RESIDUAL = 0.25
"""Cauchy scale of log-albedo residuals: freckles and stubble are inliers, hair and hands are not."""
EXPOSURE, EXPOSURE_SIGMA = 0.9, 0.6
"""Mean irradiance / pi on the face in photos exposed for skin (log-normal): white paper there is just not clipped."""
WHITENESS_SIGMA = 0.12
"""Spread of log light colour about white after the camera's white balance."""
CORRELATED = 400.0
"""Pixels that err together: coefficients are global, and every pixel of a cheek errs with its neighbours."""


@dataclass(frozen=True)
class AlbedoModel:
    """Log-albedo at the P pixels: log_mean + modes . coefficients."""

    log_mean: Array
    """(P, 3)"""
    modes: Array
    """(M, P, 3) per standard deviation."""

    def albedo(self, coefficients: NDArray[np.floating]) -> Array:
        """(P, 3) diffuse albedo."""
        return np.exp(self.log_mean + np.tensordot(coefficients, self.modes, 1)).astype(np.float32)

    def grey(self) -> AlbedoModel:
        """The same without colour, for monochrome photos: log luminance in every channel."""
        grey = REC709_LUMINANCE
        base = np.exp(self.log_mean) @ grey
        share = np.exp(self.log_mean) * grey / base[:, None]  # derivative of log luminance by log channels
        modes = (self.modes * share).sum(axis=2)
        return AlbedoModel(
            np.repeat(np.log(base)[:, None], 3, 1).astype(np.float32), np.repeat(modes[:, :, None], 3, 2)
        )


def fit_coefficients(
    model: AlbedoModel,
    image: NDArray[np.floating],
    shading: NDArray[np.floating],
    highlight: NDArray[np.floating],
    weight: NDArray[np.floating],
    clipped: NDArray[np.bool_] | None = None,
    iterations: int = 6,
) -> tuple[Array, Array]:
    """Maximum a posteriori coefficients under given shading.

    Args:
        image, shading, highlight: (P, 3): image = albedo * shading + highlight.
        weight: (P,)
        clipped: (P, 3) channels that are at least as bright as the image says.

    Returns:
        coefficients: (M,) in standard deviations.
        gain: (3,) factor by which the light has to be multiplied.
    """
    M = len(model.modes)
    mean_shading = (shading * weight[:, None]).sum(0) / weight.sum()
    lit = np.clip(shading / np.maximum(mean_shading, 1e-9) * 2 - 0.2, 0, 1)  # deep shadow says nothing of albedo
    observed = np.maximum(image - highlight, 0.02 * np.maximum(image, 1e-4))
    target = np.log(np.maximum(observed, 1e-5)) - np.log(np.maximum(shading, 1e-5)) - model.log_mean
    base = lit * weight[:, None]
    design = np.concatenate([model.modes, np.zeros((3, *model.log_mean.shape), np.float32)])
    for c in range(3):
        design[M + c, :, c] = 1  # log gain of each channel
    prior, prior_value = _prior(M, mean_shading)
    x = np.zeros(M + 3)
    share = np.ones_like(base)
    for _ in range(iterations):
        w = base * share / (LOG_RESIDUAL**2 * CORRELATED)
        H = np.einsum("ipc,pc,jpc->ij", design, w, design, optimize=True) + prior.T @ prior
        g = np.einsum("ipc,pc,pc->i", design, w, target, optimize=True) + prior.T @ prior_value
        x = np.linalg.solve(H, g)
        missing = np.tensordot(x, design, 1) - target
        share = cauchy_weight(missing, LOG_RESIDUAL)
        share = share * ~(clipped & (missing > 0)) if clipped is not None else share
    return np.clip(x[:M], -3.5, 3.5).astype(np.float32), np.exp(x[M:]).astype(np.float32)


def _prior(modes: int, mean_shading: F) -> tuple[F, F]:
    """Prior equations A x = b in standard deviations on coefficients and log gains."""
    A = np.zeros((modes + 4, modes + 3))
    b = np.zeros(modes + 4)
    A[:modes, :modes] = np.eye(modes)
    log_light = np.log(np.maximum(mean_shading, 1e-6))
    A[modes, modes:] = 1 / 3 / EXPOSURE_SIGMA
    b[modes] = (np.log(EXPOSURE) - log_light.mean()) / EXPOSURE_SIGMA
    A[modes + 1 :, modes:] = (np.eye(3) - 1 / 3) / WHITENESS_SIGMA
    b[modes + 1 :] = -(log_light - log_light.mean()) / WHITENESS_SIGMA
    return A, b
