"""How the field measures the geometry of faces against scans: the NoW challenge, and MICC Florence.

Both lay the mesh onto the scan from seven landmarks by ICP, then measure from every scan point that counts to the
mesh. docs/measures.md has definitions, sources, and where the published code differs. A similarity takes out size
and, with it, most of what methods get wrong, so that the mean face alone is level with some of them: `compare` puts
its row beside the method's, and every row has un-scaled, posed and normal errors beside the aligned one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from raytrace_face.errors import InputError
from raytrace_face.measure.alignment import Similarity, from_landmarks, icp
from raytrace_face.measure.geometry import (
    Errors,
    normal_errors_deg,
    plane_distances,
    surface_distances,
    vertex_distances,
)
from raytrace_face.measure.meshes import FaceMesh, mean_face
from raytrace_face.measure.surface import F, Points, Surface, unit

Mask = NDArray[np.bool_]
Measure = Callable[[Points, Surface], F]

REGIONS = ("nose", "mouth", "forehead", "cheeks")
MEAN_FACE = "mean face"
MICC_RADIUS_MM = 95.0
"""Scan points that far from the nose tip count (after Genova et al., CVPR 2018)."""
NOSE_MM = 35.0
"""The nose tip lies so near to the nose bottom."""
LANDMARK_RMS_MM = 8.0
"""Landmarks that fit no better are in another order: those of faces fit to 1 to 4 mm, mirrored ones to 12 or more."""


@dataclass(frozen=True)
class GeometryScores:
    """How far a mesh lies from a scan. Millimetres; over the scan points that count."""

    protocol: str
    aligned: Errors
    """After a similarity (rotation, shift, scale), by the protocol's own distance."""
    rigid: Errors
    """The same without scale: size counts."""
    posed: Errors | None
    """Of the mesh with its expression in place of the neutral one, after a similarity."""
    point_to_point: Errors
    """To the nearest vertex, after the similarity of `aligned`."""
    normals_deg: Errors | None
    """Angles in degrees between scan and mesh normals, after the similarity; None for bare points."""
    regions: dict[str, Errors]
    """`aligned` by place on the face (`face_regions`)."""
    motion: Similarity
    """Mesh -> scan, of `aligned`."""
    counted: Mask
    """(N,) which scan points count."""
    distance_mm: F
    """Aligned distance of each scan point that counts."""

    def row(self) -> dict[str, float]:
        """The figures by name, NaN where there is none: a line of a table."""
        none = Errors.of(np.zeros(0))
        a, normals = self.aligned, self.normals_deg or none
        return {
            "aligned_median_mm": a.median,
            "aligned_mean_mm": a.mean,
            "aligned_std_mm": a.std,
            "aligned_p90_mm": a.p90,
            "aligned_rmse_mm": a.rmse,
            "unscaled_median_mm": self.rigid.median,
            "unscaled_mean_mm": self.rigid.mean,
            "posed_median_mm": (self.posed or none).median,
            "point_to_point_median_mm": self.point_to_point.median,
            "normals_median_deg": normals.median,
            "normals_mean_deg": normals.mean,
            **{f"{name}_median_mm": self.regions[name].median for name in REGIONS},
            "scale": self.motion.scale,
            "points": float(a.n),
        }


def now(
    scan_vertices: Points, scan_landmarks: Points, mesh: FaceMesh, scan_normals: Points | None = None
) -> GeometryScores:
    """Distance of the face of a scan from the mesh's surface, as in the NoW challenge (Sanyal et al., CVPR 2019).

    `aligned` is the challenge's non-metrical error, `rigid` its metrical one.

    Args:
        scan_vertices: (N, 3) mm.
        scan_landmarks: (7, 3) mm, in the order of `meshes.LANDMARKS`.
        mesh: what is measured; its frame may be any.
        scan_normals: (N, 3) unit; None leaves normal errors out.

    Raises:
        InputError: no scan point counts, or the landmarks of scan and mesh do not fit.
    """
    centre, radius = now_sphere(scan_landmarks)
    counted = np.linalg.norm(scan_vertices - centre, axis=1) <= radius
    return _scores("now", scan_vertices, scan_landmarks, mesh, scan_normals, counted, surface_distances)


