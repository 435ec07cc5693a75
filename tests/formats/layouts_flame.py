"""Small FLAME, AlbedoMM and GNM files in the exact layout of the real ones, for tests.

`embedded_head` makes a head of the embedded model's mesh (CC0), with a jaw and eyes to turn, that the whole program can
work on; `ball_head` is three spheres, for tests of what is refused.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from raytrace_face.face.model import PARTS
from raytrace_face.face.store import embedded_path, load_coarse

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Head:
    """A head in metres, with what a FLAME or GNM file says of it: V vertices, F triangles."""

    vertices: Floats
    triangles: NDArray[np.int32]
    part: NDArray[np.uint8]
    """(F,) index into `PARTS`."""
    identity: Floats
    """(K, V, 3) m per standard deviation."""
    expression: Floats
    """(E, V, 3) m per standard deviation."""
    uv: Floats
    """(T, 2)."""
    uv_triangles: NDArray[np.int32]
    jaw: Floats
    """(V,) weight of the jaw joint."""
    jaw_joint: Floats
    """(3,) m."""

    def of(self, part: str) -> NDArray[np.intp]:
        """Vertices of a part."""
        return np.unique(self.triangles[self.part == PARTS.index(part)])

    def eye(self, side: int) -> NDArray[np.intp]:
        """Vertices of the left (1) or right (-1) eyeball."""
        eyes = self.of("eyes")
        return eyes[self.vertices[eyes, 0] * side > 0]

    def joints(self) -> Floats:
        """(5, 3) m: root, neck, jaw, left and right eye."""
        neck = self.jaw_joint - np.array([0, 0.05, 0.02])
        eyes = [self.vertices[self.eye(side)].mean(axis=0) for side in (1, -1)]
        return np.array([neck - np.array([0, 0.05, 0]), neck, self.jaw_joint, *eyes])

    def weights(self) -> Floats:
        """(V, 5) of the same joints."""
        out = np.zeros((len(self.vertices), 5))
        out[:, 2] = self.jaw
        out[:, 1] = 1 - self.jaw
        for joint, side in ((3, 1), (4, -1)):
            out[self.eye(side)] = np.eye(5)[joint]
        return out


def embedded_head(parts: tuple[str, ...] = ("skin", "eyes"), by_joint: tuple[str, ...] = ("jaw", "eyeLook")) -> Head:
    """The embedded model before subdivision (3.1 mm edges), cut down to these parts.

    Its expressions are the model's own units but for those a joint makes, which begin with `by_joint`; jaw weights
    follow jawOpen's displacement.
    """
    coarse = load_coarse(embedded_path())
    keep = np.isin(coarse.quad_part, [PARTS.index(part) for part in parts])
    quads, opened = coarse.source[coarse.quads[keep]], coarse.quads[keep]
    used, closed = np.unique(quads, return_inverse=True)
    chart, opened = np.unique(opened, return_inverse=True)
    corners = [0, 1, 2, 0, 2, 3]
    units = [k for k, name in enumerate(coarse.expression_names) if not name.startswith(by_joint)]
    opening = np.linalg.norm(coarse.expression[coarse.expression_names.index("jawOpen")][used], axis=1)
    return Head(
        vertices=coarse.mean[used] / 1000.0,
        triangles=closed.reshape(-1, 4)[:, corners].reshape(-1, 3).astype(np.int32),
        part=np.repeat(coarse.quad_part[keep], 2),
        identity=coarse.identity[:, used] / 1000.0,
        expression=coarse.expression[units][:, used] / 1000.0,
        uv=coarse.uv[chart],
        uv_triangles=opened.reshape(-1, 4)[:, corners].reshape(-1, 3).astype(np.int32),
        jaw=np.clip(opening / np.quantile(opening, 0.995), 0, 1),
        jaw_joint=np.array([0, -0.045, -0.075]),
    )


def ball_head() -> Head:
    """A sphere of 80 mm with two of 12 mm in front of it, and random smooth modes."""
    import trimesh

    rng = np.random.default_rng(5)
    big, small = trimesh.creation.icosphere(2, 0.08), trimesh.creation.icosphere(1, 0.012)
    count, ball = len(big.vertices), len(small.vertices)
    left, right = (small.vertices + np.array([x, 0.02, 0.07]) for x in (0.03, -0.03))
    vertices = np.concatenate([big.vertices, left, right])
    triangles = np.concatenate([big.faces, small.faces + count, small.faces + count + ball]).astype(np.int32)
    part = np.zeros(len(triangles), np.uint8)
    part[len(big.faces) :] = PARTS.index("eyes")
    smooth = rng.normal(0, 0.05, (6, 3, 3))
    modes = np.einsum("va,kab->kvb", vertices, smooth)
    return Head(
        vertices=vertices,
        triangles=triangles,
        part=part,
        identity=modes[:4],
        expression=modes[4:],
        uv=0.5 + vertices[:, :2] / 0.2,
        uv_triangles=triangles,
        jaw=np.clip(-vertices[:, 1] / 0.04, 0, 1),
        jaw_joint=np.array([0, 0, -0.02]),
    )


def regressor(head: Head) -> sparse.csc_matrix:
    """(5, V) weights of nearby vertices whose mean is each joint; least norm, so that no vertex decides alone."""
    rows = np.zeros((5, len(head.vertices)))
    skin = head.of("skin")
    for k, joint in enumerate(head.joints()):
        near = head.eye(1 if k == 3 else -1) if k >= 3 else skin[:: max(len(skin) // 100, 1)]
        system = np.vstack([head.vertices[near].T, np.ones(len(near))])
        rows[k, near] = np.linalg.lstsq(system, np.append(joint, 1.0), rcond=None)[0]
    return sparse.csc_matrix(rows)


def flame_arrays(head: Head) -> dict[str, Any]:
    """FLAME's dictionary: bases padded with empty modes to 300 and 100."""
    count = len(head.vertices)
    shapes = np.zeros((count, 3, 400))
    shapes[..., : len(head.identity)] = np.moveaxis(head.identity, 0, 2)
    shapes[..., 300 : 300 + len(head.expression)] = np.moveaxis(head.expression, 0, 2)
    correctives = np.zeros((count, 3, 36))
    # An opening jaw (joint 2, element 7 of R - I: sin of its pitch) draws the cheeks in by 2 mm at most.
    correctives[:, 0, 9 + 7] = -0.005 * np.sign(head.vertices[:, 0]) * head.jaw * (1 - head.jaw)
    return {
        "v_template": head.vertices.astype(np.float64),
        "f": head.triangles.astype(np.uint32),
        "shapedirs": shapes,
        "posedirs": correctives,
        "J_regressor": regressor(head),
        "J": head.joints(),
        "weights": head.weights(),
        "kintree_table": np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.int64),
        "bs_style": "lbs",
        "bs_type": "lrotmin",
    }


