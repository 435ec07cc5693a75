"""Which texel shows the mirror image of the point of the skin that a texel shows, for any texture layout."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from raytrace_face.face.model import FaceModel

SEAM_RATIO = 3.0
"""A mirrored triangle this much longer in the texture than its original lies across a seam."""
NEAR_MM = 2.0
"""Where charts differ from side to side, the nearest texel to the mirrored point counts up to here."""


def mirrored_texels(
    model: FaceModel,
    triangles: NDArray[np.integer],
    triangle: NDArray[np.integer],
    barycentric: NDArray[np.floating],
    inside: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """(T * T,) texel that shows the mirrored point of the skin; the texel itself where there is none.

    The corners of a triangle and their images (`FaceModel.mirror`) define an affine map of the texture, which goes on
    outside the atlas. Where the images lie on several charts, the nearest texel in space is taken, on the mean.

    Args:
        triangles: (F, 3) of the skin.
        triangle: (T * T,) which of them a texel lies on; outside the atlas, that of the nearest texel inside.
        barycentric: (T * T, 3) where on it.
        inside: (T, T) whether the texel's centre lies on the skin.
    """
    linear, shift, whole = _maps(model, triangles)
    size, within = len(inside), inside.ravel()
    own = np.arange(size * size)
    centre = np.stack([(own % size + 0.5) / size, 1 - (own // size + 0.5) / size], axis=1)
    there = np.einsum("tij,tj->ti", linear[triangle], centre) + shift[triangle]
    column, row = np.rint(there[:, 0] * size - 0.5), np.rint((1 - there[:, 1]) * size - 0.5)
    good = whole[triangle] & (column >= 0) & (column < size) & (row >= 0) & (row < size)
    texel = np.where(good, row * size + column, own).astype(np.int64)
    good &= within | ~within[texel]  # what lies outside an atlas is no mirror image of skin
    lost = np.flatnonzero(within & ~good)
    if len(lost):
        here = np.flatnonzero(within)
        points = np.einsum("tkc,tk->tc", model.mean[triangles[triangle]], barycentric)
        images = points[lost] * np.array([-1.0, 1.0, 1.0])
        distance, nearest = cKDTree(points[here]).query(images, distance_upper_bound=NEAR_MM)
        found = np.isfinite(distance)
        texel[lost[found]] = here[nearest[found]]
        good[lost[found]] = True
    return np.where(good, texel, own)


def _maps(
    model: FaceModel, triangles: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Affine maps of the texture from triangles onto their images: (F, 2, 2), (F, 2), and (F,) whether one exists."""
    mirrored = model.mirror[triangles]
    own, image = (model.uv[corners].astype(np.float64) for corners in (triangles, mirrored))
    longest, image_longest = (np.linalg.norm(x - np.roll(x, 1, axis=1), axis=2).max(axis=1) for x in (own, image))
    edges, image_edges = ((x[:, 1:] - x[:, :1]).transpose(0, 2, 1) for x in (own, image))
    flat = np.abs(np.linalg.det(edges)) < 1e-6 * longest**2
    edges[flat] = np.eye(2)
    linear = image_edges @ np.linalg.inv(edges)
    shift = image[:, 0] - np.einsum("fij,fj->fi", linear, own[:, 0])
    ends = triangles[:, [0, 1, 1, 2]].reshape(-1, 2)
    graph = sparse.coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(len(model.uv), len(model.uv)))
    chart = connected_components(graph, directed=False)[1][mirrored]
    apart = (chart != chart[:, :1]).any(axis=1) | (image_longest > SEAM_RATIO * longest)
    return linear, shift, ~flat & ~apart
