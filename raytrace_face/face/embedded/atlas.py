"""One chart for all skin: a convex-combination map (Tutte 1963) whose weights are adapted to magnify the face.

The head is cut along its back, from the neck to the crown; the cut and the neck's rim go to the border of a rounded
square with the face in the middle. Any positive weights give a bijection when the border is convex (Floater 2003), so
the weights are free to be used for magnification: Yoshizawa et al. 2004 divide the weight of every neighbour by its
local stretch until areas are as wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import splu

from raytrace_face.face.mesh import Floats, Index, edges_of, triangle_normals

SQUARENESS = 8.0
"""Exponent of the border |x|^p + |y|^p = 1: strictly convex, and 97 % of the square lies inside."""
MARGIN = 0.004


@dataclass(frozen=True)
class Cut:
    """A mesh opened along its back: the same quads with other vertex numbers."""

    quads: Index
    """(Q, 4) vertex numbers of the opened mesh; the first V are the closed mesh's own."""
    source: Index
    """(V',) closed-mesh vertex of each opened vertex."""
    mirror: Index
    """(V',) mirrored vertex: the two sides of the cut are each other's image."""


def cut_back(quads: Index, vertices: Floats, mirror: Index, skin: NDArray[np.bool_]) -> Cut:
    """Open the head along the midline of its back from the neck rim to the crown.

    Args:
        quads: (Q, 4).
        vertices: (V, 3) symmetric, head frame.
        mirror: (V,).
        skin: (Q,) quads that belong to the head's closed surface (skin and cavities).
    """
    edges, _, uses = edges_of(quads[skin])
    on_middle = (mirror[edges] == edges).all(1)
    neighbours: dict[int, list[int]] = {}
    for a, b in edges[on_middle]:
        neighbours.setdefault(int(a), []).append(int(b))
        neighbours.setdefault(int(b), []).append(int(a))
    rim = np.unique(edges[uses == 1])
    at_back = rim[mirror[rim] == rim]
    current = int(at_back[np.argmin(vertices[at_back, 2])])
    path, seen = [current], {current}
    while True:
        onward = [v for v in neighbours[current] if v not in seen]
        if not onward:
            break
        current = onward[0]
        seen.add(current)
        path.append(current)
        top = vertices[path, 1]
        # The crown: stop where the midline has passed its highest point.
        if len(path) > 4 and top[-1] < top[-2]:
            path = path[:-1]
            break
    copied = np.array(path[:-1])
    count = len(vertices)
    copy_of = np.arange(count)
    copy_of[copied] = count + np.arange(len(copied))
    right = skin & (vertices[quads].mean(1)[:, 0] < 0)
    opened = quads.copy()
    opened[right] = copy_of[quads[right]]
    source = np.concatenate([np.arange(count), copied])
    new_mirror = np.concatenate([mirror, copied])
    new_mirror[copied] = copy_of[copied]
    return Cut(opened, source, new_mirror)


def border_loop(triangles: Index) -> Index:
    """Vertices of the single border loop in order (counter-clockwise as the triangles are)."""
    sides = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]).astype(np.int64)
    big = int(triangles.max()) + 1
    own, reverse = sides[:, 0] * big + sides[:, 1], sides[:, 1] * big + sides[:, 0]
    border = sides[~np.isin(own, reverse)]
    onward = dict(border.tolist())
    loop = [int(border[0, 0])]
    while (following := onward[loop[-1]]) != loop[0]:
        loop.append(following)
    if len(loop) != len(border):
        raise ValueError(f"{len(border)} border edges but a loop of {len(loop)}: the surface is not a disc")
    return np.array(loop)