class PythonTwoPickler:
    """Pickles as Python 2's cPickle wrote them, protocol 0 (text) or 2, with the classes of that day's libraries."""

    def __init__(self, protocol: int = 2, chumpy: tuple[str, ...] = ("shapedirs",)) -> None:
        self.text = protocol == 0
        self.chumpy = chumpy
        self.memo: dict[str, int] = {}

    def dumps(self, content: Mapping[str, Any]) -> bytes:
        wrapped = {key: _Ch(value) if key in self.chumpy else value for key, value in content.items()}
        return (b"" if self.text else b"\x80\x02") + self.value(wrapped) + b"."

    def value(self, value: Any) -> bytes:
        match value:
            case str():
                raw = value.encode("latin-1")
                return b"S" + repr(raw)[1:].encode() + b"\n" if self.text else b"T" + struct.pack("<i", len(raw)) + raw
            case None:
                return b"N"
            case bool():
                return (b"I01\n" if value else b"I00\n") if self.text else (b"\x88" if value else b"\x89")
            case int():
                return b"I%d\n" % value if self.text else b"J" + struct.pack("<i", value)
            case tuple():
                return b"(" + b"".join(map(self.value, value)) + b"t"
            case list():
                return b"(l" + b"".join(self.value(v) + b"a" for v in value)
            case set():
                return self.name("__builtin__ set") + self.value((sorted(value),)) + b"R"
            case dict() if self.text:
                return b"(d" + b"".join(self.value(k) + self.value(v) + b"s" for k, v in value.items())
            case dict():
                return b"}(" + b"".join(self.value(k) + self.value(v) for k, v in value.items()) + b"u"
            case _Ch():
                return self.instance(
                    "chumpy.ch Ch", {"_dirty_vars": {"x"}, "x": value.x, "_itr": None, "_status": "new"}
                )
            case _ if sparse.issparse(value):
                parts = {"data": value.data, "indices": value.indices, "indptr": value.indptr}
                return self.instance("scipy.sparse.csc csc_matrix", {"_shape": value.shape, "maxprint": 50, **parts})
        return self.array(np.asarray(value))

    def name(self, name: str) -> bytes:
        if name in self.memo:
            return b"g%d\n" % self.memo[name] if self.text else b"h" + bytes([self.memo[name]])
        self.memo[name] = len(self.memo) + 1
        put = b"p%d\n" % self.memo[name] if self.text else b"q" + bytes([self.memo[name]])
        return b"c" + name.replace(" ", "\n").encode() + b"\n" + put

    def instance(self, name: str, state: dict[str, Any]) -> bytes:
        if self.text:
            made = self.name("copy_reg _reconstructor") + b"("
            made += self.name(name) + self.name("__builtin__ object") + b"NtR"
        else:
            made = self.name(name) + b")\x81"
        return made + self.value(state) + b"b"

    def array(self, values: NDArray) -> bytes:
        kind = self.name("numpy dtype") + self.value((values.dtype.str[1:], 0, 1)) + b"R"
        kind += self.value((3, values.dtype.str[0], None, None, None, -1, -1, 0)) + b"b"
        made = self.name("numpy.core.multiarray _reconstruct")
        made += b"(" + self.name("numpy ndarray") + self.value((0,)) + self.value("b") + b"tR"
        raw = self.value(np.ascontiguousarray(values).tobytes().decode("latin-1"))
        return made + b"(" + self.value(1) + self.value(values.shape) + kind + self.value(False) + raw + b"tb"


