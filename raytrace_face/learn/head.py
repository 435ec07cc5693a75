"""The linear head in torch: vertices, landmarks and their projection, for a batch."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from torch import Tensor

from raytrace_face.face.model import FaceModel
from raytrace_face.learn.parameters import Predicted
from raytrace_face.learn.start import IDENTITY


@dataclass(frozen=True)
class TorchHead:
    """A face model as tensors."""

    mean: Tensor
    """(V, 3) mm, head frame."""
    basis: Tensor
    """(IDENTITY + E, V, 3) mm for one standard deviation, and at weight one."""
    face: Tensor
    """(V,) weight in [0, 1] of what a photo shows: the region "face"."""
    landmark_index: Tensor
    """(N,) index into the network's 478 landmarks."""
    landmark_corners: Tensor
    """(N, 3) vertices about each landmark."""
    landmark_barycentric: Tensor
    """(N, 3)"""
    landmark_sigma_mm: Tensor
    """(N,) spread of the embedding (`FaceModel.landmark_sigma_mm`)."""

    @classmethod
    def of(cls, model: FaceModel) -> TorchHead:
        """Copy what is needed of a model, its first IDENTITY modes."""
        return cls(
            torch.from_numpy(model.mean.copy()),
            torch.from_numpy(np.concatenate([model.identity[:IDENTITY], model.expression])),
            torch.from_numpy(model.regions["face"].astype(np.float32)),
            torch.from_numpy(model.landmark_index.astype(np.int64)),
            torch.from_numpy(model.triangles[model.landmark_triangle].astype(np.int64)),
            torch.from_numpy(model.landmark_barycentric.copy()),
            torch.from_numpy(model.landmark_sigma_mm.copy()),
        )

    def to(self, device: torch.device) -> TorchHead:
        """The same on another device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})

    def vertices(self, identity: Tensor, expression: Tensor) -> Tensor:
        """(B, V, 3) mm, head frame, of identity (B, IDENTITY) and expression (B, E)."""
        coefficients = torch.cat([identity, expression], dim=1).to(self.basis.dtype)
        return self.mean + (coefficients @ self.basis.flatten(1)).unflatten(1, (-1, 3))

    def landmarks(self, vertices: Tensor) -> Tensor:
        """(B, N, 3) landmark points on vertices (B, V, 3)."""
        corners = vertices[:, self.landmark_corners]
        return (corners * self.landmark_barycentric[..., None]).sum(dim=2)

    def mean_landmarks(self) -> Tensor:
        """(N, 3) landmark points of the mean face, mm."""
        return self.landmarks(self.mean[None])[0]


def project(predicted: Predicted, points: Tensor) -> tuple[Tensor, Tensor]:
    """Points of the head (B, N, 3) -> crop (B, N, 2), sides from the top-left corner, and their depth (B, N) in mm."""
    T = predicted.T_camera_head.to(points.dtype)
    in_camera = points @ T[:, :3, :3].mT + T[:, None, :3, 3]
    depth = -in_camera[..., 2]
    focal = predicted.focal[:, None].to(points.dtype)
    x, y = focal * in_camera[..., 0] / depth, -focal * in_camera[..., 1] / depth
    return torch.stack([x, y], dim=2) + predicted.principal[:, None], depth