def micc(
    scan_vertices: Points,
    scan_landmarks: Points,
    mesh: FaceMesh,
    scan_normals: Points | None = None,
    tip: Points | None = None,
) -> GeometryScores:
    """Point-to-plane distance within 95 mm of the scan's nose tip, as on MICC Florence (Bagdanov et al. 2011).

    Args:
        scan_vertices: (N, 3) mm.
        scan_landmarks: (7, 3) mm, in the order of `meshes.LANDMARKS`.
        mesh: what is measured; its frame may be any.
        scan_normals: (N, 3) unit; None leaves normal errors out.
        tip: (3,) nose tip on the scan; None finds it (`nose_tip`).

    Raises:
        InputError: no scan point counts, or the landmarks of scan and mesh do not fit.
    """
    middle = nose_tip(scan_vertices, scan_landmarks) if tip is None else tip
    counted = np.linalg.norm(scan_vertices - middle, axis=1) <= MICC_RADIUS_MM
    return _scores("micc", scan_vertices, scan_landmarks, mesh, scan_normals, counted, plane_distances)


PROTOCOLS = {"now": now, "micc": micc}


def compare(
    protocol: str,
    name: str,
    scan_vertices: Points,
    scan_landmarks: Points,
    mesh: FaceMesh,
    scan_normals: Points | None = None,
    progress: bool = False,
) -> dict[str, GeometryScores]:
    """Scores of a method and of the mean face on one scan, by name. Arguments and errors as those of `now`."""
    if name == MEAN_FACE:
        raise InputError(f"{name!r} is the name of the row to compare with: rename the mesh")
    measure = PROTOCOLS[protocol]
    shapes = {name: mesh, MEAN_FACE: mean_face()}
    bar = tqdm(shapes.items(), "measure", unit="shape", disable=not progress, leave=False)
    return {key: measure(scan_vertices, scan_landmarks, shape, scan_normals) for key, shape in bar}


def table_rows(scores: Mapping[str, GeometryScores]) -> list[dict[str, str | float]]:
    """One row a shape: its name, then its figures."""
    return [{"shape": name, **score.row()} for name, score in scores.items()]


def now_sphere(landmarks: Points) -> tuple[F, float]:
    """Centre (3,) and radius in mm of the ball whose scan points count in NoW.

    The centre lies 0.3 of the way from the nose bottom to the middle of the inner eye corners; the radius is 0.7 times
    the sum of that way's length and the distance of the outer eye corners.
    """
    bottom, bridge = landmarks[4], (landmarks[1] + landmarks[2]) / 2
    length, width = np.linalg.norm(bridge - bottom), np.linalg.norm(landmarks[3] - landmarks[0])
    return np.asarray(bottom + 0.3 * (bridge - bottom), np.float64), float(0.7 * (width + length))


def face_frame(landmarks: Points) -> tuple[F, F]:
    """Origin (3,) midway between the inner eye corners, and axes (3, 3) in rows: to the person's left, up, forward."""
    p = np.asarray(landmarks, np.float64)
    origin = (p[1] + p[2]) / 2
    left = unit((p[2] + p[3] + p[6]) - (p[0] + p[1] + p[5]))
    up = p[:4].mean(axis=0) - p[5:].mean(axis=0)
    up = unit(up - (up @ left) * left)
    return origin, np.stack([left, up, np.cross(left, up)])


def nose_tip(points: Points, landmarks: Points) -> F:
    """(3,) the scan point (of N, 3) near the nose bottom that lies farthest forward in the frame of the landmarks.

    Raises:
        InputError: no point lies near the nose bottom.
    """
    _, axes = face_frame(landmarks)
    near = points[np.linalg.norm(points - landmarks[4], axis=1) < NOSE_MM]
    if not len(near):
        raise InputError(f"no scan point lies within {NOSE_MM:.0f} mm of the nose bottom: check the scan's landmarks")
    return np.asarray(near[(near @ axes[2]).argmax()], np.float64)


