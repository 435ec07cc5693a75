"""Pure functions on meshes: normals over seams, Catmull-Clark as a matrix, triangles of quads, areas.

Everything here is linear algebra on index arrays; nothing knows about faces.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Index = NDArray[np.integer]
Floats = NDArray[np.floating]


def triangle_normals(vertices: Floats, triangles: Index) -> Floats:
    """Unnormalised triangle normals (F, 3); the length is twice the area."""
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    return np.cross(b - a, c - a)


def vertex_normals(vertices: Floats, triangles: Index, weld: Index | None = None) -> Floats:
    """Area-weighted unit vertex normals (V, 3).

    Args:
        vertices: (V, 3).
        triangles: (F, 3), counter-clockwise seen from outside.
        weld: (V,) representative of each group of duplicated vertices; they share one normal. None: no seams.
    """
    count = len(vertices)
    weld = np.arange(count) if weld is None else weld
    faces = triangle_normals(vertices, triangles)
    corners = weld[triangles]
    normals = np.stack(
        [np.bincount(corners.ravel(), np.repeat(faces[:, d], 3), minlength=count) for d in range(3)], axis=1
    )[weld]
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return (normals / np.maximum(length, 1e-20)).astype(vertices.dtype)


def vertex_areas(vertices: Floats, triangles: Index) -> Floats:
    """A third of the area of the triangles around each vertex (V,)."""
    area = np.linalg.norm(triangle_normals(vertices, triangles), axis=1) / 6
    return np.asarray(np.bincount(triangles.ravel(), np.repeat(area, 3), minlength=len(vertices)), np.float64)


def edges_of(faces: Index) -> tuple[Index, Index, Index]:
    """Undirected edges of polygons (Q, n): edges (E, 2), edge of each face side (Q, n), faces per edge (E,).

    Side k of a face runs from its corner k to corner k + 1.
    """
    sides = np.stack([faces, np.roll(faces, -1, axis=1)], axis=-1)
    ends = np.sort(sides.reshape(-1, 2), axis=1).astype(np.int64)
    key = ends[:, 0] * (int(faces.max()) + 1) + ends[:, 1]
    _, first, inverse, uses = np.unique(key, return_index=True, return_inverse=True, return_counts=True)
    return ends[first], inverse.reshape(faces.shape), uses


@dataclass(frozen=True)
class Subdivision:
    """One level of subdivision of a quad mesh as a linear map."""

    matrix: sparse.csr_matrix
    """(V', V): new positions = matrix @ old positions. Order: old vertices, edge points, face points."""
    quads: Index
    """(4 Q, 4): the four children of face q are 4 q .. 4 q + 3, child k at corner k."""


def catmull_clark(quads: Index, vertex_count: int, smooth: bool = True) -> Subdivision:
    """Catmull-Clark subdivision (1978) of a quad mesh (Q, 4), with B-spline curves along open borders.

    With `smooth=False` the bilinear split of the same topology (positions of old vertices stay), as uv need it.
    """
    q, v = len(quads), vertex_count
    edges, side_edge, uses = edges_of(quads)
    e = len(edges)
    rows = np.repeat(np.arange(q), 4)
    face = sparse.csr_matrix((np.full(4 * q, 0.25), (rows, quads.ravel())), (q, v))
    rows = np.repeat(np.arange(e), 2)
    middle = sparse.csr_matrix((np.full(2 * e, 0.5), (rows, edges.ravel())), (e, v))
    identity = sparse.identity(v, format="csr")
    if smooth:
        inner = uses == 2
        beside = sparse.csr_matrix((np.full(4 * q, 0.5), (side_edge.ravel(), np.repeat(np.arange(q), 4))), (e, q))
        edge = sparse.diags(np.where(inner, 0.5, 1.0)) @ middle + sparse.diags(np.where(inner, 0.5, 0.0)) @ (
            beside @ face
        )
        edge_at = sparse.csr_matrix((np.ones(2 * e), (edges.ravel(), np.repeat(np.arange(e), 2))), (v, e))
        face_at = sparse.csr_matrix((np.ones(4 * q), (quads.ravel(), np.repeat(np.arange(q), 4))), (v, q))
        n = np.maximum(np.asarray(face_at.sum(1)).ravel(), 1)
        rim = np.zeros(v, bool)
        rim[edges[~inner].ravel()] = True
        interior = (
            sparse.diags(1 / n**2) @ (face_at @ face)
            + sparse.diags(2 / n**2) @ (edge_at @ middle)
            + sparse.diags((n - 3) / n) @ identity
        )
        rim_edges = sparse.diags((~inner).astype(float)) @ middle
        border = 0.5 * identity + sparse.diags(np.full(v, 0.25)) @ (edge_at @ rim_edges)
        point = sparse.diags((~rim).astype(float)) @ interior + sparse.diags(rim.astype(float)) @ border
    else:
        edge, point = middle, identity
    k = np.arange(4)
    children = np.stack(
        [
            quads,
            v + side_edge,
            np.broadcast_to(v + e + np.arange(q)[:, None], (q, 4)),
            v + side_edge[:, (k - 1) % 4],
        ],
        axis=-1,
    )
    # Child k runs corner k -> edge k -> centre -> edge k-1: same orientation as its parent.
    return Subdivision(sparse.vstack([point, edge, face]).tocsr(), children.reshape(4 * q, 4))


def triangulate(quads: Index, flip: NDArray[np.bool_] | None = None) -> Index:
    """Two triangles per quad (2 Q, 3); `flip` (Q,) chooses the diagonal 1-3 instead of 0-2."""
    flip = np.zeros(len(quads), bool) if flip is None else flip
    turned = np.where(flip[:, None], np.roll(quads, -1, axis=1), quads)
    return turned[:, [0, 1, 2, 0, 2, 3]].reshape(-1, 3)


def corner_map(target_faces: Index, source_faces: Index, target_count: int) -> Index:
    """(V_target,) source vertex of each target vertex, for two face lists with matching corners."""
    found = np.zeros(target_count, np.int64)
    found[target_faces.ravel()] = source_faces.ravel()
    return found


def rigid_fit(source: Floats, target: Floats, weight: Floats, scale: bool = False) -> tuple[float, Floats, Floats]:
    """Least-squares s, R, t with s R source + t ~ target (Umeyama 1991). Points (N, 3), weights (N,)."""
    w = weight / weight.sum()
    a, b = w @ source, w @ target
    u, d, vt = np.linalg.svd(((target - b) * w[:, None]).T @ (source - a))
    sign = np.diag([1.0, 1.0, np.linalg.det(u @ vt)])
    rotation = u @ sign @ vt
    s = float((d * np.diag(sign)).sum() / (w @ ((source - a) ** 2).sum(1))) if scale else 1.0
    return s, rotation, b - s * rotation @ a


def rigid_motions(points: Floats) -> Floats:
    """Six infinitesimal rigid motions (6, V, 3) about the origin: 1 mm along, and 1/100 rad about, each axis."""
    x, y, z = points.T / 100.0
    zero, one = np.zeros(len(points)), np.ones(len(points))
    return np.array(
        [
            [one, zero, zero],
            [zero, one, zero],
            [zero, zero, one],
            [zero, -z, y],
            [z, zero, -x],
            [-y, x, zero],
        ]
    ).transpose(0, 2, 1)


def remove_rigid(modes: Floats, points: Floats, weight: Floats) -> Floats:
    """Take the infinitesimal rigid motion (6 parameters) that explains most of the weighted points out of modes.

    Args:
        modes: (K, V, 3) displacements.
        points: (V, 3) positions the modes act on.
        weight: (V,) which points decide.
    """
    motions = rigid_motions(points - np.average(points, axis=0, weights=weight))
    flat = motions.reshape(6, -1)
    w = np.repeat(weight, 3)
    coefficients = np.linalg.solve((flat * w) @ flat.T, (flat * w) @ modes.reshape(len(modes), -1).T)
    return modes - (coefficients.T @ flat).reshape(modes.shape)


def mirrored_faces(faces: Index, mirror: Index) -> Index:
    """(Q,) index of the face whose vertices are the mirror images of each face's."""
    key, image = np.sort(faces, axis=1), np.sort(mirror[faces], axis=1)
    found = np.empty(len(faces), np.int64)
    found[np.lexsort(image.T[::-1])] = np.lexsort(key.T[::-1])
    if (key[found] != image).any():
        raise ValueError("the mirror map does not take faces to faces")
    return found


def subdivided_mirror(quads: Index, mirror: Index) -> Index:
    """Mirror map of the vertices that `catmull_clark` makes, from the mirror map (V,) of its input."""
    edges, _, _ = edges_of(quads)
    count = len(mirror)
    image = np.sort(mirror[edges].astype(np.int64), axis=1)
    edge_image = np.searchsorted(edges[:, 0] * count + edges[:, 1], image[:, 0] * count + image[:, 1])
    face_image = mirrored_faces(quads, mirror)
    return np.concatenate([mirror, count + edge_image, count + len(edges) + face_image])
