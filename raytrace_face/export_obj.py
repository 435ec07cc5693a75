"""The head as Wavefront OBJ + MTL with the PBR statements of the format's common extension (`map_Pr`, `Pm`).

OBJ has its uv origin at the bottom left, as the model has; its pictures have their top row first, as the maps have. So
both are written as they stand. The format has no unit: coordinates are millimetres, as in the PLY files.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.colour import encode_u8
from raytrace_face.export import linear_u8, write_png
from raytrace_face.face.mesh import vertex_normals
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.parts import PART_MATERIALS, eye_texture

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

NAME = "face"
"""`face.obj` and `face.mtl`."""


def write_obj(result: Reconstruction, folder: Path) -> None:
    """Write the posed head: `face.obj`, `face.mtl` and `textures/` with 8-bit PNGs, into an existing folder."""
    model = result.face_model()
    (folder / "textures").mkdir()
    write_png(folder / "textures" / "diffuse.png", encode_u8(result.maps.diffuse))
    write_png(folder / "textures" / "roughness.png", linear_u8(result.maps.roughness))
    write_png(folder / "textures" / "eyes.png", encode_u8(eye_texture()))
    (folder / f"{NAME}.obj").write_text(obj_text(model, result.vertices()), encoding="ascii")
    (folder / f"{NAME}.mtl").write_text(mtl_text(model, float(result.maps.specular.mean())), encoding="ascii")


def obj_text(model: FaceModel, vertices: NDArray[np.floating]) -> str:
    """The OBJ file of vertices (V, 3) in mm: one `v`, `vt`, `vn` a vertex, one group and material a part.

    Nine digits keep a float32 exactly.
    """
    normals = vertex_normals(vertices, model.triangles, model.weld)
    text = io.StringIO()
    text.write(f"# raytrace_face: millimetres, x right, y up, z out of the face\nmtllib {NAME}.mtl\no {NAME}\n")
    for keyword, values in (("v", vertices), ("vt", model.uv), ("vn", normals)):
        np.savetxt(text, values, fmt=" ".join([keyword] + ["%.9g"] * values.shape[1]))
    for number, part in enumerate(PARTS):
        chosen = model.triangles[model.triangle_part == number] + 1  # OBJ counts from 1
        if len(chosen):
            text.write(f"g {part}\nusemtl {part}\n")
            np.savetxt(text, np.repeat(chosen, 3, axis=1), fmt="f " + " ".join(["%d/%d/%d"] * 3))
    return text.getvalue()


def mtl_text(model: FaceModel, skin_f0: float) -> str:
    """The MTL file. `Ks` is F0 and `Ni` the index of refraction that gives it: of the skin the mean of its map.

    There is no map of F0: readers do not agree on what `map_Ks` means (reflectance, or the strength of a highlight).
    Nor is there `norm`: the maps hold no normals.
    """
    blocks = []
    for number, part in enumerate(PARTS):
        if not (model.triangle_part == number).any():
            continue
        colour, f0, roughness = ((1.0, 1.0, 1.0), skin_f0, None) if part == "skin" else PART_MATERIALS[part]
        textured = {"skin": "diffuse", "eyes": "eyes"}.get(part)
        kd = (1.0, 1.0, 1.0) if textured else colour
        root = math.sqrt(f0)
        lines = [
            f"newmtl {part}",
            "illum 2",
            f"Kd {_numbers(kd)}",
            f"Ks {_numbers((f0, f0, f0))}",
            f"Ni {(1 + root) / (1 - root):.6g}",
            "Pm 0",
        ]
        if textured:
            lines.append(f"map_Kd textures/{textured}.png")
        lines.append("map_Pr textures/roughness.png" if roughness is None else f"Pr {roughness:g}")
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:.6g}" for value in values)
