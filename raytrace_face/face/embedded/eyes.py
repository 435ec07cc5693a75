"""Keep eyeballs round and lids on them, in the mean and in every identity mode.

The eyeball has no statistics of its own: its centre and radius follow from the lid rims (the line where the lid
meets the ball) with ICT-FaceKit's eyeball as a weak prior; then the rims are moved onto the ball.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.optimize import least_squares
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu
from scipy.spatial.distance import cdist

from raytrace_face.face.embedded.makehuman import Head
from raytrace_face.face.embedded.prior import Rims
from raytrace_face.face.mesh import Floats, Index, Subdivision, edges_of, rigid_motions, triangulate, vertex_normals
from raytrace_face.face.model import PARTS

CLEARANCE_MM = 0.25
"""Distance of the lid rim from the ball: thin enough that no light passes, thick enough not to intersect."""
RADIUS_MM = 14.0
"""Prior radius. Anatomy says 12; both MakeHuman and ICT model the ball with its lids' tear film larger."""
FALLOFF_MM = 7.0
FOLDS = 5
"""Rounds of unfolding; the mean head needs two."""
LID_THICKNESS_MM = 4.5
"""Skin so near to the ball is lid, its margin included."""
LID_MM = 1.0
"""Closed lids stay this far from the sphere: the cornea bulges by 0.7."""
SOCKET_MM = 0.7
"""Distance of the socket from the ball: shadows and the pink of the canthi, but no hole to look into."""


@dataclass(frozen=True)
class Eye:
    """One eyeball and the lids around it (indices of coarse vertices)."""

    ball: Index
    rim: Index
    centre: Floats
    """(3,) mm."""
    radius: float


def find_balls(head: Head) -> tuple[Index, Index]:
    """Vertices of the left (+x) and right eyeball."""
    balls = np.unique(head.quads[head.quad_part == PARTS.index("eyes")])
    left = head.vertices[balls, 0] > 0
    return balls[left], balls[~left]


@dataclass(frozen=True)
class Cavities:
    """What lies inside the head (indices of coarse vertices)."""

    sockets: tuple[Index, Index]
    """Left and right eye socket without the lid rim."""
    mouth: Index
    """Mouth bag without the lip rim."""
    mouth_rim: Index
    teeth: Index
    """Teeth and tongue."""
    skin: Index
    """Everything that may follow the lids: skin with its rims."""


def find_cavities(head: Head, rims: Rims) -> Cavities:
    """Tell sockets and mouth bag apart by their place; tongue and teeth are pieces of their own."""
    skin = np.unique(head.quads[head.quad_part == PARTS.index("skin")])
    piece = connected_components(_adjacency(head), directed=False)[1]
    inner = np.unique(head.quads[head.quad_part == PARTS.index("mouth")])
    bag = np.setdiff1d(inner[piece[inner] == piece[skin[0]]], skin)
    balls = find_balls(head)
    level = 0.5 * (head.vertices[balls[0], 1].mean() + head.vertices[rims.lips, 1].mean())
    high = head.vertices[bag, 1] > level
    left = head.vertices[bag, 0] > 0
    tongue = inner[piece[inner] != piece[skin[0]]]
    teeth = np.unique(head.quads[head.quad_part == PARTS.index("teeth")])
    return Cavities((bag[high & left], bag[high & ~left]), bag[~high], rims.lips, np.concatenate([teeth, tongue]), skin)


def _adjacency(head: Head) -> sparse.csr_matrix:
    edges, _, _ = edges_of(head.quads)
    n = len(head.vertices)
    one_way = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (n, n))
    return (one_way + one_way.T).tocsr()


def fit_eye(vertices: Floats, level: Subdivision, ball: Index, rim: Index, prior: Floats) -> Eye:
    """Centre and radius that best touch the rim (28 points), with a prior on both."""
    points = (level.matrix @ vertices)[rim]

    def cost(p: Floats) -> Floats:
        distance = np.linalg.norm(points - p[:3], axis=1) - p[3] - CLEARANCE_MM
        return np.concatenate([distance, (p[:3] - prior) * 1.0, [(p[3] - RADIUS_MM) * 2.0]])

    found = least_squares(cost, np.array([*prior, RADIUS_MM])).x
    return Eye(ball, rim, found[:3], float(found[3]))


