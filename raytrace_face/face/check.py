"""What must hold of a face model before anything is computed with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from raytrace_face.errors import ModelError
from raytrace_face.face.model import PARTS, AlbedoBasis, FaceModel

MIN_LANDMARKS = 20
"""Fewer do not hold pose, focal length and the first identity modes."""


def check_model(model: FaceModel) -> FaceModel:
    """The model itself, if shapes, types, index ranges and names fit together.

    Raises:
        ModelError: they do not; says of which field.
    """
    for field, value, shape, kind in _expected(model):
        found = np.asarray(value)
        if found.dtype.kind not in kind:
            raise ModelError(f"model {model.name!r}: {field} holds {found.dtype}, expected kind {kind!r}")
        if found.shape != shape:
            raise ModelError(f"model {model.name!r}: {field} has shape {found.shape}, expected {shape}")
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise ModelError(f"model {model.name!r}: {field} holds values that are not finite")
    v, f = len(model.mean), len(model.triangles)
    ranges: dict[str, tuple[int, int]] = {
        "triangles": (0, v),
        "weld": (0, v),
        "mirror": (0, v),
        "landmark_triangle": (0, f),
        "landmark_index": (0, 478),
        "triangle_part": (0, len(PARTS)),
        "source": (-1, 2**31),
    }
    for field, (low, high) in ranges.items():
        value = getattr(model, field)
        if value is not None and value.size and (value.min() < low or value.max() >= high):
            raise ModelError(f"model {model.name!r}: {field} points outside [{low}, {high})")
    if not (model.triangle_part == 0).any():
        raise ModelError(f"model {model.name!r}: triangle_part marks no skin, which is what the fit looks at")
    if "face" not in model.regions or not model.regions["face"].max(initial=0) > 0.5:
        raise ModelError(f"model {model.name!r}: the region 'face' (what the fit may use) is missing or empty")
    if len(model.landmark_index) < MIN_LANDMARKS:
        raise ModelError(
            f"model {model.name!r}: {len(model.landmark_index)} landmarks, fewer than the {MIN_LANDMARKS} that the fit "
            "starts from"
        )
    if len(set(model.expression_names)) < len(model.expression_names):
        raise ModelError(f"model {model.name!r}: expression_names holds a name twice")
    return model


def _expected(model: FaceModel) -> Iterator[tuple[str, Any, tuple[int, ...], str]]:
    """Name, value, shape and NumPy kinds ("f" float, "iu" whole numbers) of every array."""
    v, k, e = len(model.mean), len(model.identity), len(model.expression_names)
    f, n = len(model.triangles), len(model.landmark_index)
    yield "mean", model.mean, (v, 3), "f"
    yield "identity", model.identity, (k, v, 3), "f"
    yield "expression", model.expression, (e, v, 3), "f"
    yield "triangles", model.triangles, (f, 3), "iu"
    yield "triangle_part", model.triangle_part, (f,), "iu"
    yield "uv", model.uv, (v, 2), "f"
    yield "weld", model.weld, (v,), "iu"
    yield "mirror", model.mirror, (v,), "iu"
    yield "landmark_index", model.landmark_index, (n,), "iu"
    yield "landmark_triangle", model.landmark_triangle, (n,), "iu"
    yield "landmark_barycentric", model.landmark_barycentric, (n, 3), "f"
    yield "landmark_sigma_mm", model.landmark_sigma_mm, (n,), "f"
    for name, weight in model.regions.items():
        yield f"region {name!r}", weight, (v,), "f"
    if model.albedo is not None:
        yield from _expected_albedo(model.albedo, v)
    if model.native_expression is not None:
        width = model.native_expression.shape[1] if model.native_expression.ndim == 2 else -1
        yield "native_expression", model.native_expression, (e, width), "f"
    if model.source is not None:
        yield "source", model.source, (v,), "iu"


def _expected_albedo(albedo: AlbedoBasis, v: int) -> Iterator[tuple[str, Any, tuple[int, ...], str]]:
    yield "albedo.diffuse", albedo.diffuse, (v, 3), "f"
    yield "albedo.diffuse_modes", albedo.diffuse_modes, (len(albedo.diffuse_modes), v, 3), "f"
    if albedo.specular is not None:
        yield "albedo.specular", albedo.specular, (v, 3), "f"
    if albedo.specular_modes is not None:
        yield "albedo.specular_modes", albedo.specular_modes, (len(albedo.specular_modes), v, 3), "f"
