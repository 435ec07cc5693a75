"""What is known of a face before the network looks: camera, pose, shape and expression as landmarks tell them.

The network predicts corrections to it. With landmarks the start is the optimiser's own landmark fit; without, it is
the mean face that looks into the camera. Everything is in units of the crop's side, so that the crop's resolution does
not matter.

Pose. A face at the border of a wide photo is seen from the side even where its head is parallel to the image plane.
The crop shows the rotation against the *ray* to the face, so that is what is predicted; the rotation against the
camera follows from where the crop lies (the "allocentric" pose; Kundu et al., "3D-RCNN", CVPR 2018, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController
from torch import Tensor

from raytrace_face.face.model import FaceModel
from raytrace_face.fit.landmarks import DISTANCE_MM, descend, landmark_basis
from raytrace_face.types import Array, Camera, FaceParams, Window

IDENTITY = 60
"""Modes of identity. The first 60 of the embedded model's 100 hold 99.1 % of the variance on the face; the other 40
are 0.34 mm RMS together, less than any method sees in one photo."""
FIT_STEPS = 4
"""Steps of Gauss-Newton: 12 change identity by 0.03 standard deviations more, and cost three times the time."""
FIT_SIDE = 1000
"""Pixels a side of the crop while landmarks are fitted; their unit does not matter."""

NEUTRAL_EXPRESSION = 0.05
"""Expression weights where nothing is known: most are near 0 in most photos."""
CROP_MM = 271.0
"""Side of a crop at the head's origin, mm: 1.6 times (`WINDOW_SCALE`) the extent of the mean face's landmarks."""
ORIGIN = (0.5, 0.39)
"""Where the head's origin (between the eyes) falls in a crop of the mean face, sides from the top-left corner."""


@dataclass(frozen=True)
class Start:
    """What is known beforehand, for B faces."""

    principal: Tensor
    """(B, 2) principal point of the camera, sides of the crop from its top-left corner."""
    rotation: Tensor
    """(B, 3, 3) head axes in the frame of the ray to the head's origin."""
    centre: Tensor
    """(B, 2) projection of the head's origin, sides of the crop from its top-left corner."""
    log_width: Tensor
    """(B,) log of the crop's side at the head's origin, mm."""
    log_distance: Tensor
    """(B,) log of the depth of the head's origin, mm."""
    expression: Tensor
    """(B, E) weights in [0, 1]."""
    identity: Tensor
    """(B, IDENTITY) standard deviations."""

    def tensors(self) -> tuple[Tensor, ...]:
        """The fields in order."""
        return tuple(getattr(self, name) for name in self.__dataclass_fields__)

    def where(self, given: Tensor) -> Start:
        """The start of the faces with `given` (B,) true; of the others what is left without landmarks."""
        bare = neutral(self.principal, self.expression.shape[1])
        chosen = [
            torch.where(given.view(-1, *[1] * (own.ndim - 1)), own, plain)
            for own, plain in zip(self.tensors(), bare.tensors(), strict=True)
        ]
        return Start(*chosen)


def neutral(principal: Tensor, expressions: int) -> Start:
    """The start of faces of which only the crop is known, from principal points (B, 2)."""
    batch, like = len(principal), principal.new_zeros
    return Start(
        principal,
        torch.eye(3, dtype=principal.dtype, device=principal.device).expand(batch, 3, 3),
        principal.new_tensor(ORIGIN).expand(batch, 2),
        like(batch) + float(np.log(CROP_MM)),
        like(batch) + float(np.log(DISTANCE_MM)),
        like(batch, expressions) + NEUTRAL_EXPRESSION,
        like(batch, IDENTITY),
    )


def of_pose(camera: Camera, face: FaceParams, window: Window) -> Start:
    """The start (B = 1) of a known face in a photo's camera, seen through a window; also the truth in its units."""
    T = torch.from_numpy(np.asarray(face.T_camera_head, np.float32))
    seen = camera.windowed(window)
    side = float(window.size)
    focal, depth = seen.focal_px / side, -float(T[2, 3])
    principal = torch.tensor([seen.principal_px]) / side
    centre = principal + focal * torch.stack([T[0, 3], -T[1, 3]])[None] / depth
    turn = towards_ray(principal, centre, torch.tensor([focal]))
    identity = torch.zeros(IDENTITY)
    identity[: len(face.identity)] = torch.from_numpy(np.asarray(face.identity[:IDENTITY], np.float32))
    return Start(
        principal.float(), turn.mT @ T[None, :3, :3], centre.float(), torch.tensor([np.log(depth / focal)]).float(),
        torch.tensor([np.log(depth)]).float(), torch.from_numpy(np.asarray(face.expression, np.float32))[None],
        identity[None],
    )  # fmt: skip


