"""Linear blend skinning against hand computations, and what must not change."""

from __future__ import annotations

import numpy as np
import pytest

from raytrace_face.face.formats import joints
from raytrace_face.face.formats.skinning import Skeleton, pose_feature, posed, world_motions

RNG = np.random.default_rng(11)
TREE = (-1, 0, 1, 1, 1)


def random_skeleton(count: int = 30, moved: int = 4) -> tuple[np.ndarray, Skeleton]:
    weights = RNG.random((count, 5)) ** 4
    correctives = RNG.normal(0, 2.0, (9 * moved, count, 3))
    skeleton = Skeleton(RNG.normal(0, 40, (5, 3)), TREE, weights / weights.sum(1, keepdims=True), correctives)
    return RNG.normal(0, 80, (count, 3)), skeleton


def rodrigues(vector: np.ndarray) -> np.ndarray:
    """R = I + sin(a) K + (1 - cos(a)) K^2 for the axis' cross-product matrix K."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / angle
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def test_the_rest_pose_is_the_template():
    vertices, skeleton = random_skeleton()
    np.testing.assert_allclose(posed(vertices, skeleton, np.zeros((5, 3))), vertices, atol=1e-12)


def test_turning_the_root_turns_the_head_rigidly_about_it():
    vertices, skeleton = random_skeleton()  # correctives of all joints but the root
    pose = np.zeros((5, 3))
    pose[0] = [0.3, -0.5, 0.2]
    expected = (vertices - skeleton.joints[0]) @ rodrigues(pose[0]).T + skeleton.joints[0]
    np.testing.assert_allclose(posed(vertices, skeleton, pose), expected, atol=1e-10)


def test_a_root_turn_on_top_of_a_pose_keeps_all_distances():
    vertices, skeleton = random_skeleton()
    pose = RNG.normal(0, 0.3, (5, 3))
    pose[0] = 0
    bent = posed(vertices, skeleton, pose)
    pose[0] = [0.1, 0.8, -0.4]
    turned = posed(vertices, skeleton, pose)
    distance = np.linalg.norm(bent[:, None] - bent[None], axis=-1)
    np.testing.assert_allclose(np.linalg.norm(turned[:, None] - turned[None], axis=-1), distance, atol=1e-9)


def test_an_arm_of_two_bones_bends_as_drawn_on_paper():
    # Shoulder at 0, elbow at (1, 0, 0), hand at (2, 0, 0). Both turn by 90 degrees about z: the upper arm points up and
    # the forearm back, so the elbow goes to (0, 1, 0) and the hand to (-1, 1, 0). A vertex at the elbow goes with it,
    # whatever its weights are.
    skeleton = Skeleton(
        np.array([[0.0, 0, 0], [1, 0, 0]]), (-1, 0), np.array([[1.0, 0], [0, 1], [0.5, 0.5], [0.5, 0.5]])
    )
    vertices = np.array([[0.5, 0, 0], [2, 0, 0], [1, 0, 0], [2, 0, 0]])
    right_angle = np.array([[0, 0, np.pi / 2]] * 2)
    # The last vertex is the mean of what either bone makes of it: (0, 2, 0) by the upper arm and (-1, 1, 0).
    expected = [[0, 0.5, 0], [-1, 1, 0], [0, 1, 0], [-0.5, 1.5, 0]]
    np.testing.assert_allclose(posed(vertices, skeleton, right_angle), expected, atol=1e-12)


def test_joints_stay_joined():
    # The motion of a joint and that of its parent agree at the joint itself.
    _, skeleton = random_skeleton()
    rotations = np.array([rodrigues(v) for v in RNG.normal(0, 0.7, (5, 3))])
    turned, shifts = world_motions(rotations, skeleton)
    for k, parent in enumerate(TREE[1:], start=1):
        at = skeleton.joints[k]
        np.testing.assert_allclose(turned[k] @ at + shifts[k], turned[parent] @ at + shifts[parent], atol=1e-12)


def test_correctives_answer_to_the_rows_of_r_minus_identity():
    # FLAME stores 9 numbers a joint, joint by joint and row by row, root left out: element 9 + 7 is the sine of the
    # pitch of joint 2. A corrective there alone moves a vertex by that sine before the joint turns it.
    angle = 0.4
    vertices = np.array([[0.0, 0, 10]])
    correctives = np.zeros((36, 1, 3))
    correctives[9 + 7, 0] = [1, 0, 0]
    weights = np.eye(5)[[2]]
    skeleton = Skeleton(np.zeros((5, 3)), TREE, weights, correctives)
    pose = np.zeros((5, 3))
    pose[2, 0] = angle
    expected = [[np.sin(angle), -10 * np.sin(angle), 10 * np.cos(angle)]]
    np.testing.assert_allclose(posed(vertices, skeleton, pose), expected, atol=1e-12)
    feature = pose_feature(rodrigues(np.array([angle, 0, 0]))[None])
    np.testing.assert_allclose(
        feature, [0, 0, 0, 0, np.cos(angle) - 1, -np.sin(angle), 0, np.sin(angle), np.cos(angle) - 1]
    )


def test_correctives_of_all_joints_include_the_root():
    vertices, skeleton = random_skeleton(moved=5)
    pose = np.zeros((5, 3))
    pose[0, 1] = 0.2
    moved = posed(vertices, skeleton, pose) - posed(vertices, Skeleton(skeleton.joints, TREE, skeleton.weights), pose)
    expected = np.tensordot(pose_feature(rodrigues(pose[0])[None]), skeleton.correctives[:9], 1) @ rodrigues(pose[0]).T
    np.testing.assert_allclose(moved, expected, atol=1e-10)


def eyes_and_chin() -> tuple[np.ndarray, Skeleton, dict[str, int]]:
    """A chin 100 mm before the jaw's joint, both pupils 12 mm before theirs."""
    places = np.array([[0.0, -100, -80], [0, -60, -60], [0, -40, -70], [32, 0, 0], [-32, 0, 0]])
    vertices = np.array([[0, -40, 30.0], [32, 0, 12], [-32, 0, 12]])
    skeleton = Skeleton(places, TREE, np.eye(5)[[2, 3, 4]])
    return vertices, skeleton, {joints.JAW: 2, joints.LEFT_EYE: 3, joints.RIGHT_EYE: 4}


