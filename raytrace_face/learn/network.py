"""Encoder and decoders as one module, with what the encoder's code usually looks like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from raytrace_face.learn.decoders import Decoders, PredictedMaps, StatisticalSkin, statistical_maps, with_increments
from raytrace_face.learn.encoder import Encoder, EncoderConfig, Hint
from raytrace_face.learn.head import TorchHead
from raytrace_face.learn.recipe import Network as Sizes
from raytrace_face.learn.start import CROP_MM, Start, of_landmarks

MEMORY = 0.99
"""Of the moments of the code: what counts are the last hundred steps."""


class FaceNetwork(nn.Module):
    """What is trained, saved and shipped. Its forward takes and gives plain tensors, as wrappers for many processes
    want."""

    code_mean: Tensor
    """(latent,) mean of the code over the photos of training."""
    code_square: Tensor
    """(latent,) mean square."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(EncoderConfig(sizes.crop, sizes.width, sizes.latent))
        self.decoders = Decoders(sizes.latent, sizes.texture, sizes.decoder_width)
        self.register_buffer("code_mean", torch.zeros(sizes.latent))
        self.register_buffer("code_square", torch.ones(sizes.latent))

    def forward(
        self, crop: Tensor, start: tuple[Tensor, ...], hint: tuple[Tensor, Tensor, Tensor], decoded: bool
    ) -> dict[str, Tensor]:
        """Predict.

        Args:
            crop: (B, 3, S, S) sRGB codes in [0, 1].
            start: the fields of `Start`.
            hint: the fields of `Hint`.
            decoded: whether the decoders run.

        Returns:
            raw: (B, SIZE); latent: (B, latent); and if decoded diffuse, specular, confidence (`Decoders.increments`).
        """
        raw, latent = self.encoder(crop, Start(*start), Hint(*hint))
        out = {"raw": raw, "latent": latent}
        if decoded:
            out |= dict(zip(("diffuse", "specular", "confidence"), self.decoders.increments(latent), strict=True))
        return out

    @torch.no_grad()
    def remember(self, latent: Tensor) -> None:
        """Let the codes (B, latent) of a step into the moments."""
        self.code_mean.lerp_(latent.mean(dim=0), 1 - MEMORY)
        self.code_square.lerp_((latent**2).mean(dim=0), 1 - MEMORY)

    @torch.no_grad()
    def strangeness(self, latent: Tensor) -> Tensor:
        """(B,) root mean square deviation of codes from those of training, in standard deviations; about 1."""
        variance = (self.code_square - self.code_mean**2).clamp_min(1e-4)
        return ((latent - self.code_mean) ** 2 / variance).mean(dim=1).sqrt()

    def learning(self, encoder: bool, decoders: bool) -> dict[str, nn.Parameter]:
        """Let only these parts learn; their parameters by name."""
        self.encoder.requires_grad_(encoder)
        self.decoders.requires_grad_(decoders)
        return {name: p for name, p in self.named_parameters() if p.requires_grad}


@dataclass(frozen=True)
class Beheld:
    """What the network is given of B photos."""

    crop: Tensor
    start: Start
    hint: Hint

    def tensors(self) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, Tensor, Tensor]]:
        """The arguments of `FaceNetwork.forward`."""
        return self.crop, self.start.tensors(), (self.hint.landmarks, self.hint.blendshapes, self.hint.given)


def behold(head: TorchHead, batch: dict[str, Any], kept: Tensor) -> Beheld:
    """What the network may see of a batch of `learn.dataset`.

    Args:
        kept: (B,) bool, whether it is told the landmarks, if there are any.
    """
    given = batch["detected"].bool() & kept
    used = batch["landmarks"][:, head.landmark_index]
    points = head.mean_landmarks()
    # landmarks that are lacking are zeros, of which there is no pose: the mean face's stand in, and are not used
    used = torch.where(given[:, None, None], used, points[:, :2] * torch.tensor([1.0, -1.0]) / CROP_MM + 0.5)
    start = of_landmarks(points, used, batch["principal"], batch["blendshapes"]).where(given)
    crop = batch["image"].contiguous(memory_format=torch.channels_last)
    return Beheld(crop, start, Hint(batch["landmarks"], batch["blendshapes"], given))


def maps_of(out: dict[str, Tensor], albedo: Tensor, skin: StatisticalSkin) -> PredictedMaps:
    """The maps of a prediction, whether decoded or statistical."""
    if "diffuse" not in out:
        return statistical_maps(skin, albedo)
    return with_increments(skin, albedo, out["diffuse"], out["specular"], out["confidence"])
