"""What can be run through a benchmark: this program, with an idea of it switched off, its encoder, or results."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raytrace_face.config import Config
from raytrace_face.errors import InputError

DEFAULT = "raytrace-face"
WEIGHTS_SUFFIX = ".safetensors"
NOTHING = "nothing"
"""The floor: what one would say without any method (protocols say what that is)."""


@dataclass(frozen=True)
class Method:
    """A row of a table."""

    name: str
    text: str
    """What it is, in a few words, for tables."""
    changes: Mapping[str, Any]
    """Settings that differ from the default, nested as in `Config`."""
    results: Path | None = None
    """A folder with results by item id, made elsewhere; None: run the program."""
    weights: Path | None = None
    """Weights of an encoder (`train export`) that predicts in one pass; None: the optimiser."""

    def config(self, base: Mapping[str, Any]) -> Config:
        """The configuration of this method: `base` (nested settings, as --set gives them), then its own changes."""
        return Config.from_dict(dict(self.changes), base=Config.from_dict(dict(base)))


def _known() -> dict[str, Method]:
    rows: dict[str, tuple[str, dict[str, Any]]] = {
        DEFAULT: ("ours", {}),
        "montecarlo": ("gradient descent through the tracer on everything (EG 2021)", {"solver": "montecarlo"}),
        "no-shadow": ("shadows not traced", {"light": {"shadows": False}}),
        "sh-light": ("SH light of order 2, no area lights", {"light": {"kind": "sh"}}),
        "dense-light": ("least squares over all 162 lights, not sparse", {"light": {"kind": "dense"}}),
        "least-squares": ("light without robust loss", {"light": {"robust": False}}),
        "no-refine": ("light on the grid of the search stage", {"light": {"refine": False}}),
        "mean-albedo": ("stage 1 with the mean skin", {"stage1": {"albedo": False}}),
        "landmarks": ("shape from landmarks only", {"stage1": {"shape": "landmarks"}}),
        "mean-shape": ("mean identity, posed by landmarks", {"stage1": {"shape": "mean"}}),
        "no-symmetry": ("maps without left-right symmetry", {"stage2": {"symmetry": 0.0}}),
        "no-maps": ("statistical albedo only, no stage 2", {"stage2": {"personal": False}}),
        NOTHING: ("doing nothing", {}),
    }
    return {name: Method(name, text, changes) for name, (text, changes) in rows.items()}


METHODS = _known()
ABLATIONS = tuple(name for name in METHODS if name not in (DEFAULT, "montecarlo", NOTHING))
"""The ideas of the method, each switched off by itself."""


def method(name: str) -> Method:
    """A method by name, or a folder of results or a file of weights by its path.

    Raises:
        InputError: none of them.
    """
    if name in METHODS:
        return METHODS[name]
    folder = Path(name)
    if folder.suffix == WEIGHTS_SUFFIX and folder.is_file():
        return encoder(folder)
    if folder.is_dir():
        return Method(folder.resolve().name, f"results in {folder.name}", {}, folder.resolve())
    near = difflib.get_close_matches(name, METHODS, 1)
    hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(METHODS)}, or a folder of results"
    raise InputError(f"method is {name!r}, which is neither known nor a folder or weights: {hint}")


def encoder(weights: Path, name: str = "") -> Method:
    """One pass of an encoder with these weights; its name is theirs unless it is given."""
    return Method(name or weights.stem, f"encoder, {name or weights.stem}", {}, weights=weights.resolve())
