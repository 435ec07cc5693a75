"""ICT-FaceKit Light (Li et al., "Learning Formation of Physically-Based Face Attributes", CVPR 2020; MIT licence).

Layout: a folder `FaceXModel` with `generic_neutral_mesh.obj`, `identity000.obj` ... `identity099.obj` (neutral + one
standard deviation of a principal component), one OBJ an expression unit at weight 1 (`jawOpen.obj`, `browDown_L.obj`)
and `vertex_indices.json` ("expressions": the 53 units that ARKit has, "idx_to_landmark_verts": the 68 iBUG landmarks).
All OBJs share 26,719 vertices in cm, y up, z out of the face, +x to the face's left. The README of the model gives the
vertex ranges below. Texture coordinates lie in one unit tile a material, the skin in tiles 0 and 1.

`ict_all_modes.npz` beside `FaceXModel` holds the same modes in one file: mean (V, 3), id (K, V, 3), expr (E, V, 3) in
cm, expr_names (E,); it is read instead of the OBJs when it is there.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrace_face.errors import ModelError
from raytrace_face.face.formats import obj
from raytrace_face.face.formats.check import check_raw, check_triangles, expect, reading
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.model import PARTS
from raytrace_face.output import sha256
from raytrace_face.types import Array

VERTICES = 26_719
NARROW = 6706
"""The first vertices are the face from forehead to chin: what is scored."""
FACE = 9409
HEAD = 11_248
"""End of face, and of head and neck."""
BOUNDS = (("mouth", HEAD), ("teeth", 17_039), ("eyes", 21_451))
"""Part and its first vertex; skin comes before. Eye sockets and gums count as mouth."""
EYES = dict(BOUNDS)["eyes"]
LAST = 24_591
"""Lacrimal fluid, eye blend and occlusion shells and lashes from here on are hidden."""
NEUTRAL, LAYOUT, PACKED = "generic_neutral_mesh.obj", "vertex_indices.json", "ict_all_modes.npz"
MODES = 100
MM_PER_CM = 10.0

CHARTS = {
    "M_Face": (0.1, 0.0, 0.8, 0.8),
    "M_BackHead": (0.0, 0.8, 1.0, 0.2),
    "M_Teeth": (0.0, 0.0, 0.1, 0.1),
    "M_GumsTongue": (0.9, 0.0, 0.1, 0.1),
    "M_ScleraRight": (0.0, 0.2, 0.1, 0.1),
    "M_ScleraLeft": (0.9, 0.2, 0.1, 0.1),
    "M_IrisRight": (0.0, 0.4, 0.1, 0.1),
    "M_IrisLeft": (0.9, 0.4, 0.1, 0.1),
}
"""Material -> left, bottom, width and height of its tile in the packed chart. The tile of face and neck gets 64 % of
the square (the face itself 21 %; `adopt.atlas` makes it more); both skin tiles lie symmetric about u = 1/2, as they are
drawn, for the mirror's sake."""


@dataclass(frozen=True)
class Packed:
    """`ict_all_modes.npz` in mm, all 26,719 vertices."""

    mean: Array
    """(V, 3)"""
    identity: Array
    """(K, V, 3) per standard deviation."""
    expression: Array
    """(E, V, 3) at weight 1."""
    names: tuple[str, ...]
    """(E,) ICT's own names."""


def arkit_name(name: str) -> str:
    """ARKit's name of an ICT expression; those that ARKit does not split in two lose their side.

    >>> arkit_name("mouthSmile_L"), arkit_name("browInnerUp_R"), arkit_name("jawOpen")
    ('mouthSmileLeft', 'browInnerUp', 'jawOpen')
    """
    base, _, side = name.partition("_")
    if base in ("browInnerUp", "cheekPuff"):
        return base
    return base + {"": "", "L": "Left", "R": "Right"}[side]


