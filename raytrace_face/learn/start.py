"""What is known of a face before the network looks: camera, a rough pose, a rough expression.

The network predicts corrections to it. With landmarks the start comes from them; without, it is the mean face that
looks into the camera. Everything is in units of the crop's side, so that the crop's resolution does not matter.

Pose. A face at the border of a wide photo is seen from the side even where its head is parallel to the image plane.
The crop shows the rotation against the *ray* to the face, so that is what is predicted; the rotation against the
camera follows from where the crop lies (the "allocentric" pose; Kundu et al., "3D-RCNN", CVPR 2018, section 4).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raytrace_face.fit.landmarks import DISTANCE_MM
from raytrace_face.types import Array, Camera, Window

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
    )


def of_pose(camera: Camera, T_camera_head: np.ndarray, window: Window, expression: Array) -> Start:
    """The start (B = 1) of a known pose in a photo's camera, seen through a window; also the truth in its units."""
    T = torch.from_numpy(np.asarray(T_camera_head, np.float32))
    seen = camera.windowed(window)
    side = float(window.size)
    focal, depth = seen.focal_px / side, -float(T[2, 3])
    principal = torch.tensor([seen.principal_px]) / side
    centre = principal + focal * torch.stack([T[0, 3], -T[1, 3]])[None] / depth
    turn = towards_ray(principal, centre, torch.tensor([focal]))
    return Start(
        principal.float(), turn.mT @ T[None, :3, :3], centre.float(), torch.tensor([np.log(depth / focal)]).float(),
        torch.tensor([np.log(depth)]).float(), torch.from_numpy(np.asarray(expression, np.float32))[None],
    )  # fmt: skip


def of_landmarks(points: Tensor, observed: Tensor, principal: Tensor, expression: Tensor) -> Start:
    """The start of B faces whose landmarks are known: weak-perspective pose of the mean face at the prior distance.

    Least squares for the affine map from points to picture, whose nearest scaled rotation is the pose (DeMenthon &
    Davis, "Model-based object pose in 25 lines of code", IJCV 1995, without its iterations). Not the whole landmark
    fit: shape is what the encoder is there for.

    Args:
        points: (N, 3) landmarks of the mean face, mm, head frame.
        observed: (B, N, 2) sides of the crop from its top-left corner.
        principal: (B, 2).
        expression: (B, E) the network's weights.
    """
    ones = points.new_ones(len(points), 1)
    affine = torch.linalg.lstsq(torch.cat([points, ones], dim=1).double(), _columns(observed).double()).solution
    A, centre = affine[:3].T.unflatten(0, (-1, 2)), affine[3].unflatten(0, (-1, 2))  # (B, 2, 3), (B, 2)
    flip = A.new_tensor([1.0, -1.0])[:, None]  # pictures count downwards
    U, scale, V = torch.linalg.svd(A * flip, full_matrices=False)
    rows = U @ V
    rotation = torch.cat([rows, torch.linalg.cross(rows[:, 0], rows[:, 1])[:, None]], dim=1)
    plain = neutral(principal, expression.shape[1])
    ahead = rotation[:, 2] @ points.mean(dim=0).to(A.dtype)  # the scale is that of the landmarks, not of the origin
    log_width = -scale.mean(dim=1).log() - (1 - ahead / DISTANCE_MM).log()
    rotation, centre, log_width = (v.to(principal.dtype) for v in (rotation, centre, log_width))
    return Start(principal, rotation, centre, log_width, plain.log_distance, expression)


def _columns(observed: Tensor) -> Tensor:
    """(B, N, 2) -> (N, 2 B)."""
    return observed.permute(1, 0, 2).flatten(1)


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
