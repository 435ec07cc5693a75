"""Polyhedral rigs and the area lights that hang on them.

Source of the parameterisation: Dib et al., "Practical Face Reconstruction via Differentiable Ray Tracing",
Eurographics 2021 (arXiv 2101.05356), section 4: one triangular area light per face of a polyhedron round the
subject, with a distance d, a relative area a, a barycentric centre p and an RGB intensity i; emitted radiance
I = (d^2 / a) i. The light stays parallel to its face.

Frame: right-handed, x right, y up, z towards the camera; millimetres; the stage is centred on the origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

F = NDArray[np.float64]

STAGE_RADIUS_MM = 1000.0
"""Radius of the stage at d = 1. One metre: where studio lights stand; the sun is a light at d = 5."""


@dataclass(frozen=True)
class Rig:
    """A convex polyhedron inscribed in the unit sphere, triangular faces wound to look inwards."""

    name: str
    vertices: F
    """(N, 3) on the unit sphere."""
    faces: NDArray[np.int64]
    """(L, 3) indices; the normal of a face, by the right-hand rule, points to the centre."""

    @property
    def count(self) -> int:
        """Number of faces, which is the number of lights."""
        return len(self.faces)

    @property
    def face_corners(self) -> F:
        """(L, 3, 3) corners of each face on the unit sphere."""
        return self.vertices[self.faces]

    @property
    def face_directions(self) -> F:
        """(L, 3) unit vectors from the centre to the middle of each face."""
        middle = self.face_corners.mean(axis=1)
        return middle / np.linalg.norm(middle, axis=1, keepdims=True)


@dataclass(frozen=True)
class AreaLights:
    """Triangular one-sided emitters."""

    corners: F
    """(L, 3, 3) corners in mm, emitting to the side of the right-hand normal."""
    radiance: F
    """(L, 3) emitted radiance, linear Rec. 709."""


@dataclass(frozen=True)
class StageLights:
    """The lights of a rig in the published parameterisation."""

    rig: Rig
    distance: F
    """(L,) d, in stage radii, [0.5, 5]: nearer a light stops being a stage light, farther it is a sun."""
    area: F
    """(L,) a, relative to the face, (0, 1]: a -> 0 is a point light."""
    centre: F
    """(L, 2) barycentric centre p; the third coordinate is 1 - p0 - p1."""
    intensity: F
    """(L, 3) i >= 0; 0 switches the light off."""
    radius_mm: float = STAGE_RADIUS_MM

    def corners_mm(self) -> F:
        """(L, 3, 3) corners of the lights."""
        return light_corners(self.rig, self.distance, self.area, self.centre, self.radius_mm)

    def radiance(self) -> F:
        """(L, 3) emitted radiance I = (d^2 / a) i (EG 2021, section 4)."""
        return light_radiance(self.distance, self.area, self.intensity)

    def area_lights(self) -> AreaLights:
        """The lights as plain emitters; switched-off ones are left out."""
        on = self.intensity.max(axis=1) > 0
        return AreaLights(self.corners_mm()[on], self.radiance()[on])

    def directions(self) -> F:
        """(L, 3) unit vectors from the stage centre to the centre of each light."""
        middle = self.corners_mm().mean(axis=1)
        return middle / np.linalg.norm(middle, axis=1, keepdims=True)

    def irradiance(self) -> F:
        """(L, 3) irradiance / pi that each light gives a surface at the stage centre that faces it."""
        return self.radiance() * triangle_form_factor(self.corners_mm())[:, None]


def light_corners(rig: Rig, distance: Any, area: Any, centre: Any, radius_mm: float = STAGE_RADIUS_MM) -> Any:
    """Corners (..., L, 3, 3) of the lights, in mm; NumPy arrays in, NumPy out; torch tensors in, torch out.

    `distance` and `area` are (..., L), `centre` is (..., L, 2).

    The light is the rig's face shrunk by sqrt(a), moved so that its centroid lies at barycentric p of the face
    scaled by d. Its own size does not grow with d, so that (d^2 / a) i keeps the irradiance at the centre.
    """
    faces: Any = rig.face_corners * radius_mm
    if not isinstance(distance, np.ndarray):
        faces = distance.new_tensor(faces)
    p0, p1 = centre[..., 0, None], centre[..., 1, None]
    middle = (faces[:, 0] * p0 + faces[:, 1] * p1 + faces[:, 2] * (1 - p0 - p1)) * distance[..., None]
    shape = faces - faces.mean(1)[:, None, :]
    return middle[..., None, :] + shape * (area**0.5)[..., None, None]


def light_radiance(distance: Any, area: Any, intensity: Any) -> Any:
    """Emitted radiance (..., L, 3), I = (d^2 / a) i (EG 2021, section 4). NumPy or torch."""
    return (distance**2 / area)[..., None] * intensity


def triangle_form_factor(corners: F, point: F | None = None) -> F:
    """Differential form factor E / (pi L) of triangles (L, 3, 3) at a point that faces each of them.

    Centroid approximation A cos(theta_l) / (pi r^2): exact for a -> 0, within 2 % for a = 1 at d = 1 on the
    icosahedron. Used for bookkeeping (strength of a light), never for rendering.
    """
    origin = np.zeros(3) if point is None else point
    middle = corners.mean(axis=1) - origin
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])  # length 2 A
    r2 = (middle**2).sum(axis=1)
    return np.maximum(-(normal * middle).sum(axis=1), 0) / (2 * np.pi * r2**1.5)


def directional_lights(
    directions: F, angular_radius_deg: float = 3.0, radius_mm: float = 5 * STAGE_RADIUS_MM
) -> AreaLights:
    """Small triangles at given directions (L, 3) that look at the centre, each with irradiance / pi of 1 there.

    `angular_radius_deg` is that of the disc of the same area: 0.27 for the sun, 3-10 for studio lights.
    """
    w = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    helper = np.where(np.abs(w[:, 1:2]) < 0.9, [[0.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]])
    u = np.cross(helper, w)
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    v = np.cross(w, u)
    disc_radius = np.tan(np.radians(angular_radius_deg)) * radius_mm
    size = disc_radius * np.sqrt(4 * np.pi / (3 * np.sqrt(3)))  # circumradius of the triangle of equal area
    angle = 2 * np.pi * np.arange(3) / 3
    # clockwise seen from outside, so that the normal looks at the centre
    ring = np.stack([np.cos(angle), -np.sin(angle)], axis=1) * size
    corners = w[:, None] * radius_mm + ring[None, :, 0, None] * u[:, None] + ring[None, :, 1, None] * v[:, None]
    radiance = 1 / triangle_form_factor(corners)
    return AreaLights(corners, np.repeat(radiance[:, None], 3, axis=1))


def _inward(vertices: F, faces: NDArray[np.int64]) -> NDArray[np.int64]:
    corners = vertices[faces]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    outward = (normal * corners.mean(axis=1)).sum(axis=1) > 0
    return np.where(outward[:, None], faces[:, ::-1], faces)


def _polyhedron(name: str, vertices: F) -> Rig:
    from scipy.spatial import ConvexHull

    unit = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    faces = ConvexHull(unit).simplices.astype(np.int64)
    order = np.lexsort(np.round(unit[faces].mean(axis=1), 6).T)  # top to bottom does not depend on the hull code
    return Rig(name, unit, _inward(unit, faces[order[::-1]]))


def _icosahedron_vertices() -> F:
    g = (1 + 5**0.5) / 2
    ring = np.array([[s, t * g, 0] for s in (-1, 1) for t in (-1, 1)], float)
    return np.concatenate([ring, ring[:, [2, 0, 1]], ring[:, [1, 2, 0]]])


@cache
def geodesic(level: int) -> Rig:
    """Icosahedron subdivided `level` times: 20 * 4**level faces, 12, 42, 162, 642 ... vertices."""
    vertices = _icosahedron_vertices()
    vertices = vertices / np.linalg.norm(vertices, axis=1, keepdims=True)
    for _ in range(level):
        faces = _polyhedron("", vertices).faces
        edges = np.unique(np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1), axis=0)
        middle = vertices[edges].mean(axis=1)
        vertices = np.concatenate([vertices, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
    return _polyhedron(f"geodesic{level}", vertices)


RIGS = ("tetrahedron", "octahedron", "icosahedron", "geodesic1")


@cache
def rig(name: str = "icosahedron") -> Rig:
    """A rig by name. EG 2021 tried several and chose the icosahedron (20 lights).

    Raises:
        ValueError: the name is none of `RIGS`.
    """
    if name == "tetrahedron":
        return _polyhedron(name, np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float))
    if name == "octahedron":
        return _polyhedron(name, np.concatenate([np.eye(3), -np.eye(3)]))
    if name == "icosahedron":
        return _polyhedron(name, _icosahedron_vertices())
    if name == "geodesic1":
        return geodesic(1)
    raise ValueError(f"rig is {name!r}: use one of {', '.join(RIGS)}")