def read(path: Path, modes: int = MODES) -> RawModel:
    """Read the folder `FaceXModel`, or the folder that it lies in.

    Identity modes keep their published order: their variance falls but for 14 neighbours that differ by up to 11 %.

    Args:
        path: the folder.
        modes: identity modes to keep, from the first; fit time grows with them, and 50 hold 99 % of the variance.

    Raises:
        ModelError: a file is missing, cut off, of another mesh, or holds no identity mode.
    """
    folder = model_folder(path)
    if folder is None:
        raise ModelError(f"{str(path)!r} has no {NEUTRAL}, nor has its FaceXModel: it is no ICT-FaceKit folder")
    provenance: dict[str, str] = {}
    mesh = topology(folder / NEUTRAL, provenance)
    units = _units(folder / LAYOUT, provenance)
    packed = folder.parent / PACKED
    if packed.is_file():
        provenance[PACKED] = sha256(packed)
        all_modes = read_packed(packed)
    else:
        all_modes = _read_objs(folder, mesh.vertices, units, provenance)
    identity = all_modes.identity[:modes, :LAST]
    if len(identity) == 0:
        raise ModelError(f"{str(folder)!r} has no identity modes (identity000.obj ...): get them with `models get ict`")
    names, expression = _arkit(all_modes, units)
    shown = mesh.triangles.max(axis=1) < LAST
    uv, uv_triangles = packed_uv(mesh, shown, folder / NEUTRAL)
    raw = RawModel(
        format="ICT-FaceKit",
        version="Light",
        mean=np.ascontiguousarray(all_modes.mean[:LAST]),
        identity=np.ascontiguousarray(identity),
        triangles=mesh.triangles[shown].astype(np.int32),
        licence="MIT: free use with its copyright notice",
        citation="Li et al., Learning Formation of Physically-Based Face Attributes, CVPR 2020",
        provenance=provenance,
        expression=expression,
        expression_names=names,
        expression_modes=np.zeros((0, LAST, 3), np.float32),
        triangle_part=triangle_parts(mesh.triangles[shown]),
        uv=uv,
        uv_triangles=uv_triangles,
        limits=_limits(len(all_modes.identity), len(identity), len(names), len({arkit_name(unit) for unit in units})),
    )
    return check_raw(raw, folder)


def model_folder(path: Path) -> Path | None:
    """The folder with the neutral mesh: `path` or `path`/FaceXModel; None: there is none."""
    return next((folder for folder in (path, path / "FaceXModel") if (folder / NEUTRAL).is_file()), None)


def topology(path: Path, provenance: dict[str, str] | None = None) -> obj.Obj:
    """The neutral mesh with all its parts, in cm; its checksum goes into `provenance`.

    Raises:
        ModelError: it is missing, cut off, or not the mesh of ICT-FaceKit Light.
    """
    data = _bytes(path, provenance)
    with reading(path, "an ICT-FaceKit mesh"):
        mesh = obj.parse(data)
    if len(mesh.vertices) != VERTICES:
        raise ModelError(
            f"{path.name!r} has {len(mesh.vertices)} vertices, ICT-FaceKit Light {VERTICES}: it is cut off or of "
            "another version; get it again"
        )
    check_triangles(mesh.triangles, VERTICES, path)
    check_triangles(mesh.uv_triangles, len(mesh.uv), path)
    return mesh


def read_packed(path: Path) -> Packed:
    """Read `ict_all_modes.npz`.

    Raises:
        ModelError: it is missing, damaged, or its arrays do not fit together.
    """
    with reading(path, "packed ICT-FaceKit modes"), path.open("rb") as file, np.load(file, allow_pickle=False) as z:
        # Exact: half precision times ten needs 15 of the 24 bits.
        mean, identity, expression = (z[k].astype(np.float32) * np.float32(MM_PER_CM) for k in ("mean", "id", "expr"))
        names = tuple(str(name) for name in z["expr_names"])
    expect(mean, (VERTICES, 3), path, "mean")
    expect(identity, (-1, VERTICES, 3), path, "id")
    expect(expression, (len(names), VERTICES, 3), path, "expr")
    return Packed(mean, identity, expression, names)


