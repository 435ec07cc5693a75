"""Named regions of the head as smooth vertex weights, by place relative to features (head frame, mm)."""

from __future__ import annotations

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from raytrace_face.face.embedded.makehuman import Head
from raytrace_face.face.mesh import Floats, Index, edges_of
from raytrace_face.face.model import PARTS


def ramp(x: Floats, start: float, end: float) -> Floats:
    """Smooth step: 0 at `start`, 1 at `end` (either order), zero slope at both."""
    t = np.clip((x - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def bump(points: Floats, centre: tuple[float, float], radii: tuple[float, float]) -> Floats:
    """Mirror-symmetric elliptic bump exp(-r^2) in frontal (|x|, y) coordinates."""
    x, y = np.abs(points[:, 0]), points[:, 1]
    return np.exp(-(((x - centre[0]) / radii[0]) ** 2) - ((y - centre[1]) / radii[1]) ** 2)


def smooth(field: Floats, quads: Index, rounds: int) -> Floats:
    """Average with the neighbours, `rounds` times."""
    edges, _, _ = edges_of(quads)
    n = len(field)
    ends = np.concatenate([edges, edges[:, ::-1]])
    degree = np.maximum(np.bincount(ends[:, 0], minlength=n), 1)
    for _ in range(rounds):
        field = 0.5 * field + 0.5 * np.bincount(ends[:, 0], field[ends[:, 1]], minlength=n) / degree
    return field


def regions(head: Head, mean: Floats, landmarks: Floats) -> dict[str, Floats]:
    """Region weights (V,) in [0, 1] on the coarse mean.

    Args:
        mean: (V, 3) mm, head frame.
        landmarks: (68, 3) iBUG points in the head frame.
    """
    quads = head.quads
    skin = np.zeros(len(mean))
    skin[np.unique(quads[head.quad_part == PARTS.index("skin")])] = 1
    x, y, z = np.abs(mean[:, 0]), mean[:, 1], mean[:, 2]
    nose_tip, chin = landmarks[30], landmarks[8]
    mouth_y = landmarks[[60, 64], 1].mean()
    corner_x = np.abs(landmarks[[48, 54], 0]).mean()
    ears = np.clip(smooth(head.masks["ears"], quads, 1), 0, 1) * ramp(x, 55, 62)
    lips = np.clip(smooth(head.masks["lips"], quads, 1) * 1.3, 0, 1)
    eyelids = np.clip(smooth(head.masks["eyelids"], quads, 1) * 1.2, 0, 1)
    brow_points = [
        CubicSpline(np.arange(5), landmarks[side])(np.linspace(0, 4, 60)) for side in (range(17, 22), range(22, 27))
    ]
    brow_line = np.concatenate(brow_points)
    brow_line = np.concatenate([brow_line, brow_line * np.array([-1, 1, 1])])
    brows = np.exp(-((cKDTree(brow_line).query(mean)[0] / 5.0) ** 2))
    # The jaw line rises from the chin to the ear lobe.
    jaw_y = chin[1] - 4 + ramp(x, 15, 75) * 45
    above_jaw = ramp(y, jaw_y - 8, jaw_y + 4)
    hairline = landmarks[27, 1] + 62 - ramp(x, 20, 65) * 45
    frontal = ramp(z, -22, -2) * ramp(x, 72, 62)
    face = above_jaw * ramp(y, hairline + 8, hairline - 4) * frontal * (1 - ears)
    below_nose = ramp(y, landmarks[33, 1] + 2, landmarks[33, 1] - 4)
    side_burn = ramp(x, 52, 62) * ramp(y, 0, -20)
    moustache = bump(mean, (8, 0.5 * (landmarks[33, 1] + landmarks[51, 1])), (corner_x, 8))
    jaw_band = ramp(y, mouth_y - 2, mouth_y - 16) + ramp(x, corner_x + 8, corner_x + 26) * ramp(y, -40, -62)
    beard = np.clip(np.maximum(np.minimum(jaw_band, 1), np.maximum(side_burn, moustache)), 0, 1)
    beard *= np.maximum(below_nose, side_burn) * ramp(z, -45, -25) * (1 - ears) * ramp(y, jaw_y - 45, jaw_y - 15)
    neck = (1 - ramp(y, jaw_y - 14, jaw_y)) * np.where(z > -30, 1, 0) + ramp(y, -75, -95) * np.where(z > -30, 0, 1)
    raw = {
        "face": face,
        "lips": lips,
        "eyelids": eyelids,
        "nose": bump(mean, (0, nose_tip[1] + 4), (15, 26)) * ramp(z, landmarks[31, 2] - 18, landmarks[31, 2]),
        "cheeks": bump(mean, (40, nose_tip[1] - 2), (17, 18)) * ramp(z, -20, 0),
        "forehead": ramp(y, landmarks[27, 1] + 14, landmarks[27, 1] + 26) * face,
        "chin": bump(mean, (0, chin[1] + 10), (22, 14)) * ramp(z, -10, 8),
        "brows": brows,
        "beard": beard * (1 - lips),
        "ears": ears,
        "neck": np.clip(smooth(neck, quads, 3), 0, 1),
        "scalp": ramp(y, hairline - 2, hairline + 14) * (1 - ears)
        + (1 - ramp(y, hairline - 2, hairline + 14)) * ramp(z, -50, -75) * ramp(y, -75, -50),
        "eye_sockets": np.maximum(bump(mean, (24, -14), (13, 8)), bump(mean, (20, 2), (10, 9))) * (1 - brows),
    }
    return {name: np.clip(weight, 0, 1) * skin for name, weight in raw.items()}