def settle(vertices: Floats, head: Head, level: Subdivision, eyes: tuple[Eye, Eye], cavities: Cavities) -> Floats:
    """Put the balls at their place, the rims on them and the sockets close around them; (V, 3) coarse mean."""
    out = vertices.copy()
    source_fine = level.matrix @ head.vertices
    for eye, socket in zip(eyes, cavities.sockets, strict=True):
        source = head.vertices[eye.ball]
        centre = source.mean(0)
        # Radius of the ball itself, not of the corneal bulge, after subdivision.
        fine = source_fine[eye.ball]
        radius = np.median(np.linalg.norm(fine - fine.mean(0), axis=1))
        out[eye.ball] = eye.centre + (source - centre) * (eye.radius / radius)
        offset = out[socket] - eye.centre
        distance = np.linalg.norm(offset, axis=1, keepdims=True)
        out[socket] = eye.centre + offset / distance * (eye.radius + SOCKET_MM)
    out[cavities.mouth] = _shrink(out, cavities.mouth, cavities.mouth_rim)
    for _ in range(4):
        for eye in eyes:
            offset = (level.matrix @ out)[eye.rim] - eye.centre
            distance = np.linalg.norm(offset, axis=1, keepdims=True)
            step = offset / distance * (eye.radius + CLEARANCE_MM - distance)
            out[cavities.skin] += spread(vertices[eye.rim], step, vertices[cavities.skin])
    return out


def unfold(vertices: Floats, head: Head, eyes: tuple[Eye, Eye], cavities: Cavities) -> Floats:
    """Lids that face away from their ball everywhere; (V, 3) coarse mean.

    Registration leaves the outer third of the upper lid folded through itself, so that its inside shows. Vertices
    whose normal points to the ball, and their neighbours, take the membrane between rim and crease instead.
    """
    out = vertices.copy()
    adjacency = _adjacency(head)
    triangles = triangulate(head.quads)
    fixed = np.concatenate([eye.rim for eye in eyes])
    for _ in range(FOLDS):
        normals = vertex_normals(out, triangles)
        turned = np.zeros(len(out), bool)
        for eye in eyes:
            offset = out[cavities.skin] - eye.centre
            near = np.linalg.norm(offset, axis=1) < eye.radius + LID_THICKNESS_MM
            turned[cavities.skin] |= near & ((normals[cavities.skin] * offset).sum(axis=1) < 0)
        turned[fixed] = False
        if not turned.any():
            break
        wide = turned | (adjacency @ turned.astype(float) > 0)
        wide[fixed] = False
        inside = np.intersect1d(np.flatnonzero(wide), cavities.skin)
        out[inside] = harmonic(out[None], inside, head)[0]
    return out


def _shrink(vertices: Floats, mouth: Index, rim: Index) -> Floats:
    """The mouth bag drawn in sideways, vertically and 4 mm back from the lips, so that neither cheek nor the hollow
    under the lower lip lets it through."""
    centre = np.array([0.0, vertices[rim, 1].mean(), 0.0])
    nearest = cdist(vertices[mouth], vertices[rim]).min(1)
    factor = 1 - 0.15 * np.clip(nearest / 15.0, 0, 1)
    drawn = centre + (vertices[mouth] - centre) * np.stack([factor, factor, np.ones_like(factor)], axis=1)
    drawn[:, 2] -= 4.0 * np.clip(nearest / 8.0, 0, 1)
    return drawn


def spread(anchors: Floats, steps: Floats, points: Floats) -> Floats:
    """Displacements (N, 3) at points by normalised Gaussian weights of the anchors' steps."""
    distance = cdist(points, anchors)
    weight = np.exp(-0.5 * (distance / 2.0) ** 2) + 1e-12
    nearest = distance.min(1, keepdims=True)
    return (weight @ steps) / weight.sum(1, keepdims=True) * np.exp(-0.5 * (nearest / FALLOFF_MM) ** 2)


def settle_modes(
    modes: Floats, vertices: Floats, head: Head, level: Subdivision, eyes: tuple[Eye, Eye], cavities: Cavities
) -> Floats:
    """First-order version of `settle` for displacement modes (M, V, 3).

    Balls translate and rims glide on them; sockets follow their ball; inner mouth, teeth and tongue follow the lips.
    """
    out = modes.copy()
    fine_positions = level.matrix @ vertices
    lower_face = _follow(modes, vertices, head, cavities)
    out[:, cavities.teeth] = lower_face[:, cavities.teeth]
    out[:, cavities.mouth] = lower_face[:, cavities.mouth] + harmonic(modes - lower_face, cavities.mouth, head)
    for eye, socket in zip(eyes, cavities.sockets, strict=True):
        normal = fine_positions[eye.rim] - eye.centre
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        rows = level.matrix[eye.rim]
        for mode in out:
            moved = rows @ mode
            along = (moved * normal).sum(1)
            # Prior: the ball moves as the rim does on average.
            gram = normal.T @ normal + 3.0 * np.eye(3)
            shift = np.linalg.solve(gram, normal.T @ along + 3.0 * moved.mean(0))
            mode[eye.ball] = shift
            mode[socket] = shift
            for _ in range(3):
                moved = rows @ mode
                step = (normal @ shift - (moved * normal).sum(1))[:, None] * normal
                mode[cavities.skin] += spread(vertices[eye.rim], step, vertices[cavities.skin])
    return out


