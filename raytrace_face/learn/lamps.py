"""The lamps that the network predicts, and the light stage that they stand for.

The stage tells a light by its slot and its place within the slot (`learn.light`). A light that crosses an edge of the
rig jumps from slot to slot; a network cannot learn a jump. So it predicts a few lamps by their directions, which turn
smoothly, and each lamp is hung on the stage: on the faces of the rig nearest to it, at the point of each that is
nearest to its direction. Within a face that point is the direction itself; near an edge two faces share the lamp.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lightstage.rig import rig
from raytrace_face.learn.light import LIGHTS, Lights, luminance

LAMPS = 3
"""As many as a photo of training has; what is left of other lights is smooth and goes to the ambient."""
SHARPNESS = 24.0
"""Of the hanging: five degrees beyond an edge, a fifth of a lamp's light still hangs on the other side of it."""


@dataclass(frozen=True)
class Lamps:
    """B faces under LAMPS lamps, head frame."""

    direction: Tensor
    """(B, M, 3) unit vectors."""
    irradiance: Tensor
    """(B, M, 3) irradiance / pi of a surface at the head's centre that faces the lamp."""
    distance: Tensor
    """(B, M) d, stage radii."""
    area: Tensor
    """(B, M) a, relative to a face of the rig."""

    def on_stage(self, ambient: Tensor) -> Lights:
        """The stage's lights under an ambient (B, A, 3): irradiance and direction are kept."""
        near = self._near()
        p = nearest_on_faces(self.direction)  # (B, M, L, 3)
        strength = luminance(self.irradiance)[..., None] * near + 1e-9  # (B, M, L)
        part = strength / strength.sum(dim=1, keepdim=True)
        return Lights(
            distance=_mixed(self.distance, part),
            area=_mixed(self.area, part),
            centre=(part[..., None] * p).sum(dim=1)[..., :2],
            irradiance=torch.einsum("bml,bmc->blc", near, self.irradiance),
            ambient=ambient,
        )

    def _near(self) -> Tensor:
        """(B, M, L) part of each lamp that hangs on each face of the rig; sums to one."""
        faces = self.direction.new_tensor(rig().face_directions)
        return torch.softmax(SHARPNESS * self.direction @ faces.T, dim=2)


def nearest_on_faces(direction: Tensor) -> Tensor:
    """(..., L, 3) barycentric coordinates, on every face of the rig, of the point towards unit vectors (..., 3).

    Of directions off the face, the point on its edge; on the far side of the rig, anything.
    """
    corners = torch.as_tensor(rig().face_corners, dtype=torch.float64)  # (L, 3, 3), a row a corner
    inverse = torch.linalg.inv(corners.mT).to(direction.dtype).to(direction.device)
    b = torch.einsum("lij,...j->...li", inverse, direction).clamp_min(1e-4)
    return b / b.sum(dim=-1, keepdim=True)


def _mixed(values: Tensor, part: Tensor) -> Tensor:
    """(B, L) geometric means of values (B, M) by parts (B, M, L)."""
    mixed = (values.log()[..., None] * part).sum(dim=1).exp()
    assert mixed.shape[1] == LIGHTS
    return mixed
