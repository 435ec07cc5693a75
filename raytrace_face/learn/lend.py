"""Details of real faces lent to synthetic people, on the chart.

Skin that is drawn is even: brows, lips, freckles and moles, but no wrinkle, no stubble in its own light, no scar. From
it decoders learn that the fine structure of a photo is noise, shadow edge or hair, and they let it go wherever a photo
does not look like the real ones of training, which are lit softly. On the chart all faces lie on top of each other. So
what a real photo shows there, finely, is multiplied into the photo of a synthetic person and into the truth of its
albedo: real detail under every light, with its truth.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raytrace_face.learn.chart import DARK, MEAN, SPREAD, codes_of, encoded, linear_of

COARSE = 16
"""Texels of 128 over which detail is compared with its surroundings: a mouth is 34 wide, a nose 24. What is broader
may be shading. With 32, decoders dare as much and see less of it (docs/encoder.md)."""
GREATEST = 0.7
"""Bound of the log factor, reached smoothly: a black brow in pale skin. Beyond are hair and the border of the face."""
STRENGTH = (0.0, 1.3)
"""Factor on a lent detail, drawn evenly: from bare skin to more than was there."""


def details(chart: Tensor) -> Tensor:
    """(B, 3, T, T) log factors of fine structure on the chart of photos; 0 where nothing is seen.

    Args:
        chart: (B, CHANNELS, T, T) of `learn.chart.unwrap`.
    """
    seen = chart[:, 3:4]
    log = (linear_of(codes_of(chart)) + DARK).log()
    side = max(chart.shape[2] // (128 // COARSE), 1)
    area = functional.avg_pool2d(seen, side)
    coarse = functional.avg_pool2d(log * seen, side) / area.clamp_min(1e-3)
    around = functional.interpolate(torch.cat([coarse * area, area], dim=1), chart.shape[2:], mode="bilinear")
    fine = log - around[:, :3] / around[:, 3:].clamp_min(1e-3)
    return torch.tanh(fine / GREATEST) * GREATEST * seen


def lend(lenders: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """(B, 3, T, T) factors on the photos and the true albedo of B synthetic people, of the details of real photos.

    Whose, mirrored or not, and how strongly is drawn for each.

    Args:
        lenders: (N, CHANNELS, T, T) charts of real photos.
    """
    lent = details(lenders)[torch.from_numpy(rng.integers(len(lenders), size=count))]
    mirrored = torch.from_numpy(rng.random(count) < 0.5).view(-1, 1, 1, 1)
    strength = torch.from_numpy(rng.uniform(*STRENGTH, count).astype(np.float32)).view(-1, 1, 1, 1)
    return (torch.where(mirrored, lent.flip(3), lent) * strength).exp()


def painted(chart: Tensor, factor: Tensor) -> Tensor:
    """Charts (B, CHANNELS, T, T) of photos whose linear light is multiplied by factors (B, 3, T, T)."""
    linear = (linear_of(codes_of(chart)) * factor).clamp(0, 1)
    return torch.cat([(encoded(linear) - MEAN) / SPREAD * chart[:, 3:4], chart[:, 3:]], dim=1)
