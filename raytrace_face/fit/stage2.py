"""Stage 2: personal diffuse, specular and roughness maps; light and geometry are held.

Diffuse albedo is a closed form: (photo - highlight) / shading, texel by texel, as a maximum a posteriori estimate in
log space whose observation variance says where the division can be trusted. The shadows found by stage 1 are divided
out, so they do not reach the albedo; next to a predicted shadow edge and in deep shadow the variance is large, and
symmetry and the statistical albedo take over. F0 and roughness are fitted through the cached transport to what the
diffuse map leaves over, and then the closed form is evaluated once more under the fitted highlight.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import Bounds, minimize

from raytrace_face.capture.colour import luminance
from raytrace_face.config import Stage2Config
from raytrace_face.face.skin_prior import DIFFUSE_RANGE
from raytrace_face.fit.losses import charbonnier, edge_aware_smoothness
from raytrace_face.types import Array, Maps

F = NDArray[np.float64]

NOISE_SIGMA = 0.04
"""Relative noise of photo and transport."""
EDGE_MM = 2.0
"""How far a predicted shadow edge may be off, mm: geometry and light direction together."""
SHADING_ERROR = 0.15
"""Error of the predicted shading relative to its mean over the face: light the model does not have, and normals."""
SHINE_ERROR = (1.0, 0.5)
"""Relative error of the highlight that is subtracted, under the regional prior and after its fit."""
STRENGTH_RANGE = (-1.2, 0.7)
"""Bounds of the log factor on F0: 0.01 to 0.07 for skin."""
SETTLED = 5e-4
"""Drop of the loss in one step, as a share of the first loss, at which the fit of the highlights ends: half of 60
steps, at the same PSNR."""
OUTLIER_SIGMAS = 1.5
"""Smooth log deviation from the statistical albedo, in standard deviations of the person's, that is more likely a
missed shadow than skin."""


@dataclass(frozen=True)
class Lit:
    """The window under the fitted light, cached: radiance = diffuse * shading + F0 * highlight(roughness)."""

    image: Array
    """(S, S, 3) photo."""
    weight: Array
    """(S, S) weight of the pixel in the maps: the fit's, and the brows."""
    shading: Array
    """(S, S, 3) for unit diffuse albedo."""
    highlight: Array
    """(R, S, S, 3) for unit F0, at `roughness_steps`."""
    roughness_steps: Array
    """(R,) factors on the prior roughness."""
    uv: Array
    """(S, S, 2)"""
    skin: NDArray[np.bool_]
    """(S, S) whether the pixel shows skin."""
    personal_sigma: Array
    """(S, S) standard deviation of the person's log albedo about the statistical one (`skin_prior.personal_sigma`)."""
    mm_per_px: float
    clipped: NDArray[np.bool_] | None = None
    """(S, S, 3) channels that are at least as bright as the photo says; None: none."""

    def gloss(self, factor: NDArray[np.floating]) -> Array:
        """(S, S, 3) highlight for unit F0 at roughness factors (S, S), log-linear between the traced steps."""
        knots, at = np.log(self.roughness_steps), np.log(np.maximum(factor, 1e-3))
        hats = (np.interp(at, knots, row) for row in np.eye(len(knots)))
        return np.einsum("ryx,ryxc->yxc", np.stack(list(hats)), self.highlight).astype(np.float32)


@dataclass(frozen=True)
class Texels:
    """Where each texel lies in the window."""

    xy: Array
    """(T, T, 2) window pixels."""
    visible: Array
    """(T, T) in [0, 1]: seen by the camera, facing it, and fitted."""
    mirror: NDArray[np.int64]
    """(T * T,) texel that shows the mirrored point of the skin; the texel itself where there is none."""


def shading_sigma(lit: Lit) -> Array:
    """(S, S) standard deviation of log albedo as divided out of the photo, highlights apart.

    Three independent causes: noise; a shadow edge off by `EDGE_MM`; an error of the shading, which matters in shadow.
    """
    Y = np.maximum(luminance(lit.shading), 1e-5)
    fitted = lit.weight > 0.05
    mean = float(Y[fitted].mean()) if fitted.any() else float(Y.mean())
    log_Y = np.where(lit.skin, np.log(Y), np.log(mean))
    reach = 2 * max(round(EDGE_MM / lit.mm_per_px), 1) + 1
    swing = ndimage.maximum_filter(log_Y, reach) - ndimage.minimum_filter(log_Y, reach)
    swing = np.maximum(swing - 0.25, 0)  # smooth attached shading varies too, and is well predicted
    variance = NOISE_SIGMA**2 + (0.5 * swing) ** 2 + (SHADING_ERROR * mean / Y) ** 2
    return np.sqrt(variance).astype(np.float32)