def _border_uv(loop: Index, points: Floats, mirror: Index) -> Floats:
    """Border positions by arc length, symmetric: loop (B,) -> (B, 2) in [0, 1]."""
    fixed = np.flatnonzero(mirror[loop] == loop)
    if len(fixed) != 2:
        raise ValueError(f"the border crosses the mirror plane {len(fixed)} times, not twice")
    crown = fixed[np.argmax(points[loop[fixed], 1])]
    loop_points = np.roll(points[loop], -crown, axis=0)
    length = np.linalg.norm(np.diff(loop_points, axis=0, append=loop_points[:1]), axis=1)
    neck = (fixed[fixed != crown][0] - crown) % len(loop)
    along = np.concatenate([[0], np.cumsum(length)[:-1]])
    half = along[neck]
    turn = np.where(along <= half, along / half * 0.5, 0.5 + 0.5 * (along - half) / (length.sum() - half))
    # Equal steps of border length on the rounded square.
    angle = np.linspace(0, 2 * np.pi, 20001)
    power = 2 / SQUARENESS
    # Counter-clockwise from the top: the subject's right (u = 0) comes first.
    x = -np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** power
    y = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** power
    run = np.concatenate([[0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    run /= run[-1]
    at = np.stack([np.interp(turn, run, x), np.interp(turn, run, y)], axis=1)
    return np.roll(0.5 + (0.5 - MARGIN) * at, crown, axis=0)


def _mean_value_weights(points: Floats, triangles: Index, count: int) -> sparse.csr_matrix:
    """Mean value coordinates (Floater 2003): positive, asymmetric weights (V, V)."""
    rows, columns, values = [], [], []
    for k in range(3):
        i, j, m = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        a, b = points[j] - points[i], points[m] - points[i]
        la, lb = np.maximum(np.linalg.norm(a, axis=1), 1e-3), np.maximum(np.linalg.norm(b, axis=1), 1e-3)
        cosine = np.clip((a * b).sum(1) / (la * lb), -0.98, 0.9998)
        tangent = np.sqrt((1 - cosine) / (1 + cosine))
        rows += [i, i]
        columns += [j, m]
        values += [tangent / la, tangent / lb]
    return sparse.csr_matrix((np.concatenate(values), (np.concatenate(rows), np.concatenate(columns))), (count, count))


def areas(uv: Floats, triangles: Index) -> Floats:
    """Signed areas (F,) of triangles in the plane."""
    a, b, c = (uv[triangles[:, k]] for k in range(3))
    return 0.5 * ((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])


def flatten(
    points: Floats, triangles: Index, mirror: Index, density: Floats, iterations: int = 40
) -> tuple[Floats, list[float]]:
    """Bijective symmetric map of a disc to the rounded square.

    Args:
        points: (V, 3) mm; vertices not used by `triangles` are ignored.
        triangles: (F, 3) of the disc.
        mirror: (V,).
        density: (F,) wanted texture area per skin area, any unit.

    Returns:
        uv (V, 2) and the mean log-area error by iteration.
    """
    loop = border_loop(triangles)
    used = np.unique(triangles)
    inner = np.setdiff1d(used, loop)
    count = len(points)
    weights = _mean_value_weights(points, triangles, count)
    uv = np.full((count, 2), 0.5)
    uv[loop] = _border_uv(loop, points, mirror)
    wanted = np.linalg.norm(triangle_normals(points, triangles), axis=1) * 0.5 * density
    wanted /= wanted.sum()
    per_vertex = np.bincount(triangles.ravel(), np.repeat(wanted, 3), minlength=count)
    best, best_error, history = uv, np.inf, []
    for _ in range(iterations):
        total = np.asarray(weights.sum(1)).ravel()
        scaled = sparse.diags(1 / np.maximum(total, 1e-300)) @ weights
        system = (sparse.identity(count, format="csr") - scaled)[inner]
        uv = uv.copy()
        uv[inner] = splu(system[:, inner].tocsc()).solve(-(system[:, loop] @ uv[loop]))
        mirrored = uv[mirror] * np.array([-1.0, 1.0]) + np.array([1.0, 0.0])
        uv[used] = 0.5 * (uv + mirrored)[used]
        area = areas(uv, triangles)
        if area.min() <= 1e-12:
            break
        share = area / area.sum()
        error = float((wanted * np.abs(np.log(share / np.maximum(wanted, 1e-12)))).sum())
        history.append(error)
        if error < best_error:
            best, best_error = uv, error
        got = np.bincount(triangles.ravel(), np.repeat(share, 3), minlength=count)
        stretch = np.sqrt(np.maximum(per_vertex, 1e-12) / np.maximum(got, 1e-12))
        weights = weights @ sparse.diags(np.clip(stretch, 0.5, 2.0) ** -0.5)
    return best, history
