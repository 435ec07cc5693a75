"""Scores on synthetic photos with exact truth: shape, pose, expression, albedo, light (`benchmark.make_synthetic`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raytrace_face.benchmark import scans
from raytrace_face.benchmark.pictures import strip, to_u8
from raytrace_face.benchmark.protocol import NAN, Column, Pooled, Scored
from raytrace_face.benchmark.spec import Benchmark, Item
from raytrace_face.benchmark.yaleb import on_crop
from raytrace_face.capture.colour import srgb_to_linear
from raytrace_face.face.camera import project, to_camera
from raytrace_face.face.library import EMBEDDED
from raytrace_face.measure import geometry, images, light, meshes, protocols
from raytrace_face.measure.surface import F, Surface
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array

COLUMNS = (
    *scans.FIGURES,
    Column("pose_deg", "pose, deg", "low", 1),
    Column("light_error_deg", "light, deg", "low", 1),
    Column("landmarks_px", "landmarks, px", "low"),
    Column("albedo_rmse", "albedo rmse", "low"),
    Column("expression_rmse", "active expression rmse", "low", detail=True),
    Column("expression_quiet", "quiet expression mean", "low", detail=True),
    Column("psnr_db", "own photo, dB", "high", 1),
)
GROUP = "light"
PERSON = "head"
POOLED: Pooled | None = None
REFERENCE: Mapping[str, str] = scans.REFERENCE
SHOWN = 192
"""Side of the pictures in pixels."""


def _geometry(benchmark: Benchmark, item: Item, mesh: meshes.FaceMesh) -> dict[str, Any]:
    """Figures of a mesh against the item's head, and the mean face's."""
    path = benchmark.path(str(item["head"]))
    return scans.geometry_row("now", *_scan(path), mesh, _mean_face(path))


def _scan(path: Path) -> tuple[meshes.Scan, F]:
    with np.load(path, allow_pickle=False) as z:
        vertices = z["vertices"].astype(np.float64)
        return meshes.Scan(vertices, Surface(vertices, z["triangles"]).vertex_normals), z["landmarks"]


@lru_cache(maxsize=8)
def _mean_face(path: Path) -> Mapping[str, Any]:
    """Half of the time of a score, and the same for every photo of a head."""
    return scans.mean_face_row("now", *_scan(path))


@lru_cache(maxsize=4)
def head_turn(benchmark_folder: Path, mean_head: str, face_model: str) -> NDArray[np.float64]:
    """Rotation (3, 3) from a face model's mean head to the test model's: their frames agree in origin, not in tilt."""
    with np.load(benchmark_folder / mean_head, allow_pickle=False) as z:
        mean = meshes.mean_face(face_model)
        return geometry.align(mean.vertices, mean.triangles, z["vertices"][::2]).motion.rotation


def expression_errors(result: Reconstruction, truth: Mapping[str, float]) -> dict[str, float]:
    """RMSE of the weights that are not zero in truth, and mean of those that are, gaze and blinks left out.

    The two models' units are not the same, so that even a perfect fit is not zero.
    """
    active, quiet = [], []
    for name, weight in zip(result.face_model().expression_names, result.face.expression, strict=True):
        if truth.get(name, 0.0):
            active.append((float(weight) - truth[name]) ** 2)
        elif not name.startswith(("eyeLook", "eyeBlink", "tongue")):
            quiet.append(float(weight))
    rmse = float(np.sqrt(np.mean(active))) if active else NAN
    return {"expression_rmse": rmse, "expression_quiet": float(np.mean(quiet)) if quiet else NAN}


def landmark_error(item: Item, result: Reconstruction) -> float:
    """RMS distance in pixels of the photo of the seven landmarks of scans, expression and all, from where they are.

    NaN in a benchmark that was made without them. The two models place the same landmark up to 3 mm apart.
    """
    if "landmarks_px" not in item.values:
        return NAN
    points = meshes.seven_points(result.face_model(), result.vertices())
    found = project(result.camera, to_camera(result.face.T_camera_head, points))
    return float(np.sqrt(((found - np.array(item["landmarks_px"])) ** 2).sum(axis=1).mean()))


def albedo_error(benchmark: Benchmark, item: Item, result: Reconstruction) -> tuple[float, Array, Array]:
    """Relative rmse of the albedo up to one scale a channel, on the fitted pixels, and both maps (H, W, 3)."""
    truth = _albedo(benchmark, item)
    shape = (truth.shape[0], truth.shape[1])
    found = on_crop(result.pictures.diffuse, result.window, shape)
    mask = (on_crop(result.pictures.mask, result.window, shape) > 0.5) & (truth.sum(axis=2) > 0)
    if not mask.any():
        return NAN, found, truth
    return _colour_rmse(found, truth, mask), found, truth


def _albedo(benchmark: Benchmark, item: Item) -> Array:
    """(H, W, 3) true albedo, 0 off the head."""
    with np.load(benchmark.path(str(item["truth"])), allow_pickle=False) as z:
        return np.asarray(z["albedo"].astype(np.float32))


def _colour_rmse(found: Array, truth: Array, mask: NDArray[np.bool_]) -> float:
    return float(np.mean([images.relative_rmse(found[..., c], truth[..., c], mask) for c in range(3)]))


def _rotation(benchmark: Benchmark, item: Item, face_model: str = EMBEDDED) -> NDArray[np.float64]:
    """(3, 3) true pose of a face model's mean head, camera frame."""
    turn = head_turn(benchmark.folder.resolve(), str(benchmark.options["mean_head"]), face_model)
    return np.asarray(np.array(item["T_camera_head"])[:3, :3] @ np.array(item["rotation"]) @ turn, np.float64)


