"""Point-to-point correspondence with the embedded model, by non-rigid registration of its mean to another mean.

The embedded surface is moved by a displacement field d that minimises

    sum_l w_l |x_l + d_l - p_l|^2 + sum_v w_v |x_v + d_v - q_v|^2 + a |L d|^2 + b |D d|^2

where p are the network's landmarks on the other surface, q the closest points along its normals, L the graph Laplacian
and D the differences along edges; a falls from round to round (non-rigid ICP: Amberg et al., CVPR 2007, with one scalar
system a round). Normals take part in the search for closest points, so that lids and lips do not match across the gap.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from raytrace_face.face.mesh import Floats, Index, edges_of, triangle_normals, vertex_normals
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.store import closest_on_triangles

NORMAL_MM = 8.0
"""A normal turned by 60 degrees counts as this distance."""
REACH_MM = (20.0, 15.0, 12.0, 8.0, 5.0, 4.0)
"""Farthest closest point of each round."""
STIFFNESS = (300.0, 100.0, 30.0, 10.0, 3.0, 1.0)
"""a of each round; the last keeps noise of the closest points from wrinkling lids and nostrils."""
MEMBRANE = 3.0
"""b: of all motions along the surface, which closest points do not tell apart, the one that stretches least."""
LANDMARK_SHARE = (1.0, 0.5, 0.2, 0.05, 0.02, 0.01)
"""w of a landmark of the smallest sigma, for w = 1 of a closest point. They start the search: on a face without colours
they are 2 mm off."""
TANGENTIAL = 0.5
"""Share of the way to the closest point that is gone along the surface; the way along the normal is gone in full."""
TRUST_MM = (1.5, 5.0)
"""Residual distances at which a correspondence is certain, and worthless."""
TRUST_COSINE = (0.7, 0.3)
"""The same of the angle between the normals."""
CANDIDATES = 16


@dataclass(frozen=True)
class Surface:
    """A triangle mesh with normals, and which vertices lie on its outer border."""

    vertices: Floats
    """(V, 3) mm."""
    triangles: Index
    """(F, 3)"""
    normals: Floats
    """(V, 3)"""
    border: NDArray[np.bool_]
    """(V,)"""

    @classmethod
    def of(cls, vertices: Floats, triangles: Index) -> Surface:
        """The surface with what follows from it."""
        edges, _, uses = edges_of(triangles)
        border = np.zeros(len(vertices), bool)
        border[edges[uses == 1].ravel()] = True
        return cls(vertices, triangles, vertex_normals(vertices, triangles), border)


@dataclass(frozen=True)
class Registered:
    """The embedded mean laid on another one."""

    vertices: Floats
    """(V_e, 3) mm: the embedded model's vertices, moved."""
    residual_mm: float
    """Median distance of the face from the other surface."""


@dataclass(frozen=True)
class Match:
    """Where points lie on the embedded model."""

    triangle: Index
    """(N,) triangle of the embedded model."""
    barycentric: Floats
    """(N, 3)"""
    trust: Floats
    """(N,) in [0, 1]."""
    distance_mm: Floats
    """(N,) from the moved embedded surface."""

    def matrix(self, embedded: FaceModel) -> sparse.csr_matrix:
        """(N, V_e) interpolation of fields on the embedded model's vertices."""
        rows = np.repeat(np.arange(len(self.triangle)), 3)
        columns = embedded.triangles[self.triangle].ravel()
        shape = (len(self.triangle), embedded.vertex_count)
        return sparse.csr_matrix((self.barycentric.ravel().astype(np.float64), (rows, columns)), shape)


def ramp(x: Floats, start: float, end: float) -> Floats:
    """Smooth step: 0 at `start`, 1 at `end` (either order), zero slope at both."""
    t = np.clip((x - start) / (end - start), 0, 1)
    return t * t * (3 - 2 * t)


def graph_laplacian(edges: Index, count: int) -> sparse.csr_matrix:
    """(V, V) each vertex minus the mean of its neighbours; rows of vertices without edges are zero."""
    ones = np.ones(len(edges))
    adjacency = sparse.coo_matrix((ones, (edges[:, 0], edges[:, 1])), (count, count))
    adjacency = (adjacency + adjacency.T).tocsr()
    degree = np.asarray(adjacency.sum(1)).ravel()
    return sparse.diags((degree > 0) * 1.0) - sparse.diags(1 / np.maximum(degree, 1)) @ adjacency