@dataclass(frozen=True)
class _Ch:
    x: Any


def write_flame_pickle(path: Path, head: Head, protocol: int = 2, **changed: Any) -> Path:
    """FLAME's pickle; `changed` replaces entries of the dictionary (None leaves one out)."""
    content = {key: value for key, value in (flame_arrays(head) | changed).items() if value is not None}
    path.write_bytes(PythonTwoPickler(protocol).dumps(content))
    return path


def write_flame_npz(path: Path, head: Head, **changed: Any) -> Path:
    """The same arrays as npz, with a dense joint regressor."""
    content = flame_arrays(head)
    content["J_regressor"] = content["J_regressor"].toarray()
    np.savez(path, **{key: value for key, value in (content | changed).items() if value is not None})
    return path


def write_albedo_npz(path: Path, head: Head, size: int = 64, modes: int = 6, **changed: Any) -> Path:
    """AlbedoMM for FLAME (the real one: size 512, 145 modes): blue first, redder towards v = 1, black below v = 0.1."""
    v = np.broadcast_to(1 - (np.arange(size) + 0.5)[:, None] / size, (size, size))
    u = v.T[:, ::-1]
    skin = np.stack([0.2 + 0.05 * u, 0.25 + 0 * u, 0.4 + 0.1 * v], axis=2)
    waves = np.stack([np.cos(k * np.pi * u) for k in range(1, modes + 1)], axis=2) / np.arange(10, 10 + modes)
    content = {
        "MU": np.where(v[..., None] < 0.1, 0, skin),
        "PC": waves[:, :, None] * np.array([0.5, 0.7, 1.0])[:, None],
        "specMU": np.broadcast_to(0.1 + 0.1 * u[..., None], (size, size, 3)),
        "specPC": waves[:, :, None] * np.full((3, 1), 0.2),
        "vt": head.uv,
        "ft": head.uv_triangles,
    }
    np.savez(path, **{key: value for key, value in (content | changed).items() if value is not None})
    return path


