"""Starts and vectors that the tests of `raytrace_face.learn` share."""

from __future__ import annotations

import numpy as np
import torch

from raytrace_face.learn import start as starts
from raytrace_face.learn.parameters import BLOCKS, EXPRESSION


def neutral(batch: int = 1) -> starts.Start:
    """The start of faces of which nothing is known, seen by cameras that look at the middle of the crop."""
    return starts.neutral(torch.full((batch, 2), 0.5), EXPRESSION)


def vector(**blocks: np.ndarray) -> torch.Tensor:
    """(1, SIZE) zero but for given blocks, each the network's output before scale and bounds."""
    parts = [torch.as_tensor(blocks.get(b.name, np.zeros(b.size)), dtype=torch.float32).reshape(-1) for b in BLOCKS]
    return torch.cat(parts)[None]
