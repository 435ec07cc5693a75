"""Losses, each a mean so that no weight depends on the resolution of photo or texture."""

from __future__ import annotations

import torch


def charbonnier(x: torch.Tensor, scale: float) -> torch.Tensor:
    """Smooth L1, elementwise: sqrt(x^2 + s^2) - s."""
    return (x * x + scale * scale).sqrt() - scale


def edge_aware_smoothness(x: torch.Tensor, guide: torch.Tensor | None, edge: float = 0.1) -> torch.Tensor:
    """Mean squared difference of neighbours, less across edges of a guide image.

    Args:
        x: (B, C, H, W).
        guide: (B, D, H, W) whose differences d weigh by exp(-|d| / edge), or None for plain smoothness.

    Differences are taken per texel and scaled by the texture's size, so that the value is that of the gradient in
    units of the whole texture divided by 100: refining a texture does not change it.
    """
    total = x.new_zeros(())
    for dim in (2, 3):
        size = x.shape[dim]
        d = torch.diff(x, dim=dim) * (size / 100)
        w = 1.0 if guide is None else torch.exp(-torch.diff(guide, dim=dim).abs().mean(1, keepdim=True) / edge)
        total = total + (w * d * d).mean()
    return total


def photometric(predicted: torch.Tensor, observed: torch.Tensor, weight: torch.Tensor, scale: float) -> torch.Tensor:
    """Robust photometric loss of colours (P, 3) in units of `scale`, normalised by the weight (P,) of the pixels."""
    error = charbonnier((predicted - observed) / scale, 0.01).mean(dim=1)
    return (error * weight).sum() / weight.sum().clamp_min(1e-9)


def gaussian_prior(x: torch.Tensor) -> torch.Tensor:
    """Mean squared coefficient in standard deviations."""
    return (x * x).mean()