def gnm_arrays(head: Head) -> dict[str, Any]:
    """`gnm_head.npz`: with a clear shell 3 % larger round each eyeball, and teeth parted at the lips' height."""
    eyes = head.of("eyes")
    shell = np.arange(len(head.vertices), len(head.vertices) + len(eyes))
    centre = np.zeros((len(eyes), 3))
    for side in (1, -1):
        own = np.isin(eyes, head.eye(side))
        centre[own] = head.vertices[head.eye(side)].mean(axis=0)
    vertices = np.concatenate([head.vertices, centre + 1.03 * (head.vertices[eyes] - centre)])
    twin = np.zeros(len(head.vertices), np.int64)
    twin[eyes] = shell
    is_eye = head.part == PARTS.index("eyes")
    triangles = np.concatenate([head.triangles, twin[head.triangles[is_eye]]])
    corners = head.uv[head.uv_triangles]
    source = np.concatenate([np.arange(len(head.vertices)), eyes])
    count = len(vertices)

    def members(vertices_of: NDArray[np.integer]) -> NDArray[np.float32]:
        return np.isin(np.arange(count), vertices_of).astype(np.float32)

    both = {side: np.concatenate([head.eye(side), twin[head.eye(side)]]) for side in (1, -1)}
    groups = {
        "skin": members(head.of("skin")),
        "left_eye": members(both[1]),
        "right_eye": members(both[-1]),
        "teeth": members(head.of("teeth")),
        "gums": members(np.array([], int)),
        "tongue": members(head.of("mouth")),
        "mouth_sock": members(np.array([], int)),
        "eye_exteriors": members(shell),
        "eye_interiors": members(eyes),
    }
    weights = np.zeros((4, count))
    weights[1] = 1
    for joint, side in ((2, 1), (3, -1)):
        weights[:, both[side]] = np.eye(4)[joint][:, None]
    joints = head.joints()[[1, 2, 3, 4]]
    # Teeth modes first: files need not order modes by what they move.
    teeth = np.zeros((2, count, 3))
    teeth[:, np.setdiff1d(head.of("teeth"), head.of("skin")), 2] = 0.001
    identity = np.concatenate([teeth, head.identity[:, source]])
    tongue = np.zeros((1, count, 3))
    tongue[:, np.setdiff1d(head.of("mouth"), head.of("skin")), 2] = 0.002
    expression = np.concatenate([head.expression[:, source], tongue])
    return {
        "version": np.array("3.0"),
        "variant": np.array("head"),
        "template_vertex_positions": vertices.astype(np.float32),
        "vertex_identity_basis": identity.astype(np.float32),
        "expression_basis": expression.astype(np.float32),
        "identity_names": np.array(["teeth_000", "teeth_001", *(f"head_{k:03d}" for k in range(len(head.identity)))]),
        "expression_names": np.array([*(f"lower_face_{k:03d}" for k in range(len(head.expression))), "tongue_mean"]),
        "triangles": triangles.astype(np.int32),
        "triangle_uvs": np.concatenate([corners, corners[is_eye]]).astype(np.float32),
        "template_joint_positions": joints.astype(np.float32),
        "joint_identity_basis": np.zeros((len(identity), 4, 3), np.float32),
        "joint_names": np.array(["neck", "head", "left_eye", "right_eye"]),
        "joint_parent_indices": np.array([0, 0, 1, 1]),
        "skinning_weights": weights.astype(np.float32),
        "pose_correctives_regressor": np.zeros((36, 3 * count), np.float32),
        "vertex_groups": np.stack(list(groups.values())),
        "vertex_group_names": np.array(list(groups)),
        "mesh_component_names": np.array(["skin", "left_eye", "right_eye", "tongue"]),
    }  # fmt: skip


def write_gnm_npz(path: Path, head: Head, **changed: Any) -> Path:
    """`gnm_head.npz`; `changed` replaces arrays (None leaves one out)."""
    np.savez(path, **{key: value for key, value in (gnm_arrays(head) | changed).items() if value is not None})
    return path
