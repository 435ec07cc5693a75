"""Weights as they are shipped: the network in half precision and all that `predict` has to know, in one file."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from raytrace_face.errors import InputError
from raytrace_face.learn import checkpoint
from raytrace_face.learn.network import FaceNetwork
from raytrace_face.learn.recipe import Network, Recipe
from raytrace_face.output import new_file, sha256, write_json

FORMAT = "raytrace_face encoder 1"
OWN = ("format", "network", "decoded", "stages", "steps", "hours", "data", "held_out", "recipe", "sha256")
"""Entries of the card that training knows, and nobody may say otherwise."""


@dataclass(frozen=True)
class Trained:
    """A network that can predict."""

    network: FaceNetwork
    decoded: bool
    """Whether its decoders were trained."""
    strange: float
    """`FaceNetwork.strangeness` that 99 in 100 real photos stay below, with a margin (`learn.validate.usual`)."""
    unlike_landmarks: float
    """The same for the distance from the detected landmarks, sides of the crop."""


def export(path: Path, out: Path, card: Path | None = None, force: bool = False) -> dict[str, Any]:
    """Write a checkpoint's weights as float16, and a model card beside them; returns the card.

    Args:
        card: JSON object whose entries the card takes over: licence, machine, limits that were measured.

    Raises:
        InputError: no checkpoint, or one that was never validated; a card that is no JSON object.
        OutputError: it cannot be written.
    """
    from safetensors.torch import save_file

    if out.suffix != ".safetensors":
        raise InputError(f"output {str(out)!r} must end in .safetensors")
    said = {} if card is None else _said(card)
    tensors, state, about = checkpoint.load(path)
    if not {"strange", "unlike_landmarks"} <= set(state.figures):
        raise InputError(f"checkpoint {str(path)!r} was never validated: train to the end of an epoch first")
    recipe = Recipe.from_dict(about["recipe"])
    names = [name for name in recipe.stages() if name != "traced" or about["real_photos"]]
    begun = names[: state.stage + 1] if state.step else names[: state.stage]
    whole = {
        "format": FORMAT,
        "network": asdict(recipe.network),
        "decoded": any(getattr(recipe, name).decoders for name in begun),
        "stages": begun,
        "steps": state.total,
        "hours": state.seconds / 3600,
        "data": {key: about[key] for key in ("sittings", "sittings_seed", "real_photos")},
        "held_out": state.figures,
        "recipe": about["recipe"],
        "limits": "Figures are on synthetic photos. Not measured by skin tone and age.",
        **{key: value for key, value in said.items() if key not in OWN},
    }
    half = {
        name.removeprefix("network."): value.half().contiguous()
        for name, value in tensors.items()
        if name.startswith("network.")
    }
    with new_file(out, force) as temporary:
        save_file(half, temporary, {"about": json.dumps(whole)})
    whole["sha256"] = sha256(out)
    write_json(out.with_suffix(".json"), whole)
    return whole


def _said(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"card {str(path)!r} cannot be read ({str(error)[:80]}): give a file of JSON") from error
    if not isinstance(said, dict):
        raise InputError(f'card {str(path)!r} holds no JSON object: give one, such as {{"licence": "CC0-1.0"}}')
    return said


def shipped() -> Path:
    """The weights that come with the program.

    Raises:
        InputError: this installation has none.
    """
    path = Path(str(resources.files("raytrace_face") / "assets" / "encoder.safetensors"))
    if not path.is_file():
        raise InputError(
            f"this installation has no encoder ({path} is not there): install the released package again, or name "
            "weights of `train export` with --weights"
        )
    return path


def load(path: Path) -> Trained:
    """Read exported weights.

    Raises:
        InputError: no such file, damaged, or something else.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            card = json.loads((file.metadata() or {}).get("about", "{}"))
            if card.get("format") != FORMAT:
                raise InputError(f"{str(path)!r} holds no weights of this version: make some with `train export`")
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118
        network = FaceNetwork(Network(**card["network"]))
        network.load_state_dict(tensors)
        limits = card["held_out"]
        limit = {key: float(limits[key]) for key in ("strange", "unlike_landmarks")}
        limit = {key: value if math.isfinite(value) else math.inf for key, value in limit.items()}
        if not all(torch.isfinite(value).all() for value in tensors.values()):
            raise InputError(f"weights {str(path)!r} hold values that are not numbers: export them again")
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"weights {str(path)!r} cannot be read ({str(error)[:80]}): export them again") from error
    return Trained(network.eval(), bool(card["decoded"]), **limit)
