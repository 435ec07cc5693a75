"""One chart for the face: a convex-combination map of a disc into a squircle that evens out the texels.

Positive weights and a convex border give a bijection (Tutte 1963, Floater 2003), whatever the face looks like; weights
are mean values (Floater 2003), then divided by local stretch until areas are even (Yoshizawa et al. 2004). Atlas
generators that cut by normals would cut a nose out of its face.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.sparse.linalg import splu

from raytrace_face.face.mesh import Floats, Index, edges_of, triangle_normals

SQUIRCLE_AREA = 3.70815
"""Area of x^4 + y^4 = 1, the chart's border: convex, and 93 % of its square, of which a circle fills 79."""
ROUNDS = 8
"""Of evening out; the error falls little after six."""
STRONGEST = 1e3
"""Ratio of the largest to the smallest weight around a vertex: beyond it the bijection drowns in rounding."""


def find_disc(triangles: Index, wanted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(F,) the largest connected patch of wanted triangles, with its enclosed holes filled, and without pinches.

    Holes of the mesh itself (eyes, mouth) stay; where two parts of the patch meet in one vertex only, the triangles
    around that vertex leave it.
    """
    patch = _largest(triangles, wanted)
    rest = ~patch
    # What the patch encloses belongs to it: inside of the nostrils, folds of the lids.
    while rest.any():
        outside = _largest(triangles, rest)
        if not (rest & ~outside).any():
            break
        inside = rest & ~outside & _touching(triangles, patch)
        if not inside.any():
            break
        patch, rest = patch | inside, rest & ~inside
    for _ in range(100):
        pinched = _pinched(triangles[patch])
        if not len(pinched):
            break
        patch = _largest(triangles, patch & ~np.isin(triangles, pinched).any(1))
    return patch


def _largest(triangles: Index, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(F,) the biggest set of chosen triangles that hang together by edges."""
    own = np.flatnonzero(chosen)
    _, side, _ = edges_of(triangles[own])
    row = np.repeat(np.arange(len(own)), 3)
    graph = sparse.csr_matrix((np.ones(len(row)), (row, side.ravel())))
    piece = connected_components(graph @ graph.T, directed=False)[1]
    out = np.zeros(len(triangles), bool)
    out[own[piece == np.bincount(piece).argmax()]] = True
    return out


def _touching(triangles: Index, patch: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(np.isin(triangles, np.unique(triangles[patch])).any(1))


def _pinched(triangles: Index) -> Index:
    """Vertices through which more than one border runs."""
    edges, _, uses = edges_of(triangles)
    return np.flatnonzero(np.bincount(edges[uses == 1].ravel(), minlength=1) > 2)


def border_loops(triangles: Index) -> list[Index]:
    """Closed borders, each in the order in which its triangles run around it."""
    sides = np.stack([triangles, np.roll(triangles, -1, axis=1)], axis=-1).reshape(-1, 2)
    known = {(int(a), int(b)) for a, b in sides}
    after = {a: b for a, b in known if (b, a) not in known}
    loops = []
    while after:
        first, at = next(iter(after.items()))
        loop = [first]
        del after[first]
        while at != first:
            loop.append(at)
            at = after.pop(at)
        loops.append(np.array(loop))
    return loops


def flatten(points: Floats, triangles: Index, density: Floats) -> Floats | None:
    """(V, 2) mm in the plane of a disc-like patch, of its own area; None where there is no bijection.

    Args:
        points: (V, 3) mm.
        triangles: (F, 3) a patch without pinches; holes in it are spanned by a vertex each while it is flattened.
        density: (V,) wanted scale of the map, 1 for the patch's own.
    """
    loops = border_loops(triangles)
    if not loops:
        return None
    length = [np.linalg.norm(points[loop] - points[np.roll(loop, -1)], axis=1) for loop in loops]
    outer = int(np.argmax([step.sum() for step in length]))
    wide, fans = points, triangles
    for number, loop in enumerate(loops):
        if number != outer:
            # A border runs with its triangles, so the fan that closes it runs against.
            hub = np.full(len(loop), len(wide))
            fans = np.concatenate([fans, np.stack([np.roll(loop, -1), loop, hub], axis=1)])
            wide = np.concatenate([wide, points[loop].mean(0, keepdims=True)])
            density = np.append(density, density[loop].mean())
    area = 0.5 * np.linalg.norm(triangle_normals(wide, fans), axis=1) * (density[fans] ** 2).mean(1)
    loop = loops[outer]
    radius = np.sqrt(area.sum() / SQUIRCLE_AREA)
    uv = np.zeros((len(wide), 2))
    uv[loop] = radius * _rim(points[loop], length[outer])
    inner = np.setdiff1d(np.unique(fans), loop)
    weights = mean_value_weights(wide, fans)
    best, best_error = None, np.inf
    for _ in range(ROUNDS):
        scaled = sparse.diags(1 / np.maximum(np.asarray(weights.sum(1)).ravel(), 1e-300)) @ weights
        system = (sparse.identity(len(wide), format="csr") - scaled)[inner]
        uv = uv.copy()
        uv[inner] = splu(system[:, inner].tocsc()).solve(-(system[:, loop] @ uv[loop]))
        got = signed_areas(uv, fans)
        if got.min() <= 0:
            break
        error = float((area * np.abs(np.log(got / np.maximum(area, 1e-9)))).sum() / area.sum())
        if error < best_error:
            best, best_error = uv, error
        around = [np.bincount(fans.ravel(), np.repeat(a, 3), minlength=len(wide)) for a in (area, got)]
        stretch = np.sqrt(np.maximum(around[0], 1e-9) / np.maximum(around[1], 1e-9))
        weights = weights @ sparse.diags(np.clip(stretch, 0.5, 2.0) ** -0.5)
    return None if best is None else best[: len(points)]


def _rim(points: Floats, length: Floats) -> Floats:
    """(N, 2) places of a border's points (N, 3) on the squircle, spaced as they are, turned most like the front view.

    Args:
        length: (N,) mm from each point to the next.
    """
    angle = 2 * np.pi * np.cumsum(np.append(0.0, length[:-1])) / length.sum()
    front = points[:, :2] - points[:, :2].mean(0)
    angle += np.angle(((front[:, 0] + 1j * front[:, 1]) * np.exp(-1j * angle)).sum())
    place = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return place / (place**4).sum(1, keepdims=True) ** 0.25


def distance_to(points: Floats, triangles: Index, goal: Index, limit: float) -> Floats:
    """(V,) length of the shortest way along edges to any vertex of the goal, infinite beyond the limit."""
    edges = edges_of(triangles)[0]
    length = np.maximum(np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1), 1e-6)
    graph = sparse.coo_matrix((length, (edges[:, 0], edges[:, 1])), (len(points), len(points))).tocsr()
    if not len(goal):
        return np.full(len(points), np.inf)
    return dijkstra(graph, directed=False, indices=goal, limit=limit, min_only=True)


def signed_areas(uv: Floats, triangles: Index) -> Floats:
    """(F,) areas in the plane, positive counter-clockwise."""
    a, b, c = (uv[triangles[:, k]] for k in range(3))
    return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])


def mean_value_weights(points: Floats, triangles: Index) -> sparse.csr_matrix:
    """(V, V) weights of the neighbours of each vertex: (tan(a / 2) + tan(b / 2)) / distance (Floater 2003, eq. 2.3)."""
    rows, columns, values = [], [], []
    for k in range(3):
        i, j, m = (triangles[:, (k + s) % 3] for s in range(3))
        to_j, to_m = points[j] - points[i], points[m] - points[i]
        length_j, length_m = (np.maximum(np.linalg.norm(x, axis=1), 1e-6) for x in (to_j, to_m))
        cosine = np.clip((to_j * to_m).sum(1) / (length_j * length_m), -0.98, 0.9998)
        half = np.sqrt((1 - cosine) / (1 + cosine))
        rows += [i, i]
        columns += [j, m]
        values += [half / length_j, half / length_m]
    count = len(points)
    weights = sparse.csr_matrix(
        (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (count, count)
    )
    largest = weights.max(axis=1).toarray().ravel()
    weights.data = np.maximum(weights.data, np.repeat(largest / STRONGEST, np.diff(weights.indptr)))
    return weights
