"""The result for Blender: a script, `head.npz`, `scene.json` and EXR textures that it builds the scene from.

Everything is converted to Blender's world here: metres, z up, the face looking along -y (`AXES`). The script itself
(`raytrace_face/assets/blender_scene.py`, copied as `scene.py`) only hands numbers to Blender.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightstage.environment import sh_basis
from raytrace_face.export import ENVIRONMENT_HEIGHT, write_exr
from raytrace_face.export_scene import light_radiance
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.parts import PART_MATERIALS, eye_texture
from raytrace_face.output import write_json
from raytrace_face.types import Camera

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

F = NDArray[np.float64]

SCRIPT = Path(__file__).parent / "assets" / "blender_scene.py"
AXES = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0], [0.0, 1.0, 0.0]])
"""(3, 3) head frame -> Blender's world: x stays, y becomes up (z), out of the face becomes -y."""
METRE = 0.001
"""Of a millimetre."""
SENSOR_MM = 36.0
"""Width of the sensor: full frame, so that `lens` is the focal length in 35 mm terms of the window."""
SPECULAR_UNIT = 0.08
"""F0 of the Principled BSDF at specular 1 and an index of refraction of 1.5 (Burley 2012, section 5.5)."""


def write_blender(result: Reconstruction, folder: Path) -> None:
    """Write `scene.py`, `head.npz`, `scene.json` and `textures/` into an existing folder."""
    model, maps = result.face_model(), result.maps
    textures = folder / "textures"
    textures.mkdir()
    write_exr(textures / "diffuse.exr", maps.diffuse)
    write_exr(textures / "specular.exr", maps.specular / SPECULAR_UNIT)
    write_exr(textures / "roughness.exr", np.repeat(maps.roughness[..., None], 3, axis=2))
    write_exr(textures / "eyes.exr", eye_texture())
    ambient = np.asarray(result.ambient_sh, np.float64)
    surroundings = cycles_environment(ambient, ENVIRONMENT_HEIGHT)
    lit = bool(surroundings.max() > 0)
    if lit:
        write_exr(textures / "ambient.exr", surroundings)
    area = result.lights.area_lights()
    arrays = head_arrays(model, result.vertices(expression=False))
    arrays["light_corners"] = to_blender(area.corners).astype(np.float32)
    arrays["light_radiance"] = light_radiance(area, ambient).astype(np.float32)
    np.savez_compressed(folder / "head.npz", allow_pickle=False, **arrays)
    weights = np.clip(result.face.expression, 0, 1).tolist()
    description = {
        "photo": result.photo_name,
        "camera": camera(result.camera.windowed(result.window), result.face.T_camera_head),
        "materials": [_material(part) for number, part in enumerate(PARTS) if (model.triangle_part == number).any()],
        "expression": dict(zip(model.expression_names, weights, strict=True)),
        "ambient": lit,
    }
    write_json(folder / "scene.json", description)
    (folder / "scene.py").write_bytes(SCRIPT.read_bytes())


def to_blender(points_mm: NDArray[np.floating]) -> F:
    """Points or shifts (..., 3) of the head frame, mm, in Blender's world, metres.

    >>> to_blender(np.array([0.0, 1000.0, 0.0])).tolist()
    [0.0, 0.0, 1.0]
    """
    return METRE * np.asarray(points_mm, np.float64) @ AXES.T


def head_arrays(model: FaceModel, neutral: NDArray[np.floating]) -> dict[str, NDArray[Any]]:
    """Arrays of `head.npz` for the neutral face (V, 3) in mm; V' vertices are left when those of seams are joined.

    `vertices` (V', 3), `expression` (E, V', 3), `triangles` (F, 3), `uv` (3 F, 2) one a corner, `triangle_material`
    (F,) numbers among the parts that there are. Joined vertices give smooth normals over the seams.
    """
    used, local = np.unique(model.weld[model.triangles], return_inverse=True)
    return {
        "vertices": to_blender(neutral[used]).astype(np.float32),
        "expression": to_blender(model.expression[:, used]).astype(np.float32),
        "triangles": local.reshape(-1, 3).astype(np.int32),
        "uv": model.uv[model.triangles].reshape(-1, 2).astype(np.float32),
        "triangle_material": np.unique(model.triangle_part, return_inverse=True)[1].astype(np.int32),
    }


def camera(view: Camera, T_camera_head: NDArray[np.floating]) -> dict[str, Any]:
    """Settings of a Blender camera that sees what `view` sees; both look along -z with y up.

    Blender's shift is the way from the principal point to the middle of the picture, in picture widths, y up.
    """
    T = np.asarray(T_camera_head, np.float64)
    matrix = np.eye(4)
    matrix[:3, :3] = AXES @ T[:3, :3].T
    matrix[:3, 3] = to_blender(-T[:3, :3].T @ T[:3, 3])
    cx, cy = view.principal_px
    return {
        "size": [view.width, view.height],
        "sensor_mm": SENSOR_MM,
        "lens_mm": view.focal_px * SENSOR_MM / view.width,
        "shift": [(view.width / 2 - cx) / view.width, (cy - view.height / 2) / view.width],
        "matrix": matrix.tolist(),
    }


def cycles_environment(ambient_sh: F, height: int) -> F:
    """Lat-long map (height, 2 height, 3) of SH (9, 3) of the head frame, clipped at zero, as Cycles looks it up.

    A direction (x, y, z) of Blender's world lies at u = 1/2 - atan2(y, x) / 2 pi, v = 1 - arccos(z) / pi.
    """
    theta = (np.arange(height) + 0.5)[:, None] / height * np.pi
    phi = np.pi - (np.arange(2 * height) + 0.5) / height * np.pi
    world = np.stack(np.broadcast_arrays(np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)), -1)
    return np.maximum(sh_basis(world @ AXES) @ ambient_sh, 0)


def _material(part: str) -> dict[str, Any]:
    """Arguments of the script's `_material`."""
    if part == "skin":
        return {"name": part, "base_color": "diffuse", "specular": "specular", "roughness": "roughness"}
    colour, f0, roughness = PART_MATERIALS[part]
    base: Any = "eyes" if part == "eyes" else list(colour)
    return {"name": part, "base_color": base, "specular": f0 / SPECULAR_UNIT, "roughness": roughness}
