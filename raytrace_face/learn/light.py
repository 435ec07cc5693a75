"""The light stage as the network predicts it, in torch: far area lights on the icosahedron and an ambient.

A light is given by the irradiance it has at the head's centre, and by the stage's distance d, relative area a and
barycentric centre p (EG 2021, section 4), from which the published intensity i follows. So the strength of a light
does not change while it moves. The same light can be told in many ways: two neighbouring faces may share it, and d
hardly shows. So predictions are compared on the sphere (`radiance_on_sphere`), never slot by slot.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from math import pi

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightstage.environment import lobe_sh, sh_basis
from lightstage.rig import StageLights, geodesic, light_corners, light_radiance, rig
from raytrace_face.capture.colour import REC709_LUMINANCE
from raytrace_face.fit.guess import CLUSTER
from raytrace_face.types import Array

LIGHTS, LOBES = 20, 12
"""Lights of the icosahedron (EG 2021 tried four rigs and chose it); ambient lobes about its corners."""
SHIFTS = 3
"""Steps of the mean shift; each leaves a fifth of the way to the middle of two near lights."""
SPHERE = 600
"""Directions where light is compared, 8 degrees apart."""
OFF = 0.02
"""Lights below this share of all area light are off in a result: they would be noise in every list of lights."""


@dataclass(frozen=True)
class Lights:
    """B light stages, head frame."""

    distance: Tensor
    """(B, L) d, stage radii."""
    area: Tensor
    """(B, L) a, relative to the face of the rig."""
    centre: Tensor
    """(B, L, 2) barycentric p."""
    irradiance: Tensor
    """(B, L, 3) irradiance / pi of a surface at the head's centre that faces the light."""
    ambient: Tensor
    """(B, A, 3) weights of the lobes ((1 + cos) / 2)^2 about the corners of the icosahedron, >= 0."""

    def exposed(self, gain: Tensor) -> Lights:
        """The same lights with log gains (B, 3)."""
        factor = gain.exp()[:, None]
        return replace(self, irradiance=self.irradiance * factor, ambient=self.ambient * factor)

    def corners(self) -> Tensor:
        """(B, L, 3, 3) corners of the lights, mm."""
        return light_corners(rig(), self.distance, self.area, self.centre)

    def directions(self) -> Tensor:
        """(B, L, 3) unit vectors to the lights."""
        middle = self.corners().mean(dim=2)
        return middle / middle.norm(dim=2, keepdim=True)

    def radiance(self) -> Tensor:
        """(B, L, 3) emitted radiance."""
        return self.irradiance / form_factor(self.corners())[..., None]

    def intensity(self) -> Tensor:
        """(B, L, 3) the published i, of emitted radiance (d^2 / a) i."""
        one = light_radiance(self.distance, self.area, torch.ones_like(self.irradiance))
        return self.radiance() / one

    def ambient_sh(self) -> Tensor:
        """(B, 9, 3) SH coefficients of the ambient radiance; exact, a lobe is a polynomial of degree 2."""
        to_sh = self.ambient.new_tensor(lobe_sh(geodesic(0).vertices))
        return torch.einsum("ak,bac->bkc", to_sh, self.ambient)

    def facing_irradiance(self) -> Tensor:
        """(B, 3) irradiance / pi of a surface at the head's centre that looks along +z, shadows apart."""
        cos = self.irradiance.new_tensor(geodesic(0).vertices[:, 2])
        lobes = lobe_irradiance(cos)
        towards = self.directions()[..., 2].clamp_min(0)
        return (towards[..., None] * self.irradiance).sum(dim=1) + (lobes[:, None] * self.ambient).sum(dim=1)

    def dominant(self) -> Tensor:
        """(B, 3) unit vector to the strongest light: the mean of the strongest cluster, by mean shift.

        So a light that two faces of the rig share is one light, and lies between them.
        """
        strength, directions = luminance(self.irradiance), self.directions()
        near = torch.exp(CLUSTER * (directions @ directions.mT - 1))  # (B, L, L)
        strongest = (near @ strength[..., None])[..., 0].argmax(dim=1)
        towards = directions[torch.arange(len(near), device=near.device), strongest]
        for _ in range(SHIFTS):
            weight = torch.exp(CLUSTER * ((directions * towards[:, None]).sum(dim=2) - 1)) * strength
            towards = (weight[..., None] * directions).sum(dim=1)
            towards = towards / towards.norm(dim=1, keepdim=True).clamp_min(1e-9)
        return towards

    def stage(self, item: int) -> StageLights:
        """One item's lights as the rest of the program holds them; weak ones are off."""
        values = (self.distance, self.area, self.centre, self.intensity(), luminance(self.irradiance))
        distance, area, centre, intensity, strength = (
            v[item].detach().cpu().numpy().astype(np.float64) for v in values
        )
        intensity[strength < OFF * strength.sum()] = 0
        return StageLights(rig(), distance, area, centre, intensity)

    def ambient_of(self, item: int) -> Array:
        """(9, 3) SH coefficients of one item's ambient."""
        return np.asarray(self.ambient_sh()[item].detach().cpu().numpy(), np.float32)