def register(embedded: FaceModel, target: Surface, landmarks: Floats) -> Registered:
    """Lay the embedded mean on the skin of another mean.

    Args:
        target: the other mean in roughly the head frame; skin only where the parts are known.
        landmarks: (468, 3) the network's landmarks on it, NaN where unseen.
    """
    count = embedded.vertex_count
    weld = embedded.weld
    edges = edges_of(weld[embedded.triangles])[0]
    piece = connected_components(
        sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count)), directed=False
    )[1]
    skin_triangles = weld[embedded.triangles[embedded.triangle_part == PARTS.index("skin")]]
    skin = np.zeros(count, bool)
    skin[skin_triangles] = True
    main = piece == piece[skin_triangles[0, 0]]
    laplacian = graph_laplacian(edges, count)
    ends = sparse.identity(count, format="csr")
    difference = ends[edges[:, 0]] - ends[edges[:, 1]]
    smooth, membrane = laplacian.T @ laplacian, difference.T @ difference
    # What is not of the main surface (eyes, teeth, duplicates over seams) is set afterwards.
    rest = sparse.diags(np.where(main & (weld == np.arange(count)), 0.0, 1.0))
    seen = np.isfinite(landmarks[embedded.landmark_index]).all(1)
    aim = landmarks[embedded.landmark_index[seen]]
    rows = np.repeat(np.arange(len(aim)), 3)
    columns = weld[embedded.triangles[embedded.landmark_triangle[seen]]].ravel()
    at = sparse.csr_matrix((embedded.landmark_barycentric[seen].ravel(), (rows, columns)), (len(aim), count))
    sigma = embedded.landmark_sigma_mm[seen]
    start: Floats = embedded.mean.astype(np.float64)
    moved = start
    tree = _tree(target)
    load: Floats
    for number, (stiffness, reach, share) in enumerate(zip(STIFFNESS, REACH_MM, LANDMARK_SHARE, strict=True)):
        weight = share * (sigma.min() / sigma) ** 2
        system = stiffness * smooth + MEMBRANE * membrane + rest + at.T @ sparse.diags(weight) @ at
        load = at.T @ (weight[:, None] * (aim - at @ start))
        if number:  # the first round follows the landmarks alone
            pulled, strength = _closest(moved, vertex_normals(moved, skin_triangles), tree, reach)
            strength = np.where(skin, strength, 0)
            system = system + sparse.diags(strength)
            load = load + strength[:, None] * (pulled - start)
        moved = start + splu(system.tocsc()).solve(load)
    moved = _carry_pieces(embedded, start, moved, main)[weld]
    pulled, strength = _closest(moved, vertex_normals(moved, skin_triangles), tree, REACH_MM[0])
    face = (embedded.regions["face"] > 0.5) & (strength > 0)
    gap = np.linalg.norm(pulled - moved, axis=1)[face]
    return Registered(moved, float(np.median(gap)) if face.any() else np.inf)


def _tree(target: Surface) -> tuple[cKDTree, Floats, Floats, NDArray[np.bool_]]:
    """Search by place and normal among vertices and triangle centres: tree, points, normals, on the border."""
    corners = target.triangles
    used = np.unique(corners)
    centres = target.vertices[corners].mean(1)
    facing = triangle_normals(target.vertices, corners)
    facing = facing / np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-12)
    points = np.concatenate([target.vertices[used], centres])
    normals = np.concatenate([target.normals[used], facing])
    border = np.concatenate([target.border[used], target.border[corners].any(1)])
    return cKDTree(np.hstack([points, NORMAL_MM * normals])), points, normals, border


def _closest(points: Floats, normals: Floats, tree: tuple, reach: float) -> tuple[Floats, NDArray[np.float64]]:
    """Points (V, 3) moved along the target's normals onto it, and 1 (V,) where that can be believed, else 0."""
    search, places, facing, border = tree
    _, index = search.query(np.hstack([points, NORMAL_MM * normals]))
    gap = places[index] - points
    good = (np.linalg.norm(gap, axis=1) < reach) & ((normals * facing[index]).sum(1) > 0.5) & ~border[index]
    along = (gap * facing[index]).sum(1, keepdims=True) * facing[index]
    return points + along + TANGENTIAL * (gap - along), good.astype(np.float64)