def gain(lit: Lit, variance: Array) -> Array:
    """(S, S) share in [0, 1] of an observation of this variance in the posterior mean, times the pixel's weight."""
    prior = lit.personal_sigma**2
    return lit.weight * prior / (prior + variance)


def pixel_albedo(lit: Lit, sigma: Array, albedo: Array, shine: Array, shine_error: float) -> tuple[Array, Array]:
    """Log deviation (S, S, 3) of the photo's albedo from the statistical one, and its confidence (S, S).

    Args:
        sigma: (S, S) `shading_sigma`.
        albedo: (S, S, 3) statistical.
        shine: (S, S, 3) radiance of the highlight.
        shine_error: its relative error.
    """
    observed = np.maximum(lit.image - shine, 0.03 * lit.image) + 1e-5
    diffuse = np.maximum(albedo * lit.shading, 0) + 1e-5
    deviation = np.clip(np.log(observed) - np.log(diffuse), -2.5, 1.5)
    if lit.clipped is not None:
        deviation = np.where(lit.clipped, np.maximum(deviation, 0), deviation)
    confidence = gain(lit, sigma**2 + (shine_error * luminance(shine) / luminance(diffuse)) ** 2)
    # A wide patch that is far from the prior is a shadow (or light) the geometry does not explain
    blur = max(4.0 / lit.mm_per_px, 1.0)
    mass = ndimage.gaussian_filter(confidence, blur) + 1e-4
    smooth = ndimage.gaussian_filter(luminance(deviation) * confidence, blur) / mass
    confidence = confidence / (1 + (smooth / (OUTLIER_SIGMAS * lit.personal_sigma)) ** 4)
    return deviation.astype(np.float32), confidence.astype(np.float32)


def complete(deviation: Array, confidence: Array, mirror: NDArray[np.int64], symmetry: float) -> Array:
    """Fill a log-albedo deviation (T, T, 3) where confidence (T, T) is low: mirror first, then neighbours, then 0.

    The mirror texel lends its detail and its tone where it is surer; the neighbours (normalised convolution over
    coarser and coarser scales) lend only their tone; the rest is the statistical albedo.

    Args:
        mirror: (T * T,) `Texels.mirror`.
    """
    mirror_c = confidence.ravel()[mirror].reshape(confidence.shape)
    mirror_d = deviation.reshape(-1, 3)[mirror].reshape(deviation.shape)
    lend = (1 - confidence) * mirror_c * min(symmetry * 4, 1.0)
    lend[(mirror == np.arange(len(mirror))).reshape(lend.shape)] = 0
    total = confidence + lend
    value = (deviation * confidence[..., None] + mirror_d * lend[..., None]) / np.maximum(total, 1e-6)[..., None]
    keep = np.clip(total, 0, 1)[..., None]
    background = _surroundings(value, total)
    return (value * keep + background * (1 - keep)).astype(np.float32)


def _surroundings(value: NDArray[np.floating], mass: NDArray[np.floating]) -> NDArray[np.floating]:
    """Tone (T, T, 3) round each texel, from coarse to fine; on a reduced grid, since it is smooth."""
    size = len(value)
    step = next(k for k in (4, 2, 1) if size % k == 0 and size >= 64 * k)

    def reduced(x: NDArray[np.floating]) -> NDArray[np.floating]:
        return x.reshape(size // step, step, size // step, step, -1).mean(axis=(1, 3))

    weighted, mass = reduced(value * mass[..., None]), reduced(mass)
    out = np.zeros_like(weighted)
    for scale in (16, 32, 64, 128):
        blur = (size / scale / step, size / scale / step, 0)
        near = ndimage.gaussian_filter(mass, blur)
        known = np.clip(near * 4, 0, 1)
        out = out * (1 - known) + ndimage.gaussian_filter(weighted, blur) / (near + 1e-3) * known
    return ndimage.zoom(out, (step, step, 1), order=1, grid_mode=True, mode="nearest") if step > 1 else out


def sample_window(image: NDArray[np.floating], xy: Array) -> Array:
    """Bilinear lookup of a window image (S, S) or (S, S, C) at pixels (..., 2)."""
    planes = image[..., None] if image.ndim == 2 else image
    height, width, count = planes.shape
    grid = 2 * xy.reshape(1, 1, -1, 2) / np.array([width, height], np.float32) - 1
    found = torch.nn.functional.grid_sample(
        torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)[None], np.float32)),
        torch.from_numpy(np.ascontiguousarray(grid, np.float32)),
        padding_mode="border",
        align_corners=False,
    )
    out = np.ascontiguousarray(found[0, :, 0].numpy().T).reshape(*xy.shape[:-1], count)
    return out[..., 0] if image.ndim == 2 else out


