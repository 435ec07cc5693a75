"""Which triangles are skin, eyes, or the inside of the mouth, where a model's file does not say."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from raytrace_face.adopt.correspond import Surface, match
from raytrace_face.face.mesh import Floats, Index, edges_of, triangle_normals
from raytrace_face.face.model import PARTS, FaceModel

SPECK_MM2 = 40.0
"""Patches of another part smaller than this are noise of the registration; the visible part of an eye has 200 mm^2."""


def find_parts(target: Surface, embedded: FaceModel, moved: Floats) -> NDArray[np.uint8]:
    """(F,) index into `PARTS`: that of the nearest triangle of the registered embedded model.

    A connected piece beside the largest belongs to one part as a whole (an eyeball, a row of teeth); on the largest
    piece small specks take the part around them.

    Args:
        moved: (V_e, 3) the embedded model's vertices on the target.
    """
    corners = target.triangles
    normals = triangle_normals(target.vertices, corners)
    area = 0.5 * np.linalg.norm(normals, axis=1)
    normals = normals / np.maximum(2 * area, 1e-12)[:, None]
    everything = np.ones(len(embedded.triangles), bool)
    found = match(target.vertices[corners].mean(1), normals, embedded, moved, everything)
    part = embedded.triangle_part[found.triangle].copy()
    piece = pieces(corners, len(target.vertices))[corners[:, 0]]
    # Every model's skin is one piece, the largest.
    size = np.bincount(piece, area)
    for number in np.unique(piece):
        own = piece == number
        if number != size.argmax():
            part[own] = np.bincount(part[own], area[own], minlength=len(PARTS)).argmax()
    skin = piece == size.argmax()
    # The nearest surface is the inside of the mouth also where registration is off by a millimetre at the lips.
    part[skin & (part == PARTS.index("teeth"))] = PARTS.index("mouth")
    return without_specks(corners, part, area)


def pieces(triangles: Index, count: int) -> Index:
    """(V,) number of the connected piece of each vertex."""
    edges = edges_of(triangles)[0]
    graph = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (count, count))
    return connected_components(graph, directed=False)[1]


def neighbours(triangles: Index) -> Index:
    """(N, 2) pairs of triangles that share an edge."""
    _, side, uses = edges_of(triangles)
    face = np.repeat(np.arange(len(triangles)), 3)
    order = np.argsort(side.ravel(), kind="stable")
    edge, face = side.ravel()[order], face[order]
    pair = (edge[1:] == edge[:-1]) & (uses[edge[1:]] == 2)
    return np.stack([face[:-1][pair], face[1:][pair]], axis=1)


def without_specks(triangles: Index, part: NDArray[np.uint8], area: Floats) -> NDArray[np.uint8]:
    """Patches smaller than `SPECK_MM2` take the part with which they share most edges."""
    out = part.copy()
    pairs = neighbours(triangles)
    count = len(triangles)
    for _ in range(4):
        same = out[pairs[:, 0]] == out[pairs[:, 1]]
        graph = sparse.coo_matrix((np.ones(same.sum()), (pairs[same, 0], pairs[same, 1])), (count, count))
        patch = connected_components(graph, directed=False)[1]
        small = np.bincount(patch, area)[patch] < SPECK_MM2
        across = pairs[~same]
        across = np.concatenate([across, across[:, ::-1]])
        across = across[small[across[:, 0]]]
        if not len(across):
            break
        votes = np.zeros((patch.max() + 1, len(PARTS)))
        np.add.at(votes, (patch[across[:, 0]], out[across[:, 1]]), 1.0)
        change = small & (votes.sum(1) > 0)[patch]
        out[change] = votes.argmax(1)[patch][change]
    return out
