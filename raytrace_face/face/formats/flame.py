"""FLAME (Li, Bolkart, Black, Li, Romero 2017): pickle or npz, with AlbedoMM's textures beside it.

A dictionary of `v_template` (V, 3) m, `f` (F, 3), `shapedirs` (V, 3, 400) m per standard deviation (300 identity, then
100 expression components), `posedirs` (V, 3, 36), `J_regressor` (5, V) sparse, `weights` (V, 5) and `kintree_table`
(2, 5): root, neck, jaw, and the eyes. All of FLAME's releases (2017, 2019, 2020, 2023) have this layout; the file does
not say which one it is. y is up, z forward, x to the face's own left. FLAME is licensed: this was written after public
code that reads it, and no file was seen.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from raytrace_face.errors import ModelError
from raytrace_face.face.formats import flame_albedo, joints
from raytrace_face.face.formats.arrays import ModelArrays, digest, kept_modes, read_npz
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.formats.skinning import Skeleton
from raytrace_face.face.formats.subdivide import subdivide
from raytrace_face.face.formats.unpickle import read_pickle
from raytrace_face.face.model import PARTS

IDENTITY_MODES, EXPRESSION_MODES = 300, 100
PARENTS = (-1, 0, 1, 1, 1)
"""Root, neck, jaw and both eyes."""
EYE_MM = 12.0
"""How far from its joint the middle of an eyeball may lie: its radius."""
LICENCE = (
    "FLAME 2023 Open is CC-BY-4.0; every other FLAME is for non-commercial research only, and the file does not say "
    "which one it is"
)
CITATION = (
    "Li, Bolkart, Black, Li, Romero: Learning a model of facial shape and expression from 4D scans, ACM TOG 36(6), 2017"
)
_M = 1000.0
"""mm in FLAME's unit, the metre."""
_KEYS = ("v_template", "f", "shapedirs", "posedirs", "J_regressor", "J", "weights", "kintree_table", "vt", "ft")


def read(path: str | Path, albedo: str | Path | None = None, modes: int = 100) -> RawModel:
    """FLAME in our units, its mesh split once at the edges' middles (`subdivide`); the first V vertices are FLAME's.

    The expressions with ARKit names are those of the joints: jawOpen, jawLeft, jawRight and eight eyeLook units, each
    the straight line to the skinned pose with its correctives. `joints` says which turn weight 1 is; half-way, the
    line lies inside the arc by about 2 mm at the chin and 0.4 mm at the eyes (`limits` gives the model's own numbers).

    Args:
        path: FLAME's pickle (as Python 2 wrote it, read by `unpickle`, never run) or an npz of the same arrays.
        albedo: AlbedoMM's npz for FLAME; also gives texture coordinates. None: no albedo, and texture coordinates only
            if the model file itself has `vt` and `ft`.
        modes: identity modes to keep, 1 to 300, by falling variance. 100 as of every model here: the fit solves for
            each, and `limits` says which share of the variance they hold.

    Raises:
        ModelError: a file that is damaged, of another kind or another mesh; says which array breaks which rule.
    """
    path = Path(path)
    file = _load(path)
    mean = file.floats("v_template", "V", 3) * _M
    triangles = file.indices("f", "F", 3, below="V")
    shapes = file.floats("shapedirs", "V", 3, "S")
    if shapes.shape[2] != IDENTITY_MODES + EXPRESSION_MODES:
        raise ModelError(
            f"{path}: shapedirs has {shapes.shape[2]} components; FLAME has {IDENTITY_MODES} of identity and then "
            f"{EXPRESSION_MODES} of expression, and other splits cannot be told apart"
        )
    skeleton = _skeleton(file, mean)
    left, right = (3, 4) if skeleton.joints[3, 0] > skeleton.joints[4, 0] else (4, 3)
    part = _parts(path, mean, triangles, skeleton.joints[[left, right]])
    roles = joints.moving(skeleton, {joints.JAW: 2, joints.LEFT_EYE: left, joints.RIGHT_EYE: right})
    names, expression = joints.units(mean, skeleton, roles)
    basis = np.moveaxis(shapes, 2, 0) * _M
    modes = min(modes, IDENTITY_MODES)
    texture = None if albedo is None else flame_albedo.read_texture(albedo, triangles)
    uv, uv_triangles = _chart(file) if texture is None else (texture.uv, texture.uv_triangles)
    limits = [
        kept_modes(basis[:modes], basis[:IDENTITY_MODES]),
        *joints.limits(mean, skeleton, roles),
        "no teeth, tongue or mouth cavity: an open mouth shows the inside of the head",
    ]
    raw = subdivide(
        RawModel(
            format="FLAME",
            version="",
            mean=mean.astype(np.float32),
            identity=basis[:modes].astype(np.float32),
            triangles=triangles,
            licence=LICENCE,
            citation=CITATION,
            provenance=digest(path),
            expression=expression.astype(np.float32),
            expression_names=names,
            expression_modes=basis[IDENTITY_MODES:].astype(np.float32),
            triangle_part=part,
            uv=uv,
            uv_triangles=uv_triangles,
        )
    )
    if texture is None or albedo is None or raw.uv is None or raw.uv_triangles is None:
        return replace(raw, limits=tuple(limits))
    sampled, bare = flame_albedo.sample_albedo(texture, raw.uv, raw.uv_triangles, raw.triangles, raw.mean)
    if bare:
        limits.append(f"{bare} of {len(raw.mean)} vertices have no albedo in the texture and take their neighbours'")
    return replace(
        raw,
        albedo=sampled,
        limits=tuple(limits),
        licence=f"{LICENCE}; {flame_albedo.LICENCE}",
        citation=f"{CITATION}; {flame_albedo.CITATION}",
        provenance=raw.provenance | digest(albedo),
    )


