"""The head of the report in 3D: mesh, morph targets, maps and lights as the page's viewer reads them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.colour import encode_u8
from raytrace_face.export import SPECULAR_PREVIEW_WHITE, linear_u8
from raytrace_face.face.model import PARTS
from raytrace_face.face.parts import PART_MATERIALS, eye_texture
from raytrace_face.report.packing import data_uri, quantise, sparse, text_of
from raytrace_face.types import Array

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

MAP_SIZE = 512
"""Largest side of the maps in the page, texels."""
GROUPS = (("brow", "Brows"), ("eye", "Eyes"), ("jaw", "Jaw"), ("mouth", "Mouth"), ("", "Cheeks, nose, tongue"))
"""Expressions by what their ARKit names begin with."""


def viewer_data(result: Reconstruction) -> dict[str, Any]:
    """Everything the viewer needs, JSON-ready; typed arrays are base64 text (`packing`). Millimetres, head frame."""
    model = result.face_model()
    f0 = result.maps.specular.mean(axis=-1) / SPECULAR_PREVIEW_WHITE
    order = np.argsort(model.triangle_part, kind="stable")
    triangles = model.triangles[order]
    small = model.vertex_count <= 65536
    index = np.uint16 if small else np.uint32
    codes, low, step = quantise(result.vertices(expression=False))
    return {
        "vertexCount": model.vertex_count,
        "triangleCount": len(triangles),
        "indexBytes": 2 if small else 4,
        "positions": text_of(codes),
        "low": low.tolist(),
        "step": step.tolist(),
        "uv": text_of(np.rint(np.clip(model.uv, 0, 1) * 65535).astype(np.uint16)),
        "weld": text_of(model.weld.astype(index)),
        "triangles": text_of(triangles.astype(index)),
        "quads": _pairs_are_quads(triangles),
        "parts": _parts(model.triangle_part[order]),
        "morphs": _morphs(result, index),
        "maps": {
            "diffuse": data_uri(encode_u8(reduced(result.maps.diffuse)), "jpeg", 95),
            "specular": data_uri(linear_u8(reduced(f0)), "jpeg"),
            "roughness": data_uri(linear_u8(reduced(result.maps.roughness)), "jpeg"),
            "eyes": data_uri(encode_u8(eye_texture())),
        },
        "specularWhite": SPECULAR_PREVIEW_WHITE,
        "camera": _camera(result),
        "lights": _lights(result),
        "ambient": np.asarray(result.ambient_sh, float).tolist(),
    }


def reduced(image: Array) -> Array:
    """A map (T, T) or (T, T, C) brought down to at most `MAP_SIZE` texels a side by the mean of whole blocks."""
    block = -(-image.shape[0] // MAP_SIZE)
    size = image.shape[0] // block
    cut = image[: size * block, : size * block]
    pooled = cut.reshape(size, block, size, block, *image.shape[2:]).mean(axis=(1, 3))
    return np.asarray(pooled, np.float32)


def spoken(name: str) -> str:
    """An ARKit name in words.

    >>> spoken("mouthSmileLeft")
    'Mouth smile left'
    """
    return re.sub(r"(?<!^)([A-Z])", lambda found: f" {found[1].lower()}", name[:1].upper() + name[1:])


def _pairs_are_quads(triangles: NDArray[np.integer]) -> bool:
    """Whether triangles 2k and 2k + 1 are (a, b, c) and (a, c, d): the wireframe then leaves out the diagonals."""
    if len(triangles) % 2:
        return False
    first, second = triangles[0::2], triangles[1::2]
    return bool(np.all(first[:, 0] == second[:, 0]) and np.all(first[:, 2] == second[:, 1]))


def _parts(part: NDArray[np.integer]) -> list[dict[str, Any]]:
    """Ranges of sorted triangles (F,) with the material of each part."""
    found = []
    for number, name in enumerate(PARTS):
        here = np.flatnonzero(part == number)
        if len(here):
            colour, f0, roughness = PART_MATERIALS.get(name, ((1.0, 1.0, 1.0), 0.04, 0.5))
            material = {"colour": list(colour), "f0": f0, "roughness": roughness}
            found.append({"name": name, "first": int(here[0]), "count": len(here), **material})
    return found


def _morphs(result: Reconstruction, index_type: type) -> dict[str, Any]:
    """Targets one after another: how many vertices each moves, which, by how much; and their fitted weights."""
    model = result.face_model()
    targets, indices, codes = [], [], []
    for name, weight, shape in zip(model.expression_names, result.face.expression, model.expression, strict=True):
        index, code, step = sparse(shape)
        group = next(k for k, (prefix, _) in enumerate(GROUPS) if name.startswith(prefix))
        target = {"name": name, "label": spoken(name), "group": GROUPS[group][1], "weight": float(weight)}
        targets.append({**target, "count": len(index), "step": step})
        indices.append(index)
        codes.append(code)
    index = np.concatenate([*indices, np.zeros(0, np.uint32)]).astype(index_type)
    return {
        "targets": targets,
        "index": text_of(index),
        "codes": text_of(np.concatenate([*codes, np.zeros((0, 3), np.int16)])),
    }


def _camera(result: Reconstruction) -> dict[str, Any]:
    """The photo's camera on the window: pose, and focal length and principal point in window widths."""
    camera = result.camera.windowed(result.window)
    cx, cy = camera.principal_px
    return {
        "T": np.asarray(result.face.T_camera_head, float).ravel().tolist(),
        "focal": camera.focal_px / camera.width,
        "principal": [cx / camera.width, cy / camera.height],
    }


def _lights(result: Reconstruction) -> list[dict[str, Any]]:
    """Lights that are on: centre in mm and irradiance / pi at the centre of the stage, brightest first."""
    centres, strength = result.lights.corners_mm().mean(axis=1), result.lights.irradiance()
    order = np.argsort(-strength.max(axis=1), kind="stable")
    return [{"centre": centres[k].tolist(), "irradiance": strength[k].tolist()} for k in order if strength[k].max() > 0]
