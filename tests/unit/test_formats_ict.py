"""ICT-FaceKit's folder becomes mm, ARKit names, parts and one chart; a file that is not whole is refused by name."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial import cKDTree

from raytrace_face.errors import ModelError
from raytrace_face.face.formats import ict
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.mesh import edges_of, triangle_normals
from raytrace_face.face.model import PARTS
from tests.formats.layouts import IctMesh, ict_mesh, write_ict, write_obj

DATA = Path(os.environ.get("RAYTRACE_FACE_DATA", "/nonexistent"))
OBJ_MM = 1.1e-3
"""Six digits of 11 cm are half a micrometre, modes are differences of two such numbers."""
SKIN = PARTS.index("skin")
SHOWN = 24_591
"""First vertex that is not to be seen (README of ICT-FaceKit)."""


@pytest.fixture(scope="module")
def mesh() -> IctMesh:
    return ict_mesh()


@pytest.fixture(scope="module")
def identity(mesh: IctMesh) -> dict[int, np.ndarray]:
    at = mesh.vertices / 100
    return {0: at * [3, 0, 0], 1: at * [0, 2, 0], 50: at[:, [2, 1, 2]] * [1, 0, 1]}


@pytest.fixture(scope="module")
def expression(mesh: IctMesh) -> dict[str, np.ndarray]:
    x, y, _ = mesh.vertices.T
    up = np.stack([0 * x, np.clip(y / 20, 0, None), 0 * x], 1)
    open_ = np.stack([0 * x, np.clip(y / 10, None, 0), 0 * x], 1)
    return {"browInnerUp_L": up * (x > 0)[:, None], "browInnerUp_R": 0.5 * up * (x < 0)[:, None], "jawOpen": open_}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, mesh, identity, expression) -> Path:
    return write_ict(tmp_path_factory.mktemp("ict"), mesh, identity, expression)


@pytest.fixture(scope="module")
def raw(folder) -> RawModel:
    return ict.read(folder)


@pytest.fixture
def small(tmp_path, mesh, identity) -> Path:
    """A folder to spoil: one identity, no expression."""
    return write_ict(tmp_path, mesh, {0: identity[0]}, {})


def texels_covered_twice(uv: np.ndarray, triangles: np.ndarray, size: int = 512) -> int:
    """Texel centres strictly inside more than one triangle."""
    seen = np.zeros((size, size), np.uint8)
    for a, b, c in uv[triangles].astype(np.float64) * size:
        low, high = np.ceil(np.min([a, b, c], 0) - 0.5).astype(int), np.floor(np.max([a, b, c], 0) - 0.5).astype(int)
        if (high < low).any():
            continue
        v, u = np.mgrid[low[1] : high[1] + 1, low[0] : high[0] + 1] + 0.5
        sides = [(q[0] - p[0]) * (v - p[1]) - (q[1] - p[1]) * (u - p[0]) for p, q in ((a, b), (b, c), (c, a))]
        inside = np.logical_or(np.min(sides, 0) > 1e-6, np.max(sides, 0) < -1e-6)
        seen[low[1] : high[1] + 1, low[0] : high[0] + 1] += inside.astype(np.uint8)
    return int((seen > 1).sum())


def test_lengths_come_back_in_mm(raw, mesh, identity):
    np.testing.assert_allclose(raw.mean, mesh.vertices[:SHOWN], atol=OBJ_MM)
    assert raw.identity.shape == (3, SHOWN, 3)
    for read, written in zip(raw.identity, identity.values(), strict=True):
        np.testing.assert_allclose(read, written[:SHOWN], atol=OBJ_MM)


def test_units_that_arkit_does_not_split_are_summed(raw, expression):
    assert raw.expression_names == ("browInnerUp", "jawOpen")
    both = expression["browInnerUp_L"] + expression["browInnerUp_R"]
    np.testing.assert_allclose(raw.expression[0], both[:SHOWN], atol=2 * OBJ_MM)
    np.testing.assert_allclose(raw.expression[1], expression["jawOpen"][:SHOWN], atol=OBJ_MM)


def test_half_of_a_unit_is_left_out(folder, tmp_path):
    one_sided = shutil.copytree(folder, tmp_path / "FaceXModel")
    (one_sided / "browInnerUp_R.obj").unlink()
    assert ict.read(one_sided).expression_names == ("jawOpen",)


def test_gaps_are_said(raw):
    assert "3 of 100 identity modes are there" in raw.limits
    assert "2 of 3 expressions are there" in raw.limits


def test_no_shell_is_left(raw, mesh):
    whole = [quads for _, quads, _ in mesh.faces if quads.max() < SHOWN]
    assert len(raw.mean) == SHOWN
    assert raw.triangles.max() < SHOWN
    assert len(raw.triangles) == 2 * sum(map(len, whole))


def test_parts_follow_the_published_ranges(raw):
    first = raw.triangles.min(axis=1)
    for name, low, high in (
        ("skin", 0, 11_248),
        ("mouth", 11_248, 17_039),
        ("teeth", 17_039, 21_451),
        ("eyes", 21_451, SHOWN),
    ):
        here = (first >= low) & (first < high)
        assert here.any()
        assert (raw.triangle_part[here] == PARTS.index(name)).all()


def test_triangles_face_outwards(raw):
    skin = raw.triangles[raw.triangle_part == SKIN]
    outwards = (triangle_normals(raw.mean, skin) * raw.mean[skin].mean(1)).sum(1)
    assert (outwards > 0).mean() > 0.99  # all but slivers at the poles of the egg


def test_one_chart_holds_all_tiles_and_most_of_it_is_face(raw):
    assert raw.uv.min() >= 0
    assert raw.uv.max() <= 1
    face = raw.uv[raw.uv_triangles[raw.triangles.max(axis=1) < 9409]].reshape(-1, 2)
    assert np.prod(np.ptp(face, axis=0)) > 0.6  # the sheet spans 98 % of its tile
    assert face[:, 0].min() + face[:, 0].max() == pytest.approx(1, abs=1e-6)
    skin = raw.triangle_part == SKIN
    assert texels_covered_twice(raw.uv, raw.uv_triangles[skin]) == 0


def test_chart_corners_belong_to_their_vertices(raw, mesh):
    """The sheets were drawn so that the place in the tile gives the place in the grid."""
    rows, across = 97, 97  # of 9,409 face vertices
    corner, place = raw.triangles.ravel(), raw.uv[raw.uv_triangles.ravel()]
    face = raw.triangles.max(axis=1).repeat(3) < 9409
    grid = np.stack([corner[face] % across / (across - 1), corner[face] // across / (rows - 1)], 1)
    np.testing.assert_allclose(place[face], [0.1, 0.0] + (0.01 + 0.98 * grid) * 0.8, atol=1e-5)


def test_folder_and_its_parent_are_the_same_model(folder, raw):
    again = ict.read(folder.parent)
    np.testing.assert_array_equal(again.identity, raw.identity)
    assert again.provenance == raw.provenance
    assert {"generic_neutral_mesh.obj", "identity050.obj", "jawOpen.obj", "vertex_indices.json"} <= set(raw.provenance)


def test_packed_modes_are_preferred_and_exact_to_half_precision(tmp_path, mesh, identity, expression):
    packed = ict.read(write_ict(tmp_path, mesh, identity, expression, packed=True))
    assert "ict_all_modes.npz" in packed.provenance
    for read, written in zip(packed.identity, identity.values(), strict=True):
        np.testing.assert_allclose(read, written[:SHOWN], rtol=2**-11, atol=1e-6)  # 11 bits of mantissa
    assert packed.expression_names == ("browInnerUp", "jawOpen")


def test_fewer_modes_can_be_asked_for(folder):
    fewer = ict.read(folder, modes=2)
    assert len(fewer.identity) == 2
    assert "2 of 3 identity modes are kept" in fewer.limits


def test_folder_without_identities_is_refused(small):
    (small / "identity000.obj").unlink()
    with pytest.raises(ModelError, match="no identity modes"):
        ict.read(small)


def test_files_that_are_cut_off_are_refused(small):
    path = small / "identity000.obj"
    path.write_bytes(path.read_bytes()[:300_000])
    with pytest.raises(ModelError, match=r"identity000\.obj.*ends before its faces"):
        ict.read(small)
    archive = small.parent / ict.PACKED
    archive.write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ModelError, match=r"ict_all_modes\.npz.* cannot be read .*cut off or damaged"):
        ict.read(small)


def test_obj_of_another_mesh_is_refused(small, mesh):
    text = (small / "identity000.obj").read_text().replace("v ", "v 0 0 0\nv ", 1)
    (small / "identity000.obj").write_text(text)
    with pytest.raises(ModelError, match=r"identity000\.obj.* has 26720 vertices, .* 26719"):
        ict.read(small)
    write_obj(small / ict.NEUTRAL, replace(mesh, vertices=mesh.vertices[:-5]))
    with pytest.raises(ModelError, match=r"has 26714 vertices, ICT-FaceKit Light 26719"):
        ict.read(small)


def test_numbers_that_are_none_are_refused(small):
    path = small / "identity000.obj"
    lines = path.read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("v "))
    path.write_text("\n".join([*lines[:first], "v nan 0 0", *lines[first + 1 :]]))
    with pytest.raises(ModelError, match="identity holds values that are not finite"):
        ict.read(small)
    path.write_text("\n".join([*lines[:first], "v 1 zwei 3", *lines[first + 1 :]]))
    with pytest.raises(ModelError, match=r"identity000\.obj.* cannot be read .*zwei"):
        ict.read(small)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("usemtl M_Teeth", "usemtl M_Beard", "no material of ICT-FaceKit"),
        ("\nf 1/1", "\nf 99999/1", "points at vertex 99998"),
        ("\nf 1/1", "\nf 1/0", "points at vertex -1"),
        ("\nf 1/1", "\nf 1", "texture coordinates"),
    ],
)
def test_faces_that_point_nowhere_are_refused(small, old, new, says):
    path = small / ict.NEUTRAL
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ModelError, match=says):
        ict.read(small)


def test_damaged_indices_are_refused(small):
    for text, says in (("{", "cannot be read"), (json.dumps({"idx": []}), "lacks 'expressions'")):
        (small / ict.LAYOUT).write_text(text)
        with pytest.raises(ModelError, match=rf"vertex_indices\.json.* {says}"):
            ict.read(small)


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(ModelError, match="is no ICT-FaceKit folder"):
        ict.read(tmp_path)


# the published files


@pytest.fixture(scope="module")
def published() -> RawModel:
    if not (DATA / "ict" / ict.PACKED).is_file():
        pytest.skip("RAYTRACE_FACE_DATA has no folder ict with all modes")
    return ict.read(DATA / "ict")


def test_published_model_is_a_closed_head_of_a_hundred_modes(published):
    assert published.identity.shape == (100, SHOWN, 3)
    assert len(published.expression_names) == 51
    skin = published.triangles[published.triangle_part == SKIN]
    outwards = (triangle_normals(published.mean, skin) * published.mean[skin].mean(1)).sum()
    assert outwards > 0
    assert edges_of(published.triangles)[2].max() == 2
    energy = np.sqrt((published.identity**2).sum(2).mean(1))
    assert energy[0] == pytest.approx(energy.max())


def test_published_chart_has_no_overlaps_on_skin_and_is_symmetric(published):
    skin = published.triangle_part == SKIN
    assert texels_covered_twice(published.uv, published.uv_triangles[skin]) == 0
    u, v = published.uv.T
    face = published.uv[(np.abs(u - 0.5) < 0.4) & (v < 0.8)].astype(np.float64)
    assert len(face) > 9409
    assert cKDTree(face).query(face * [-1, 1] + [1, 0])[0].max() < 1e-5  # texture coordinates have six digits


def test_published_objs_hold_the_packed_modes(published, tmp_path):
    """A few OBJs beside the npz of all: the same numbers to half precision, by another reader."""
    for name in (ict.NEUTRAL, ict.LAYOUT, "identity000.obj", "identity001.obj", "jawOpen.obj"):
        shutil.copy(DATA / "ict" / "FaceXModel" / name, tmp_path / name)
    few = ict.read(tmp_path)
    np.testing.assert_allclose(few.mean, published.mean, atol=1e-4)
    np.testing.assert_allclose(few.identity, published.identity[:2], rtol=2**-10, atol=2 * OBJ_MM)
    jaw = published.expression[published.expression_names.index("jawOpen")]
    np.testing.assert_allclose(few.expression, jaw[None], rtol=2**-10, atol=2 * OBJ_MM)
