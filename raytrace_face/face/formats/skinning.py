"""Linear blend skinning with pose correctives, as FLAME and GNM pose their jaw and eyes.

FLAME (Li et al. 2017) and SMPL (Loper et al. 2015), whose equations are quoted. All lengths in mm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Skeleton:
    """J joints at rest and how they move V vertices."""

    joints: Floats
    """(J, 3) mm, rest positions."""
    parents: tuple[int, ...]
    """(J,) index of each joint's parent, which comes before it; -1 for the root."""
    weights: Floats
    """(V, J) blend weights; rows sum to one."""
    correctives: Floats | None = None
    """(9 M, V, 3) mm per unit of `pose_feature`, of the last M joints (FLAME: all but the root; GNM: all)."""


def pose_feature(rotations: Floats) -> Floats:
    """(9 M,) elements of R - I of M joints (M, 3, 3), row by row: what the correctives respond to (SMPL eq. 9)."""
    return (rotations - np.eye(3)).reshape(-1)


def world_motions(rotations: Floats, skeleton: Skeleton) -> tuple[Floats, Floats]:
    """Rotations (J, 3, 3) and shifts (J, 3) that take rest points rigidly with each joint (SMPL eq. 3-4).

    Joint k turns by `rotations[k]` about itself within its parent's frame: G_k = G_parent [R_k | j_k - j_parent], and
    the motion of a rest point is G_k with the rest pose divided out, x -> R x + t.
    """
    turned, places = np.zeros((len(rotations), 3, 3)), np.zeros((len(rotations), 3))
    for k, parent in enumerate(skeleton.parents):
        if parent < 0:
            turned[k], places[k] = rotations[k], skeleton.joints[k]
        else:
            turned[k] = turned[parent] @ rotations[k]
            places[k] = turned[parent] @ (skeleton.joints[k] - skeleton.joints[parent]) + places[parent]
    return turned, places - np.einsum("jab,jb->ja", turned, skeleton.joints)


def posed(vertices: Floats, skeleton: Skeleton, pose: Floats) -> Floats:
    """Vertices (V, 3) mm, float64, of a shape (V, 3) in a pose: rotation vectors (J, 3) in radians (SMPL eq. 2).

    The correctives are added before the blend: T_P = T + B_P (FLAME eq. 2-4).
    """
    rotations = Rotation.from_rotvec(np.asarray(pose, np.float64)).as_matrix()
    shape = np.asarray(vertices, np.float64)
    if skeleton.correctives is not None:
        moved = len(skeleton.correctives) // 9
        shape = shape + np.tensordot(pose_feature(rotations[len(rotations) - moved :]), skeleton.correctives, 1)
    turned, shifts = world_motions(rotations, skeleton)
    blended = np.einsum("vj,jab->vab", skeleton.weights, turned)
    return np.einsum("vab,vb->va", blended, shape) + skeleton.weights @ shifts
