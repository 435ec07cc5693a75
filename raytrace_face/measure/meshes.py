"""Shapes and landmarks that are measured, from anyone's files: read, checked, and brought to millimetres.

Every mesh comes with the seven landmarks of the NoW challenge (`LANDMARKS`), as 3D points on or near its surface.
"""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

import numpy as np
import trimesh
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from raytrace_face.errors import InputError
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.measure.surface import F, Surface

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction

Unit = Literal["mm", "cm", "m"]
Index = NDArray[np.integer]

LANDMARKS = (
    "outer corner of the right eye",
    "inner corner of the right eye",
    "inner corner of the left eye",
    "outer corner of the left eye",
    "nose bottom",
    "right corner of the mouth",
    "left corner of the mouth",
)
"""The seven landmarks in the order of NoW; right and left are the person's own (iBUG 37, 40, 43, 46, 34, 49, 55)."""
NETWORK_LANDMARKS = (33, 133, 362, 263, 2, 61, 291)
"""The same in the landmark network's numbering. 2 is where the nose meets the lip; 94, on the columella, lies 3 mm
farther out than the mean head's iBUG point."""
MESH_SUFFIXES = (".obj", ".ply", ".glb", ".stl")
LANDMARK_SUFFIXES = (".txt", ".csv", ".npy", ".json", ".pp")
MILLIMETRES: dict[Unit, float] = {"mm": 1.0, "cm": 10.0, "m": 1000.0}
EYES_MM = (55.0, 130.0)
"""Outer eye corners of people lie so far apart, children and generous errors included (adults: 80 to 100 mm)."""
OFF_SURFACE_MM = 15.0
"""A landmark farther from the vertices belongs to another file, frame or unit."""


@dataclass(frozen=True)
class FaceMesh:
    """A face to be measured: anyone's mesh in mm with the seven landmarks."""

    vertices: F
    """(V, 3) mm, neutral expression where the method tells one; any frame."""
    triangles: Index
    """(F, 3) of the surface that counts: without eyeballs, teeth and the inside of the mouth."""
    landmarks: F
    """(7, 3) mm on the neutral face, in the order of `LANDMARKS`."""
    posed: F | None = None
    """(V, 3) mm with the photo's expression, same frame; None: not known."""


@dataclass(frozen=True)
class Scan:
    """Measured points of a face, the truth."""

    vertices: F
    """(N, 3) mm."""
    normals: F | None
    """(N, 3) unit; None for bare points."""


def mean_face(face_model: str = "embedded") -> FaceMesh:
    """The mean of a face model, by default the embedded one: what a method must beat to have seen the photo at all."""
    from raytrace_face.face.library import find

    model = find(face_model)
    return _of_model(model, model.mean, model.mean)


def load_face(path: Path, landmarks: Path | None = None, unit: Unit = "mm") -> FaceMesh:
    """A mesh file with its landmark file (same unit), or a result folder of this program, which has its own.

    Raises:
        InputError: a file is missing, damaged, or not what it should be; the unit is wrong; landmarks are missing, or
            given beside a result folder.
    """
    if path.is_dir():
        if landmarks is not None:
            raise InputError(f"result {str(path)!r} has its own landmarks: leave --mesh-landmarks out")
        return load_result(path)
    if landmarks is None:
        raise InputError(f"mesh {str(path)!r} needs its seven landmarks: give --mesh-landmarks FILE")
    points = load_landmarks(landmarks, unit)
    vertices, triangles = load_mesh(path, unit)
    check_landmarks(points, vertices, landmarks)
    return FaceMesh(vertices, triangles, points)


def load_result(folder: Path) -> FaceMesh:
    """Neutral and posed shape of a result folder (docs/file-format.md), skin only.

    Raises:
        InputError: no result, damaged, or of a face model without the seven landmarks.
    """
    from raytrace_face.result import Reconstruction

    return of_result(Reconstruction.load(folder))


def of_result(result: Reconstruction) -> FaceMesh:
    """Neutral and posed shape of a reconstruction, skin only.

    Raises:
        InputError: its face model is without the seven landmarks.
    """
    return _of_model(result.face_model(), result.vertices(expression=False), result.vertices())


def _of_model(model: FaceModel, neutral: NDArray[np.floating], posed: NDArray[np.floating]) -> FaceMesh:
    points = seven_points(model, neutral)
    # triangles meet over the seams of the texture, so that normals are smooth there
    skin = model.weld[model.triangles[model.triangle_part == PARTS.index("skin")]]
    return FaceMesh(np.asarray(neutral, np.float64), skin, points, np.asarray(posed, np.float64))