def luminance(colour: Tensor) -> Tensor:
    """Luminance of linear Rec. 709 colours (..., 3) -> (...)."""
    return colour @ colour.new_tensor(REC709_LUMINANCE)


def lobe_irradiance(cos: Tensor) -> Tensor:
    """Irradiance / pi, by the cosine to their axes, under lobes ((1 + cos) / 2)^2 of radiance.

    1/4 + cos / 2 + cos^2 / 4 through the cosine's bands 1, 2/3, 1/4 (Ramamoorthi & Hanrahan 2001, eq. 8).
    """
    return (1 + cos) / 3 + (cos**2 - 1 / 3) / 16


def form_factor(corners: Tensor) -> Tensor:
    """(...) form factor E / (pi L) at the centre of triangles (..., 3, 3): `lightstage.rig.triangle_form_factor`."""
    middle = corners.mean(dim=-2)
    normal = torch.linalg.cross(corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :])
    distance = middle.norm(dim=-1)
    return (-(normal * middle).sum(dim=-1)).clamp_min(1e-12) / (2 * pi * distance**3)


@cache
def sphere() -> NDArray[np.float64]:
    """(SPHERE, 3) unit vectors spread evenly: the Fibonacci lattice (Gonzalez, Math. Geosciences 42, 2010)."""
    k = np.arange(SPHERE)
    y, turn = 1 - (2 * k + 1) / SPHERE, k * np.pi * (3 - 5**0.5)
    return np.stack([np.sqrt(1 - y * y) * np.cos(turn), y, np.sqrt(1 - y * y) * np.sin(turn)], axis=1)


def radiance_on_sphere(directions: Tensor, irradiance: Tensor, ambient_sh: Tensor, concentration: float) -> Tensor:
    """(B, D, 3) radiance of lights and ambient from the directions of `sphere()`, lights blurred.

    A light becomes a von Mises-Fisher lobe of the same irradiance, so that two sets of lights are near to each other
    where their directions are, whatever their number and order.

    Args:
        directions: (B, N, 3) unit vectors to lights; any N.
        irradiance: (B, N, 3) irradiance / pi of each; 0 for none.
        ambient_sh: (B, 9, 3).
        concentration: kappa of the lobes; their width is about 57 / sqrt(kappa) degrees.
    """
    points = directions.new_tensor(sphere())
    k = concentration
    density = k / (2 * pi * (1 - np.exp(-2 * k)))  # of the lobe at its centre, 1/sr
    lobes = density * torch.exp(k * (points @ directions.mT - 1))  # (B, D, N)
    ambient = torch.einsum("dk,bkc->bdc", directions.new_tensor(sh_basis(sphere())), ambient_sh)
    return pi * lobes @ irradiance + ambient
