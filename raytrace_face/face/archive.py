"""A face model on disk: a folder of JSON and safetensors that comes back bit for bit, and is never unpickled.

`model.json` says what the model is, `model.safetensors` holds its arrays, `sheet.png` shows it (docs/file-format.md).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from raytrace_face.errors import InputError, ModelError
from raytrace_face.face.check import check_model
from raytrace_face.face.model import AlbedoBasis, FaceModel
from raytrace_face.output import new_folder, write_json

FORMAT = "raytrace_face model"
FORMAT_VERSION = 1
"""Version of the folder. A reader refuses a larger one."""
DESCRIPTION, ARRAYS, SHEET = "model.json", "model.safetensors", "sheet.png"
_OWN_WORDS = ("name", "expression_names", "regions", "licence", "provenance", "albedo")
"""Fields of `FaceModel` that are no arrays."""


@dataclass(frozen=True)
class Source:
    """Where a brought model comes from, as far as the `FaceModel` itself does not say."""

    format: str = ""
    """"ICT-FaceKit", "BFM 2019", ..."""
    version: str = ""
    citation: str = ""
    """What to cite."""
    limits: tuple[str, ...] = ()
    """What a user must know: "no back of the head"."""


@dataclass(frozen=True)
class About:
    """What `model.json` says: everything but the arrays."""

    name: str
    licence: str
    provenance: dict[str, str]
    """What the model was made from and how, by name: "sha256 model2019.h5", "registration", ..."""
    expression_names: tuple[str, ...]
    counts: dict[str, int]
    """Vertices, triangles, modes and the like by name."""
    arrays_sha256: str
    """Digest of `model.safetensors`: what results know the model by."""
    source: Source = field(default_factory=Source)


def arrays_of(model: FaceModel) -> dict[str, np.ndarray]:
    """Every array by dotted name, such as "regions.lips" and "albedo.diffuse"."""
    found = {f.name: getattr(model, f.name) for f in fields(FaceModel) if f.name not in _OWN_WORDS}
    found |= {f"regions.{name}": weight for name, weight in model.regions.items()}
    if model.albedo is not None:
        found |= {f"albedo.{f.name}": getattr(model.albedo, f.name) for f in fields(AlbedoBasis)}
    return {name: np.ascontiguousarray(value) for name, value in found.items() if value is not None}


def counts_of(model: FaceModel) -> dict[str, int]:
    """How much of everything a model holds."""
    albedo = model.albedo
    return {
        "vertices": model.vertex_count,
        "triangles": len(model.triangles),
        "identity modes": len(model.identity),
        "expressions": len(model.expression_names),
        "landmarks": len(model.landmark_index),
        "diffuse albedo modes": 0 if albedo is None else len(albedo.diffuse_modes),
        "specular albedo modes": 0 if albedo is None or albedo.specular_modes is None else len(albedo.specular_modes),
    }


def fingerprint(model: FaceModel) -> str:
    """Digest of all arrays of a model, which is that of its `model.safetensors`; 0.1 s for 100 MB."""
    from safetensors.numpy import save as packed

    return hashlib.sha256(packed(arrays_of(model))).hexdigest()


def save(
    model: FaceModel,
    folder: str | Path,
    source: Source | None = None,
    sheet: Callable[[Path], object] | None = None,
    force: bool = False,
) -> Path:
    """Write a model's folder in one piece; `load` gives the same arrays bit for bit.

    Args:
        model: what to write; checked first.
        folder: where to; its name need not be the model's.
        source: where the model comes from.
        sheet: writes the contact sheet, a PNG, to a path; None: without.
        force: replace a model folder.

    Raises:
        ModelError: the model's arrays do not fit together.
        OutputError: the folder exists (and `force` is not set), or cannot be written.
    """
    from safetensors.numpy import save as packed

    check_model(model)
    data = packed(arrays_of(model))
    about = About(
        model.name,
        model.licence,
        dict(model.provenance),
        model.expression_names,
        counts_of(model),
        hashlib.sha256(data).hexdigest(),
        Source() if source is None else source,
    )
    with new_folder(Path(folder), force) as temporary:
        (temporary / ARRAYS).write_bytes(data)
        write_json(temporary / DESCRIPTION, {"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(about)})
        if sheet is not None:
            sheet(temporary / SHEET)
    return Path(folder)


def about(folder: str | Path) -> About:
    """What a model folder says of itself; its arrays are not read.

    Raises:
        InputError: it is no model folder, or of a newer version.
        ModelError: it is damaged.
    """
    path = Path(folder) / DESCRIPTION
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(f"{str(folder)!r} is no model folder (it has no {DESCRIPTION}): check the path") from None
    except OSError as error:
        raise InputError(f"{str(path)!r} cannot be read ({error.strerror}): check the path") from error
    except ValueError as error:
        raise ModelError(f"face model {str(folder)!r} is damaged ({error}): add it again") from error
    if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
        raise InputError(f"{str(path)!r} does not say that it is a {FORMAT!r}: check the path")
    version = values.pop("format_version", None)
    if type(version) is not int or version > FORMAT_VERSION:
        raise InputError(
            f"face model {str(folder)!r} has format {version}, newer than {FORMAT_VERSION}: update raytrace-face"
        )
    try:
        source = values.pop("source")
        limits = tuple(map(str, source.pop("limits")))
        names = tuple(map(str, values.pop("expression_names")))
        return About(**values, expression_names=names, source=Source(**source, limits=limits))
    except (KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"face model {str(folder)!r} is damaged ({error!r} in {DESCRIPTION}): add it again") from error


def load(folder: str | Path) -> FaceModel:
    """Read a model folder, checked throughout.

    Raises:
        InputError: it is no model folder, or of a newer version.
        ModelError: it is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpacked

    described, path = about(folder), Path(folder) / ARRAYS
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != described.arrays_sha256:
            raise ModelError(
                f"face model {str(folder)!r} is damaged ({ARRAYS} does not belong to {DESCRIPTION}: other sha256): "
                "add it again"
            )
        arrays = unpacked(data)
        return check_model(_assembled(described, arrays))
    except OSError as error:
        raise ModelError(f"face model {str(folder)!r} lacks {ARRAYS} ({error.strerror}): add it again") from error
    except (SafetensorError, KeyError, TypeError) as error:
        raise ModelError(f"face model {str(folder)!r} is damaged ({error!r}): add it again") from error


def _assembled(described: About, arrays: dict[str, np.ndarray]) -> FaceModel:
    groups: dict[str, dict[str, np.ndarray]] = {"": {}, "regions": {}, "albedo": {}}
    for key, value in arrays.items():
        group, _, name = key.rpartition(".")
        groups[group][name] = value
    values: dict[str, Any] = dict(groups[""])
    return FaceModel(
        name=described.name,
        expression_names=described.expression_names,
        regions=groups["regions"],
        licence=described.licence,
        provenance=described.provenance,
        albedo=AlbedoBasis(**groups["albedo"]) if groups["albedo"] else None,
        **values,
    )