def sample_texture(texture: NDArray[np.floating], uv: Array) -> Array:
    """Bilinear lookup of a texture (T, T) or (T, T, C), row 0 at v = 1, at uv (..., 2)."""
    size = texture.shape[0]
    xy = np.stack([uv[..., 0] * size, (1 - uv[..., 1]) * size], axis=-1)
    return sample_window(texture, xy)


def fit_maps(
    lit: Lit,
    texels: Texels,
    statistical: Array,
    f0: Array,
    roughness: Array,
    config: Stage2Config,
    progress: Callable[[str, float], None],
    thinned: bool = False,
) -> tuple[Maps, list[float]]:
    """All maps, and the photometric loss after every step of the highlights' fit.

    Args:
        statistical: (T, T, 3) albedo of stage 1.
        f0, roughness: (T, T) regional priors.
        thinned: the highlights are fitted to every second pixel a side.
    """
    f0_seen, sigma = sample_texture(f0, lit.uv), shading_sigma(lit)
    statistical_seen = sample_texture(statistical, lit.uv)

    def diffuse(factor: Array, strength: Array, shine_error: float) -> tuple[Array, Array]:
        shine = (f0_seen * strength)[..., None] * lit.gloss(factor)
        deviation, confidence = pixel_albedo(lit, sigma, statistical_seen, shine, shine_error)
        sure = sample_window(confidence, texels.xy) * texels.visible
        filled = complete(sample_window(deviation, texels.xy), sure, texels.mirror, config.symmetry)
        return np.clip(statistical * np.exp(filled), *DIFFUSE_RANGE).astype(np.float32), np.clip(sure, 0, 1)

    plain = np.ones(lit.weight.shape, np.float32)
    albedo, confidence = diffuse(plain, plain, SHINE_ERROR[0])
    history: list[float] = []
    size = f0.shape[0]
    log_strength, log_factor = np.zeros((2, size, size), np.float32)
    if config.iterations > 0:
        seen = sample_texture(albedo, lit.uv)
        log_strength, log_factor, history = fit_highlight(
            lit, sigma, seen, f0_seen, texels.mirror, config, progress, thinned
        )
        factor, strength = (np.exp(sample_texture(x, lit.uv)) for x in (log_factor, log_strength))
        albedo, confidence = diffuse(factor, strength, SHINE_ERROR[1])
    specular = np.repeat((f0 * np.exp(log_strength))[..., None], 3, 2)
    rough = np.clip(roughness * np.exp(log_factor), 0.1, 1.0)
    return Maps(albedo, specular.astype(np.float32), rough.astype(np.float32), confidence.astype(np.float32)), history


