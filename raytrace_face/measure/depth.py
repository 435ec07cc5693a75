"""Errors of depth maps: SIDE and MAD of Unsup3d, on any two depth maps of one camera.

Wu, Rupprecht and Vedaldi, "Unsupervised Learning of Probably Symmetric Deformable 3D Objects from Images in the Wild",
CVPR 2020 (arXiv 1911.11130), section 4.1, "Metrics". Both leave the scale of depth open. MAD depends on the number of
pixels and on the camera, because normals are differences of neighbours: figures compare at one size only (the paper's
are at 64 x 64 pixels with 10 degrees of view).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, generate_binary_structure

from raytrace_face.errors import InputError
from raytrace_face.measure.light import mean_angle_deg
from raytrace_face.types import Camera

F = NDArray[np.float64]
Depth = NDArray[np.floating]
"""(H, W) distance along the optical axis, -z of the camera frame; any unit."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class DepthScores:
    """Errors of one depth map."""

    side: float
    """Scale-invariant depth error; the paper prints it times 100."""
    mad_deg: float
    """Mean angle deviation of the normals, degrees."""
    pixels: int
    """How many pixels were scored."""


def scored_pixels(mask: Mask) -> Mask:
    """The mask (H, W) less one pixel all around, as in the paper: renderers err at the rim of things."""
    return binary_erosion(mask, np.ones((3, 3)))


def side(predicted: Depth, truth: Depth, mask: Mask) -> float:
    """Scale-invariant depth error: sqrt(mean D^2 - (mean D)^2), D = log predicted - log truth, inside `mask`.

    >>> plane = np.array([[700.0, 710.0]])
    >>> side(3 * plane, plane, np.ones((1, 2), bool)) < 1e-12
    True
    """
    return float(np.std(np.log(predicted[mask].astype(np.float64)) - np.log(truth[mask].astype(np.float64))))


def normals_from_depth(depth: Depth, camera: Camera, mask: Mask) -> F:
    """Unit normals (H, W, 3) of the surface that a perspective camera sees, camera frame: x right, y up, z to it.

    The cross product of the central differences of the points d K^-1 p along u and v (section 3.3).
    0 where the pixel or one of its four neighbours is outside of `mask`; depth outside may be anything.
    """
    height, width = depth.shape
    cx, cy = camera.principal_px
    d = np.where(mask, depth, 1).astype(np.float64)
    x, y = np.arange(width) + 0.5 - cx, cy - np.arange(height)[:, None] - 0.5
    points = np.stack([d * x / camera.focal_px, d * y / camera.focal_px, -d], axis=-1)
    normals = np.zeros((height, width, 3))
    right = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    normals[1:-1, 1:-1] = np.cross(down, right)
    known = binary_erosion(mask, generate_binary_structure(2, 1))
    normals[~known] = 0
    return normals / np.maximum(np.linalg.norm(normals, axis=-1, keepdims=True), 1e-300)


def mad_deg(predicted: Depth, truth: Depth, mask: Mask, camera: Camera) -> float:
    """Mean angle deviation in degrees between the normals of two depth maps, inside `scored_pixels(mask)`."""
    p, t = (normals_from_depth(depth, camera, mask) for depth in (predicted, truth))
    return mean_angle_deg(p, t, scored_pixels(mask))


def depth_scores(predicted: Depth, truth: Depth, mask: Mask, camera: Camera | None = None) -> DepthScores:
    """SIDE and MAD as in the paper: inside the mask less one pixel all around.

    Args:
        mask: (H, W) where both depths are known; the paper's is where both maps show the object.
        camera: of both maps; without it MAD is NaN.

    Raises:
        InputError: sizes differ, depth inside the mask is not positive, or nothing is left to score.
    """
    if not predicted.shape == truth.shape == mask.shape:
        raise InputError(
            f"depth {predicted.shape}, truth {truth.shape} and mask {mask.shape} differ: give maps of one camera"
        )
    scored = scored_pixels(mask)
    if not scored.any():
        raise InputError("the mask less one pixel all around is empty: give a larger mask")
    for name, depth in (("predicted", predicted), ("true", truth)):
        if not (np.isfinite(depth[mask]) & (depth[mask] > 0)).all():
            raise InputError(f"{name} depth is not positive everywhere in the mask: leave those pixels out of the mask")
    angle = float("nan") if camera is None else mad_deg(predicted, truth, mask, camera)
    return DepthScores(side(predicted, truth, scored), angle, int(scored.sum()))
