"""GNM Head 3.0 (Google 2026, Apache-2.0): `gnm_head.npz`.

Written after its documentation and published loaders; no file was seen, so what does not fit them is refused by name.
`template_vertex_positions` (V, 3) m, `vertex_identity_basis` (I, V, 3) and `expression_basis` (E, V, 3) m per standard
deviation, `triangles` (F, 3), `triangle_uvs` (F, 3, 2), `template_joint_positions` (J, 3), `joint_names` (neck, head,
left_eye, right_eye), `joint_parent_indices` (J,), `skinning_weights` (J, V), `pose_correctives_regressor` (9 J, 3 V),
`vertex_groups` (G, V) with `vertex_group_names`, `version`, `variant`. y is up, z forward, x to the face's own left.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raytrace_face.errors import ModelError
from raytrace_face.face.formats import joints
from raytrace_face.face.formats.arrays import ModelArrays, digest, kept_modes, read_npz
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.formats.skinning import Skeleton
from raytrace_face.face.model import PARTS

VERSIONS = ("3.0",)
LICENCE = "Apache-2.0"
CITATION = "GNM Head: A Generative aNthropometric Model of the human head, arXiv:2607.23687, 2026"
_M = 1000.0
"""mm in GNM's unit, the metre."""
_GROUP_PARTS = (
    *(("skin", "skin"), ("left_eye", "eyes"), ("right_eye", "eyes"), ("teeth", "teeth"), ("gums", "mouth")),
    *(("tongue", "mouth"), ("mouth_sock", "mouth")),
)
"""Vertex group -> part; a triangle belongs to the last group that holds all of its corners."""
_CORNEA = "eye_exteriors"
"""The clear shell over iris and sclera: GNM's own viewers leave it out, since it would hide them."""
_IN_GROUP = 1e-4
"""Weight from which a vertex is in a group, as GNM's own code has it."""
_JOINTS = {"jaw": joints.JAW, "left_eye": joints.LEFT_EYE, "right_eye": joints.RIGHT_EYE}
"""GNM 3.0 has no jaw joint: its jaw opens by expression components."""
_KEYS = (
    *("template_vertex_positions", "vertex_identity_basis", "expression_basis", "triangles", "triangle_uvs"),
    *("template_joint_positions", "joint_names", "joint_parent_indices", "skinning_weights"),
    *("pose_correctives_regressor", "vertex_groups", "vertex_group_names", "version", "variant"),
)


def read(path: str | Path, modes: int = 100) -> RawModel:
    """GNM Head in our units; vertices keep the file's numbers, and those of the corneal shell are in no triangle.

    Args:
        path: `gnm_head.npz`.
        modes: identity modes to keep, from 1, those that move the skin most. Modes of teeth and eyeballs move none and
            are left out, as are expression components of tongue and pupils.

    Raises:
        ModelError: a file that is damaged, of another version or layout; says which array breaks which rule.
    """
    path = Path(path)
    file = ModelArrays(path, read_npz(path, _KEYS))
    version, variant = (str(file.arrays.get(key, "without a name")) for key in ("version", "variant"))
    if version not in VERSIONS or variant != "head":
        raise ModelError(f"{path}: GNM version {version}, variant {variant} is unknown; known: {VERSIONS[0]}, head")
    mean = file.floats("template_vertex_positions", "V", 3) * _M
    identity = file.floats("vertex_identity_basis", "I", "V", 3)
    expression = file.floats("expression_basis", "E", "V", 3)
    triangles = file.indices("triangles", "F", 3, below="V")
    corners = file.floats("triangle_uvs", "F", 3, 2)
    groups = _groups(file)
    clear = groups[_CORNEA][triangles].all(axis=1)
    part = _parts(groups, triangles)[~clear]
    skin = np.unique(triangles[~clear][part == PARTS.index("skin")])
    uv, uv_triangles = _chart(corners[~clear])
    skeleton, roles = _skeleton(file, mean)
    roles = joints.moving(skeleton, roles)
    names, units = joints.units(mean, skeleton, roles)
    kept = _by_energy(identity, skin)[:modes]
    moving = np.sort(_by_energy(expression, skin))
    return RawModel(
        format="GNM Head",
        version=version,
        mean=mean.astype(np.float32),
        identity=(identity[kept] * _M).astype(np.float32),
        triangles=triangles[~clear],
        licence=LICENCE,
        citation=CITATION,
        provenance=digest(path),
        expression=units.astype(np.float32),
        expression_names=names,
        expression_modes=(expression[moving] * _M).astype(np.float32),
        triangle_part=part,
        uv=uv,
        uv_triangles=uv_triangles,
        limits=(
            "the reader was written after GNM's documentation; no file was seen",
            f"{kept_modes(identity[kept], identity)}, those that move the skin most",
            *joints.limits(mean, skeleton, roles),
            "texture charts of eyes, teeth and tongue overlap the skin's",
        ),
    )


