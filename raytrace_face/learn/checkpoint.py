"""The state of a training in one file: network, optimiser, and where it is; complete or not at all, even after kill -9.

All randomness of a step is a function of the recipe's seed and of counters (`learn.dataset`, `learn.train`), so that
there is no state of a generator to keep: the place is two numbers.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raytrace_face.errors import InputError, OutputError

FORMAT = "raytrace_face training 1"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
"""State of AdamW."""


@dataclass(frozen=True)
class State:
    """Where a training is."""

    stage: int = 0
    """Number of the stage."""
    step: int = 0
    """Steps of it that are done."""
    total: int = 0
    """Steps done in all."""
    seconds: float = 0.0
    """Spent in steps."""
    figures: dict[str, float] = field(default_factory=dict)
    """Of the last validation."""


def save(path: Path, network: nn.Module, optimiser: torch.optim.Optimizer | None, state: State, about: Any) -> None:
    """Write a checkpoint through a temporary file.

    Args:
        optimiser: of the stage's trainable parameters; None between stages, which begin with a fresh one.
        about: JSON-ready description of recipe and data.

    Raises:
        OutputError: it cannot be written.
    """
    from safetensors.torch import save_file

    tensors = {f"network.{name}": value.contiguous() for name, value in network.state_dict().items()}
    if optimiser is not None:
        for name, parameter in learning(network).items():
            for kind, value in optimiser.state.get(parameter, {}).items():
                tensors[f"{kind}.{name}"] = value.contiguous()
    note = {"format": FORMAT, "state": state.__dict__, "about": about}
    part = path.with_name(path.name + ".part")
    try:
        save_file({k: v.detach().cpu() for k, v in tensors.items()}, part, {"about": json.dumps(note)})
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(part, path)
    except OSError as error:
        raise OutputError(f"checkpoint {str(path)!r} cannot be written ({error}): make room, and run again") from error


def learning(network: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that learn, by name."""
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def load(path: Path) -> tuple[dict[str, Tensor], State, Any]:
    """Tensors, state and description of a checkpoint.

    Raises:
        InputError: no such file, damaged, or no checkpoint.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            note = json.loads((file.metadata() or {}).get("about", "{}"))
            if note.get("format") != FORMAT:
                raise InputError(f"{str(path)!r} is no checkpoint of this version: give one that `train run` wrote")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, State(**note["state"]), note["about"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"checkpoint {str(path)!r} cannot be read ({str(error)[:80]}): train again") from error


def restore_network(network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put a checkpoint's weights into a network.

    Raises:
        InputError: the network has other sizes.
    """
    own = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
    try:
        network.load_state_dict(own)
    except RuntimeError as error:
        raise InputError("the checkpoint is of a network of other sizes: use the recipe that it was made by") from error


def restore_optimiser(optimiser: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Put a checkpoint's moments into the optimiser of the parameters that learn."""
    for name, parameter in learning(network).items():
        if f"step.{name}" in tensors:
            state = {kind: tensors[f"{kind}.{name}"] for kind in MOMENTS}
            optimiser.state[parameter] = {
                kind: value if kind == "step" else torch.empty_like(parameter).copy_(value)
                for kind, value in state.items()
            }