def triangle_parts(triangles: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(F,) index into `PARTS` of triangles (F, 3), by their first vertex."""
    part = np.zeros(len(triangles), np.uint8)
    for name, first in BOUNDS:
        part[triangles.min(axis=1) >= first] = PARTS.index(name)
    return part


def packed_uv(mesh: obj.Obj, shown: NDArray[np.bool_], path: Path) -> tuple[Array, NDArray[np.int32]]:
    """Texture coordinates (T, 2) with each material's tile at its place in `CHARTS`, and (F, 3) corners into them."""
    material, corners = mesh.material[shown], mesh.uv_triangles[shown]
    used, inverse = np.unique(material[:, None] * len(mesh.uv) + corners, return_inverse=True)
    owner, source = np.divmod(used, len(mesh.uv))
    uv = mesh.uv[source]
    for index in np.unique(owner):
        chart = CHARTS.get(mesh.materials[index] if index >= 0 else "")
        if chart is None:
            raise ModelError(f"{path.name!r} has faces of no material of ICT-FaceKit ({', '.join(CHARTS)})")
        here = owner == index
        uv[here] = (uv[here] - np.floor(uv[here].min(axis=0))) * chart[2:] + chart[:2]
    return uv.astype(np.float32), inverse.reshape(corners.shape).astype(np.int32)


def _bytes(path: Path, provenance: dict[str, str] | None) -> bytes:
    with reading(path, "a file of ICT-FaceKit"):
        data = path.read_bytes()
    if provenance is not None:
        provenance[path.name] = hashlib.sha256(data).hexdigest()
    return data


def _units(path: Path, provenance: dict[str, str]) -> tuple[str, ...]:
    data = _bytes(path, provenance)
    with reading(path, "the vertex indices of ICT-FaceKit"):
        values: dict[str, Any] = json.loads(data)
        return tuple(str(name) for name in values["expressions"])


def _read_objs(
    folder: Path, neutral: NDArray[np.float64], units: tuple[str, ...], provenance: dict[str, str]
) -> Packed:
    def modes(names: list[str]) -> Array:
        found = np.empty((len(names), VERTICES, 3), np.float32)
        for mode, name in zip(found, names, strict=True):
            path = folder / f"{name}.obj"
            data = _bytes(path, provenance)
            with reading(path, "an OBJ of ICT-FaceKit"):
                vertices = obj.positions(data)
            if len(vertices) != VERTICES:
                raise ModelError(
                    f"{path.name!r} has {len(vertices)} vertices, {NEUTRAL!r} {VERTICES}: it is cut off, or of another "
                    "mesh; get it again"
                )
            mode[:] = (vertices - neutral) * MM_PER_CM
        return found

    def there(names: list[str]) -> list[str]:
        return [name for name in names if (folder / f"{name}.obj").is_file()]

    found = there(list(units))
    identity = modes(there([f"identity{number:03d}" for number in range(MODES)]))
    return Packed((neutral * MM_PER_CM).astype(np.float32), identity, modes(found), tuple(found))


def _arkit(packed: Packed, units: tuple[str, ...]) -> tuple[tuple[str, ...], Array]:
    """ARKit names, and displacements (E, LAST, 3): sides that ARKit does not split are summed, halves left out."""
    halves: dict[str, list[str]] = {}
    for unit in units:
        halves.setdefault(arkit_name(unit), []).append(unit)
    whole = {name: parts for name, parts in halves.items() if set(parts) <= set(packed.names)}
    expression = np.zeros((len(whole), LAST, 3), np.float32)
    for out, parts in zip(expression, whole.values(), strict=True):
        for part in parts:
            out += packed.expression[packed.names.index(part), :LAST]
    return tuple(whole), expression


def _limits(found: int, kept: int, expressions: int, known: int) -> tuple[str, ...]:
    limits = []
    if found < MODES:
        limits.append(f"{found} of {MODES} identity modes are there")
    if kept < found:
        limits.append(f"{kept} of {found} identity modes are kept")
    if expressions < known:
        limits.append(f"{expressions} of {known} expressions are there")
    return (*limits, "no albedo model", "lashes, tear film and eye shells are left out")