def fit_highlight(
    lit: Lit, sigma: Array, diffuse: Array, f0: Array, mirror: NDArray[np.int64], config: Stage2Config,
    progress: Callable[[str, float], None], thinned: bool = False,
) -> tuple[Array, Array, list[float]]:  # fmt: skip
    """Log factors (T, T) on F0 and roughness, by bounded L-BFGS, from what a diffuse map leaves over.

    The diffuse map holds the tone of its surroundings where a highlight is strong (see `SHINE_ERROR`), so that the
    highlight stays in the residual. Unknowns live on a grid of T / 8: one light's highlight says little about single
    texels. Loss terms are means, so no weight depends on resolution.

    Args:
        sigma: (S, S) `shading_sigma`.
        diffuse, f0: (S, S, 3) and (S, S) maps as the window sees them.
        mirror: (T * T,) `Texels.mirror`.
        thinned: look at every second pixel a side. A cell of the grid covers about four in the middle of a face.
    """
    t, T = torch.from_numpy, math.isqrt(len(mirror))
    eighth = max(T // 8, 8)
    partner = t(reduced_mirror(mirror, eighth))
    every = 2 if thinned else 1
    counted = np.zeros(lit.weight.shape, bool)
    counted[::every, ::every] = lit.weight[::every, ::every] > 0.05
    pixels = np.flatnonzero(counted)
    if not len(pixels):
        return np.zeros((T, T), np.float32), np.zeros((T, T), np.float32), []
    uv = lit.uv.reshape(-1, 2)[pixels]
    grid = t(np.stack([uv[:, 0] * 2 - 1, 1 - uv[:, 1] * 2], axis=-1)[None, None].astype(np.float32))

    def at_pixels(image: NDArray[np.floating]) -> torch.Tensor:
        """(..., S, S, C) -> (-1, C, 1, P)"""
        planes = image.reshape(-1, lit.weight.size, image.shape[-1])[:, pixels]
        return t(np.ascontiguousarray(planes, np.float32)).permute(0, 2, 1)[:, :, None]

    weight = at_pixels(gain(lit, sigma**2)[..., None])
    weight = weight / weight.sum().clamp_min(1e-6)
    scale = float(luminance(lit.image).ravel()[pixels].mean())
    residual = at_pixels((lit.image - diffuse * lit.shading) / scale)
    highlight = at_pixels(lit.highlight * (f0[..., None] / scale))
    knots = t(lit.roughness_steps).log()
    history: list[float] = []
    seen, first = 0.0, 0.0

    def objective(values: F) -> tuple[float, F]:
        nonlocal seen, first
        x = t(values.astype(np.float32)).reshape(1, 2, eighth, eighth).requires_grad_()
        here = torch.nn.functional.grid_sample(x, grid, align_corners=False, padding_mode="border")
        shine = here[:, :1].exp() * _interpolate(highlight, knots, here[:, 1:])
        photometric = (charbonnier(shine - residual, 0.01) * weight).sum() / 3
        symmetry = ((x - x.flatten(2).index_select(2, partner).reshape(x.shape)) ** 2).mean()
        loss = photometric + config.symmetry * symmetry + 2 * config.consistency * (x**2).sum(1).mean()
        loss = loss + 4 * config.smoothness * edge_aware_smoothness(x, None)
        (slope,) = torch.autograd.grad(loss, x)
        seen = float(photometric.detach())
        first = first or max(float(loss.detach()), 1e-12)  # `ftol` is absolute where the objective is below one
        return float(loss.detach()) / first, slope.numpy().ravel().astype(np.float64) / first

    def step(_: F) -> None:
        history.append(seen)
        progress("stage 2", seen)

    cells = eighth * eighth
    ranges = np.repeat([STRENGTH_RANGE, (float(knots[0]), float(knots[-1]))], cells, axis=0)
    options = {"maxiter": config.iterations, "maxcor": 20, "ftol": SETTLED}
    found = minimize(
        objective,
        np.zeros(2 * cells),
        jac=True,
        bounds=Bounds(*ranges.T),
        method="L-BFGS-B",
        callback=step,
        options=options,
    )
    x = t(found.x.astype(np.float32)).reshape(1, 2, eighth, eighth)
    full = torch.nn.functional.interpolate(x, size=(T, T), mode="bilinear", align_corners=False)[0].numpy()
    return full[0], full[1], history


def reduced_mirror(mirror: NDArray[np.int64], cells: int) -> NDArray[np.int64]:
    """`Texels.mirror` (T * T,) on a grid of `cells` a side, (cells * cells,), by the texels in the middle of cells."""
    size = math.isqrt(len(mirror))
    middle = ((np.arange(cells) + 0.5) * size / cells).astype(np.int64)
    row, column = np.divmod(mirror[(middle[:, None] * size + middle).ravel()], size)
    return (row * cells // size) * cells + column * cells // size


def _interpolate(stack: torch.Tensor, knots: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Piecewise linear interpolation of images (R, 3, S, S) with knots (R,) at values (1, 1, S, S)."""
    out = torch.zeros_like(stack[:1])
    for k in range(len(knots)):
        left = (at - knots[k - 1]) / (knots[k] - knots[k - 1]) if k > 0 else torch.ones_like(at)
        right = (knots[k + 1] - at) / (knots[k + 1] - knots[k]) if k + 1 < len(knots) else torch.ones_like(at)
        out = out + torch.clamp(torch.minimum(left, right), 0, 1) * stack[k : k + 1]
    return out
