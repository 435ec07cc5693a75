"""`raytrace-face export RESULT --format ... --out ...`: a result in other programs' files (docs/export.md)."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro
from tyro.conf import Positional

from raytrace_face.errors import InputError

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

Flag = tyro.conf.FlagCreatePairsOff[bool]
Format = Literal["obj", "mitsuba", "mitsuba-stock", "blender", "glb", "ply", "light-exr"]
WRITTEN = {"glb": "face.glb", "ply": "mesh_posed.ply", "light-exr": "light.exr"}
"""Formats that lie in the folder of a result with pictures, and their files there."""
SUFFIXES = {"glb": ".glb", "ply": ".ply", "light-exr": ".exr"}


def export(
    result: Positional[Path],
    *,
    to: Annotated[Format, tyro.conf.arg(name="format")],
    out: Path,
    force: Flag = False,
) -> None:
    """Write a result in a format of other programs (docs/export.md).

    Args:
        result: folder written by `reconstruct`.
        to: folders: obj (OBJ, MTL and PNG maps), mitsuba (scene with this package's skin), mitsuba-stock (with stock
            plugins), blender (script that builds the scene in Blender). Files: glb, ply, light-exr (lat-long map).
        out: folder or file to write.
        force: replace what an earlier export wrote there.
    """
    from raytrace_face.output import check_file, check_output
    from raytrace_face.result import Reconstruction

    if to in SUFFIXES:
        if out.suffix.lower() != SUFFIXES[to]:
            raise InputError(f"output {str(out)!r} must end in {SUFFIXES[to]} for --format {to}")
        check_file(out, force)
    else:
        check_output(out, force)
    face = Reconstruction.load(result)
    if to in WRITTEN and face.traced:
        _copy(result / WRITTEN[to], out, force)
    elif to in WRITTEN:
        _make(face, to, out, force)
    else:
        _write(face, to, out, force)
    print(f"{to:<14}{out}")


def _copy(file: Path, out: Path, force: bool) -> None:
    from raytrace_face.output import new_file

    if not file.is_file():
        raise InputError(f"{str(file)!r} is missing: reconstruct it again")
    with new_file(out, force) as temporary:
        shutil.copyfile(file, temporary)


def _make(face: Reconstruction, to: str, out: Path, force: bool) -> None:
    """The file that a prediction's folder does not hold."""
    from raytrace_face import export
    from raytrace_face.output import new_file

    model = face.face_model()
    with new_file(out, force) as temporary:
        if to == "glb":
            neutral = face.vertices(expression=False)
            export.write_glb(temporary, model, neutral, face.face.expression, face.maps)
        elif to == "ply":
            export.write_ply(temporary, face.vertices(), model)
        else:
            export.write_exr(temporary, export.environment(face))


def _write(face: Reconstruction, to: str, out: Path, force: bool) -> None:
    """A folder with the files of a format and `export.json`, which says what it is."""
    from raytrace_face.export_blender import write_blender
    from raytrace_face.export_obj import write_obj
    from raytrace_face.export_scene import write_scene
    from raytrace_face.output import new_folder, write_json

    with new_folder(out, force) as folder:
        if to == "obj":
            write_obj(face, folder)
        elif to == "blender":
            write_blender(face, folder)
        else:
            write_scene(face, folder, ("scene.xml",) if to == "mitsuba" else ("scene_stock.xml",))
        about = {"format": to, "photo": {"name": face.photo_name, "sha256": face.photo_sha256}}
        write_json(folder / "export.json", {**about, "model": face.model_name, "versions": face.versions})
