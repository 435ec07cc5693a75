"""Sittings on disk: one safetensors file each, pictures in it as JPEG and PNG, a tenth of what the arrays take.

One-light images are 8-bit JPEG of a power of the radiance (square root of shading, cube root of highlights), whose
errors stay below those of the four rays a pixel. They are read one by one: a photo needs a few of them.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raytrace_face.capture.colour import encode_u8
from raytrace_face.errors import InputError
from raytrace_face.learn.synthesis.camera import decoded
from raytrace_face.learn.synthesis.sitting import Sitting, Truth
from raytrace_face.types import Array

FORMAT = "raytrace_face sitting 1"
QUALITY = 93
"""JPEG quality of one-light images."""
POWER = {"diffuse": 2, "gloss": 3}
"""Radiance is this power of the code."""
HEADROOM = 30.0
"""Highlights are kept up to this multiple of their 99th percentile: what lies above is white in any photo."""
F0_SCALE = 0.08
"""F0 of code 255."""
MAPS = ("albedo_map", "specular_map", "roughness_map")


def save(path: Path, sitting: Sitting) -> None:
    """Write a sitting; the file appears complete or not at all."""
    from safetensors.numpy import save_file

    t = sitting.truth
    tensors: dict[str, NDArray[Any]] = {
        f.name: np.asarray(getattr(t, f.name), np.float32) for f in fields(Truth) if f.name not in MAPS
    }
    tensors["albedo"] = _packed(encode_u8(sitting.albedo), "PNG")
    tensors["coverage"] = _packed(_codes(sitting.coverage), "PNG")
    tensors["mask"] = _packed(_codes(sitting.mask), "PNG")
    tensors["albedo_map"] = _packed(encode_u8(t.albedo_map), "PNG")
    tensors["specular_map"] = _packed(_codes(t.specular_map / F0_SCALE), "PNG")
    tensors["roughness_map"] = _packed(_codes(t.roughness_map), "PNG")
    for kind, planes in (("diffuse", sitting.diffuse), ("gloss", sitting.gloss)):
        top = planes.reshape(len(planes), -1).max(axis=1)
        if kind == "gloss":
            seen = planes[:, sitting.coverage > 0]
            top = np.minimum(top, HEADROOM * np.percentile(seen, 99, axis=1)) if seen.size else top
        top = np.maximum(top, 1e-6)
        tensors[f"{kind}_top"] = top.astype(np.float32)
        codes = _codes((planes / top[:, None, None]).clip(0, 1) ** (1 / POWER[kind]))
        lights = len(t.light_directions)
        for k in range(lights):
            tensors[f"{kind}.{k:02d}"] = _packed(codes[k], "JPEG")
        # every photo needs all of the sky: one picture, one lobe below the other
        tensors[f"{kind}.sky"] = _packed(codes[lights:].reshape(-1, codes.shape[2]), "JPEG")
    part = path.with_name(path.name + ".part")
    # one entry: several would be written in random order, and the same sitting in other bytes
    save_file(tensors, part, {"about": json.dumps({"format": FORMAT, "worn": sitting.worn})})
    os.replace(part, path)


def _codes(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def _packed(picture: NDArray[np.uint8], kind: str) -> NDArray[np.uint8]:
    """(n,) bytes of a picture file."""
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, kind, **({"quality": QUALITY} if kind == "JPEG" else {}))
    return np.frombuffer(stream.getvalue(), np.uint8)


def _picture(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data.tobytes())))


@lru_cache(maxsize=4)
def _table(power: int) -> Array:
    return (np.arange(256) / 255).astype(np.float32) ** power


@dataclass(frozen=True)
class Negative:
    """A sitting's file, open: everything but the one-light images, which are read when they are asked for."""

    path: Path
    truth: Truth
    albedo: Array
    """(S, S, 3) linear."""
    coverage: Array
    """(S, S)"""
    mask: Array
    """(S, S)"""
    worn: tuple[str, ...]
    _file: Any

    def plane(self, kind: str, number: int) -> Array:
        """(S, S) one-light image, "diffuse" or "gloss"; its values go on where the head ends."""
        code = _picture(self._file.get_tensor(f"{kind}.{number:02d}"))
        return _table(POWER[kind])[code] * self._file.get_tensor(f"{kind}_top")[number]

    def sky(self, kind: str) -> Array:
        """(6, S, S) images under the lobes."""
        count, size = len(self.truth.sky_axes), self.albedo.shape[0]
        code = _picture(self._file.get_tensor(f"{kind}.sky")).reshape(count, size, size)
        return _table(POWER[kind])[code] * self._file.get_tensor(f"{kind}_top")[-count:, None, None]


def check(path: Path) -> None:
    """Whether a file is a whole sitting, from its header; a tenth of a millisecond.

    Raises:
        InputError: damaged, cut off, or not a sitting.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "numpy") as file:
            _about(path, file)
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path.name} is damaged ({str(error)[:80]}): delete it and make it again") from error


def _about(path: Path, file: Any) -> dict[str, Any]:
    about = json.loads((file.metadata() or {}).get("about", "{}"))
    if about.get("format") != FORMAT:
        raise InputError(f"{path.name} is no sitting of this version ({about.get('format')}): make it again")
    return about


def load(path: Path) -> Negative:
    """Open a sitting.

    Raises:
        InputError: no such file, damaged, or not a sitting.
    """
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, "numpy")
        about = _about(path, file)
        names = set(file.keys())
        values: dict[str, Any] = {f.name: file.get_tensor(f.name) for f in fields(Truth) if f.name not in MAPS}
        values["focal_px"] = float(values["focal_px"])
        values["principal_px"] = tuple(map(float, values["principal_px"]))
        values["albedo_map"] = decoded(_picture(file.get_tensor("albedo_map")))
        values["specular_map"] = _picture(file.get_tensor("specular_map")) * np.float32(F0_SCALE / 255)
        values["roughness_map"] = _picture(file.get_tensor("roughness_map")) / np.float32(255)
        truth = Truth(**values)
        numbers = [f"{k:02d}" for k in range(len(truth.light_directions))]
        missing = {f"{kind}.{k}" for kind in POWER for k in (*numbers, "sky")} - names
        if missing:
            raise InputError(f"{path.name} lacks {sorted(missing)[0]}: make it again")
        albedo = decoded(_picture(file.get_tensor("albedo")))
        coverage, mask = (_table(1)[_picture(file.get_tensor(name))] for name in ("coverage", "mask"))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path.name} is damaged ({str(error)[:80]}): delete it and make it again") from error
    return Negative(path, truth, albedo, coverage, mask, tuple(about["worn"]), file)