def _follow(modes: Floats, vertices: Floats, head: Head, cavities: Cavities) -> Floats:
    """The average motion of the lower face, rigid with one scale, at all vertices (M, V, 3)."""
    lips = vertices[cavities.mouth_rim].mean(0)
    distance = np.linalg.norm(vertices - lips, axis=1)
    weight = np.zeros(len(vertices))
    weight[cavities.skin] = np.exp(-0.5 * (distance[cavities.skin] / 18.0) ** 2)
    weight *= vertices[:, 2] > lips[2] - 40
    basis = np.concatenate([rigid_motions(vertices - lips), (vertices - lips)[None] / 100.0])
    flat, w = basis.reshape(7, -1), np.repeat(weight, 3)
    gram = (flat * w) @ flat.T
    coefficients = np.linalg.solve(gram, (flat * w) @ modes.reshape(len(modes), -1).T)
    return np.tensordot(coefficients.T, basis, 1)


def blink(head: Head, mean: Floats, level: Subdivision, eye: Eye) -> Floats:
    """A blink (V, 3) for this eye, which is opened wider than MakeHuman's own blink can close.

    The upper rim comes down to the lower rim, corner by corner; lids and skin near it follow (`spread`), and the
    closed lid lies on the ball.
    """
    rim = mean[eye.rim]
    inner, outer = eye.rim[np.argmin(np.abs(rim[:, 0]))], eye.rim[np.argmax(np.abs(rim[:, 0]))]
    axis = mean[outer] - mean[inner]
    along = (rim - mean[inner]) @ axis / (axis @ axis)
    above = (rim - mean[inner])[:, 1] - along * axis[1]
    corners = np.array([inner, outer])
    middle = ~np.isin(eye.rim, corners)
    upper = eye.rim[middle & (above > 0)]
    lower = np.concatenate([eye.rim[middle & (above <= 0)], corners])
    lower = lower[np.argsort((mean[lower] - mean[inner]) @ axis)]
    place = (mean[lower] - mean[inner]) @ axis
    wanted = (mean[upper] - mean[inner]) @ axis
    out = np.zeros_like(mean)
    skin = np.unique(head.quads[head.quad_part == PARTS.index("skin")])
    skin = skin[np.linalg.norm(mean[skin] - eye.centre, axis=1) < eye.radius + 25]
    for _ in range(8):
        fine = level.matrix @ (mean + out)
        aim = np.stack([np.interp(wanted, place, fine[lower][:, d]) for d in range(3)], axis=1)
        # The lower rim and its skin hold still: they are anchors with no step.
        anchors = np.concatenate([upper, lower])
        steps = np.concatenate([aim - fine[upper], np.zeros((len(lower), 3))])
        out[skin] += spread(mean[anchors], steps, mean[skin])
        offset = mean[skin] + out[skin] - eye.centre
        length = np.linalg.norm(offset, axis=1, keepdims=True)
        front = offset[:, 2:] > 0
        moving = np.linalg.norm(out[skin], axis=1, keepdims=True) > 0.3
        out[skin] += offset / length * np.clip(eye.radius + LID_MM - length, 0, None) * front * moving
    return out


def harmonic(modes: Floats, inside: Index, head: Head) -> Floats:
    """Displacements (M, N, 3) of the vertices `inside`, harmonic with their neighbours' as boundary values."""
    adjacency = _adjacency(head)
    laplacian = (sparse.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency).tocsr()[inside]
    outside = np.setdiff1d(np.arange(len(head.vertices)), inside)
    known = modes[:, outside].transpose(1, 0, 2).reshape(len(outside), -1)
    solved = splu(laplacian[:, inside].tocsc()).solve(-(laplacian[:, outside] @ known))
    return solved.reshape(len(inside), len(modes), 3).transpose(1, 0, 2)
