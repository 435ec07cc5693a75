"""ICT-FaceKit heads (Li et al. 2020, MIT) as subjects of synthetic photos: their geometry and texture atlas.

Units: mm, the head frame of `raytrace_face` (origin between the eyeballs). Eyes and skin are one textured surface
here, on an atlas of their own: skin by cylindrical projection in the lower 80 %, the two eyes above it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raytrace_face.errors import InputError, ModelError
from raytrace_face.face.formats.ict import (
    EYES,
    LAST,
    LAYOUT,
    NARROW,
    NEUTRAL,
    PACKED,
    read_packed,
    topology,
    triangle_parts,
)
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.types import Array

AXIS_Z_MM = -40.0
"""Axis of the cylinder of the skin's projection."""
SKIN_TOP = 0.8
TEXTURE = 1024
HELD_OUT = {"all": slice(None), "even": slice(0, None, 2), "odd": slice(1, None, 2)}


@dataclass(frozen=True)
class IctHead:
    """The linear model and its 68 landmarks."""

    model: FaceModel
    landmarks: NDArray[np.int64]
    """(68,) vertices of the iBUG landmarks."""


def load_ict(folder: Path) -> IctHead:
    """Read `ict_all_modes.npz` and the topology beside it.

    Raises:
        InputError: a file is missing, or not what it should be.
    """
    try:
        modes = read_packed(folder / PACKED)
        mesh = topology(folder / "FaceXModel" / NEUTRAL)
        layout = json.loads((folder / "FaceXModel" / LAYOUT).read_text(encoding="utf-8"))
        landmarks = np.array(layout["idx_to_landmark_verts"])
    except (OSError, ValueError, KeyError, ModelError) as error:
        raise InputError(
            f"{str(folder)!r} is no ICT-FaceKit folder ({error}): it needs ict_all_modes.npz (mean, id, expr, "
            "expr_names; cm) and FaceXModel/{generic_neutral_mesh.obj,vertex_indices.json}"
        ) from error
    triangles = mesh.triangles[mesh.triangles.max(axis=1) < LAST].astype(np.int32)
    mean = modes.mean[:LAST] - modes.mean[EYES:LAST].mean(axis=0)
    part = triangle_parts(triangles)
    uv = atlas(mean)
    part[part == PARTS.index("eyes")] = 0  # painted, so that eyes have an iris
    own = np.arange(LAST, dtype=np.int32)
    none = np.zeros(0, np.int32)
    model = FaceModel(
        name="ICT-FaceKit",
        mean=mean,
        identity=np.ascontiguousarray(modes.identity[:, :LAST]),
        expression=np.ascontiguousarray(modes.expression[:, :LAST]),
        expression_names=modes.names,
        triangles=triangles,
        triangle_part=part,
        uv=uv,
        weld=own,
        mirror=own,
        landmark_index=none,
        landmark_triangle=none,
        landmark_barycentric=np.zeros((0, 3), np.float32),
        landmark_sigma_mm=np.zeros(0, np.float32),
        regions={"face": (own < NARROW).astype(np.float32)},
        licence="MIT",
        provenance={},
    )
    return IctHead(model, landmarks)


def atlas(mean: Array) -> Array:
    """(V, 2) texture coordinates of vertices (V, 3) of the mean head."""
    angle = np.arctan2(mean[:, 0], mean[:, 2] - AXIS_Z_MM)
    low, high = mean[:, 1].min(), mean[:, 1].max()
    uv = np.stack([0.5 + angle / (2 * np.pi), SKIN_TOP * (mean[:, 1] - low) / (high - low)], axis=1)
    eyes = np.arange(len(mean)) >= EYES
    for side, middle in ((mean[:, 0] < 0, 0.1), (mean[:, 0] >= 0, 0.3)):
        here = eyes & side
        centre = (mean[here].min(0) + mean[here].max(0)) / 2
        radius = float(np.ptp(mean[here, 0])) / 2
        front = mean[here, 2] > centre[2]
        flat = (mean[here, :2] - centre[:2]) / radius * 0.09
        flat[~front] = [0.085, 0]  # the back of the eye is white and never seen
        uv[here] = np.array([middle, 0.9]) + flat
    return uv.astype(np.float32)
