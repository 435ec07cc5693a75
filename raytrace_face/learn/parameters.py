"""The vector that the network predicts: its blocks, their bounds, and the face that it stands for.

The network's outputs are free numbers of order one. A block scales them by how far its quantity usually lies from the
start, and bends them smoothly into its bounds with slope one at zero, so that the zero vector is the start itself:
the mean face with its start's pose and expression, under soft light from the front.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raytrace_face.face.model import FaceModel
from raytrace_face.learn.lamps import LAMPS, Lamps
from raytrace_face.learn.light import LOBES, Lights, luminance
from raytrace_face.learn.start import IDENTITY, Start, posed, rotation_matrix
from raytrace_face.types import Camera, FaceParams, Window

EXPRESSION, ALBEDO = 52, 10
"""Modes: all of ARKit's, and all of the skin prior's."""
MAX_SIGMA = 3.5
"""Of identity; `fit.landmarks.step` has the same bound."""
KEY, KEY_DISTANCE, KEY_AREA = 0.65, 3.0, 0.1
"""Irradiance / pi of all lamps together at the start, their distance (stage radii) and relative area: 3 degrees wide.
Skin that looks ahead gets 0.87 of it, and with the ambient `fit.albedo.EXPOSURE`, 0.9: exposed for skin."""
LAMP_START = ((0.0, 0.0, 1.0), (-0.8, 0.0, 0.6), (0.8, 0.0, 0.6))
"""Directions of the lamps at the start: from the front, and from both sides."""
MAIN_SHARE = 1.0
"""Log share of the first lamp against each of the others at the start."""
AMBIENT = 0.35
"""Irradiance / pi of the ambient at the start."""


@dataclass(frozen=True)
class Block:
    """A run of entries of the vector."""

    name: str
    size: int
    scale: float
    """Of the network's output: one of it is a usual deviation."""
    low: float
    high: float
    """Bounds of the deviation from the start."""


BLOCKS = (
    Block("identity", IDENTITY, 1.0, -3.5, 3.5),  # standard deviations, added to the start's
    Block("expression", EXPRESSION, 1.5, -8, 8),  # log odds, added to the start's
    Block("rotation", 3, 0.15, -1.5, 1.5),  # radians, axis-angle, against the start
    Block("centre", 2, 0.03, -0.3, 0.3),  # sides of the crop
    Block("log_width", 1, 0.1, -0.7, 0.7),  # half to twice the mean face's crop
    Block("log_distance", 1, 0.3, -1.4, 1.4),  # `fit.landmarks.DISTANCE_SIGMA` is 0.45: three of them
    Block("albedo", ALBEDO, 1.0, -3.5, 3.5),  # standard deviations
    Block("strength", 1, 0.5, -4, 2.5),  # log of the irradiance of all lights together: 0.017 to 11.6
    Block("lamp_share", LAMPS, 1.0, -6, 6),  # log of each lamp's part in it
    Block("lamp_direction", 3 * LAMPS, 0.7, -3, 3),  # added to the start's unit vectors, then made one again
    Block("lamp_colour", 3 * LAMPS, 0.12, -1, 1),  # log of its colour at unit luminance; 0.12: `WHITENESS_SIGMA`
    Block("lamp_distance", LAMPS, 0.2, log(0.5 / KEY_DISTANCE), log(5 / KEY_DISTANCE)),  # log d; d in [0.5, 5]
    Block("lamp_area", LAMPS, 0.5, log(0.005 / KEY_AREA), log(1 / KEY_AREA)),  # log a; a in [0.005, 1]
    Block("ambient", 3 * LOBES, 0.5, -6, 3),  # log of the weights of the lobes
)
"""All blocks, in the order of the vector.

Shares and a strength instead of free intensities: the strength of the light is seen in every pixel and its direction
in their differences, so they are learned apart; shares sum to one, so that the lights never all die.
"""
SIZE = sum(block.size for block in BLOCKS)
"""Length of the vector."""


def bounded(x: Tensor, low: float, high: float) -> Tensor:
    """Smooth, increasing, into (low, high) for low < 0 < high; 0 at 0 with slope 1."""
    return torch.where(x < 0, low * torch.tanh(x / low), high * torch.tanh(x / high))


