"""Rationale: for given transport the light is a convex problem, and its solution is *the* light."""

from __future__ import annotations

import numpy as np
import pytest

from lightstage import solve
from lightstage.rig import geodesic, rig


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def ball(directions: np.ndarray, count: int = 1500) -> np.ndarray:
    """Transport (P, D) of a white convex ball's visible half: max(0, cos) for each light."""
    k = np.arange(2 * count)
    z = 1 - 2 * (k + 0.5) / len(k)
    phi = k * 2.399963229728653  # golden angle: a Fibonacci sphere
    s = np.sqrt(1 - z * z)
    normals = np.stack([s * np.cos(phi), s * np.sin(phi), z], axis=1)[z > 0]
    return np.maximum(normals @ directions.T, 0)


def test_known_light_is_recovered_exactly(rng):
    columns = rng.random((400, 8))
    truth = rng.random((8, 3)) * (rng.random((8, 1)) > 0.4)
    found = solve.robust_nnls(columns, columns @ truth, np.ones(400), scale=0.1)
    # noise-free: what is left is the 1e-10 regulariser of the Cholesky factor, times the condition of the columns
    assert found == pytest.approx(truth, abs=1e-6)


def test_light_is_never_negative(rng):
    columns = rng.random((200, 5))
    image = columns @ np.array([[1.0], [-2.0], [0.5], [0.0], [1.0]])
    assert solve.robust_nnls(columns, image, np.ones(200), scale=10.0).min() >= 0


def test_nnls_matches_scipy_where_there_are_no_outliers(rng):
    from scipy.optimize import nnls

    columns, image = rng.random((100, 6)), rng.random(100)
    # a Cauchy scale far above every residual makes all weights one
    found = solve.robust_nnls(columns, image[:, None], np.ones(100), scale=1e6)[:, 0]
    assert found == pytest.approx(nnls(columns, image)[0], abs=1e-6)


def test_twenty_percent_gross_outliers_move_the_light_by_less_than_two_percent(rng):
    columns = rng.random((600, 6))
    truth = rng.uniform(0.5, 1.5, (6, 1))
    image = columns @ truth
    wrong = rng.permutation(600)[:120]
    image[wrong] += rng.uniform(1, 4, (120, 1))  # ten and more scales away: hair, hands, glasses
    # a redescending loss gives them weight (s / r)^2 < 1e-2 once converged
    found = solve.robust_nnls(columns, image, np.ones(600), scale=0.1, iterations=20)
    assert found == pytest.approx(truth, rel=0.02)


def test_pixels_without_weight_do_not_count(rng):
    columns, truth = rng.random((300, 4)), rng.random((4, 1))
    image = columns @ truth
    weight = np.ones(300)
    weight[:100], image[:100] = 0, 7
    assert solve.robust_nnls(columns, image, weight, scale=0.5) == pytest.approx(truth, abs=1e-6)


def test_units_of_image_and_columns_cancel(rng):
    columns, image = rng.random((300, 4)), rng.random((300, 1))
    plain = solve.robust_nnls(columns, image, np.ones(300), scale=0.2, ridge=0.05)
    scaled = solve.robust_nnls(columns * 50, image * 7, np.ones(300), scale=1.4, ridge=0.05)
    assert scaled * 50 / 7 == pytest.approx(plain, rel=1e-6)


NOISE = 0.03
"""Relative noise of the synthetic photos: without any, the cost is zero after the right light, and "4 % better than
zero" decides nothing."""


def test_a_clipped_pixel_is_a_lower_bound(rng):
    columns, truth = rng.random((500, 4)), np.array([[1.5], [0.4], [0.8], [0.2]])
    image = columns @ truth
    limit = np.quantile(image, 0.7)
    over, photo = image[:, 0] > limit, np.minimum(image, limit)
    bounded = solve.robust_nnls(columns, photo, np.ones(500), scale=10.0, iterations=30, clipped=over)
    equal = solve.robust_nnls(columns, photo, np.ones(500), scale=10.0, iterations=30)
    # exact: the 70 % that did not clip have no noise, and the truth lies above every bound
    assert bounded == pytest.approx(truth, abs=1e-5)
    # taken as values they pull the light down
    assert equal.sum() < 0.95 * truth.sum()


