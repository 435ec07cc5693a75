"""Encoder and decoders as one module, with what the encoder's code usually looks like."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from raytrace_face.face.store import load_embedded
from raytrace_face.learn.chart import Chart, evidence, exposure, unwrap
from raytrace_face.learn.decoders import (
    Decoders,
    PredictedMaps,
    StatisticalSkin,
    embedded_skin,
    statistical_maps,
    with_increments,
)
from raytrace_face.learn.encoder import Encoder, EncoderConfig, Hint
from raytrace_face.learn.head import TorchHead
from raytrace_face.learn.lend import painted
from raytrace_face.learn.parameters import Predicted, unpack
from raytrace_face.learn.recipe import Network as Sizes
from raytrace_face.learn.shadow import open_sky, reach
from raytrace_face.learn.start import Start

MEMORY = 0.99
"""Of the moments of the code: what counts are the last hundred steps."""


class FaceNetwork(nn.Module):
    """What is trained, saved and shipped. Its forward takes and gives plain tensors, as wrappers for many processes
    want."""

    open_sky: Tensor
    """Of `learn.shadow`; not saved."""
    code_mean: Tensor
    """(latent,) mean of the code over the photos of training."""
    code_square: Tensor
    """(latent,) mean square."""
    log_mean: Tensor
    modes: Tensor
    """Of the statistical skin (`learn.decoders.StatisticalSkin`); not saved."""

    def __init__(self, sizes: Sizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.encoder = Encoder(EncoderConfig(sizes.crop, sizes.width, sizes.latent))
        self.decoders = Decoders(sizes.latent, self.encoder.chart.channels, sizes.texture, sizes.decoder_width)
        skin, _ = embedded_skin(sizes.texture)
        self.head, self.chart = embedded_chart(sizes.texture)
        self.register_buffer("log_mean", skin.log_mean, persistent=False)
        self.register_buffer("modes", skin.modes, persistent=False)
        self.register_buffer("open_sky", open_sky(sizes.texture), persistent=False)
        self.register_buffer("code_mean", torch.zeros(sizes.latent))
        self.register_buffer("code_square", torch.ones(sizes.latent))

    def forward(
        self, crop: Tensor, chart: Tensor, start: tuple[Tensor, ...], hint: tuple[Tensor, Tensor, Tensor],
        decoded: bool, lent: Tensor | None = None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """Predict.

        Args:
            crop: (B, 3, S, S) sRGB codes in [0, 1].
            chart: (B, CHANNELS, T, T) of `learn.chart.unwrap`.
            start: the fields of `Start`.
            hint: the fields of `Hint`.
            decoded: whether the decoders run.
            lent: (B, 3, T, T) factors by which the photo is to differ on the chart (`learn.lend`).

        Returns:
            raw: (B, SIZE); latent: (B, latent); and if decoded gain (`learn.chart.exposure`), diffuse, specular,
            confidence (`Decoders.increments`).
        """
        given = hint[2].view(-1, 1, 1, 1)  # of the chart, too, nothing is seen without landmarks
        if lent is not None:
            chart = painted(chart, lent)
        code = self.encoder(crop, chart * given, Start(*start), Hint(*hint))
        out = {"raw": code.raw, "latent": code.latent}
        if decoded:
            face = unpack(code.raw, Start(*start))
            albedo = self.log_mean + torch.tensordot(face.albedo, self.modes, dims=1)
            again = unwrap(self.head.to(crop.device), self.chart.to(crop.device), face, crop) * given
            if lent is not None:
                again = painted(again, lent)
            shaded = reach(face.lights, self.open_sky, self.chart.size)
            out["gain"] = exposure(again, face.lights, albedo, shaded)
            with torch.no_grad():  # decoders are judged by their maps, lights by theirs
                shown = evidence(again, face.lights.exposed(out["gain"]), albedo, shaded)
            values = self.decoders.increments(code.latent, code.scales, shown)
            out |= dict(zip(("diffuse", "specular", "confidence"), values, strict=True))
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


@cache
def embedded_chart(texture: int) -> tuple[TorchHead, Chart]:
    """The embedded head and its chart, T texels a side."""
    model = load_embedded(0)
    return TorchHead.of(model), Chart.of(model, embedded_skin(texture)[1])


def face_of(out: dict[str, Tensor], start: Start) -> Predicted:
    """The faces of a prediction."""
    face = unpack(out["raw"], start)
    return replace(face, lights=face.lights.exposed(out["gain"])) if "gain" in out else face


def maps_of(out: dict[str, Tensor], albedo: Tensor, skin: StatisticalSkin) -> PredictedMaps:
    """The maps of a prediction, whether decoded or statistical."""
    if "diffuse" not in out:
        return statistical_maps(skin, albedo)
    return with_increments(skin, albedo, out["diffuse"], out["specular"], out["confidence"])
