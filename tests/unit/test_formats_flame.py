"""FLAME's files, in their layout, become a model in millimetres; what is not FLAME is refused by name."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy import sparse

from raytrace_face.errors import ModelError
from raytrace_face.face.formats import flame, joints
from raytrace_face.face.formats.flame_albedo import read_texture, sample_albedo
from raytrace_face.face.formats.skinning import Skeleton, posed
from raytrace_face.face.formats.subdivide import split, subdivide
from raytrace_face.face.mesh import edges_of, triangle_normals, vertex_areas
from raytrace_face.face.model import PARTS
from tests.formats.layouts_flame import (
    Head,
    ball_head,
    embedded_head,
    flame_arrays,
    regressor,
    write_albedo_npz,
    write_flame_npz,
    write_flame_pickle,
)


@pytest.fixture(scope="module")
def balls() -> Head:
    return ball_head()


@pytest.fixture(scope="module")
def head() -> Head:
    return embedded_head()


@pytest.fixture(scope="module")
def flame_path(head, tmp_path_factory):
    return write_flame_pickle(tmp_path_factory.mktemp("flame") / "generic_model.pkl", head)


@pytest.fixture(scope="module")
def raw(flame_path):
    return flame.read(flame_path)


def edge_lengths(vertices, triangles):
    ends = vertices[edges_of(triangles)[0]]
    return np.linalg.norm(ends[:, 0] - ends[:, 1], axis=1)


def test_flame_s_own_vertices_come_first_in_millimetres(raw, head):
    np.testing.assert_allclose(raw.mean[: len(head.vertices)], 1000 * head.vertices, atol=1e-4)
    assert raw.identity.shape == (100, len(raw.mean), 3)
    assert raw.expression_modes.shape == (100, len(raw.mean), 3)
    modes = len(head.identity)
    np.testing.assert_allclose(raw.identity[:modes, : len(head.vertices)], 1000 * head.identity, atol=1e-4)
    units = len(head.expression)
    np.testing.assert_allclose(raw.expression_modes[:units, : len(head.vertices)], 1000 * head.expression, atol=1e-4)
    assert raw.format == "FLAME"
    assert "non-commercial" in raw.licence


def test_edges_are_short_enough_to_shade(raw, head):
    before = np.median(edge_lengths(1000 * head.vertices, head.triangles))
    assert np.median(edge_lengths(raw.mean, raw.triangles)) == pytest.approx(before / 2, rel=0.1)


def test_parts_are_the_head_and_one_eyeball_on_each_side(raw, head):
    np.testing.assert_array_equal(raw.triangle_part, np.repeat(head.part, 4))
    eyes = raw.mean[np.unique(raw.triangles[raw.triangle_part == PARTS.index("eyes")]), 0]
    assert (eyes > 0).sum() == (eyes < 0).sum() > 100


def test_joints_give_the_units_their_names_say(raw, head):
    move = dict(zip(raw.expression_names, raw.expression, strict=True))
    assert set(move) == {name for name, _, _ in joints.TURNS}
    chin = np.argmin(np.where(head.jaw > 0.9, head.vertices[:, 1], 1))
    assert -60 < move["jawOpen"][chin, 1] < -25
    assert move["jawLeft"][chin, 0] > 5 > -5 > move["jawRight"][chin, 0]
    brow = np.argmax(head.vertices[:, 1])
    assert np.abs(move["jawOpen"][brow]).max() < 1e-3
    pupil = head.eye(1)[np.argmax(head.vertices[head.eye(1), 2])]
    assert move["eyeLookUpLeft"][pupil, 1] > 4
    assert move["eyeLookOutLeft"][pupil, 0] > 4
    assert np.abs(move["eyeLookUpRight"][pupil]).max() < 1e-6


def test_a_unit_is_the_skinned_pose_with_its_correctives(raw, head):
    # Once more from the file's arrays, by the equations and not by the reader.
    arrays = flame_arrays(head)
    places = regressor(head) @ (1000 * head.vertices)
    np.testing.assert_allclose(places, 1000 * head.joints(), atol=1e-6)
    skeleton = Skeleton(places, flame.PARENTS, head.weights(), 1000 * np.moveaxis(arrays["posedirs"], 2, 0))
    pose = np.zeros((5, 3))
    pose[2, 0] = np.radians(joints.OPEN_DEG)
    expected = posed(1000 * head.vertices, skeleton, pose) - 1000 * head.vertices
    opened = raw.expression[raw.expression_names.index("jawOpen"), : len(expected)]
    np.testing.assert_allclose(opened, expected, atol=1e-3)
    without = posed(1000 * head.vertices, Skeleton(places, flame.PARENTS, head.weights()), pose) - 1000 * head.vertices
    assert np.abs(opened - without).max() > 0.3  # the correctives do something


def test_what_straight_lines_lose_is_said_with_its_number(raw, head):
    # The docstring promises up to 2 mm at the chin and 0.4 mm at eyes of 12 mm; the embedded model's have 15 mm.
    places = 1000 * head.joints()
    skeleton = Skeleton(places, flame.PARENTS, head.weights())
    roles = {joints.JAW: 2, joints.LEFT_EYE: 3, joints.RIGHT_EYE: 4}
    errors = joints.chord_error_mm(1000 * head.vertices, skeleton, roles)
    assert 1.5 < errors["jawOpen"] < 2.5
    assert 0.3 < errors["eyeLookInLeft"] < 0.6
    assert any("half-way" in limit and "jawOpen" in limit for limit in raw.limits)


def test_pickle_and_npz_give_the_same_model(balls, tmp_path):
    first = flame.read(write_flame_pickle(tmp_path / "a.pkl", balls))
    text = flame.read(write_flame_pickle(tmp_path / "b.pkl", balls, protocol=0))
    plain = flame.read(write_flame_npz(tmp_path / "c.npz", balls))
    for other in (text, plain):
        for field in ("mean", "identity", "expression", "expression_modes", "triangles", "triangle_part"):
            np.testing.assert_allclose(getattr(other, field), getattr(first, field), atol=1e-5)
    digest = hashlib.sha256((tmp_path / "a.pkl").read_bytes()).hexdigest()
    assert first.provenance == {"a.pkl": digest}


def test_an_npz_with_a_pickled_regressor_takes_the_joints_the_file_names(balls, tmp_path):
    pickled = np.array(regressor(balls), object)
    as_made = flame.read(write_flame_npz(tmp_path / "a.npz", balls, J_regressor=pickled))
    plain = flame.read(write_flame_npz(tmp_path / "b.npz", balls))
    np.testing.assert_allclose(as_made.expression, plain.expression, atol=1e-3)
    with pytest.raises(ModelError, match="pickled"):
        flame.read(write_flame_npz(tmp_path / "c.npz", balls, J_regressor=pickled, J=None))


def test_a_sigma_is_a_sigma(balls, tmp_path):
    # The vertex that a unit coefficient moves by x metres in the file moves by 1000 x mm here.
    raw = flame.read(write_flame_pickle(tmp_path / "a.pkl", balls), modes=3)
    assert len(raw.identity) == 3
    np.testing.assert_allclose(raw.identity[2, 10], 1000 * balls.identity[2, 10], rtol=1e-5)
    share = 100 * np.square(balls.identity[:3]).sum() / np.square(balls.identity).sum()
    assert f"3 of 300 identity modes are kept ({share:.1f} % of the variance)" in raw.limits


def with_nan(array):
    array = np.array(array, float)
    array.flat[7] = np.nan
    return array


WRONG = {
    "another split": ("shapedirs", lambda a: a[..., :150], "150 components"),
    "no shapes": ("shapedirs", lambda a: None, "lacks the array 'shapedirs'"),
    "shape of another mesh": ("shapedirs", lambda a: a[:-1], "shapedirs has shape"),
    "nan": ("v_template", with_nan, "v_template holds values that are not finite"),
    "flat template": ("v_template", lambda a: a[:, :2], "v_template has shape"),
    "triangle outside": ("f", lambda a: a + 1, "f points outside"),
    "triangles of fractions": ("f", lambda a: a.astype(float), "f has type float64"),
    "weights of four joints": ("weights", lambda a: a[:, :4], "weights has shape"),
    "weights that sum to two": ("weights", lambda a: 2 * a, "do not sum to one"),
    "correctives of the root too": ("posedirs", lambda a: np.concatenate([a, a[..., :9]], 2), "posedirs has shape"),
    "another tree": ("kintree_table", lambda a: a - [[0, 0, 0, 0, 1], [0] * 5], "unknown joints"),
    "no tree": ("kintree_table", lambda a: None, "lacks the array 'kintree_table'"),
    "no triangles": ("f", lambda a: a[:0], "f is empty"),
    "bomb of zeros": ("v_template", lambda a: sparse.csc_matrix((2**30, 3)), "csc_matrix of shape"),
    "regressor of another mesh": ("J_regressor", lambda a: a[:, :-1], "J_regressor has shape"),
    "text for numbers": ("weights", lambda a: "none", "weights has shape"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_is_wrong_is_named(balls, tmp_path, case):
    key, change, said = WRONG[case]
    path = write_flame_pickle(tmp_path / "wrong.pkl", balls, **{key: change(flame_arrays(balls)[key])})
    with pytest.raises(ModelError, match=said) as error:
        flame.read(path)
    assert "wrong.pkl" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_mesh_without_eyeballs_is_refused(balls, tmp_path):
    skin = balls.triangles[balls.part == PARTS.index("skin")]
    with pytest.raises(ModelError, match="has 1 pieces, and not just one"):
        flame.read(write_flame_pickle(tmp_path / "a.pkl", balls, f=skin.astype(np.uint32)))


def test_a_jaw_that_nothing_follows_gives_no_unit(balls, tmp_path):
    # Released beside the usual model: one whose jaw opens by expression components. An empty jawOpen would hide that.
    weights = flame_arrays(balls)["weights"]
    weights[:, 1] += weights[:, 2]
    weights[:, 2] = 0
    raw = flame.read(write_flame_pickle(tmp_path / "a.pkl", balls, weights=weights))
    assert len(raw.expression_names) == 8
    assert all(name.startswith("eyeLook") for name in raw.expression_names)


def test_truncated_files_are_refused(balls, tmp_path):
    for name, write in (("a.pkl", write_flame_pickle), ("a.npz", write_flame_npz)):
        path = write(tmp_path / name, balls)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(ModelError, match=name):
            flame.read(path)
    with pytest.raises(ModelError, match="cannot be read"):
        flame.read(tmp_path / "absent.npz")


# --- albedo -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coloured(flame_path, head, tmp_path_factory):
    path = write_albedo_npz(tmp_path_factory.mktemp("albedo") / "albedo.npz", head)
    return flame.read(flame_path, path)


def test_albedo_is_the_texture_at_the_vertices(coloured):
    # The miniature's red is 0.4 + 0.1 v and its specular 0.1 + 0.1 u, linear: bilinear sampling must give them back
    # where a vertex has one texture vertex and lies half a texel inside the picture and above its black foot.
    single = np.bincount(
        np.unique(np.stack([coloured.triangles.ravel(), coloured.uv_triangles.ravel()], 1), axis=0)[:, 0]
    )
    vertex, corner = coloured.triangles.ravel(), coloured.uv_triangles.ravel()
    u, v = coloured.uv[corner].T
    safe = (single[vertex] == 1) & (v > 0.15) & (v < 0.98) & (u > 0.02) & (u < 0.98)
    assert safe.mean() > 0.5
    diffuse, specular = coloured.albedo.diffuse[vertex[safe]], coloured.albedo.specular[vertex[safe]]
    np.testing.assert_allclose(diffuse[:, 0], 0.4 + 0.1 * v[safe], atol=1e-5)
    np.testing.assert_allclose(diffuse[:, 1], 0.25, atol=1e-5)
    np.testing.assert_allclose(diffuse[:, 2], 0.2 + 0.05 * u[safe], atol=1e-5)
    np.testing.assert_allclose(specular, np.repeat(0.1 + 0.1 * u[safe, None], 3, 1), atol=1e-5)
    # Mode 2 varies as cos(2 pi u) / 11, and its red is the file's last channel.
    np.testing.assert_allclose(
        coloured.albedo.diffuse_modes[1, vertex[safe], 0], np.cos(2 * np.pi * u[safe]) / 11, atol=1e-3
    )
    assert coloured.albedo.specular_modes.shape == (6, len(coloured.mean), 3)


def test_vertices_outside_the_texture_take_their_neighbours_albedo(coloured):
    assert coloured.albedo.diffuse.min() > 0.1
    assert any("have no albedo" in limit for limit in coloured.limits)
    assert "academic research only" in coloured.licence
    assert set(coloured.provenance) == {"generic_model.pkl", "albedo.npz"}


def test_a_vertex_on_a_seam_takes_the_mean_of_both_sides(tmp_path):
    # Two triangles that share an edge in space but not in the chart; one lies in a white half, the other in a grey one.
    mean = np.full((8, 8, 3), 0.8)
    mean[:, 4:] = 0.2
    uv = np.array([[0.1, 0.1], [0.3, 0.1], [0.1, 0.3], [0.9, 0.9], [0.7, 0.9], [0.9, 0.7]], np.float32)
    chart, triangles = np.array([[0, 1, 2], [3, 4, 5]]), np.array([[0, 1, 2], [3, 2, 1]])
    path, modes = tmp_path / "albedo.npz", mean[..., None]
    np.savez(path, MU=mean, PC=modes, specMU=mean, specPC=modes, vt=uv, ft=chart)
    points = np.eye(4, 3, dtype=np.float32)
    basis, bare = sample_albedo(read_texture(path, triangles), uv, chart, triangles, points)
    np.testing.assert_allclose(basis.diffuse[:, 0], [0.8, 0.5, 0.5, 0.2], atol=1e-6)
    assert bare == 0


def test_red_first_files_are_read_alike(balls, tmp_path):
    blue = write_albedo_npz(tmp_path / "bgr.npz", balls)
    with np.load(blue) as data:
        swapped = {key: data[key][:, :, ::-1] for key in ("MU", "PC", "specMU", "specPC")}
    red = write_albedo_npz(tmp_path / "rgb.npz", balls, **swapped)
    path = write_flame_pickle(tmp_path / "a.pkl", balls)
    one, two = flame.read(path, blue).albedo, flame.read(path, red).albedo
    np.testing.assert_array_equal(one.diffuse, two.diffuse)
    np.testing.assert_array_equal(one.diffuse_modes, two.diffuse_modes)


WRONG_TEXTURES = {
    "fewer triangles": ("ft", lambda a: a[:-1], "not its texture"),
    "another order": ("ft", lambda a: a[::-1].copy(), "apart on the model"),
    "corner outside": ("ft", lambda a: a + 1, "ft points outside"),
    "no modes": ("PC", lambda a: None, "lacks the array 'PC'"),
    "other size": ("PC", lambda a: a[:-1], "PC has shape"),
    "nan": ("MU", with_nan, "MU holds values that are not finite"),
    "0 to 255": ("MU", lambda a: 255 * a, "expected linear albedo"),
    "all black": ("MU", lambda a: 0 * a, "expected linear albedo"),
    "texel coordinates": ("vt", lambda a: 64 * a, "vt spans"),
}


@pytest.mark.parametrize("case", sorted(WRONG_TEXTURES))
def test_what_is_wrong_with_a_texture_is_named(balls, tmp_path, case):
    key, change, said = WRONG_TEXTURES[case]
    with np.load(write_albedo_npz(tmp_path / "albedo.npz", balls)) as data:
        value = change(data[key])
    path = write_albedo_npz(tmp_path / "albedo.npz", balls, **{key: value})
    with pytest.raises(ModelError, match=said) as error:
        flame.read(write_flame_pickle(tmp_path / "a.pkl", balls), path)
    assert "albedo.npz" in str(error.value)


def test_texture_coordinates_of_the_model_s_own_file_are_kept(balls, tmp_path):
    path = write_flame_npz(tmp_path / "a.npz", balls, vt=balls.uv, ft=balls.uv_triangles)
    raw = flame.read(path)
    assert raw.albedo is None
    np.testing.assert_allclose(raw.uv[: len(balls.uv)], balls.uv, atol=1e-6)
    assert flame.read(write_flame_npz(tmp_path / "b.npz", balls)).uv is None
    with pytest.raises(ModelError, match="ft has shape"):
        flame.read(write_flame_npz(tmp_path / "c.npz", balls, vt=balls.uv, ft=balls.uv_triangles[1:]))


# --- subdivision ----------------------------------------------------------------------------------------------------


def test_a_split_triangle_has_four_quarters_wound_alike():
    triangles, edges = split(np.array([[0, 1, 2]], np.int32), 3)
    points = np.array([[0.0, 0, 0], [4, 0, 0], [0, 4, 0]])
    points = np.concatenate([points, points[edges].mean(1)])
    np.testing.assert_allclose(triangle_normals(points, triangles), [[0, 0, 4]] * 4)  # a quarter of 16 each


def test_subdivision_keeps_area_volume_and_closedness(balls, tmp_path):
    raw = flame.read(write_flame_pickle(tmp_path / "a.pkl", balls))
    again = subdivide(raw)
    assert len(again.triangles) == 4 * len(raw.triangles)
    assert (edges_of(again.triangles)[2] == 2).all()
    area, finer = (vertex_areas(m.mean.astype(float), m.triangles).sum() for m in (raw, again))
    assert finer == pytest.approx(area, rel=1e-5)
    np.testing.assert_array_equal(again.mean[: len(raw.mean)], raw.mean)
    assert raw.own_vertices == again.own_vertices == len(balls.vertices)  # what the file itself holds


def test_bases_chart_and_albedo_are_subdivided_alike(balls, tmp_path):
    # Every field that is linear in position before stays so after: the miniature's uv is x and y over 200 mm.
    path = write_albedo_npz(tmp_path / "albedo.npz", balls)
    raw = subdivide(flame.read(write_flame_pickle(tmp_path / "a.pkl", balls), path))
    corners = raw.mean[raw.triangles][..., :2]
    np.testing.assert_allclose(raw.uv[raw.uv_triangles], 0.5 + corners / 200, atol=1e-5)
    linear = np.linalg.lstsq(raw.mean, raw.identity[1], rcond=None)[0]
    np.testing.assert_allclose(raw.mean @ linear, raw.identity[1], atol=1e-3)
    fields = (raw.albedo.diffuse, raw.albedo.diffuse_modes[0], raw.albedo.specular, raw.albedo.specular_modes[0])
    assert {len(field) for field in fields} == {len(raw.mean)}