def deviations(raw: Tensor) -> dict[str, Tensor]:
    """The network's outputs (B, SIZE) as bounded deviations (B, size) from the start, by block.

    Raises:
        ValueError: another length than SIZE.
    """
    if raw.shape[-1] != SIZE:
        raise ValueError(f"vector has {raw.shape[-1]} entries: {SIZE} make a face")
    parts = raw.split([block.size for block in BLOCKS], dim=-1)
    return {b.name: bounded(b.scale * part, b.low, b.high) for b, part in zip(BLOCKS, parts, strict=True)}


@dataclass(frozen=True)
class Predicted:
    """B faces."""

    identity: Tensor
    """(B, IDENTITY) standard deviations."""
    expression: Tensor
    """(B, EXPRESSION) weights in (0, 1)."""
    T_camera_head: Tensor
    """(B, 4, 4) head frame -> camera frame, mm."""
    focal: Tensor
    """(B,) focal length, sides of the crop."""
    principal: Tensor
    """(B, 2) principal point, sides of the crop from its top-left corner; known, not predicted."""
    albedo: Tensor
    """(B, ALBEDO) standard deviations of `face.skin_prior`."""
    lights: Lights

    def crop_camera(self, item: int, size: int) -> Camera:
        """Camera of one item's crop, rendered at `size` pixels a side."""
        cx, cy = (float(v) * size for v in self.principal[item].detach())
        return Camera(size, size, float(self.focal[item].detach()) * size, (cx, cy))

    def photo_camera(self, item: int, width: int, height: int, window: Window) -> Camera:
        """Camera of the whole photo, whose crop is `window`."""
        x, y = (float(v) * window.side_px for v in self.principal[item].detach())
        focal = float(self.focal[item].detach()) * window.side_px
        return Camera(width, height, focal, (x + window.left_px, y + window.top_px))

    def face(self, item: int, model: FaceModel) -> FaceParams:
        """One item's pose, identity (modes that are not predicted are 0) and expression."""
        identity = np.zeros(len(model.identity), np.float32)
        identity[:IDENTITY] = self.identity[item].detach().cpu().numpy()
        pose, weights = (
            v[item].detach().cpu().numpy().astype(np.float32) for v in (self.T_camera_head, self.expression)
        )
        return FaceParams(pose, identity, weights)


def unpack(raw: Tensor, start: Start) -> Predicted:
    """The faces of the network's outputs (B, SIZE), given what was known beforehand."""
    d = deviations(raw)
    known = start.expression.clamp(0.01, 0.99)
    T, focal = posed(
        start.principal, rotation_matrix(d["rotation"]) @ start.rotation, start.centre + d["centre"],
        start.log_width + d["log_width"][:, 0], start.log_distance + d["log_distance"][:, 0],
    )  # fmt: skip
    return Predicted(
        identity=(start.identity + d["identity"]).clamp(-MAX_SIGMA, MAX_SIGMA),
        expression=torch.sigmoid(torch.logit(known) + d["expression"]),
        T_camera_head=T,
        focal=focal,
        principal=start.principal,
        albedo=d["albedo"],
        lights=_lights(d),
    )


def as_it_is(start: Start) -> Predicted:
    """The faces of a start, as a network says that has nothing to add."""
    return unpack(torch.zeros(len(start.principal), SIZE), start)


def _lights(d: dict[str, Tensor]) -> Lights:
    begin = d["lamp_share"].new_tensor(LAMP_START)
    towards = begin + d["lamp_direction"].unflatten(1, (LAMPS, 3))
    share = torch.softmax(d["lamp_share"] + MAIN_SHARE * (torch.arange(LAMPS, device=begin.device) == 0), dim=1)
    colour = d["lamp_colour"].unflatten(1, (LAMPS, 3)).exp()
    strength = KEY * d["strength"].exp()
    lamps = Lamps(
        direction=functional.normalize(towards, dim=2),
        irradiance=(strength * share)[..., None] * colour / luminance(colour)[..., None],
        distance=KEY_DISTANCE * d["lamp_distance"].exp(),
        area=KEY_AREA * d["lamp_area"].exp(),
    )
    # 12 lobes of weight w are radiance 4 w from everywhere, which is irradiance / pi of 4 w
    return lamps.on_stage(AMBIENT / 4 * d["ambient"].unflatten(1, (LOBES, 3)).exp())