def seven_points(model: FaceModel, vertices: NDArray[np.floating]) -> F:
    """The seven landmarks (7, 3) on vertices (V, 3) of a face model.

    Raises:
        InputError: the model is without them.
    """
    place = {int(number): k for k, number in enumerate(model.landmark_index)}
    if not set(NETWORK_LANDMARKS) <= set(place):
        raise InputError(f"face model {model.name!r} lacks the seven landmarks: save its mesh and give them as a file")
    return np.asarray(model.landmark_points(vertices), np.float64)[[place[k] for k in NETWORK_LANDMARKS]]


def load_scan(path: Path, landmarks: Path, unit: Unit = "mm") -> tuple[Scan, F]:
    """A scan (mesh, or PLY of bare points) and its seven landmarks (7, 3), both in `unit`, in mm.

    Raises:
        InputError: a file is missing, damaged, or not what it should be; the unit is wrong.
    """
    points = load_landmarks(landmarks, unit)
    vertices, triangles = _read_mesh(path, unit)
    check_landmarks(points, vertices, landmarks)
    if not len(triangles):
        return Scan(vertices, None), points
    used, renumbered = np.unique(triangles, return_inverse=True)  # loose points of a mesh are noise of the scanner
    kept = vertices[used]
    return Scan(kept, Surface(kept, renumbered.reshape(-1, 3)).vertex_normals), points


def load_mesh(path: Path, unit: Unit = "mm") -> tuple[F, Index]:
    """Vertices (V, 3) in mm and triangles (F, 3) of a mesh file; a scene's parts are placed and joined.

    Raises:
        InputError: missing, damaged, of another kind, empty, not finite, or without triangles.
    """
    vertices, triangles = _read_mesh(path, unit)
    if not len(triangles):
        raise InputError(f"mesh {str(path)!r} has no triangles: distances need a surface; export it as a mesh")
    return vertices, triangles


def _read_mesh(path: Path, unit: Unit) -> tuple[F, Index]:
    _check_file(path, "mesh", MESH_SUFFIXES)
    try:
        scene = trimesh.load_scene(path, process=False)
        parts = scene.dump()  # every part in its place
        meshes = [part for part in parts if isinstance(part, trimesh.Trimesh)]
        clouds = [part for part in parts if isinstance(part, trimesh.PointCloud)]
    except MemoryError:
        raise
    except Exception as error:  # readers of damaged files raise anything
        raise InputError(f"mesh {str(path)!r} is damaged ({_short(error)}): export it again") from error
    pieces = meshes or clouds
    if not sum(len(piece.vertices) for piece in pieces):
        raise InputError(f"mesh {str(path)!r} is empty: export it again")
    counts = np.cumsum([0] + [len(piece.vertices) for piece in pieces])
    vertices = np.concatenate([np.asarray(piece.vertices, np.float64) for piece in pieces])
    triangles = np.concatenate(
        [np.zeros((0, 3), np.int64)]
        + [np.asarray(mesh.faces, np.int64) + first for mesh, first in zip(meshes, counts, strict=False)]
    )
    if not np.isfinite(vertices).all():
        raise InputError(f"mesh {str(path)!r} holds vertices that are not finite (NaN or infinity): clean it first")
    if len(triangles) and (triangles.min() < 0 or triangles.max() >= len(vertices)):
        raise InputError(f"mesh {str(path)!r} has triangles that point outside its vertices: export it again")
    # one vertex a place: files split them along texture seams, and STL at every corner
    merged, first, place = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.argsort(order)
    return merged[order] * MILLIMETRES[unit], _without_slivers(merged[order], rank[place.ravel()][triangles])


def _without_slivers(vertices: F, triangles: Index) -> Index:
    """The triangles that have an area."""
    return triangles[(np.linalg.norm(Surface(vertices, triangles).triangle_normals, axis=1) > 0.5)]


