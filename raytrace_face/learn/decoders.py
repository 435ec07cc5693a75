"""Reflectance maps of a prediction: the statistical ones, and what two decoders add to them.

As published (ICCV 2021, arXiv 2103.15432): a decoder of seven convolutional layers each for diffuse and specular
increments, read from the encoder's latent code, over the statistical albedo. Increments are log factors here, so that
no albedo is negative; both are bounded. A third output says how far the diffuse map is to be trusted.

Through a code of a few hundred numbers alone, no map shows a mole. So the decoders also see, coarse to fine, the
encoder's features of the chart and the *evidence* there: the log ratio of the photo to the statistical albedo under
the predicted lights (`learn.chart`). The diffuse one may take a part of that ratio over as it is, the gain; whatever
it takes of a cast shadow is shadow baked into skin, and synthetic photos punish it. The last layers start at zero: the
first maps are the statistical ones but for a small gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from raytrace_face.backend import ensure_started
from raytrace_face.face.model import FaceModel
from raytrace_face.face.skin_prior import DIFFUSE_RANGE, roughness_prior, skin_prior, specular_prior
from raytrace_face.face.store import load_embedded
from raytrace_face.learn.chart import EVIDENCE
from raytrace_face.learn.parameters import bounded
from raytrace_face.types import Array, Maps

if TYPE_CHECKING:
    from raytrace_face.tracer.texture import TexelMap

DOUBLINGS = 5
"""Of the texture's side from the code to the map; with a layer before and one after, seven layers."""
DIFFUSE_LOG = 0.9
"""Bound of the log factor on diffuse albedo: three standard deviations (`face.skin_prior.PERSONAL_SIGMA`)."""
SPECULAR_LOG = (-1.2, 0.7)
"""Bounds of the log factor on F0: 0.01 to 0.07 for skin (`fit.stage2.STRENGTH_RANGE`)."""
DOUBT = 2.0
"""Log odds against the diffuse map before training: confidence 0.12, near that of the statistical albedo, 0."""
RESERVE = 3.0
"""Log odds against taking the photo's own ratio over, before training: gain 0.05."""


@dataclass(frozen=True)
class StatisticalSkin:
    """`face.skin_prior` laid out on a texture of T texels a side; row 0 at v = 1."""

    log_mean: Tensor
    """(T, T, 3) mean log albedo."""
    modes: Tensor
    """(M, T, T, 3) log albedo for one standard deviation."""
    specular: Tensor
    """(T, T) F0."""
    roughness: Tensor
    """(T, T) perceptual."""

    @classmethod
    def of(cls, model: FaceModel, texels: TexelMap) -> StatisticalSkin:
        """The prior of a model on the texels of `tracer.texture.texel_map`."""
        prior = skin_prior(model)

        def spread(values: Array) -> Tensor:
            return torch.from_numpy(texels.spread(values).astype(np.float32))

        return cls(
            spread(prior.log_mean + prior.offset),
            torch.stack([spread(mode) for mode in prior.modes]),
            spread(specular_prior(model)),
            spread(roughness_prior(model)),
        )

    def log_diffuse(self, coefficients: Tensor) -> Tensor:
        """(B, T, T, 3) log diffuse albedo of coefficients (B, M)."""
        M, T = self.modes.shape[:2]
        return self.log_mean + (coefficients.to(self.modes.dtype) @ self.modes.view(M, -1)).view(-1, T, T, 3)


@dataclass(frozen=True)
class PredictedMaps:
    """Reflectance of B faces; rows from v = 1 down."""

    diffuse: Tensor
    """(B, T, T, 3) albedo."""
    specular: Tensor
    """(B, T, T) F0."""
    roughness: Tensor
    """(B, T, T) perceptual: the prior's; one photo says little of it."""
    confidence: Tensor
    """(B, T, T) in [0, 1], 0: the statistical albedo's own uncertainty."""
    diffuse_increment: Tensor
    """(B, T, T, 3) log factor on the statistical diffuse albedo."""
    specular_increment: Tensor
    """(B, T, T) log factor on the prior F0."""

    def maps(self, item: int) -> Maps:
        """One item's maps as the rest of the program holds them."""
        values = (
            self.diffuse,
            self.specular[..., None].expand(*self.specular.shape, 3),
            self.roughness,
            self.confidence,
        )
        return Maps(*(np.ascontiguousarray(v[item].detach().cpu().numpy(), np.float32) for v in values))


def statistical_maps(skin: StatisticalSkin, albedo: Tensor) -> PredictedMaps:
    """The maps of statistical coefficients (B, M) alone: before the decoders are trained, and without them."""
    T = skin.specular.shape[0]
    zero = skin.log_mean.new_zeros(len(albedo), T, T)
    return with_increments(skin, albedo, zero[..., None].expand(-1, -1, -1, 3), zero, zero)


