"""GNM Head's npz, in its documented layout, becomes a model in millimetres; what differs is refused by name."""

from __future__ import annotations

import numpy as np
import pytest

from raytrace_face.errors import ModelError
from raytrace_face.face.formats import gnm, joints
from raytrace_face.face.model import PARTS
from tests.formats.layouts_flame import Head, embedded_head, gnm_arrays, write_gnm_npz


@pytest.fixture(scope="module")
def head() -> Head:
    return embedded_head(PARTS, by_joint=("eyeLook",))  # GNM has no jaw joint


@pytest.fixture(scope="module")
def path(head, tmp_path_factory):
    return write_gnm_npz(tmp_path_factory.mktemp("gnm") / "gnm_head.npz", head)


@pytest.fixture(scope="module")
def raw(path):
    return gnm.read(path)


def test_vertices_keep_their_numbers_in_millimetres(raw, head):
    np.testing.assert_allclose(raw.mean[: len(head.vertices)], 1000 * head.vertices, atol=1e-3)
    assert raw.format == "GNM Head"
    assert raw.version == "3.0"
    assert raw.licence == "Apache-2.0"
    assert any("no file was seen" in limit for limit in raw.limits)


def test_the_clear_shell_is_left_out(raw, head):
    assert raw.triangles.max() < len(head.vertices)
    assert len(raw.triangles) == len(raw.triangle_part) == len(raw.uv_triangles) == len(head.triangles)
    np.testing.assert_array_equal(raw.triangle_part, head.part)


def test_modes_that_move_no_skin_are_left_out_and_the_strongest_come_first(raw, head):
    # The file has two modes of teeth before the head's, and the tongue's expression last.
    assert len(raw.identity) == min(100, len(head.identity))
    skin = head.of("skin")
    energy = np.square(raw.identity[:, skin]).sum((1, 2))
    assert (np.diff(energy) <= 1e-3 * energy[0]).all()
    strongest = np.argmax(np.square(head.identity[:, skin]).sum((1, 2)))
    np.testing.assert_allclose(raw.identity[0, : len(head.vertices)], 1000 * head.identity[strongest], atol=1e-3)
    moving = np.square(head.expression[:, skin]).sum((1, 2))
    assert len(raw.expression_modes) == (moving > 1e-6 * moving.max()).sum()


def test_eyes_turn_and_the_jaw_has_no_joint(raw, head):
    assert set(raw.expression_names) == {name for name, joint, _ in joints.TURNS if joint != joints.JAW}
    pupil = head.eye(-1)[np.argmax(head.vertices[head.eye(-1), 2])]
    move = dict(zip(raw.expression_names, raw.expression, strict=True))
    assert move["eyeLookOutRight"][pupil, 0] < -4
    assert move["eyeLookUpRight"][pupil, 1] > 4
    assert np.abs(move["eyeLookUpRight"][head.of("skin")]).max() < 1e-6


def test_a_jaw_joint_is_used_where_there_is_one(head, tmp_path):
    arrays = gnm_arrays(head)
    count = arrays["skinning_weights"].shape[1]
    jaw = np.zeros(count)
    jaw[: len(head.jaw)] = head.jaw * (arrays["skinning_weights"][1, : len(head.jaw)] > 0)
    weights = np.concatenate([arrays["skinning_weights"], jaw[None]])
    weights[1] -= jaw
    regressor = np.zeros((45, 3 * count), np.float32)
    regressor[36 + 7, 3 * np.flatnonzero(jaw)] = 0.001  # element 7 of R - I of the fifth joint: the sine of its pitch
    raw = gnm.read(
        write_gnm_npz(
            tmp_path / "a.npz",
            head,
            skinning_weights=weights,
            joint_names=np.array(["neck", "head", "left_eye", "right_eye", "jaw"]),
            joint_parent_indices=np.array([-1, 0, 1, 1, 1]),
            template_joint_positions=np.concatenate([arrays["template_joint_positions"], head.jaw_joint[None]]),
            pose_correctives_regressor=regressor,
        )
    )
    opened = raw.expression[raw.expression_names.index("jawOpen")]
    chin = np.argmin(np.where(head.jaw > 0.9, head.vertices[:, 1], 1))
    assert -60 < opened[chin, 1] < -25
    assert opened[chin, 0] == pytest.approx(np.sin(np.radians(joints.OPEN_DEG)), abs=0.05)  # 1 mm times the sine


def test_chart_of_the_corners(raw, head):
    np.testing.assert_allclose(raw.uv[raw.uv_triangles], head.uv[head.uv_triangles], atol=1e-6)
    assert len(raw.uv) <= len(head.uv)


def test_udim_tiles_are_folded_into_the_unit_square(head, tmp_path):
    corners = gnm_arrays(head)["triangle_uvs"]
    eyes = np.flatnonzero(head.part == PARTS.index("eyes"))
    corners[eyes, :, 0] += 1
    raw = gnm.read(write_gnm_npz(tmp_path / "a.npz", head, triangle_uvs=corners))
    np.testing.assert_allclose(raw.uv[raw.uv_triangles], head.uv[head.uv_triangles], atol=1e-5)


def edit(key, change):
    return key, lambda head: {key: change(gnm_arrays(head)[key])}


WRONG = {
    "version": (*edit("version", lambda a: np.array("4.0")), "version 4.0, variant head is unknown"),
    "variant": (*edit("variant", lambda a: np.array("body")), "variant body is unknown"),
    "no version": (*edit("version", lambda a: None), "unknown"),
    "pickled names": (*edit("joint_names", lambda a: a.astype(object)), "pickled"),
    "no template": (*edit("template_vertex_positions", lambda a: None), "lacks the array"),
    "other identity": (*edit("vertex_identity_basis", lambda a: a[:, :-1]), "vertex_identity_basis has shape"),
    "nan": (*edit("expression_basis", lambda a: np.where(a == a.max(), np.nan, a)), "not finite"),
    "triangle outside": (*edit("triangles", lambda a: a + 1), "triangles points outside"),
    "quads": (*edit("triangles", lambda a: a[:, [0, 1, 2, 2]]), "triangles has shape"),
    "weights transposed": (*edit("skinning_weights", lambda a: a.T), "skinning_weights has shape"),
    "weights of two": (*edit("skinning_weights", lambda a: 2 * a), "sum to one"),
    "unknown joints": (*edit("joint_names", lambda a: np.array(["a", "b", "c", "d"])), "lacks left_eye"),
    "no tree": (*edit("joint_parent_indices", lambda a: np.array([0, 2, 1, 1])), "no tree"),
    "sides swapped": (*edit("joint_names", lambda a: a[[0, 1, 3, 2]]), "left eye's joint lies on the right"),
    "correctives": (*edit("pose_correctives_regressor", lambda a: a[:27]), "pose_correctives_regressor has shape"),
    "unknown groups": (*edit("vertex_group_names", lambda a: np.char.add(a, "_x")), "vertex_group_names lacks"),
}


@pytest.mark.parametrize("case", sorted(WRONG))
def test_what_is_wrong_is_named(head, tmp_path, case):
    _, change, said = WRONG[case]
    with pytest.raises(ModelError, match=said) as error:
        gnm.read(write_gnm_npz(tmp_path / "wrong.npz", head, **change(head)))
    assert "wrong.npz" in str(error.value)
    assert "\n" not in str(error.value)


def test_truncated_files_are_refused(path, tmp_path):
    cut = tmp_path / "cut.npz"
    cut.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(ModelError, match=r"cut\.npz"):
        gnm.read(cut)
