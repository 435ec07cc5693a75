"""Rationale: an interval covers the truth as often as it says, and pairs see what two intervals cannot."""

from __future__ import annotations

import numpy as np
import pytest

from raytrace_face.errors import InputError
from raytrace_face.measure.similarity import Similarities, auc, similarities
from raytrace_face.measure.statistics import bootstrap_interval, paired_interval


def test_interval_of_a_mean_is_about_that_of_student():
    x = np.random.default_rng(0).normal(3, 2, 200)
    found = bootstrap_interval(x)
    half = 1.972 * x.std(ddof=1) / np.sqrt(200)  # t quantile of 199 degrees of freedom
    assert found.value == x.mean()
    assert found.count == 200
    # the ends of 9999 resamples scatter by about 1 % of the width
    assert (found.low, found.high) == pytest.approx((x.mean() - half, x.mean() + half), abs=0.1 * half)


def test_intervals_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(60):
        found = bootstrap_interval(rng.exponential(1.0, 40), level=0.8)
        hits += found.low < 1 < found.high
    # 48 expected with a standard deviation of 3.1; BCa of 40 skewed figures undercovers by a few per cent
    assert 38 <= hits <= 57


def test_same_seed_same_interval_and_wider_at_higher_level():
    x = np.random.default_rng(2).random(12)
    assert bootstrap_interval(x, seed=3) == bootstrap_interval(x, seed=3)
    assert bootstrap_interval(x, seed=3) != bootstrap_interval(x, seed=4)
    narrow, wide = bootstrap_interval(x, level=0.5), bootstrap_interval(x, level=0.99)
    assert wide.low < narrow.low < narrow.high < wide.high


def test_few_or_equal_items():
    one = bootstrap_interval([2.5])
    assert one.value == 2.5
    assert np.isnan([one.low, one.high]).all()
    same = bootstrap_interval([0.3] * 5)
    assert same.value == same.low == same.high == pytest.approx(0.3)
    # the jackknife of this median has no spread, so that BCa is not defined
    median = bootstrap_interval([1.0, 2.0, 2.0, 2.0, 9.0], np.median)
    assert 1 <= median.low <= median.value == 2 <= median.high <= 9


def test_pairs_show_a_difference_that_items_hide():
    rng = np.random.default_rng(5)
    hard = rng.normal(20, 6, 30)
    better = hard + 0.5 + 0.3 * rng.normal(size=30)
    a, b = bootstrap_interval(better), bootstrap_interval(hard)
    assert a.low < b.high  # two intervals overlap
    difference = paired_interval(better, hard)
    assert 0 < difference.low < difference.value < difference.high
    assert difference.value == pytest.approx((better - hard).mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: bootstrap_interval([]), "at least one item"),
        (lambda: bootstrap_interval([1.0, np.nan]), "1 of 2 figures are not finite"),
        (lambda: bootstrap_interval([1.0, np.inf, np.nan]), "2 of 3"),
        (lambda: bootstrap_interval([1.0, 2.0], level=95), "between 0 and 1"),
        (lambda: paired_interval([1.0, 2.0], [1.0]), "no pairs"),
    ],
)
def test_what_says_nothing_is_refused(call, message):
    with pytest.raises(InputError, match=message):
        call()


# similarity of faces


def test_area_under_the_curve_counts_pairs():
    rng = np.random.default_rng(0)
    same, different = rng.normal(0.6, 0.2, 30).round(1), rng.normal(0.3, 0.2, 50).round(1)  # rounding makes ties
    greater, equal = same[:, None] > different, same[:, None] == different
    assert auc(same, different) == pytest.approx((greater + 0.5 * equal).mean())
    assert auc(np.ones(3), np.zeros(4)) == 1
    assert np.isnan(auc(np.ones(3), np.zeros(0)))


def test_similarities_are_cosines_of_the_right_pairs():
    # "images" of one row are their own embeddings
    photos = [np.array([[1.0, 0.0]]), np.array([[3.0, 4.0]]), np.array([[0.0, 2.0]])]
    made = [np.array([[2.0, 0.0]]), np.array([[0.0, 5.0]]), np.array([[0.0, 1.0]])]
    found = similarities(lambda image: image[0], photos, made, ["ann", "ann", "bob"])
    assert isinstance(found, Similarities)
    assert found.own == pytest.approx([1, 0.8, 1])
    assert found.real_same == pytest.approx([0.6])
    assert sorted(found.real_different) == pytest.approx([0, 0.8])
    assert sorted(found.mixed_same) == pytest.approx([0, 0.6])  # photo 1 and face 2; photo 2 and face 1
    assert len(found.mixed_different) == 4
    assert found.reconstructed_same == pytest.approx([0])
    assert sorted(found.reconstructed_different) == pytest.approx([0, 1])
    summary = found.summary()
    assert summary["own_mean"] == pytest.approx(2.8 / 3)
    assert summary["real_same_pairs"] == 1
    assert summary["auc_real"] == 0.5  # .6 lies between 0 and .8


def test_an_embedding_that_knows_people_tells_them_apart():
    rng = np.random.default_rng(3)
    people = [name for name in "abcde" for _ in range(4)]
    centres = {name: rng.normal(size=32) for name in "abcde"}
    photos = [centres[name] + 0.3 * rng.normal(size=32) for name in people]
    noise = [rng.normal(size=32) for _ in people]
    summary = similarities(lambda image: image, photos, noise, people).summary()
    assert summary["auc_real"] == 1
    # chance: 30 pairs against 160 have a standard error of .06
    assert abs(summary["auc_reconstructed"] - 0.5) < 0.2
    assert summary["real_same_mean"] > 0.8


def test_bad_embeddings_are_refused():
    one = [np.ones((2, 2))]
    with pytest.raises(InputError, match="photo 0 is zero"):
        similarities(lambda image: 0 * image, one, one, ["a"])
    with pytest.raises(InputError, match="one of each"):
        similarities(lambda image: image, one, [], ["a"])
