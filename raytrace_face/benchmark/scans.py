"""Scores against scans (`now`, `micc`): the shape of a photo's reconstruction, of another program's mesh, of nothing.

Doing nothing is the mean face, and every item carries its figures beside the method's: after similarity alignment the
mean face alone is level with published methods.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from raytrace_face.benchmark.protocol import Column, Pooled, Scored
from raytrace_face.benchmark.spec import Benchmark, Item
from raytrace_face.errors import InputError
from raytrace_face.measure import meshes, protocols
from raytrace_face.measure.surface import F
from raytrace_face.result import Reconstruction

FIGURES = (
    Column("aligned_median_mm", "aligned median, mm", "low"),
    Column("aligned_mean_mm", "mean", "low"),
    Column("aligned_std_mm", "std", "low", detail=True),
    Column("aligned_p90_mm", "p90", "low", detail=True),
    Column("unscaled_median_mm", "un-scaled median, mm", "low"),
    Column("posed_median_mm", "posed median, mm", "low"),
    Column("normals_median_deg", "normals median, deg", "low", 1),
    Column("nose_median_mm", "nose", "low", detail=True),
    Column("mouth_median_mm", "mouth", "low", detail=True),
    Column("forehead_median_mm", "forehead", "low", detail=True),
    Column("cheeks_median_mm", "cheeks", "low", detail=True),
)
COLUMNS = FIGURES
GROUP = "challenge"
PERSON = "scan"
POOLED: Pooled | None = None
REFERENCE: Mapping[str, str] = {f"{protocols.MEAN_FACE}.{c.key}": c.key for c in FIGURES}


def geometry_row(
    protocol: str, scan: meshes.Scan, landmarks: F, mesh: meshes.FaceMesh, mean: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Figures of a mesh against a scan, and those of the mean face beside them (`mean`, where they are known)."""
    found = protocols.PROTOCOLS[protocol](scan.vertices, landmarks, mesh, scan.normals).row()
    return {**found, **(mean_face_row(protocol, scan, landmarks) if mean is None else mean)}


def mean_face_row(protocol: str, scan: meshes.Scan, landmarks: F) -> dict[str, Any]:
    """Figures of the mean face against a scan, under names that say so."""
    found = protocols.PROTOCOLS[protocol](scan.vertices, landmarks, meshes.mean_face(), scan.normals).row()
    return {f"{protocols.MEAN_FACE}.{key}": value for key, value in found.items()}


def _scan(benchmark: Benchmark, item: Item) -> tuple[meshes.Scan, F]:
    unit: Any = benchmark.options.get("unit", "mm")
    if unit not in meshes.MILLIMETRES:
        raise InputError(f"benchmark has unit {unit!r}: use one of {', '.join(meshes.MILLIMETRES)}")
    return meshes.load_scan(benchmark.path(str(item["scan"])), benchmark.path(str(item["landmarks"])), unit)


def _score(benchmark: Benchmark, item: Item, mesh: meshes.FaceMesh) -> Scored:
    row = geometry_row(benchmark.protocol, *_scan(benchmark, item), mesh)
    names = {GROUP: str(item.values.get(GROUP, "")), PERSON: str(item["scan"])}
    return Scored({**names, **row})


def score(benchmark: Benchmark, item: Item, result: Reconstruction) -> Scored:
    """Figures of a reconstruction."""
    return _score(benchmark, item, meshes.of_result(result))


def score_nothing(benchmark: Benchmark, item: Item) -> Scored:
    """Figures of the mean face."""
    return _score(benchmark, item, meshes.mean_face())


def score_files(benchmark: Benchmark, item: Item, folder: Path) -> Scored:
    """Figures of `<id>.obj|ply|glb|stl` with the landmarks `<id>.txt` (7 x 3), or of a result folder `<id>`."""
    return _score(benchmark, item, mesh_of(folder, item))


def mesh_of(folder: Path, item: Item) -> meshes.FaceMesh:
    """Another program's mesh of an item.

    Raises:
        InputError: there is none, or it cannot be read.
    """
    if (folder / item.id / "result.json").is_file():
        return meshes.load_face(folder / item.id)
    for suffix in meshes.MESH_SUFFIXES:
        path = folder / (item.id + suffix)
        if path.is_file():
            return meshes.load_face(path, folder / f"{item.id}.txt")
    raise InputError(
        f"{str(folder)!r} has nothing for item {item.id!r}: give {item.id}{'|'.join(meshes.MESH_SUFFIXES)} "
        f"and {item.id}.txt with its seven landmarks, or a result folder of that name"
    )
