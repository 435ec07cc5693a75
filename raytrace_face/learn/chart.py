"""The photo unwrapped onto the face: what each texel of the chart shows.

On the chart every texel is the same point of every face, and its normal is known in the head's frame. So shading reads
as light without a network having to learn pose first, which is what a few thousand people do not suffice for; and what
decoders say of a texel can rest on what the photo shows there. The encoder sees the photo through its start; the
decoders through what the encoder says, or their details would stand beside where they are shown.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from lightstage.rig import geodesic
from raytrace_face.face.model import FaceModel
from raytrace_face.learn.head import TorchHead, project
from raytrace_face.learn.light import Lights, lobe_irradiance, luminance
from raytrace_face.learn.parameters import Predicted

if TYPE_CHECKING:
    from raytrace_face.tracer.texture import TexelMap

MEAN, SPREAD = 0.45, 0.25
"""Of sRGB codes in photos of faces; inputs are brought to about N(0, 1)."""
GRAZING = (0.1, 0.35)
"""Cosines to the eye between which a texel counts more and more: what grazes is mixed with what lies behind."""
CHANNELS = 8
"""Codes (3), how well the texel is seen, normal (3), cosine to the eye."""
EVIDENCE = 6
"""Channels of `evidence`."""
DARK = 0.02
"""Linear light added to both sides of a ratio: what is darker is noise and codes of 8 bits."""
GREY = 0.01
"""Difference of codes below which a photo is monochrome: two of 255, what rounding leaves."""
EXPOSED = 0.4
"""Quantile of the log ratio of photo and prediction that exposure brings to nought. Texels count by their codes, so
that shadows which `learn.shadow` does not know hardly do; less than half, because predictions are brighter than photos
in more texels than not. Of 0.35 to 0.5, seven real photos were best at 0.4 and below (0.3 dB), Yale B at 0.5 (0.1)."""
TEXELS = 50
"""Texels in view, of a quarter of all, below which exposure is left as it is."""
RATIO = 2.0
"""Greatest log ratio of photo and prediction that counts: beyond are shadows and other things, not skin."""


@dataclass(frozen=True)
class Chart:
    """Texels of the face model; T texels a side, row 0 at v = 1."""

    size: int
    mixing: Tensor
    """(T * T, V) sparse: the weights of the vertices about each texel."""
    inside: Tensor
    """(T, T) 1 where the texel lies on the skin of the face."""

    @classmethod
    def of(cls, model: FaceModel, texels: TexelMap) -> Chart:
        """The texels of the model's face."""
        face = torch.from_numpy(texels.spread(model.regions["face"].astype("float32")) * texels.inside)
        rows = np.repeat(np.arange(texels.size**2), 3)
        place = torch.from_numpy(np.stack([rows, texels.corners.ravel()]))
        weight, shape = torch.from_numpy(texels.barycentric.ravel()), (texels.size**2, len(model.mean))
        mixing = torch.sparse_coo_tensor(place, weight, shape, check_invariants=True).coalesce()
        return cls(texels.size, mixing, (face > 0.05).float())

    def to(self, device: torch.device) -> Chart:
        """The same on another device."""
        return replace(self, mixing=self.mixing.to(device), inside=self.inside.to(device))

    def points(self, vertices: Tensor) -> Tensor:
        """(B, T, T, 3) points of the texels on vertices (B, V, 3)."""
        mixed = self.mixing @ vertices.permute(1, 0, 2).flatten(1)
        return mixed.view(self.size, self.size, len(vertices), 3).permute(2, 0, 1, 3)


@torch.no_grad()
def unwrap(head: TorchHead, chart: Chart, face: Predicted, crop: Tensor) -> Tensor:
    """(B, CHANNELS, T, T) photos of B faces on the chart, through shape and pose as they are taken to be.

    Visibility is told by the cosine to the eye alone; what a nose or a hand hides is not known here.

    Args:
        crop: (B, 3, S, S) sRGB codes in [0, 1].
    """
    points = chart.points(head.vertices(face.identity, face.expression))
    normal = normals(points)
    xy, _ = project(face, points.flatten(1, 2))
    xy = xy.view(*points.shape[:3], 2)
    T = face.T_camera_head
    eye = -(T[:, :3, :3].mT @ T[:, :3, 3:])[:, :, 0]
    facing = (normal * functional.normalize(eye[:, None, None] - points, dim=3)).sum(dim=3)
    low, high = GRAZING
    in_photo = ((xy > 0) & (xy < 1)).all(dim=3)
    seen = ((facing - low) / (high - low)).clamp(0, 1) * in_photo * chart.inside
    codes = functional.grid_sample(crop, 2 * xy - 1, padding_mode="border", align_corners=False)
    parts = ((codes - MEAN) / SPREAD * seen[:, None], seen[:, None], normal.permute(0, 3, 1, 2), facing[:, None])
    return torch.cat(parts, dim=1)


