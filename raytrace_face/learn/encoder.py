"""The encoder: two residual networks from the crop of a face, and from its chart, to the vector of `learn.parameters`.

One looks at the crop, the other at the same photo unwrapped onto the face (`learn.chart`), where light is read from
shading and the decoders find the skin. Each is a ResNet-18 (He et al., "Deep residual learning for image recognition",
CVPR 2016) with three changes, for these reasons:

- Group normalisation (Wu & He, ECCV 2018; 16 channels a group). Through the tracer a batch is a few photos, and they
  are traced while training and real; batch statistics would be noise. And every photo's loss depends on that photo
  alone, so that two processes make the same step as one with the double batch.
- A 4 x 4 grid of features instead of their mean over the picture. Crops are aligned: *where* the nose is dark tells
  where the light is (ArcFace found the same for identity: Deng et al., CVPR 2019, section 3.1, option E).
- The last layer starts at zero: the first prediction is the start itself, and no gradient is lost to saturation.

Input are sRGB codes, not linear light: noise and skin detail are about as large in dark as in bright codes, while in
linear light the shadow side, which says most about the light, would be one per cent of the range. The losses compare
linear light.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from raytrace_face.learn.chart import CHANNELS, MEAN, SPREAD
from raytrace_face.learn.parameters import EXPRESSION, SIZE
from raytrace_face.learn.start import IDENTITY, Start, rotation_vector

LANDMARKS = 478
"""Points of the landmark network."""
STEPS = (2, 2, 2, 2)
"""Residual blocks at 1/4, 1/8, 1/16 and 1/32 of the crop: ResNet-18."""
GROUP = 16
"""Channels normalised together."""
GRID = 4
"""Cells a side of the grid of features that the vector is read from."""


@dataclass(frozen=True)
class EncoderConfig:
    """Size of the network."""

    crop: int = 128
    """Side of the crop it is trained on, pixels, [64, 256]. The layers take any multiple of 32."""
    width: int = 32
    """Channels at the first scale of either network, a multiple of 16, [16, 128]; they double at each of the next
    three. 64 is ResNet-18; times of others are in docs/encoder.md."""
    latent: int = 256
    """Numbers that the vector and the texture decoders are read from, [32, 1024]."""


@dataclass(frozen=True)
class Hint:
    """What the landmark network saw, for B crops; the network also works without."""

    landmarks: Tensor
    """(B, 478, 2) sides of the crop from its top-left corner."""
    blendshapes: Tensor
    """(B, 52) expression weights in the order of the face model."""
    given: Tensor
    """(B,) bool: false where the photo has to do without."""

    def only(self, kept: Tensor) -> Hint:
        """The same with hints taken away where `kept` (B,) is false; training draws it at random."""
        return Hint(self.landmarks, self.blendshapes, self.given & kept)


class Encoder(nn.Module):
    """Crops and charts of faces to vectors of `learn.parameters`, and to what the decoders need."""

    def __init__(self, config: EncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or EncoderConfig()
        self.photo = Trunk(3, config.width, pooled=True)
        self.chart = Trunk(CHANNELS, config.width, pooled=False)
        channels = self.photo.channels[-1]
        self.photo_grid = nn.Conv2d(channels, channels // 4, 1)
        self.chart_grid = nn.Conv2d(channels, channels // 4, 1)
        self.hint = nn.Sequential(
            nn.Linear(2 * LANDMARKS + EXPRESSION + IDENTITY + 8, config.latent),
            nn.ReLU(inplace=True),
            nn.Linear(config.latent, config.latent),
            nn.ReLU(inplace=True),
        )
        self.join = nn.Linear(2 * GRID * GRID * (channels // 4) + config.latent, config.latent)
        self.mix = nn.Linear(config.latent, config.latent)
        self.out = nn.Linear(config.latent, SIZE)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, Residual):
                nn.init.zeros_(module.second_norm.weight)  # a block starts as the identity (Goyal et al. 2017, 5.1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        # a tenth to a third faster on the CPU; torch's stubs leave this form out
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, crop: Tensor, chart: Tensor, start: Start, hint: Hint | None = None) -> Code:
        """Predict.

        Args:
            crop: (B, 3, S, S) sRGB codes in [0, 1], S a multiple of 32; black outside the photo.
            chart: (B, CHANNELS, T, T) of `learn.chart.unwrap`, zero where no hint is given.
            start: what was known beforehand; where a hint is not given it must not come from landmarks either
                (`Start.where`).
            hint: None for none.
        """
        seen = self.photo((crop - MEAN) / SPREAD)[-1]
        scales = self.chart(functional.avg_pool2d(chart, 2).contiguous(memory_format=torch.channels_last))
        given = crop.new_zeros(len(crop)) if hint is None else hint.given
        scales = [scale * given.view(-1, 1, 1, 1) for scale in scales]  # biases see a chart where there is none
        grids = (self.photo_grid(seen), self.chart_grid(scales[-1]))
        features = [functional.adaptive_avg_pool2d(grid.relu(), GRID).flatten(1) for grid in grids]
        latent = self.join(torch.cat([*features, self._hinted(crop, start, hint)], dim=1)).relu()
        latent = (latent + self.mix(latent)).relu()
        return Code(self.out(latent), latent, tuple(scales))

    def _hinted(self, crop: Tensor, start: Start, hint: Hint | None) -> Tensor:
        """(B, latent) features of the hints, zero where none is given."""
        if hint is None:
            return crop.new_zeros(len(crop), self.config.latent)
        about = [
            (2 * hint.landmarks - 1).flatten(1),
            hint.blendshapes,
            start.identity,
            rotation_vector(start.rotation),
            start.centre - 0.5,
            start.log_width[:, None] - 5.6,
            start.log_distance[:, None] - 7.0,
            (start.log_distance - start.log_width)[:, None] - 1.4,  # log focal length
        ]
        return self.hint(torch.cat(about, dim=1).to(crop.dtype)) * hint.given[:, None]


@dataclass(frozen=True)
class Code:
    """What the encoder makes of B faces."""

    raw: Tensor
    """(B, SIZE) for `learn.parameters.unpack` with the same start."""
    latent: Tensor
    """(B, latent) for the decoders."""
    scales: tuple[Tensor, ...]
    """Features of the chart at 1/4, 1/8, 1/16 and 1/32 of its side, for the decoders."""


class Trunk(nn.Module):
    """The layers of ResNet-18 without its head: features at four scales."""

    def __init__(self, channels: int, width: int, pooled: bool) -> None:
        """Build.

        Args:
            channels: of the input.
            width: channels of the first scale.
            pooled: whether the stem halves the picture twice, as ResNet's, or once.
        """
        super().__init__()
        self.channels = [width << scale for scale in range(len(STEPS))]
        stem: list[nn.Module] = [
            nn.Conv2d(channels, width, 7, stride=2, padding=3, bias=False),
            nn.GroupNorm(width // GROUP, width),
            nn.ReLU(inplace=True),
        ]
        self.stem = nn.Sequential(*stem, *([nn.MaxPool2d(3, stride=2, padding=1)] if pooled else []))
        scales, before = [], width
        for scale, (count, after) in enumerate(zip(STEPS, self.channels, strict=True)):
            blocks = [Residual(after if k else before, after, 2 if scale and not k else 1) for k in range(count)]
            scales.append(nn.Sequential(*blocks))
            before = after
        self.scales = nn.ModuleList(scales)

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, channels, S, S) -> features at each scale, fine to coarse."""
        x = self.stem(x)
        out = []
        for scale in self.scales:
            x = scale(x)
            out.append(x)
        return out


class Residual(nn.Module):
    """The basic block of ResNet: two 3 x 3 convolutions beside a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.first_norm = nn.GroupNorm(after // GROUP, after)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.second_norm = nn.GroupNorm(after // GROUP, after)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or before != after:
            self.shortcut = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(after // GROUP, after)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, after, H / stride, W / stride)."""
        y = self.first_norm(self.first(x)).relu()
        return (self.second_norm(self.second(y)) + self.shortcut(x)).relu()