def with_increments(
    skin: StatisticalSkin, albedo: Tensor, diffuse: Tensor, specular: Tensor, confidence: Tensor
) -> PredictedMaps:
    """The maps of statistical coefficients (B, M) with what `Decoders.increments` adds."""
    return PredictedMaps(
        diffuse=(skin.log_diffuse(albedo) + diffuse).exp().clamp(*DIFFUSE_RANGE),
        specular=skin.specular * specular.exp(),
        roughness=skin.roughness.expand(len(albedo), -1, -1),
        confidence=confidence,
        diffuse_increment=diffuse,
        specular_increment=specular,
    )


class Decoders(nn.Module):
    """Both decoders: diffuse (three channels, gain and confidence) and specular."""

    def __init__(self, latent: int, scales: Sequence[int], texture: int = 128, width: int = 32) -> None:
        """Build.

        Args:
            latent: length of the encoder's code.
            scales: channels of the encoder's features of the chart, fine to coarse.
            texture: texels a side, a multiple of 32: 128, or 256 as published.
            width: channels of the coarsest layer, [16, 256]; halved at every second doubling.
        """
        super().__init__()
        self.diffuse = TextureDecoder(latent, scales, texture, width, 5)
        self.specular = TextureDecoder(latent, scales, texture, width, 1)

    def increments(self, latent: Tensor, scales: Sequence[Tensor], evidence: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log factors on diffuse albedo (B, T, T, 3) and F0 (B, T, T), and confidence (B, T, T).

        Args:
            latent: (B, latent).
            scales: of `learn.encoder.Code`.
            evidence: (B, EVIDENCE, T, T) of `learn.chart.evidence`.
        """
        out = self.diffuse(latent, scales, evidence)
        taken = torch.sigmoid(out[..., 3:4] - RESERVE) * evidence[:, :3].permute(0, 2, 3, 1)
        increment = bounded(taken + out[..., :3], -DIFFUSE_LOG, DIFFUSE_LOG)
        gloss = bounded(self.specular(latent, scales, evidence)[..., 0], *SPECULAR_LOG)
        return increment, gloss, torch.sigmoid(out[..., 4] - DOUBT)


class TextureDecoder(nn.Module):
    """Seven 3 x 3 convolutions from a code to a texture, the five in the middle each after a doubling of its side."""

    def __init__(self, latent: int, scales: Sequence[int], texture: int, width: int, channels: int) -> None:
        super().__init__()
        if texture % (1 << DOUBLINGS):
            raise ValueError(f"texture is {texture}: it must be a multiple of {1 << DOUBLINGS}")
        self.side = texture >> DOUBLINGS
        self.width = width
        self.spread = nn.Linear(latent, width * self.side * self.side)
        widths = [width, *(max(width >> (k // 2), 16) for k in range(DOUBLINGS + 1))]
        self.narrow = nn.ModuleList(nn.Conv2d(c, width // 2, 1) for c in reversed(scales))
        added = [*[width // 2] * len(scales), EVIDENCE, EVIDENCE]  # at T/32, T/16, T/8, T/4, T/2 and T
        self.layers = nn.ModuleList(
            nn.Conv2d(a + skip, b, 3, padding=1) for (a, b), skip in zip(pairwise(widths), added, strict=True)
        )
        self.last = nn.Conv2d(widths[-1], channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        assert self.last.bias is not None
        nn.init.zeros_(self.last.bias)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, latent: Tensor, scales: Sequence[Tensor], evidence: Tensor) -> Tensor:
        """(B, latent) and what is seen on the chart -> (B, T, T, channels)."""
        skips = [narrow(scale) for narrow, scale in zip(self.narrow, reversed(scales), strict=True)]
        evidence = evidence.contiguous(memory_format=torch.channels_last)
        skips += [functional.avg_pool2d(evidence, 2), evidence]
        x = self.spread(latent).view(-1, self.width, self.side, self.side)
        x = x.contiguous(memory_format=torch.channels_last)
        for k, (layer, skip) in enumerate(zip(self.layers, skips, strict=True)):
            if k:
                x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = functional.leaky_relu(layer(torch.cat([x, skip], dim=1)), 0.2)
        return self.last(x).permute(0, 2, 3, 1)


@cache
def embedded_skin(texture: int) -> tuple[StatisticalSkin, TexelMap]:
    """The embedded head's skin and its texels, T a side, which are found by tracing."""
    ensure_started()
    from raytrace_face.tracer.texture import texel_map

    model = load_embedded(0)
    texels = texel_map(model, texture)
    return StatisticalSkin.of(model, texels), texels
