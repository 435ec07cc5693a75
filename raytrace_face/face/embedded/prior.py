"""Identity statistics: MakeHuman's sliders calibrated with ICT-FaceKit's scan-derived modes.

MakeHuman knows how a head can change but not how much people differ; ICT-FaceKit (Li et al., "Learning Formation of
Physically-Based Face Attributes", CVPR 2020; MIT) has 100 identity modes of one standard deviation each, learnt from
scans. Three linear steps bring the second onto the mesh of the first:

1. the mean: non-rigid registration of the sliders (point-to-plane to ICT's mean face, lid and lip lines as curves),
   then a smooth per-vertex displacement takes up what no slider explains;
2. the modes: with that correspondence each ICT mode is a displacement field; its slider part (ridge regression)
   carries over to ears, skull and neck, and the smooth remainder is added inside the face;
3. principal components in the area-weighted metric of the face, still in units of standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.interpolate import CubicSpline
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from raytrace_face.face.embedded.makehuman import Head
from raytrace_face.face.formats.ict import EYES, FACE, HEAD, LAST, NEUTRAL, PACKED, read_packed, topology
from raytrace_face.face.mesh import (
    Floats,
    Index,
    Subdivision,
    edges_of,
    rigid_fit,
    rigid_motions,
    triangulate,
    vertex_areas,
    vertex_normals,
)
from raytrace_face.face.model import PARTS

EYEBALLS = slice(EYES, LAST)
LANDMARKS = {
    "eye_left": (3732, 3725, 3721, 3756, 3751, 3742),
    "eye_right": (1537, 1542, 1507, 1518, 1511, 1528),
    "lips": (5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966),
}
IBUG = (
    1225, 1888, 1052, 367, 1719, 1722, 2199, 1447, 966, 3661, 4390, 3927, 3924, 2608, 3272, 4088, 3443, 268, 493,
    1914, 2044, 1401, 3615, 4240, 4114, 2734, 2509, 978, 4527, 4942, 4857, 1140, 2075, 1147, 4269, 3360, 1507, 1542,
    1537, 1528, 1518, 1511, 3742, 3751, 3756, 3721, 3725, 3732, 5708, 5695, 2081, 0, 4275, 6200, 6213, 6346, 6461,
    5518, 5957, 5841, 5702, 5711, 5533, 6216, 6207, 6470, 5517, 5966,
)  # fmt: skip
"""ICT vertices of the 68 iBUG landmarks (ICT-FaceKit, vertex_indices.json)."""


@dataclass(frozen=True)
class Ict:
    """ICT-FaceKit in mm: mean (V, 3), modes (100, V, 3) of one standard deviation, triangles of face and head."""

    mean: Floats
    modes: Floats
    triangles: Index

    def eye_centres(self, vertices: Floats) -> Floats:
        """(2, 3) centres of the left (+x) and right eyeball."""
        left = self.mean[EYEBALLS, 0] > 0
        ball = vertices[EYEBALLS]
        return np.stack([0.5 * (b.min(0) + b.max(0)) for b in (ball[left], ball[~left])])


def read_ict(folder: Path) -> Ict:
    """Read `ict_all_modes.npz` (mean, id; cm) and the faces of `FaceXModel/generic_neutral_mesh.obj`."""
    packed, triangles = read_packed(folder / PACKED), topology(folder / "FaceXModel" / NEUTRAL).triangles
    face_and_head = triangles[(triangles < HEAD).all(1)]
    return Ict(packed.mean.astype(np.float64), packed.identity.astype(np.float64), face_and_head)


def _closed_curve(points: Floats, samples: int = 200) -> Floats:
    """Periodic cubic spline through points (N, 3), sampled."""
    knots = np.arange(len(points) + 1)
    return CubicSpline(knots, np.vstack([points, points[:1]]), bc_type="periodic")(
        np.linspace(0, len(points), samples, endpoint=False)
    )


def ict_curves(points68: Floats) -> dict[str, Floats]:
    """Lid outlines and the line between the closed lips, sampled, from 68 iBUG points (68, 3)."""
    lower = points68[[60, 67, 66, 65, 64]]
    upper = points68[[60, 61, 62, 63, 64]]
    lips = CubicSpline(np.arange(5), 0.5 * (upper + lower))(np.linspace(0, 4, 100))
    return {"eye_right": _closed_curve(points68[36:42]), "eye_left": _closed_curve(points68[42:48]), "lips": lips}


@dataclass(frozen=True)
class Rims:
    """Skin vertices on the line where the lids and lips turn inwards (indices of coarse vertices)."""

    eye_left: Index
    eye_right: Index
    lips: Index


def find_rims(head: Head) -> Rims:
    """The borders between skin and cavities, told apart by their place."""
    edges, _, uses = edges_of(head.quads[head.quad_part == PARTS.index("skin")])
    rim = np.unique(edges[uses == 1])
    x, y, _ = head.vertices[rim].T
    eyes = head.vertices[np.unique(head.quads[head.quad_part == PARTS.index("eyes")])]
    level = eyes[:, 1].mean()
    at_eye = np.abs(y - level) < 15
    at_mouth = (y < level - 40) & (y > level - 100) & (np.abs(x) < 40)
    return Rims(rim[at_eye & (x > 0)], rim[at_eye & (x < 0)], rim[at_mouth])


@dataclass(frozen=True)
class Registered:
    """ICT's mean and modes on MakeHuman's coarse mesh, head frame, mm."""

    mean: Floats
    """(V, 3)"""
    modes: Floats
    """(M, V, 3) of one standard deviation each (as many as ICT modes used)."""
    frame: tuple[float, Floats, Floats]
    """s, R, t of MakeHuman's frame -> ICT's frame (to carry the expressions)."""
    residual_mm: float
    """Median point-to-plane distance of the registered mean in the face."""


class Registrar:
    """Registration of one head topology to ICT: holds the factorised operators, no other state."""

    def __init__(self, head: Head, level: Subdivision, ict: Ict):
        self.head, self.level, self.ict = head, level, ict
        self.rims = find_rims(head)
        fine_face = np.clip(level.matrix @ head.masks["face"], 0, 1)
        skin = np.zeros(len(head.vertices), bool)
        skin[np.unique(head.quads[head.quad_part == PARTS.index("skin")])] = True
        outside = np.zeros(len(head.vertices))
        outside[skin] = 1
        fine_skin = level.matrix @ outside > 0.99
        self.triangles = triangulate(level.quads)
        self.face = np.where(fine_skin, fine_face, 0)
        self.skull = np.where(fine_skin, 1.0, 0.0) * (1 - np.clip(level.matrix @ head.masks["ears"], 0, 1))
        edges, _, _ = edges_of(head.quads)
        n = len(head.vertices)
        adjacency = sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (n, n))
        adjacency = (adjacency + adjacency.T).tocsr()
        degree = np.asarray(adjacency.sum(1)).ravel()
        self.laplacian = (sparse.identity(n) - sparse.diags(1 / degree) @ adjacency).tocsr()

    # -- correspondence ------------------------------------------------------------------------------------------
    def match(self, fine: Floats, target: Floats) -> tuple[Floats, Floats, Floats]:
        """Closest ICT surface samples of fine vertices: (points, normals, weights), rejecting far and turned ones."""
        used = np.unique(self.ict.triangles)
        normals = vertex_normals(target, self.ict.triangles)
        corner = self.ict.triangles
        centres = target[corner].mean(1)
        centre_normals = normals[corner].mean(1)
        points = np.concatenate([target[used], centres])
        point_normals = np.concatenate([normals[used], centre_normals])
        in_face = np.concatenate([used < FACE, (corner < FACE).all(1)])
        own = vertex_normals(fine, self.triangles)
        # Normals take part in the distance so that lips and nostrils do not match across the gap.
        stretch = 6.0
        distance, index = cKDTree(np.hstack([points, stretch * point_normals])).query(np.hstack([fine, stretch * own]))
        agree = (own * point_normals[index]).sum(1)
        good = (distance < 14) & (agree > 0.5)
        weight = np.where(in_face[index], self.face, 0.03 * self.skull) * good
        weight = np.maximum(weight, 0.03 * self.skull * good)
        return points[index], point_normals[index], weight

    def curve_targets(self, target: Floats, fine: Floats) -> tuple[Index, Floats]:
        """Rim vertices (fine index = coarse index) and the nearest points of ICT's lid and lip lines."""
        curves = ict_curves(target[list(IBUG)])
        index, points = [], []
        for name in ("eye_left", "eye_right", "lips"):
            rim = getattr(self.rims, name)
            curve = curves[name]
            nearest = curve[cKDTree(curve).query(fine[rim])[1]]
            # The corners are features, not just points of a curve.
            for pick, end in ((np.argmin, curve[np.argmin(curve[:, 0])]), (np.argmax, curve[np.argmax(curve[:, 0])])):
                nearest[pick(fine[rim][:, 0])] = end
            index.append(rim)
            points.append(nearest)
        return np.concatenate(index), np.concatenate(points)

    # -- step 1: the mean ----------------------------------------------------------------------------------------
    def register_mean(self, iterations: int = 15) -> tuple[Floats, tuple[float, Floats, Floats], Floats]:
        """MakeHuman's head moved onto ICT's mean: coarse vertices, similarity frame and slider fields (ICT frame)."""
        head, target = self.head, self.ict.mean
        eyes = np.unique(head.quads[head.quad_part == PARTS.index("eyes")])
        left = head.vertices[eyes, 0] > 0
        own = [head.vertices[eyes[side]].mean(0) for side in (left, ~left)]
        lips, lip_target = head.vertices[self.rims.lips].mean(0), target[list(IBUG)][[60, 64]].mean(0)
        start = np.array([*own, lips])
        s, rotation, shift = rigid_fit(
            start, np.array([*self.ict.eye_centres(target), lip_target]), np.array([1.0, 1.0, 1.0]), scale=True
        )
        base = s * head.vertices @ rotation.T + shift
        sliders = s * head.sliders @ rotation.T
        centred = base - base.mean(0)
        motions = np.concatenate([rigid_motions(centred), centred[None] / 100.0])
        fields = np.concatenate([sliders, motions])
        size = np.sqrt((fields[:, : len(base)] ** 2).sum(2).mean(1))
        ridge = np.where(np.arange(len(fields)) < len(sliders), 1.0, 1e-6) * size**2
        area = vertex_areas(self.level.matrix @ base, self.triangles)
        fine_fields = np.stack([self.level.matrix @ f for f in fields])
        current = base
        for step in range(iterations):
            fine = self.level.matrix @ current
            points, normals, weight = self.match(fine, target)
            w = weight * area
            keep = w > 0
            rows = np.einsum("kvd,vd->kv", fine_fields[:, keep], normals[keep])
            fine_base = self.level.matrix @ base
            right = ((points - fine_base)[keep] * normals[keep]).sum(1)
            gram = (rows * w[keep]) @ rows.T
            load = (rows * w[keep]) @ right
            index, aim = self.curve_targets(target, current)
            rows = fields[:, index].reshape(len(fields), -1)
            strength = 6.0
            gram += strength * rows @ rows.T
            load += strength * rows @ (aim - base[index]).ravel()
            relax = 60.0 * 0.7 ** min(step, 10)
            coefficients = np.linalg.solve(gram + np.diag(ridge * relax + 1e-9), load)
            current = base + np.tensordot(coefficients, fields, 1)
            current = 0.5 * (current + mirrored(current, head.mirror))
        for strength in (8.0, 2.0, 1.0):
            current = current + self.smooth_residual(current, target, strength)
            current = 0.5 * (current + mirrored(current, head.mirror))
        return current, (s, rotation, shift), sliders

    def smooth_residual(self, current: Floats, target: Floats, stiffness: float) -> Floats:
        """Smooth displacement (V, 3) that takes the face to the target surface along its normals."""
        fine = self.level.matrix @ current
        points, normals, weight = self.match(fine, target)
        weight = weight * self.face
        along = ((points - fine) * normals).sum(1, keepdims=True) * normals
        index, aim = self.curve_targets(target, current)
        return self.diffuse(along, weight, stiffness, index, aim - current[index])

    def diffuse(
        self,
        fine_field: Floats,
        weight: Floats,
        stiffness: float,
        index: Index | None = None,
        aim: Floats | None = None,
    ) -> Floats:
        """Coarse field (V, C) whose subdivision follows `fine_field` (V', C) where weighted, smooth elsewhere."""
        s = self.level.matrix
        n = s.shape[1]
        outside = 1e-3 * sparse.diags(1 - np.clip(self.head.masks["face"], 0, 1))
        system = s.T @ sparse.diags(weight) @ s + stiffness * self.laplacian.T @ self.laplacian + outside
        right = s.T @ (weight[:, None] * fine_field)
        if index is not None and aim is not None:
            pick = np.zeros(n)
            pick[index] = 1.0
            system = system + sparse.diags(pick)
            right[index] += aim
        return splu((system + 1e-9 * sparse.identity(n)).tocsc()).solve(right)

    # -- step 2: the modes ---------------------------------------------------------------------------------------
    def transfer_modes(self, mean: Floats, sliders: Floats, modes: Floats, ridge: float = 2.0) -> Floats:
        """ICT modes (M, V_ict, 3) as displacements of the coarse mesh (M, V, 3)."""
        fine = self.level.matrix @ mean
        corner = self.ict.triangles
        target = self.ict.mean
        used = np.unique(corner)
        normals = vertex_normals(target, corner)
        stretch = 6.0
        own = vertex_normals(fine, self.triangles)
        distance, index = cKDTree(np.hstack([target[used], stretch * normals[used]])).query(
            np.hstack([fine, stretch * own]), k=4
        )
        blend = 1 / (distance**2 + 0.05)
        blend /= blend.sum(1, keepdims=True)
        field = np.einsum("vk,mvkd->mvd", blend, modes[:, used[index]])
        near = (distance[:, 0] < 8) & ((own * normals[used[index[:, 0]]]).sum(1) > 0.3)
        face = np.where(near & (used[index[:, 0]] < FACE), self.face, 0)
        skull = np.where(near, 0.05 * self.skull, 0)
        area = vertex_areas(fine, self.triangles)
        weight = np.maximum(face, skull) * area
        keep = weight > 0
        fine_sliders = np.stack([self.level.matrix @ f for f in sliders])
        size = np.sqrt((sliders**2).sum(2).mean(1))
        rows = fine_sliders[:, keep].reshape(len(sliders), -1)
        w = np.repeat(weight[keep], 3)
        gram = (rows * w) @ rows.T
        load = (rows * w) @ field[:, keep].reshape(len(modes), -1).T
        coefficients = np.linalg.solve(gram + ridge * len(mean) * np.diag(0.02 * size**2), load)
        moved = np.tensordot(coefficients.T, sliders, 1)
        rest = field - np.stack([self.level.matrix @ m for m in moved])
        flat = rest.transpose(1, 0, 2).reshape(len(fine), -1)
        smooth = self.diffuse(flat, face, 1.0)
        return moved + smooth.reshape(len(mean), len(modes), 3).transpose(1, 0, 2)