def test_units_move_jaw_and_pupils_where_their_names_say():
    neutral, skeleton, roles = eyes_and_chin()
    names, moves = joints.units(neutral, skeleton, roles)
    move = dict(zip(names, moves, strict=True))
    chin, left, right = 0, 1, 2
    assert move["jawOpen"][chin, 1] == pytest.approx(-100 * np.sin(np.radians(22.5)))
    assert move["jawLeft"][chin, 0] == pytest.approx(100 * np.sin(np.radians(4.5)))  # x runs to the face's own left
    assert move["jawRight"][chin, 0] == -move["jawLeft"][chin, 0]
    for side, eye, outwards in (("Left", left, 1), ("Right", right, -1)):
        assert move[f"eyeLookUp{side}"][eye, 1] == pytest.approx(6)  # 12 sin 30 degrees
        assert move[f"eyeLookDown{side}"][eye, 1] == pytest.approx(-6)
        assert move[f"eyeLookOut{side}"][eye, 0] == pytest.approx(6 * outwards)
        assert move[f"eyeLookIn{side}"][eye, 0] == pytest.approx(-6 * outwards)
        others = [v for v in (chin, left, right) if v != eye]
        assert not move[f"eyeLookUp{side}"][others].any()


def test_half_a_unit_lies_inside_the_arc_by_its_sagitta():
    neutral, skeleton, roles = eyes_and_chin()
    errors = joints.chord_error_mm(neutral, skeleton, roles)
    assert errors["jawOpen"] == pytest.approx(100 * (1 - np.cos(np.radians(22.5) / 2)))  # 1.9 mm
    assert errors["eyeLookInLeft"] == pytest.approx(12 * (1 - np.cos(np.radians(15))))  # 0.4 mm
    assert "jawOpen 1.9 mm" in joints.limits(neutral, skeleton, roles)[0]
    assert joints.limits(neutral, skeleton, {}) == ()


def test_units_of_joints_that_are_not_there_are_left_out():
    neutral, skeleton, roles = eyes_and_chin()
    del roles[joints.JAW]
    names, moves = joints.units(neutral, skeleton, roles)
    assert len(names) == len(moves) == 8
    assert all(name.startswith("eyeLook") for name in names)
