"""The folder of a training: whose it is, and logs of one JSON object a line that fit the last checkpoint."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from raytrace_face.errors import InputError
from raytrace_face.output import begin_folder

RECIPE, LOG, VALIDATION = "recipe.json", "log.jsonl", "validation.jsonl"


def claim(folder: Path, about: dict[str, Any]) -> None:
    """Begin a folder, or go on with one that was begun with the same recipe and data.

    Raises:
        InputError: it was begun with others.
        OutputError: it holds something else.
    """
    path = folder / RECIPE
    if path.is_file():
        found = json.loads(path.read_text("utf-8"))
        other = [key for key in about if found.get(key) != about[key]]
        if other:
            raise InputError(
                f"output {str(folder)!r} was begun with another {other[0]}: take the same, or choose another --out"
            )
        return
    begin_folder(folder, RECIPE, about, "training")


def append(path: Path, values: dict[str, Any]) -> None:
    """Add a line to a log."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(values) + "\n")


def cut(path: Path, total: int) -> None:
    """Drop lines that came after step `total`, and a last one that was cut off."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_text("utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= total:
                kept.append(line + "\n")
        except ValueError:
            break
    part = path.with_name(path.name + ".part")
    part.write_text("".join(kept), encoding="utf-8")
    os.replace(part, path)