def face_regions(points: Points, landmarks: Points) -> dict[str, Mask]:
    """Which points (N, 3) lie on nose, mouth, forehead and cheeks, told from the scan's landmarks (7, 3) alone.

    Boxes in the frame of the landmarks (`face_frame`), with x to the side and y up, in lengths of the face itself:
    e between the inner and w between the outer eye corners, n from the eyes down to the nose bottom, l from there
    down to the mouth, m across the mouth.

    - nose: |x| < 0.6 e, y from the eyes to 0.1 n below the nose bottom;
    - mouth: |x| < 0.7 m, y from 0.1 n below the nose bottom to l below the mouth;
    - forehead: |x| < 0.6 w, y > 0.6 n;
    - cheeks: |x| < 0.8 w, y from 0.35 n below the eyes to the mouth, without nose and mouth.

    Eyes, brows, jaw and chin are in none.
    """
    origin, axes = face_frame(landmarks)
    corners = (landmarks - origin) @ axes.T
    side, up = np.abs((points - origin) @ axes[0]), (points - origin) @ axes[1]
    e, w = corners[2, 0] - corners[1, 0], corners[3, 0] - corners[0, 0]
    bottom, lips = corners[4, 1], corners[5:, 1].mean()
    n, drop, m = -bottom, bottom - lips, corners[6, 0] - corners[5, 0]
    nose = (side < 0.6 * e) & (up < 0) & (up >= bottom - 0.1 * n)
    mouth = (side < 0.7 * m) & (up < bottom - 0.1 * n) & (up > lips - drop)
    return {
        "nose": nose,
        "mouth": mouth,
        "forehead": (side < 0.6 * w) & (up > 0.6 * n),
        "cheeks": (side < 0.8 * w) & (up < -0.35 * n) & (up > lips) & ~nose & ~mouth,
    }


def _scores(
    protocol: str,
    scan_vertices: Points,
    scan_landmarks: Points,
    mesh: FaceMesh,
    scan_normals: Points | None,
    counted: Mask,
    measure: Measure,
) -> GeometryScores:
    """Align the mesh to the scan points that count in three ways, and measure."""
    points = np.asarray(scan_vertices, np.float64)[counted]
    if not len(points):
        raise InputError("no scan point lies where the protocol measures: check the scan's landmarks")
    start = from_landmarks(mesh.landmarks, scan_landmarks)
    rms = float(np.sqrt(((start.apply(mesh.landmarks) - scan_landmarks) ** 2).sum(axis=1).mean()))
    if rms > LANDMARK_RMS_MM:
        raise InputError(
            f"the landmarks of mesh and scan fit to {rms:.0f} mm only: both must be in the order of NoW (the person's "
            "right eye first), on the same places"
        )
    neutral = Surface(np.asarray(mesh.vertices, np.float64), mesh.triangles)
    motion = icp(neutral, points, start)
    rigid = icp(neutral, points, from_landmarks(mesh.landmarks, scan_landmarks, scale=False), scale=False)
    distance = _distances(measure, points, neutral, motion)
    posed = normals = None
    if mesh.posed is not None:
        shape = Surface(np.asarray(mesh.posed, np.float64), mesh.triangles)
        posed = Errors.of(_distances(measure, points, shape, icp(shape, points, motion)))
    if scan_normals is not None:
        turned = np.asarray(scan_normals, np.float64)[counted] @ motion.rotation
        normals = Errors.of(normal_errors_deg(motion.undo(points), turned, neutral))
    return GeometryScores(
        protocol=protocol,
        aligned=Errors.of(distance),
        rigid=Errors.of(_distances(measure, points, neutral, rigid)),
        posed=posed,
        point_to_point=Errors.of(_distances(vertex_distances, points, neutral, motion)),
        normals_deg=normals,
        regions={k: Errors.of(distance[inside]) for k, inside in face_regions(points, scan_landmarks).items()},
        motion=motion,
        counted=counted,
        distance_mm=distance,
    )


def _distances(measure: Measure, points: F, surface: Surface, motion: Similarity) -> F:
    """Distances (N,) in mm of the scan from the moved mesh: taken in the mesh's frame, so that its trees serve all."""
    return motion.scale * measure(motion.undo(points), surface)