def test_search_finds_the_light_of_a_face_whose_lit_side_clipped():
    stage = geodesic(2).vertices
    columns = ball(stage)
    sun = int(np.argmax(stage @ [0.7, 0.3, 0.64]))
    image = columns[:, sun] + 0.3 * columns.mean(axis=1) * 4
    limit = 0.45 * image.max()
    over = image > limit
    uniform = columns.sum(axis=1, keepdims=True) * (4 / len(stage))
    options = {"max_lights": 1, "penalty": 0.15}
    found, blind = (
        solve.greedy(columns, uniform, np.minimum(image, limit), np.ones(len(image)), 0.1, stage, clipped=c, **options)
        for c in (over, None)
    )
    assert found.chosen == [sun]
    # taken as values, the flat clipped half is explained by a light from further round
    assert blind.chosen != [sun]


def test_lights_that_no_pixel_tells_apart_are_drawn_together(rng):
    column = rng.random((300, 1))
    columns = np.concatenate([column, column + 1e-3 * rng.random((300, 1))], axis=1)
    image = column * 2 + 0.02 * rng.normal(size=(300, 1))
    free = solve.robust_nnls(columns, image, np.ones(300), scale=10.0)
    drawn = solve.robust_nnls(columns, image, np.ones(300), scale=10.0, pull=0.05, towards=np.ones((2, 1)))
    # the sum is what the image says either way; the split is noise, or the even one
    assert [free.sum(), drawn.sum()] == pytest.approx([2, 2], abs=0.05)
    assert abs(drawn[0, 0] - drawn[1, 0]) < 0.05 < abs(free[0, 0] - free[1, 0])


def lit_ball(key: tuple[float, ...], fill: tuple[float, ...], fill_strength: float) -> tuple:
    """Stage directions, columns, noisy image and the two lights of a ball under key, fill and a little ambient."""
    stage = geodesic(2).vertices
    columns = ball(stage)
    lights = [int(np.argmax(stage @ np.array(d))) for d in (key, fill)]
    image = 0.15 + columns[:, lights[0]] + fill_strength * columns[:, lights[1]]
    image *= 1 + NOISE * np.random.default_rng(0).normal(size=len(image))
    return stage, columns, image, lights


def search(stage: np.ndarray, columns: np.ndarray, image: np.ndarray) -> list[int]:
    ambient, weight = np.ones((len(columns), 1)), np.ones(len(image))
    return solve.greedy(columns, ambient, image, weight, 0.15 * image.mean(), stage).chosen


@pytest.mark.parametrize("direction", [(0.75, 0.35, 0.55), (-0.2, 0.9, 0.4), (0.95, 0.1, -0.2)])
def test_greedy_finds_one_light_where_there_is_one(direction):
    stage, columns, image, lights = lit_ball(direction, (0, 0, 1), 0.0)
    assert search(stage, columns, image) == lights[:1]


def test_greedy_finds_key_and_rim_light():
    # 144 degrees apart: hardly a point of the ball sees both, so the greedy choice of the first is the right one
    stage, columns, image, lights = lit_ball((0.9, 0.2, -0.1), (-0.9, 0.3, -0.1), 0.5)
    assert search(stage, columns, image) == lights


@pytest.mark.parametrize(("key", "fill"), [((0.9, 0.2, 0.1), (-0.9, 0.3, 0.1)), ((0.2, 0.9, 0.4), (-0.95, -0.1, 0.1))])
def test_greedy_finds_two_lights_whose_halves_overlap(key, fill):
    stage, columns, image, lights = lit_ball(key, fill, 0.5)
    assert sorted(search(stage, columns, image)) == sorted(lights)


def test_greedy_finds_no_light_in_even_light():
    stage = geodesic(2).vertices
    columns = ball(stage)
    image = 0.7 * (1 + NOISE * np.random.default_rng(0).normal(size=len(columns)))
    assert search(stage, columns, image) == []