def score(benchmark: Benchmark, item: Item, result: Reconstruction) -> Scored:
    """Figures of a reconstruction."""
    row: dict[str, Any] = _start(item)
    row |= _geometry(benchmark, item, meshes.of_result(result))
    row["pose_deg"] = light.rotation_angle_deg(
        result.face.T_camera_head[:3, :3], _rotation(benchmark, item, result.config.face_model)
    )
    row["light_error_deg"] = float(light.angle_deg(result.dominant_light, np.array(item["light_direction"])))
    row["landmarks_px"] = landmark_error(item, result)
    row["albedo_rmse"], found, truth = albedo_error(benchmark, item, result)
    row |= expression_errors(result, item["expression"])
    row["psnr_db"] = float(result.metrics.get("psnr_db", NAN))
    photo = np.asarray(Image.open(benchmark.path(str(item["photo"]))))
    render = on_crop(result.pictures.render, result.window, (photo.shape[0], photo.shape[1]))
    shown = [("photo", photo), ("render", to_u8(render)), ("albedo", to_u8(found)), ("true albedo", to_u8(truth))]
    title = (
        f"{item.id}  {row['aligned_median_mm']:.2f} mm, mean face {row[f'{protocols.MEAN_FACE}.aligned_median_mm']:.2f}"
    )
    small = [(name, np.asarray(Image.fromarray(x).resize((SHOWN, SHOWN)))) for name, x in shown]
    return Scored(row, picture=strip(title, small))


def _start(item: Item) -> dict[str, Any]:
    return {"light": item["light"], "head": item["head"], "yaw_deg": item["yaw_deg"], **{c.key: NAN for c in COLUMNS}}


def score_nothing(benchmark: Benchmark, item: Item) -> Scored:
    """The mean face, without expression, straight on, light from the camera, the photo as albedo.

    Only `psnr_db` and `landmarks_px` have no floor: nothing is rendered or placed.
    """
    row = _start(item) | _geometry(benchmark, item, meshes.mean_face())
    row["pose_deg"] = light.rotation_angle_deg(np.eye(3), _rotation(benchmark, item))
    row["light_error_deg"] = float(light.angle_deg(np.array([0, 0, 1.0]), np.array(item["light_direction"])))
    codes = np.asarray(Image.open(benchmark.path(str(item["photo"]))))
    truth = _albedo(benchmark, item)
    row["albedo_rmse"] = _colour_rmse(srgb_to_linear(codes / 255), truth, truth.sum(axis=2) > 0)
    active = [w for w in item["expression"].values() if w]
    row["expression_rmse"] = float(np.sqrt(np.mean(np.square(active)))) if active else NAN
    row["expression_quiet"] = 0.0
    return Scored(row)


def score_files(benchmark: Benchmark, item: Item, folder: Path) -> Scored:
    """Figures of a result folder `<id>`; of a mesh `<id>.obj|ply|glb|stl` with `<id>.txt`, its shape alone."""
    if (folder / item.id / "result.json").is_file():
        return score(benchmark, item, Reconstruction.load(folder / item.id))
    mesh = scans.mesh_of(folder, item)
    return Scored(_start(item) | _geometry(benchmark, item, mesh))
