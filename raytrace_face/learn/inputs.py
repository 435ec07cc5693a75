"""What the network is given of photos: crop, unwrapped crop, start and hint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from raytrace_face.learn.chart import Chart, unwrap
from raytrace_face.learn.encoder import Hint
from raytrace_face.learn.head import TorchHead
from raytrace_face.learn.parameters import as_it_is
from raytrace_face.learn.start import LandmarkStart, Start, neutral

Item = dict[str, Any]


@dataclass(frozen=True)
class Beheld:
    """What the network is given of B photos."""

    crop: Tensor
    """(B, 3, S, S) sRGB codes in [0, 1]."""
    chart: Tensor
    """(B, CHANNELS, T, T) of `learn.chart.unwrap`."""
    start: Start
    hint: Hint

    def tensors(self) -> tuple[Tensor, Tensor, tuple[Tensor, ...], tuple[Tensor, Tensor, Tensor]]:
        """The arguments of `FaceNetwork.forward`."""
        hint = (self.hint.landmarks, self.hint.blendshapes, self.hint.given)
        return self.crop, self.chart, self.start.tensors(), hint


def begun(start: LandmarkStart, item: Item) -> dict[str, Tensor]:
    """The start of an item of `learn.dataset`, field by field without the batch; the neutral one without landmarks."""
    principal = item["principal"]
    if bool(item["detected"]):
        found = start(item["landmarks"].numpy(), item["blendshapes"].numpy(), principal.numpy())
    else:
        found = neutral(principal[None], len(item["blendshapes"]))
    return {name: value[0] for name, value in zip(found.__dataclass_fields__, found.tensors(), strict=True)}


def behold(head: TorchHead, chart: Chart, batch: Item, kept: Tensor) -> Beheld:
    """What the network may see of a batch of items with their `start` (`begun`).

    Args:
        kept: (B,) bool, whether it is told the landmarks, if there are any.
    """
    given = batch["detected"].bool() & kept
    start = Start(**batch["start"]).where(given)
    crop = batch["image"].contiguous(memory_format=torch.channels_last)
    unwrapped = unwrap(head, chart, as_it_is(start), batch["image"]) * given.view(-1, 1, 1, 1)
    return Beheld(crop, unwrapped, start, Hint(batch["landmarks"], batch["blendshapes"], given))