def test_greedy_is_not_fooled_by_outliers(rng):
    stage = geodesic(2).vertices
    columns = ball(stage)
    k = int(np.argmax(stage @ np.array([0.6, 0.5, 0.62])))
    image = 0.1 + columns[:, k]
    image[rng.permutation(len(image))[: len(image) // 5]] = 0.02  # a fifth of the face is hair
    found = solve.greedy(columns, np.ones((len(columns), 1)), image, np.ones(len(image)), 0.1, stage, max_lights=1)
    assert found.chosen == [k]


def test_search_costs_agree_with_scipy_nnls(rng):
    from scipy.optimize import nnls

    candidates, fixed, image = rng.random((80, 7)), rng.random((80, 2)), rng.random(80)
    _, x = solve.search_costs(candidates, fixed, image, np.ones(80), scale=1e6)
    for d in range(7):
        expected = nnls(np.column_stack([fixed, candidates[:, d]]), image)[0]
        # 60 sweeps of coordinate descent on three unknowns that correlate by 0.75: (0.75)^60 is 3e-8
        assert x[d] == pytest.approx(expected, abs=1e-5)


def test_cauchy_weight_is_the_derivative_of_the_cost_over_the_residual():
    r, h = np.array([0.01, 0.3, 2.0]), 1e-6
    slope = (solve.cauchy_cost(r + h, 0.5) - solve.cauchy_cost(r - h, 0.5)) / (2 * h)
    assert slope == pytest.approx(solve.cauchy_weight(r, 0.5) * r / 0.5**2, rel=1e-6)


def test_condense_keeps_irradiance_and_direction(rng):
    own = rig("icosahedron")
    # one light in each of three faces, away from the border
    p = rng.dirichlet([8.0, 8.0, 8.0], 3)
    faces = [2, 9, 17]
    directions = np.einsum("lk,lkc->lc", p, own.face_corners[faces])
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    irradiance = rng.uniform(0.2, 2, (3, 3))
    lights = solve.condense(own, directions, irradiance)
    assert np.flatnonzero(lights.intensity.max(axis=1)).tolist() == faces
    assert lights.irradiance()[faces] == pytest.approx(irradiance, rel=1e-9)
    assert lights.directions()[faces] == pytest.approx(directions, abs=1e-9)


def test_condense_merges_lights_that_share_a_face():
    own = rig("icosahedron")
    middle = own.face_directions[5]
    tilted = middle + 0.05 * (own.face_corners[5, 0] - middle)
    directions = np.stack([middle, tilted / np.linalg.norm(tilted)])
    lights = solve.condense(own, directions, np.array([[1.0, 1, 1], [0.5, 0.4, 0.3]]))
    assert np.count_nonzero(lights.intensity.max(axis=1)) == 1
    assert lights.irradiance()[5] == pytest.approx([1.5, 1.4, 1.3], rel=1e-9)
    between = directions[0] * 1.0 + directions[1] * 0.4  # weighted by mean irradiance
    assert lights.directions()[5] == pytest.approx(between / np.linalg.norm(between), abs=1e-9)


def test_condense_keeps_every_direction_of_the_sphere(rng):
    own = rig("icosahedron")
    directions = rng.normal(size=(50, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    for d in directions:
        lights = solve.condense(own, d[None], np.ones((1, 3)))
        k = int(np.argmax(lights.intensity[:, 0]))
        assert lights.directions()[k] == pytest.approx(d, abs=1e-9)
        assert lights.irradiance()[k] == pytest.approx(np.ones(3), rel=1e-9)


def test_condensing_no_light_gives_a_dark_stage():
    assert solve.condense(rig(), np.zeros((0, 3)), np.zeros((0, 3))).intensity.max() == 0


def test_quadratic_minimum_is_found_exactly():
    start = np.array([0.3, 0.4, 0.866])
    ring = solve.tangent_directions(start, 10.0)
    assert len(ring) == 13
    w = ring[0]
    u = np.cross(w, [0.0, 1.0, 0.0])
    u /= np.linalg.norm(u)
    v = np.cross(w, u)
    a, b = 0.05, -0.08  # within sin(10 deg) = 0.17
    x, y = ring @ u - a, ring @ v - b
    found = solve.quadratic_minimum(ring, 3 * x * x + x * y + 2 * y * y + 5, 10.0)
    assert [found @ u, found @ v] == pytest.approx([a, b], abs=1e-9)
    assert np.linalg.norm(found) == pytest.approx(1)


def test_best_sample_wins_where_the_quadratic_has_no_minimum_inside():
    ring = solve.tangent_directions(np.array([0.0, 0, 1]), 5.0)
    saddle = ring[:, 0] ** 2 - ring[:, 1] ** 2
    assert solve.quadratic_minimum(ring, saddle, 5.0) == pytest.approx(ring[np.argmin(saddle)])
    slope = ring[:, 0]
    assert solve.quadratic_minimum(ring, slope, 5.0) == pytest.approx(ring[np.argmin(slope)])


def test_tangent_directions_stay_within_the_radius():
    for centre in ([0.0, 1, 0], [1.0, 0, 0], [0.2, -0.9, 0.4]):
        ring = solve.tangent_directions(np.array(centre), 8.0)
        angle = np.degrees(np.arccos(np.clip(ring @ ring[0], -1, 1)))
        assert np.linalg.norm(ring, axis=1) == pytest.approx(1)
        assert sorted(np.round(angle, 6)) == pytest.approx([0] + [4] * 6 + [8] * 6, abs=1e-5)
