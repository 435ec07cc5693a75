"""Learning rate over a stage, and which parameters decay."""

from __future__ import annotations

import math
from typing import Any

import torch


def schedule(done: float, warm_up: float) -> float:
    """Factor on the learning rate after a share of the steps: a ramp, then half a cosine to zero."""
    if done < warm_up:
        return (done + 1e-3) / (warm_up + 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up)))


def groups(parameters: dict[str, torch.nn.Parameter], decay: float) -> list[dict[str, Any]]:
    """Weight decay for matrices and kernels, none for biases and norms."""
    values = list(parameters.values())
    return [
        {"params": [p for p in values if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in values if p.ndim <= 1], "weight_decay": 0.0},
    ]