def _load(path: Path) -> ModelArrays:
    arrays: dict[str, Any]
    try:
        with path.open("rb") as file:
            zipped = file.read(2) == b"PK"
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error}): give FLAME's own file") from error
    if not zipped:
        return ModelArrays(path, read_pickle(path))
    try:
        arrays = dict(read_npz(path, _KEYS))
    except ModelError:
        # An npz made from the pickle as it is holds `J_regressor` as a pickled object; `J` says the same of the mean.
        arrays = dict(read_npz(path, [key for key in _KEYS if key != "J_regressor"]))
        if "J" not in arrays:
            raise
    return ModelArrays(path, arrays)


def _parts(
    path: Path, mean: NDArray[np.floating], triangles: NDArray[np.int32], eyes: NDArray[np.floating]
) -> NDArray[np.uint8]:
    """(F,) part of each triangle: an eyeball is a piece of the mesh of its own round an eye's joint (2, 3)."""
    sides = triangles[:, [0, 1, 1, 2]].reshape(-1, 2).T
    count = len(mean)
    _, piece = connected_components(sparse.coo_matrix((np.ones(len(sides[0])), sides), (count, count)), directed=False)
    own = piece[triangles[:, 0]]
    pieces, sizes = np.unique(own, return_counts=True)
    small = pieces[sizes < sizes.max()]
    centres = np.array([mean[piece == p].mean(axis=0) for p in small]).reshape(-1, 3)
    balls = [small[np.linalg.norm(centres - eye, axis=1) < EYE_MM] for eye in eyes]
    if any(len(found) != 1 for found in balls) or balls[0] == balls[1]:
        raise ModelError(
            f"{path}: the mesh has {len(pieces)} pieces, and not just one of them round each eye's joint as FLAME's "
            "eyeballs are: it is another mesh"
        )
    return np.where(np.isin(own, balls), PARTS.index("eyes"), PARTS.index("skin")).astype(np.uint8)


def _skeleton(file: ModelArrays, mean: NDArray[np.floating]) -> Skeleton:
    tree = file.floats("kintree_table", 2, "J")
    parents = tuple(int(p) if 0 <= p < len(PARENTS) else -1 for p in tree[0])  # the root's is written as 2^32 - 1
    if parents != PARENTS:
        raise ModelError(f"{file.path}: kintree_table has the parents {parents}, FLAME has {PARENTS}: unknown joints")
    places = file.floats("J_regressor", 5, "V") @ mean if file.has("J_regressor") else file.floats("J", 5, 3) * _M
    weights = file.floats("weights", "V", 5)
    if np.abs(weights.sum(axis=1) - 1).max() > 1e-3:
        raise ModelError(f"{file.path}: weights of a vertex do not sum to one: the file is damaged")
    correctives = np.moveaxis(file.floats("posedirs", "V", 3, 9 * 4), 2, 0) * _M
    return Skeleton(places, parents, weights, correctives)


def _chart(file: ModelArrays) -> tuple[NDArray[np.float32] | None, NDArray[np.int32] | None]:
    if not (file.has("vt") and file.has("ft")):
        return None, None
    uv = file.floats("vt", "T", 2)
    if uv.min() < 0 or uv.max() > 1:
        raise ModelError(f"{file.path}: vt spans {uv.min():.2f} to {uv.max():.2f}, expected 0 to 1")
    return uv.astype(np.float32), file.indices("ft", "F", 3, below="T")
