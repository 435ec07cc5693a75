"""Named regions of the embedded model on another one, and its left-right map."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from raytrace_face.adopt.correspond import Match, Surface, graph_laplacian, ramp, vertex_part
from raytrace_face.adopt.disc import distance_to
from raytrace_face.face.mesh import Floats, Index, edges_of
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.types import Array

SMOOTHING = 2
"""Rounds of averaging with the neighbours: about the edge length of the embedded model on finer ones."""
RIM_MM = 250.0
"""Borders longer than this are where the model ends; those of lids, lips and nostrils are shorter."""
FADE_MM = (3.0, 12.0)
"""Along the surface from such a border, where the face begins to be used and where it is in full."""


def carry_regions(surface: Surface, part: NDArray[np.uint8], embedded: FaceModel, found: Match) -> dict[str, Array]:
    """Region name -> (V,) weight in [0, 1], zero off the skin; "face" only where the correspondence is trusted."""
    interpolate = found.matrix(embedded)
    count = len(surface.vertices)
    edges = edges_of(surface.triangles)[0]
    smoothing = sparse.identity(count) - 0.5 * graph_laplacian(edges, count)
    skin = vertex_part(surface.triangles, part, count) == PARTS.index("skin")
    out = {}
    for name, weight in embedded.regions.items():
        field = interpolate @ weight.astype(np.float64)
        if name == "face":
            field = field * found.trust * ramp(rim_distance(surface), *FADE_MM)
        for _ in range(SMOOTHING):
            field = smoothing @ field
        out[name] = (np.clip(field, 0, 1) * skin).astype(np.float32)
    return out


def rim_distance(surface: Surface) -> Floats:
    """(V,) distance along edges to where the model ends, mm; infinite where it does not end nearby."""
    edges, _, uses = edges_of(surface.triangles)
    count = len(surface.vertices)
    length = np.linalg.norm(surface.vertices[edges[:, 0]] - surface.vertices[edges[:, 1]], axis=1)
    border = edges[uses == 1]
    loop = connected_components(
        sparse.coo_matrix((np.ones(len(border)), (border[:, 0], border[:, 1])), (count, count)), directed=False
    )[1]
    long = np.bincount(loop[border[:, 0]], length[uses == 1], minlength=loop.max() + 1) > RIM_MM
    rim = np.unique(border[long[loop[border[:, 0]]]])
    return distance_to(surface.vertices, surface.triangles, rim, 2 * FADE_MM[1])


def mirror_map(
    mean: Floats, triangles: Index, part: NDArray[np.uint8], source: Index
) -> tuple[NDArray[np.int32], float]:
    """Vertex nearest to each vertex's mirror image, and the largest distance between the two on the skin, mm.

    The map is made an involution wherever two vertices choose each other; elsewhere it is the best match, for few
    meshes are symmetric. Duplicates over seams are told apart by the charts they belong to.

    Args:
        mean: (V, 3) mm, head frame.
        part: (F,) index into `PARTS`.
        source: (V,) original vertex of each duplicate.
    """
    count = len(mean)
    of_vertex = vertex_part(triangles, part, count)
    image = mean * np.array([-1.0, 1.0, 1.0])
    # A duplicate stands slightly inside its own triangles, so that its twin in the same chart's image is nearest.
    centres = np.repeat(mean[triangles].mean(1), 3, axis=0)
    uses = np.maximum(np.bincount(triangles.ravel(), minlength=count), 1)
    inside = np.stack([np.bincount(triangles.ravel(), centres[:, d], minlength=count) for d in range(3)], 1)
    duplicated = np.bincount(source)[source] > 1
    place = np.where(duplicated[:, None], mean + INSET * (inside / uses[:, None] - mean), mean)
    image = place * np.array([-1.0, 1.0, 1.0])
    mirror: Index = np.arange(count)
    for number in range(len(PARTS)):
        own = np.flatnonzero(of_vertex == number)
        if len(own):
            mirror[own] = own[cKDTree(place[own]).query(image[own])[1]]
    mirror = _mutual(mirror, place, image)
    skin = of_vertex == PARTS.index("skin")
    gap = np.linalg.norm(mean[mirror] * np.array([-1.0, 1.0, 1.0]) - mean, axis=1)
    return mirror.astype(np.int32), float(gap[skin].max())


def _mutual(mirror: Index, place: Floats, image: Floats) -> Index:
    """Pairs that choose each other stay; the others prefer whoever chose them, if that is not much farther."""
    own = np.arange(len(mirror))
    chosen_by = own.copy()
    order = np.argsort(-np.linalg.norm(place[mirror] - image, axis=1), kind="stable")
    chosen_by[mirror[order]] = order  # the nearest suitor is written last
    single = mirror[mirror] != own
    suitor = single & (mirror[chosen_by] == own) & single[chosen_by]
    near = np.linalg.norm(place[mirror] - image, axis=1)
    far = np.linalg.norm(place[chosen_by] - image, axis=1)
    return np.where(suitor & (far < 2 * near + 0.1), chosen_by, mirror)


INSET = 0.1
"""Share of the way to the middle of its triangles."""