def load_landmarks(path: Path, unit: Unit = "mm") -> F:
    """Seven points (7, 3) in mm in the order of `LANDMARKS`.

    Text and CSV: three numbers a line. NPY: an array (7, 3), never a pickle. JSON: a list of seven [x, y, z], bare or
    under the key "landmarks". PP: picked points of MeshLab in the order of picking.

    Raises:
        InputError: missing, damaged, another number of points, not finite, or not in this unit.
    """
    _check_file(path, "landmarks", LANDMARK_SUFFIXES)
    try:
        points = _READERS[path.suffix.lower()](path.read_bytes())
    except (ValueError, TypeError, KeyError, EOFError, RecursionError, ElementTree.ParseError) as error:
        raise InputError(f"landmarks {str(path)!r} cannot be read ({_short(error)}): see docs/measures.md") from error
    if points.shape != (len(LANDMARKS), 3):
        raise InputError(
            f"landmarks {str(path)!r} has shape {points.shape}, expected (7, 3): eye corners from the person's right "
            "to the left, nose bottom, mouth corners"
        )
    if not np.isfinite(points).all():
        raise InputError(f"landmarks {str(path)!r} holds values that are not finite (NaN or infinity): mark them again")
    if np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[1] < 0.1 * np.ptp(points, axis=0).max():
        raise InputError(f"landmarks {str(path)!r} lie on one line: mark them again")
    check_unit(points, unit, path)
    return points * MILLIMETRES[unit]


def check_unit(landmarks: F, unit: Unit, path: Path) -> None:
    """Raise `InputError` unless the outer eye corners of landmarks (7, 3) in `unit` are as far apart as people's."""
    apart = float(np.linalg.norm(landmarks[3] - landmarks[0]))
    low, high = EYES_MM
    if low <= apart * MILLIMETRES[unit] <= high:
        return
    fitting = [name for name, mm in MILLIMETRES.items() if low <= apart * mm <= high]
    advice = "scale mesh and landmarks to millimetres"
    if fitting:
        advice = f"this looks like {fitting[0]}; say so with --unit (of a scan: --scan-unit)"
    raise InputError(
        f"landmarks {str(path)!r}: the outer eye corners are {apart:.3g} {unit} apart, people's are "
        f"{low:.0f} to {high:.0f} mm: {advice}"
    )


def check_landmarks(landmarks: F, vertices: F, path: Path) -> None:
    """Raise `InputError` unless landmarks (7, 3) lie on or near vertices (V, 3), all in mm."""
    distance = cKDTree(vertices).query(landmarks)[0]
    worst = int(distance.argmax())
    if distance[worst] > OFF_SURFACE_MM:
        raise InputError(
            f"landmarks {str(path)!r}: the {LANDMARKS[worst]} lies {distance[worst]:.3g} mm from the nearest vertex, "
            f"more than {OFF_SURFACE_MM:.0f}: landmarks and mesh must share frame and unit"
        )


def _check_file(path: Path, what: str, suffixes: tuple[str, ...]) -> None:
    if not path.exists():
        raise InputError(f"{what} {str(path)!r} does not exist: check the path")
    if not path.is_file():
        raise InputError(f"{what} {str(path)!r} is not a file: check the path")
    if path.suffix.lower() not in suffixes:
        raise InputError(f"{what} {str(path)!r} must end in one of {', '.join(suffixes)}")
    try:
        with path.open("rb") as file:
            first = file.read(1)
    except OSError as error:
        raise InputError(f"{what} {str(path)!r} cannot be read ({error.strerror}): check the path") from error
    if not first:
        raise InputError(f"{what} {str(path)!r} is empty: export it again")


def _from_text(data: bytes) -> F:
    lines = (re.split(r"[\s,;]+", line.split("#")[0].strip(" \t,;\r")) for line in data.decode("utf-8").split("\n"))
    return np.array([[float(word) for word in words] for words in lines if words != [""]], np.float64)


def _from_json(data: bytes) -> F:
    values = json.loads(data.decode("utf-8"))
    return np.array(values["landmarks"] if isinstance(values, dict) else values, np.float64)


def _from_npy(data: bytes) -> F:
    return np.asarray(np.load(io.BytesIO(data), allow_pickle=False), np.float64)


def _from_picked_points(data: bytes) -> F:
    text = data.decode("utf-8")
    if "<!entity" in text.lower():  # MeshLab writes none; they are how XML reaches for other files, or explodes
        raise ValueError("it declares XML entities")
    root = ElementTree.fromstring(text)
    return np.array([[float(point.attrib[axis]) for axis in "xyz"] for point in root.iter("point")], np.float64)


_READERS: dict[str, Any] = {
    ".txt": _from_text,
    ".csv": _from_text,
    ".json": _from_json,
    ".npy": _from_npy,
    ".pp": _from_picked_points,
}


def _short(error: Exception) -> str:
    """What an error of a library says, on one line of readable length."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:120]}" if text else type(error).__name__