def normals(points: Tensor) -> Tensor:
    """(B, T, T, 3) unit normals of a chart of points, by central differences; 0 where the chart has no area."""
    padded = functional.pad(points.permute(0, 3, 1, 2), (1, 1, 1, 1), mode="replicate").permute(0, 2, 3, 1)
    along_u = padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]
    along_v = padded[:, :-2, 1:-1] - padded[:, 2:, 1:-1]  # rows count downwards
    return functional.normalize(torch.linalg.cross(along_u, along_v), dim=3)


def irradiance(lights: Lights, normal: Tensor, reach: Tensor | None = None) -> Tensor:
    """(B, T, T, 3) irradiance / pi of surfaces with normals (B, T, T, 3) in the head frame.

    Args:
        reach: (B, L, T, T) share of each light that arrives; default all of it, no shadow.
    """
    cos = torch.einsum("bhwi,bli->bhwl", normal, lights.directions()).clamp_min(0)
    if reach is not None:
        cos = cos * reach.movedim(1, 3)
    sky = lobe_irradiance(normal @ normal.new_tensor(geodesic(0).vertices).T)
    return torch.einsum("bhwl,blc->bhwc", cos, lights.irradiance) + torch.einsum("bhwa,bac->bhwc", sky, lights.ambient)


def evidence(unwrapped: Tensor, lights: Lights, log_albedo: Tensor, reach: Tensor) -> Tensor:
    """(B, EVIDENCE, T, T) what the photo says about a predicted albedo under predicted lights, texel by texel.

    Log ratio of the photo to albedo times irradiance without shadows (3), how well the texel is seen, the log of the
    irradiance, and the log of what cast shadows leave of it. The ratio holds what is personal, and cast shadows,
    highlights and hair: telling them apart is what the decoders learn. A monochrome photo says nothing of colour: its
    ratio is that of the luminance.

    Args:
        unwrapped: of `unwrap`.
        log_albedo: (B, T, T, 3).
        reach: of `learn.shadow.reach`.
    """
    seen, normal = unwrapped[:, 3:4], unwrapped[:, 4:7].permute(0, 2, 3, 1)
    codes = codes_of(unwrapped)
    light = irradiance(lights, normal)
    shaded = (log_albedo.exp() * light).permute(0, 3, 1, 2)
    coloured = (codes.amax(dim=1) - codes.amin(dim=1)).amax(dim=(1, 2)) > GREY
    grey = luminance(shaded.movedim(1, 3))[:, None].expand_as(shaded)
    shaded = torch.where(coloured.view(-1, 1, 1, 1), shaded, grey)
    ratio = ((linear_of(codes) + DARK) / (shaded + DARK)).log().clamp(-RATIO, RATIO)
    level, left = ((x.mean(dim=3) + DARK).log()[:, None] for x in (light, irradiance(lights, normal, reach)))
    return torch.cat([ratio * seen, seen, level, (left - level).clamp_min(-RATIO)], dim=1)


def exposure(unwrapped: Tensor, lights: Lights, log_albedo: Tensor, reach: Tensor) -> Tensor:
    """(B, 3) log gain of all lights, channel by channel, that brings a prediction to its photo's exposure.

    What a network says of exposure and white balance is off by a third; the photo itself tells both, up to the tone of
    the skin that they are seen on.

    Args:
        unwrapped: of `unwrap`.
        log_albedo: (B, T, T, 3).
        reach: of `learn.shadow.reach`.
    """
    every_other = unwrapped[..., ::2, ::2]
    shown, seen = evidence(every_other, lights, log_albedo[:, ::2, ::2], reach[..., ::2, ::2]), every_other[:, 3] > 0.5
    ratio, weight = shown[:, :3] / shown[:, 3:4].clamp_min(1e-3) - shown[:, 5:6], codes_of(every_other).mean(dim=1)
    gains = [
        weighted_quantile(ratio[i][:, seen[i]], weight[i][seen[i]], EXPOSED)
        if int(seen[i].sum()) > TEXELS
        else ratio.new_zeros(3)
        for i in range(len(ratio))
    ]
    return torch.stack(gains)


def weighted_quantile(values: Tensor, weights: Tensor, share: float) -> Tensor:
    """(C,) least of the values (C, N) in each row up to which lies this share of the weights (N,)."""
    ordered, index = values.sort(dim=1)
    until = weights[index].cumsum(dim=1)
    place = torch.searchsorted(until, share * until[:, -1:]).clamp_max(values.shape[1] - 1)
    return ordered.gather(1, place)[:, 0]


def codes_of(unwrapped: Tensor) -> Tensor:
    """(B, 3, T, T) sRGB codes in [0, 1] of `unwrap`; those of the mean where nothing is seen."""
    return (unwrapped[:, :3] / unwrapped[:, 3:4].clamp_min(1e-3) * SPREAD + MEAN).clamp(0, 1)


def linear_of(codes: Tensor) -> Tensor:
    """Linear light of sRGB codes in [0, 1]."""
    return torch.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)


def encoded(linear: Tensor) -> Tensor:
    """sRGB codes in [0, 1] of linear light."""
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear.clamp_min(1e-6) ** (1 / 2.4) - 0.055)
