"""Columns of real photos, traced once while the encoder is fixed (`learn.render`)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raytrace_face.learn.chart import linear_of
from raytrace_face.learn.objective import Faces, Target, World, look_at
from raytrace_face.learn.render import Columns, trace_columns


class ColumnStore:
    """Columns, weights and pixels by number of the photo."""

    def __init__(self, limit: int) -> None:
        """Keep `limit` photos; the others are traced anew, with the same noise."""
        self.limit = limit
        self.kept: dict[int, tuple[Columns, Tensor, NDArray[np.int64]]] = {}

    def of(
        self, world: World, faces: Faces, batch: dict[str, Any], size: int, samples: int
    ) -> tuple[Target, list[Columns]]:
        """What the photos of a batch show, and their columns."""
        numbers = [int(n) for n in batch["number"]]
        target = look_at(world, faces, batch, size) if any(n not in self.kept for n in numbers) else None
        rows = []
        for i, number in enumerate(numbers):
            if number in self.kept:
                rows.append(self.kept[number])
                continue
            assert target is not None
            pixels = target.pixels[i]
            columns = trace_columns(
                world.scene, faces.predicted, faces.vertices, faces.maps, i, pixels, size, number, samples
            )
            rows.append((columns, target.weight[i], pixels))
            if len(self.kept) < self.limit:
                self.kept[number] = rows[-1]
        codes = torch.nn.functional.interpolate(batch["image"], (size, size), mode="area")
        photo = linear_of(codes).permute(0, 2, 3, 1)
        return Target(photo, torch.stack([w for _, w, _ in rows]), [p for _, _, p in rows]), [c for c, _, _ in rows]