def posed(
    principal: Tensor, rotation: Tensor, centre: Tensor, log_width: Tensor, log_distance: Tensor
) -> tuple[Tensor, Tensor]:
    """T_camera_head (B, 4, 4) and focal length (B,), sides of the crop, of what a `Start` tells of the pose."""
    distance = log_distance.exp()
    focal = distance / log_width.exp()
    offset = (centre - principal) * (distance / focal)[:, None]
    T = torch.zeros(len(rotation), 4, 4, dtype=rotation.dtype, device=rotation.device)
    T[:, 3, 3] = 1
    T[:, :3, :3] = towards_ray(principal, centre, focal) @ rotation
    T[:, :3, 3] = torch.stack([offset[:, 0], -offset[:, 1], -distance], dim=1)
    return T, focal


class LandmarkStart:
    """The optimiser's landmark fit (`fit.landmarks`) as the start of the network, about 20 ms a face."""

    def __init__(self, model: FaceModel) -> None:
        self.model = replace(model, identity=model.identity[:IDENTITY])
        self.basis, self.mean = landmark_basis(self.model)

    def __call__(self, landmarks: Array, blendshapes: Array, principal: Array) -> Start:
        """The start (B = 1) of a face.

        Args:
            landmarks: (478, 2) sides of the crop from its top-left corner.
            blendshapes: (E,) the landmark network's expression weights.
            principal: (2,) sides of the crop.
        """
        observed = np.asarray(landmarks, np.float64)[self.model.landmark_index]
        centre = torch.as_tensor(np.asarray(principal, np.float32))[None]
        pose, focal = rough_pose(self.mean, observed, centre)
        px, py = (float(v) * FIT_SIDE for v in centre[0])
        camera = Camera(FIT_SIDE, FIT_SIDE, focal * FIT_SIDE, (px, py))
        beta = np.asarray(blendshapes, np.float32)
        face = FaceParams(pose, np.zeros(IDENTITY, np.float32), beta)
        data = (observed * FIT_SIDE, self.basis, self.mean)
        with _pools().limit(limits=1, user_api="blas"):  # idle BLAS threads spin, and the network waits for them
            fit = descend(self.model, data, camera, face, beta, None, FIT_STEPS)
        return of_pose(fit.camera, fit.face, Window(0, 0, FIT_SIDE, FIT_SIDE))


@cache
def _pools() -> ThreadpoolController:
    """The thread pools of this process; no part of a start, which goes to processes that load photos."""
    return ThreadpoolController()


def rough_pose(points: NDArray[np.float64], observed: NDArray[np.float64], principal: Tensor) -> tuple[Array, float]:
    """T_camera_head (4, 4) and focal length, sides, of the mean face's weak-perspective pose at the prior distance.

    Least squares for the affine map from points to picture, whose nearest scaled rotation is the pose (DeMenthon &
    Davis, "Model-based object pose in 25 lines of code", IJCV 1995, without its iterations).

    Args:
        points: (N, 3) landmarks of the mean face, mm, head frame.
        observed: (N, 2) sides of the crop from its top-left corner.
        principal: (1, 2).
    """
    affine = np.linalg.lstsq(np.concatenate([points, np.ones((len(points), 1))], axis=1), observed, rcond=None)[0]
    A = affine[:3].T * [[1], [-1]]  # pictures count downwards
    U, scale, V = np.linalg.svd(A, full_matrices=False)
    rows = U @ V
    rotation = np.stack([*rows, np.cross(rows[0], rows[1])])
    ahead = rotation[2] @ points.mean(axis=0)  # the scale is that of the landmarks, not of the origin
    log_width = -np.log(scale.mean()) - np.log(1 - ahead / DISTANCE_MM)
    values = (rotation[None], affine[3][None], np.array([log_width]), np.log([DISTANCE_MM]))
    T, focal = posed(principal.double(), *(torch.as_tensor(v) for v in values))
    return T[0].numpy().astype(np.float32), float(focal[0])


def towards_ray(principal: Tensor, centre: Tensor, focal: Tensor) -> Tensor:
    """(B, 3, 3) the smallest rotation that takes the optical axis to the rays through image points.

    Args:
        principal, centre: (B, 2) sides of the crop, y downwards.
        focal: (B,) sides of the crop.
    """
    offset = (centre - principal) / focal[:, None]
    ray = torch.stack([-offset[:, 0], offset[:, 1], torch.ones_like(focal)], dim=1)  # from the face to the camera
    x, y, z = (ray / ray.norm(dim=1, keepdim=True)).unbind(1)
    nil = torch.zeros_like(x)
    K = torch.stack([nil, nil, x, nil, nil, y, -x, -y, nil], dim=1).view(-1, 3, 3)  # cross product with e_z x ray
    return torch.eye(3, dtype=K.dtype, device=K.device) + K + K @ K / (1 + z)[:, None, None]


def rotation_matrix(vector: Tensor) -> Tensor:
    """(B, 3, 3) rotations of axis-angle vectors (B, 3), radians."""
    x, y, z = vector.unbind(1)
    nil = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([nil, -z, y, z, nil, -x, -y, x, nil], dim=1).view(-1, 3, 3))


def rotation_vector(matrix: Tensor) -> Tensor:
    """(B, 3) axis-angle vectors of rotations (B, 3, 3) below a half turn; an input of the network, no gradient."""
    from scipy.spatial.transform import Rotation

    return matrix.new_tensor(Rotation.from_matrix(matrix.detach().cpu().numpy()).as_rotvec())
