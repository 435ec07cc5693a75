"""The two files of a result folder that hold everything: `result.json` and `arrays.safetensors`."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from raytrace_face.errors import InputError
from raytrace_face.output import sha256, write_json

FORMAT_VERSION = 2
"""Newest version of the folder: 2 are results whose pictures are yet to be traced. A reader refuses a larger one."""
REPORTED_PACKAGES = ("raytrace-face", "mitsuba", "drjit", "numpy", "scipy", "torch", "ai-edge-litert")


def installed_versions() -> dict[str, str]:
    """Versions of this package, of what it computes with, and of Python."""
    return dict(_versions())


@lru_cache(maxsize=1)  # looking them up takes longer than writing them
def _versions() -> dict[str, str]:
    import platform

    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in REPORTED_PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def write(folder: Path, description: dict[str, Any], arrays: dict[str, np.ndarray]) -> None:
    """Write both files; the description gets the checksum of the arrays, so that they belong together."""
    from safetensors.numpy import save_file

    path = folder / "arrays.safetensors"
    save_file({name: np.ascontiguousarray(value) for name, value in arrays.items()}, path)
    write_json(folder / "result.json", {**description, "arrays_sha256": sha256(path)})


def read_description(folder: Path) -> dict[str, Any]:
    """The content of `result.json`; InputError says what is wrong with it."""
    path = folder / "result.json"
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{str(folder)!r} is not a result folder (it has no result.json): check the path") from None
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise InputError(f"{str(path)!r} is damaged ({error}): reconstruct it again") from error
    version = description.get("format_version") if isinstance(description, dict) else None
    if type(version) is not int:
        raise InputError(f"{str(path)!r} has no format_version, so it is not a result: check the path")
    if version > FORMAT_VERSION:
        raise InputError(f"{str(path)!r} has format {version}, newer than {FORMAT_VERSION}: update raytrace-face")
    return description


def read_arrays(folder: Path, description: dict[str, Any]) -> dict[str, np.ndarray]:
    """Every array by dotted name; InputError where they are damaged, not finite, or belong to another description."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    path = folder / "arrays.safetensors"
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != description.get("arrays_sha256"):
            raise InputError(f"{str(path)!r} does not belong to result.json (other sha256): reconstruct it again")
        arrays = load(data)
        bad = [name for name, values in arrays.items() if not np.isfinite(values).all()]
        if bad:
            raise InputError(f"{str(path)!r} holds NaN or infinite values in {bad[0]}: reconstruct it again")
        return arrays
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}): reconstruct it again") from error
    except SafetensorError as error:
        raise InputError(f"{str(path)!r} is damaged ({error}): reconstruct it again") from error


def group(arrays: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """The arrays directly under a prefix."""
    inner = {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
    return {name: value for name, value in inner.items() if "." not in name}