def mirrored(field: Floats, mirror: Index) -> Floats:
    """Reflect positions or displacements (..., V, 3) at x = 0."""
    return field[..., mirror, :] * np.array([-1.0, 1.0, 1.0])


def with_mirror_images(modes: Floats, mirror: Index) -> Floats:
    """Modes (M, V, 3) and their mirror images, each over sqrt 2 (2 M, V, 3): a covariance without left or right.

    A mirrored face is as likely as the face, so this doubles the evidence; principal modes become purely symmetric
    or purely antisymmetric.
    """
    return np.concatenate([modes, mirrored(modes, mirror)]) / np.sqrt(2)


def principal_modes(modes: Floats, weight: Floats, count: int) -> tuple[Floats, Floats]:
    """Rotate sigma-unit modes (M, V, 3) to principal axes of the weighted vertex metric.

    The covariance sum_m u_m u_m^T is unchanged by any rotation of the modes, so the result is again in units of
    standard deviation. Returns (count, V, 3) sorted by energy and the energy (M,) of every component in mm^2.
    """
    flat = modes.reshape(len(modes), -1)
    w = np.repeat(weight / weight.sum(), 3)
    energy, rotation = np.linalg.eigh((flat * w) @ flat.T)
    order = np.argsort(-energy)
    return (rotation[:, order[:count]].T @ flat).reshape(-1, *modes.shape[1:]), energy[order]