def _groups(file: ModelArrays) -> dict[str, NDArray[np.bool_]]:
    """(V,) members of each vertex group that is needed."""
    weights = file.floats("vertex_groups", "G", "V")
    names = file.names("vertex_group_names", "G")
    missing = {name for name, _ in _GROUP_PARTS} | {_CORNEA}
    missing -= set(names)
    if missing:
        raise ModelError(f"{file.path}: vertex_group_names lacks {', '.join(sorted(missing))}: unknown layout")
    return {name: row > _IN_GROUP for name, row in zip(names, weights, strict=True)}


def _parts(groups: dict[str, NDArray[np.bool_]], triangles: NDArray[np.int32]) -> NDArray[np.uint8]:
    part = np.full(len(triangles), PARTS.index("mouth"), np.uint8)  # between teeth and gums
    for name, kind in _GROUP_PARTS:
        part[groups[name][triangles].all(axis=1)] = PARTS.index(kind)
    return part


def _chart(corners: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Texture coordinates (T, 2) in [0, 1] and triangles (F, 3) from corners (F, 3, 2), which may lie in UDIM tiles."""
    tile = np.floor(corners.min(axis=1, keepdims=True) + 1e-6)
    uv, index = np.unique((corners - tile).reshape(-1, 2).astype(np.float32), axis=0, return_inverse=True)
    return uv.clip(0, 1), index.reshape(-1, 3).astype(np.int32)


def _skeleton(file: ModelArrays, mean: NDArray[np.floating]) -> tuple[Skeleton, dict[str, int]]:
    places = file.floats("template_joint_positions", "J", 3) * _M
    names = file.names("joint_names", "J")
    count = len(names)
    parents = [int(p) for p in file.indices("joint_parent_indices", "J", below="J", lowest=-1)]
    parents[0] = -1  # the root's parent is written as itself or as -1
    if any(not 0 <= parent < k for k, parent in enumerate(parents[1:], start=1)):
        raise ModelError(f"{file.path}: joint_parent_indices {parents} is no tree from its first joint: unknown joints")
    roles = {role: names.index(name) for name, role in _JOINTS.items() if name in names}
    if joints.LEFT_EYE not in roles or joints.RIGHT_EYE not in roles:
        raise ModelError(f"{file.path}: joint_names {names} lacks left_eye or right_eye: unknown joints")
    if places[roles[joints.LEFT_EYE], 0] <= places[roles[joints.RIGHT_EYE], 0]:
        raise ModelError(f"{file.path}: the left eye's joint lies on the right: unknown axes")
    weights = file.floats("skinning_weights", "J", "V").T
    if np.abs(weights.sum(axis=1) - 1).max() > 1e-3:
        raise ModelError(f"{file.path}: skinning_weights of a vertex do not sum to one: the file is damaged")
    regressor = file.floats("pose_correctives_regressor", 9 * count, 3 * len(mean))
    correctives = regressor.reshape(9 * count, len(mean), 3) * _M if regressor.any() else None
    return Skeleton(places, tuple(parents), weights, correctives), roles


def _by_energy(basis: NDArray[np.floating], vertices: NDArray[np.integer]) -> NDArray[np.intp]:
    """Modes of a basis (K, V, 3) that move these vertices, by falling mean square."""
    energy = np.array([np.square(mode[vertices], dtype=np.float64).mean() for mode in basis])
    order = np.argsort(-energy, kind="stable")
    return order[energy[order] > 1e-6 * energy.max(initial=0)]