def _carry_pieces(embedded: FaceModel, start: Floats, moved: Floats, main: NDArray[np.bool_]) -> Floats:
    """Eyeballs go with the lids of their side, teeth and tongue with the lips."""
    out = moved.copy()
    step = moved - start
    eyes = np.unique(embedded.triangles[embedded.triangle_part == PARTS.index("eyes")])
    for side in (1, -1):
        lids = embedded.regions["eyelids"] * (side * start[:, 0] > 0) * main
        ball = eyes[side * start[eyes, 0] > 0]
        out[ball] = start[ball] + np.average(step, axis=0, weights=lids)
    inner = np.setdiff1d(np.flatnonzero(~main), eyes)
    out[inner] = start[inner] + np.average(step, axis=0, weights=embedded.regions["lips"] * main)
    return out


def match(points: Floats, normals: Floats, embedded: FaceModel, moved: Floats, allowed: NDArray[np.bool_]) -> Match:
    """The nearest point of the moved embedded surface to each point (N, 3) with a normal (N, 3).

    Args:
        moved: (V_e, 3) from `register`.
        allowed: (F_e,) which of its triangles may be matched.
    """
    choice = np.flatnonzero(allowed)
    triangles = embedded.triangles
    facing = triangle_normals(moved, triangles[choice])
    facing = facing / np.maximum(np.linalg.norm(facing, axis=1, keepdims=True), 1e-12)
    centres = moved[triangles[choice]].mean(1)
    tree = cKDTree(np.hstack([centres, NORMAL_MM * facing]))
    _, near = tree.query(np.hstack([points, NORMAL_MM * normals]), k=min(CANDIDATES, len(choice)))
    near = near.reshape(len(points), -1)
    agree = np.einsum("nkd,nd->nk", facing[near], normals)
    near = np.where(agree > 0, near, near[:, :1])
    triangle, weights = closest_on_triangles(points, moved, triangles, choice[near])
    at = np.einsum("nc,ncd->nd", weights, moved[triangles[triangle]])
    distance = np.linalg.norm(at - points, axis=1)
    local = np.searchsorted(choice, triangle)
    agreement = (facing[local] * normals).sum(1)
    trust = ramp(distance, TRUST_MM[1], TRUST_MM[0]) * ramp(agreement, TRUST_COSINE[1], TRUST_COSINE[0])
    return Match(triangle, weights.astype(np.float64), trust, distance)


def match_by_part(surface: Surface, part: NDArray[np.uint8], embedded: FaceModel, moved: Floats) -> Match:
    """Where each vertex of a model lies on the embedded one: skin on skin, eyes on eyes, inside of the mouth inside.

    Args:
        part: (F,) index into `PARTS` of the surface's triangles; a vertex of several parts counts as the first.
    """
    of_vertex = vertex_part(surface.triangles, part, len(surface.vertices))
    count = len(surface.vertices)
    triangle, weights = np.zeros(count, np.int64), np.tile([1.0, 0.0, 0.0], (count, 1))
    trust, distance = np.zeros(count), np.full(count, np.inf)
    inner = [PARTS.index("teeth"), PARTS.index("mouth")]
    for group in ([PARTS.index("skin")], [PARTS.index("eyes")], inner):
        own = np.flatnonzero(np.isin(of_vertex, group))
        allowed = np.isin(embedded.triangle_part, group)
        if len(own):
            found = match(surface.vertices[own], surface.normals[own], embedded, moved, allowed)
            triangle[own], weights[own] = found.triangle, found.barycentric
            trust[own], distance[own] = found.trust, found.distance_mm
    return Match(triangle, weights, trust, distance)


def vertex_part(triangles: Index, part: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """(V,) the first part in the order of `PARTS` that uses each vertex; unused vertices count as skin."""
    found = np.full(count, len(PARTS), np.uint8)
    np.minimum.at(found, triangles.ravel(), np.repeat(part, 3))
    return np.where(found == len(PARTS), 0, found).astype(np.uint8)
