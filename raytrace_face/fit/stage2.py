"""Stage 2: personal diffuse, specular and roughness maps; light and geometry are held.

Closed form first: albedo = (photo - highlight) / shading, texel by texel, as a maximum a posteriori estimate in log
space whose observation variance says where the division can be trusted. Then descent on the maps through the cached
transport. The shadows found by stage 1 are divided out, so they do not reach the albedo; next to a predicted shadow
edge and in deep shadow the variance is large, and symmetry and the statistical albedo take over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from raytrace_face.capture.colour import luminance
from raytrace_face.config import Stage2Config
from raytrace_face.fit.losses import charbonnier, edge_aware_smoothness
from raytrace_face.types import Array, Maps

F = NDArray[np.float64]

PRIOR_SIGMA = 0.35
"""Standard deviation of log albedo about the statistical albedo: freckles, stubble, make-up."""
NOISE_SIGMA = 0.04
"""Relative noise of photo and transport."""
EDGE_MM = 2.5
"""How far a predicted shadow edge may be off, mm: geometry and light direction together."""
AMBIENT_ERROR = 0.08
"""Error of the predicted shading relative to its mean over the face: light the model does not have."""
OUTLIER_LOG = 0.45
"""Smooth log deviation from the statistical albedo that is more likely a missed shadow than skin."""


@dataclass(frozen=True)
class Lit:
    """The window under the fitted light, cached: radiance = diffuse * shading + F0 * highlight(roughness)."""

    image: Array
    """(S, S, 3) photo."""
    weight: Array
    """(S, S) weight of the pixel in the fit."""
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
    mm_per_px: float


@dataclass(frozen=True)
class Texels:
    """Where each texel lies in the window."""

    xy: Array
    """(T, T, 2) window pixels."""
    visible: Array
    """(T, T) in [0, 1]: seen by the camera, facing it, and fitted."""


def observation_sigma(lit: Lit, albedo: Array, f0: Array) -> Array:
    """(S, S) standard deviation of log albedo as divided out of the photo.

    Four independent causes: noise; a shadow edge off by `EDGE_MM`; light missing from the model, which matters in
    shadow; and the highlight, which is subtracted with half its size as uncertainty.
    """
    Y = np.maximum(luminance(lit.shading), 1e-5)
    fitted = lit.weight > 0.05
    mean = float(Y[fitted].mean()) if fitted.any() else float(Y.mean())
    log_Y = np.where(lit.skin, np.log(Y), np.log(mean))
    reach = 2 * max(round(EDGE_MM / lit.mm_per_px), 1) + 1
    swing = ndimage.maximum_filter(log_Y, reach) - ndimage.minimum_filter(log_Y, reach)
    swing = np.maximum(swing - 0.25, 0)  # smooth attached shading varies too, and is well predicted
    shine = f0 * luminance(lit.highlight[len(lit.highlight) // 2]) / np.maximum(luminance(albedo) * Y, 1e-5)
    variance = NOISE_SIGMA**2 + (0.5 * swing) ** 2 + (AMBIENT_ERROR * mean / Y) ** 2 + (0.5 * shine) ** 2
    return np.sqrt(variance).astype(np.float32)


def pixel_albedo(lit: Lit, albedo: Array, f0: Array) -> tuple[Array, Array]:
    """Log deviation (S, S, 3) of the photo's albedo from the statistical one, and its confidence (S, S)."""
    shine = f0[..., None] * lit.highlight[len(lit.highlight) // 2]
    observed = np.maximum(lit.image - shine, 0.03 * lit.image) + 1e-5
    deviation = np.log(observed) - np.log(np.maximum(albedo * lit.shading, 0) + 1e-5)
    deviation = np.clip(deviation, -2.5, 1.5)
    sigma = observation_sigma(lit, albedo, f0)
    confidence = lit.weight * PRIOR_SIGMA**2 / (PRIOR_SIGMA**2 + sigma**2)
    # A wide patch that is far from the prior is a shadow (or light) the geometry does not explain
    blur = max(4.0 / lit.mm_per_px, 1.0)
    mass = ndimage.gaussian_filter(confidence, blur) + 1e-4
    smooth = ndimage.gaussian_filter(luminance(deviation) * confidence, blur) / mass
    confidence = confidence / (1 + (smooth / OUTLIER_LOG) ** 4)
    return deviation.astype(np.float32), confidence.astype(np.float32)


def complete(deviation: Array, confidence: Array, symmetry: float) -> tuple[Array, Array]:
    """Fill a log-albedo deviation (T, T, 3) where confidence (T, T) is low: mirror first, then neighbours, then 0.

    The mirror texel lends its detail and its tone where it is surer; the neighbours (normalised convolution over
    coarser and coarser scales) lend only their tone; the rest is the statistical albedo.
    """
    mirror_c = confidence[:, ::-1]
    lend = (1 - confidence) * mirror_c * min(symmetry * 4, 1.0)
    total = confidence + lend
    value = (deviation * confidence[..., None] + deviation[:, ::-1] * lend[..., None]) / np.maximum(total, 1e-6)[
        ..., None
    ]
    size = confidence.shape[0]
    background = np.zeros_like(value)
    for scale in (16, 32, 64, 128):
        blur = size / scale
        mass = ndimage.gaussian_filter(total, blur)
        mean = ndimage.gaussian_filter(value * total[..., None], (blur, blur, 0)) / (mass[..., None] + 1e-3)
        known = np.clip(mass * 4, 0, 1)[..., None]
        background = background * (1 - known) + mean * known
    keep = np.clip(total, 0, 1)[..., None]
    return (value * keep + background * (1 - keep)).astype(np.float32), np.clip(total, 0, 1).astype(np.float32)


def sample_window(image: NDArray[np.floating], xy: Array) -> Array:
    """Bilinear lookup of a window image (S, S) or (S, S, C) at pixels (..., 2)."""
    rows, columns = xy[..., 1] - 0.5, xy[..., 0] - 0.5
    planes = image[..., None] if image.ndim == 2 else image
    out = [
        ndimage.map_coordinates(planes[..., c], [rows, columns], order=1, mode="nearest")
        for c in range(planes.shape[2])
    ]
    return (out[0] if image.ndim == 2 else np.stack(out, axis=-1)).astype(np.float32)


def start_maps(lit: Lit, texels: Texels, statistical: Array, f0: Array, roughness: Array, config: Stage2Config) -> Maps:
    """Closed-form maps.

    Args:
        statistical: (T, T, 3) albedo of stage 1.
        f0, roughness: (T, T) regional priors.
    """
    seen_albedo = sample_texture(statistical, lit.uv)
    seen_f0 = sample_texture(f0, lit.uv)
    deviation, confidence = pixel_albedo(lit, seen_albedo, seen_f0)
    texel_confidence = sample_window(confidence, texels.xy) * texels.visible
    texel_deviation = sample_window(deviation, texels.xy)
    filled, _ = complete(texel_deviation, texel_confidence, config.symmetry)
    diffuse = np.clip(statistical * np.exp(filled), 0.002, 0.98)
    return Maps(
        diffuse.astype(np.float32), np.repeat(f0[..., None], 3, 2).astype(np.float32),
        roughness.astype(np.float32), np.clip(texel_confidence, 0, 1).astype(np.float32),
    )  # fmt: skip


def sample_texture(texture: NDArray[np.floating], uv: Array) -> Array:
    """Bilinear lookup of a texture (T, T) or (T, T, C), row 0 at v = 1, at uv (..., 2)."""
    size = texture.shape[0]
    xy = np.stack([uv[..., 0] * size, (1 - uv[..., 1]) * size], axis=-1)
    return sample_window(texture, xy)


def descend(
    lit: Lit, maps: Maps, statistical: Array, config: Stage2Config, progress: Callable[[str, float], None]
) -> tuple[Maps, list[float]]:
    """Descent on the three maps through the cached transport.

    Unknowns are log offsets on the closed-form start, which already holds the finest detail: diffuse on a grid of
    T / 2, F0 and roughness on T / 8, because one light's highlight says little about single texels. Loss terms are
    means, so no weight depends on resolution.
    """
    if config.iterations == 0:
        return maps, []
    t = torch.from_numpy
    T = maps.diffuse.shape[0]
    half, eighth = max(T // 2, 16), max(T // 8, 8)
    grid = t(np.stack([lit.uv[..., 0] * 2 - 1, 1 - lit.uv[..., 1] * 2], axis=-1)[None].astype(np.float32))

    def reduced(texture: Array) -> torch.Tensor:
        planes = t(np.ascontiguousarray(texture)).reshape(T, T, -1).permute(2, 0, 1)[None]
        return torch.nn.functional.interpolate(planes, size=(half, half), mode="area")

    def texture_at(texture: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.grid_sample(texture, grid, align_corners=False, padding_mode="border")

    def enlarged(offset: torch.Tensor, size: int) -> torch.Tensor:
        return torch.nn.functional.interpolate(offset, size=(size, size), mode="bilinear", align_corners=False)

    def planes(image: Array) -> torch.Tensor:
        return t(np.ascontiguousarray(image)).reshape(*image.shape[:2], -1).permute(2, 0, 1)[None]

    start, sure = reduced(np.log(maps.diffuse)), reduced(maps.confidence)
    anchor = reduced(np.log(np.clip(statistical, 0.002, 0.98)))
    start_seen = planes(np.log(np.maximum(sample_texture(maps.diffuse, lit.uv), 0.002)))
    f0_seen = planes(sample_texture(maps.specular[..., 0], lit.uv))
    _, confidence = pixel_albedo(
        lit, sample_texture(statistical, lit.uv), sample_texture(maps.specular[..., 0], lit.uv)
    )
    weight = planes(np.maximum(confidence, 0.0))
    weight = weight / weight.sum().clamp_min(1e-6)
    image, shading = planes(lit.image), planes(lit.shading)
    highlight, knots = t(lit.highlight).permute(0, 3, 1, 2), t(lit.roughness_steps).log()
    fitted = lit.weight > 0.05
    scale = float(luminance(lit.image)[fitted].mean()) if fitted.any() else 1.0
    x = torch.zeros_like(start, requires_grad=True)
    s = torch.zeros(1, 1, eighth, eighth, requires_grad=True)
    r = torch.zeros(1, 1, eighth, eighth, requires_grad=True)
    optimiser = torch.optim.Adam([{"params": [x], "lr": 0.01}, {"params": [s, r], "lr": 0.03}], betas=(0.9, 0.95))
    lend = (1 - sure) * torch.flip(sure, dims=(3,))
    history: list[float] = []
    for _ in range(config.iterations):
        optimiser.zero_grad()
        gloss = _interpolate(highlight, knots, texture_at(r))
        predicted = (start_seen + texture_at(x)).exp() * shading + f0_seen * texture_at(s).exp() * gloss
        photometric = (charbonnier((predicted - image) / scale, 0.01) * weight).sum() / 3
        log_diffuse = start + x
        mirror = torch.flip(log_diffuse, dims=(3,)).detach()
        symmetry = (charbonnier(log_diffuse - mirror, 0.05) * lend).mean()
        symmetry = symmetry + ((s - torch.flip(s, dims=(3,))) ** 2 + (r - torch.flip(r, dims=(3,))) ** 2).mean()
        consistency = ((log_diffuse - anchor) ** 2 * (1 - sure)).mean() + (x**2).mean()
        consistency = consistency + 2 * (s**2).mean() + 2 * (r**2).mean()
        smooth = edge_aware_smoothness(x, start) + 4 * edge_aware_smoothness(torch.cat([s, r], 1), None)
        loss = photometric + config.symmetry * symmetry + config.consistency * consistency + config.smoothness * smooth
        loss.backward()
        optimiser.step()
        with torch.no_grad():
            s.clamp_(-1.2, 0.7)
            r.clamp_(float(knots[0]), float(knots[-1]))
        history.append(float(photometric.detach()))
        progress("stage 2", history[-1])
    with torch.no_grad():
        offset = enlarged(x, T)[0].permute(1, 2, 0).numpy()
        specular = maps.specular * enlarged(s, T)[0, 0].exp().numpy()[..., None]
        roughness = maps.roughness * enlarged(r, T)[0, 0].exp().numpy()
    diffuse = np.clip(maps.diffuse * np.exp(offset), 0.002, 0.98)
    return Maps(diffuse, specular, np.clip(roughness, 0.1, 1.0), maps.confidence), history


def _interpolate(stack: torch.Tensor, knots: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Piecewise linear interpolation of images (R, 3, S, S) with knots (R,) at values (1, 1, S, S)."""
    out = torch.zeros_like(stack[:1])
    for k in range(len(knots)):
        left = (at - knots[k - 1]) / (knots[k] - knots[k - 1]) if k > 0 else torch.ones_like(at)
        right = (knots[k + 1] - at) / (knots[k + 1] - knots[k]) if k + 1 < len(knots) else torch.ones_like(at)
        out = out + torch.clamp(torch.minimum(left, right), 0, 1) * stack[k : k + 1]
    return out
