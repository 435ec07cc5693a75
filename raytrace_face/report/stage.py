"""The live light stage of the report: one-light images packed, their controls, and the presets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightstage import preset
from raytrace_face.capture.colour import encode_u8
from raytrace_face.export import linear_u8
from raytrace_face.report.onelight import OneLight, fitted_weights
from raytrace_face.report.packing import data_uri, grown, root_codes
from raytrace_face.types import Array

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

QUALITY = 88
"""JPEG quality of the one-light images: rms error 2 codes of 255; all of them then take about 4 MB."""
BRIGHTEST = 99.95
"""Percentile of the head's pixels that is the white of a highlight's image; single grains above it are clipped."""


def stage_data(result: Reconstruction, images: OneLight) -> dict[str, Any]:
    """The one-light images and what the controls need to know, JSON-ready."""
    inside = images.coverage > 0
    sources = [_packed(planes, inside) for planes in images.planes]
    return {
        "size": len(images.coverage),
        "coverage": data_uri(linear_u8(images.coverage)),
        "albedo": data_uri(grown(encode_u8(images.albedo).transpose(2, 0, 1), inside).transpose(1, 2, 0)),
        "sources": sources,
        "fitted": fitted_weights(result).tolist(),
        "lights": light_names(result),
        "rotation": np.asarray(result.face.T_camera_head, float)[:3, :3].ravel().tolist(),
        "presets": _presets(),
        "shadows": 1.0 if result.config.light.shadows else 0.0,
    }


def _packed(planes: Array, inside: NDArray[np.bool_]) -> dict[str, Any]:
    """One source: its four planes (4, S, S) as a picture of 2 x 2 tiles, with the radiance of code 255 of each."""
    full = planes[:, inside]
    scale = [
        max(float(np.percentile(values, BRIGHTEST) if k % 2 else values.max()), 1e-6) for k, values in enumerate(full)
    ]
    codes = [root_codes(plane, s) for plane, s in zip(grown(planes, inside), scale, strict=True)]
    return {"tiles": data_uri(np.block([codes[:2], codes[2:]]), "jpeg", QUALITY), "scale": scale}


def light_names(result: Reconstruction) -> list[dict[str, Any]]:
    """Where each light stands: unit direction (head frame); azimuth and elevation (camera frame, degrees) in words."""
    found = []
    rotation = np.asarray(result.face.T_camera_head, float)[:3, :3]
    for k, towards in enumerate(result.lights.directions()):
        x, y, z = rotation @ towards
        azimuth, elevation = float(np.degrees(np.arctan2(x, z))), float(np.degrees(np.arcsin(np.clip(y, -1, 1))))
        name = f"Light {k + 1}: {_side(azimuth)}, {abs(elevation):.0f}° {'above' if elevation >= 0 else 'below'}"
        found.append({"direction": towards.tolist(), "name": name})
    return found


def _side(azimuth: float) -> str:
    """An azimuth as people say it: from the image's left or right, 0 from the camera, 180 from behind."""
    if abs(azimuth) < 5:
        return "front"
    if abs(azimuth) > 175:
        return "behind"
    return f"{abs(azimuth):.0f}° {'right' if azimuth > 0 else 'left'}"


def _presets() -> list[dict[str, Any]]:
    found = []
    for name in preset.names():
        values = preset.read(name)
        lights = [
            {
                "direction": preset.direction(light["azimuth_deg"], light["elevation_deg"]).tolist(),
                "irradiance": light["irradiance"],
            }
            for light in values["lights"]
        ]
        sky = values.get("sky", [0.0, 0.0, 0.0])
        about = {"name": name, "description": values["description"]}
        found.append({**about, "lights": lights, "even": values["ambient"], "sky": sky})
    return found


def contact_sheet(images: OneLight, lights: int, columns: int = 10, size: int = 128) -> NDArray[np.uint8]:
    """All lights one at a time, each of irradiance / pi 1, as 8-bit sRGB tiles (rows * size, columns * size, 3)."""
    block = len(images.coverage) // size
    rows = -(-lights // columns)
    sheet = np.zeros((rows * size, columns * size, 3), np.uint8)
    for k in range(lights):
        picture = images.albedo * images.diffuse[k, ..., None] + images.gloss[k, ..., None]
        picture = picture * images.coverage[..., None]
        small = picture[: size * block, : size * block].reshape(size, block, size, block, 3).mean(axis=(1, 3))
        row, column = divmod(k, columns)
        sheet[row * size : (row + 1) * size, column * size : (column + 1) * size] = encode_u8(small)
    return sheet
