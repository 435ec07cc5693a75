"""Rationale: decoders learn from synthetic photos to keep what real photos show, so lent detail needs its truth.

Expected behaviour: what is lent is fine and leaves tone and shading alone; it multiplies photo and albedo alike.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from raytrace_face.capture.colour import linear_to_srgb
from raytrace_face.learn.chart import CHANNELS, MEAN, SPREAD, codes_of, linear_of
from raytrace_face.learn.lend import GREATEST, STRENGTH, details, lend, painted

T = 128


def chart_of(linear: Tensor, seen: float = 1.0) -> Tensor:
    """A chart that shows linear light (B, 3, T, T)."""
    out = torch.zeros(len(linear), CHANNELS, T, T)
    codes = torch.from_numpy(linear_to_srgb(linear.numpy()))
    out[:, :3], out[:, 3] = (codes - MEAN) / SPREAD * seen, seen
    return out


def spot(depth: float, radius: float) -> Tensor:
    """(1, 3, T, T) skin of 0.3 with a round spot that is darker by a factor."""
    y, x = np.mgrid[:T, :T] - T / 2
    return torch.from_numpy(np.where(np.hypot(x, y) < radius, 0.3 * depth, 0.3).astype(np.float32)).expand(1, 3, T, T)


def test_details_are_what_differs_from_its_surroundings():
    found = details(chart_of(spot(0.6, 3)))
    inside = float(found[0, 1, T // 2, T // 2])
    assert inside == pytest.approx(GREATEST * np.tanh(np.log(0.6) / GREATEST), abs=0.08)  # DARK and the blur cost some
    assert float(found[0, 1, 10, 10].abs()) < 1e-3


@pytest.mark.parametrize("tone", [0.05, 0.2, 0.8])
def test_tone_is_no_detail(tone):
    assert float(details(chart_of(torch.full((1, 3, T, T), tone))).abs().max()) < 1e-3


def test_broad_shading_is_little_detail():
    """From 0.2 to 0.6 across the face, a factor of three: a tenth of it at most is lent, but for the borders."""
    ramp = torch.linspace(0.2, 0.6, T).expand(1, 3, T, T)
    assert float(details(chart_of(ramp))[..., 16:-16].abs().max()) < 0.1 * np.log(3)


def test_what_is_not_seen_lends_nothing():
    assert not details(chart_of(spot(0.6, 3), seen=0.0)).any()


def test_a_painted_photo_is_brighter_by_the_factor():
    made = 0.25 + 0.1 * torch.rand(6, 3, T, T, generator=torch.Generator().manual_seed(0))
    factor = 0.5 + torch.rand(6, 3, T, T, generator=torch.Generator().manual_seed(1))
    chart = chart_of(made, seen=0.7)
    shown = painted(chart, factor)
    assert torch.allclose(linear_of(codes_of(shown)), made * factor, rtol=2e-3)
    assert torch.equal(shown[:, 3:], chart[:, 3:])


def test_everyone_is_lent_a_detail_at_a_strength_of_their_own():
    lenders = torch.cat([chart_of(spot(d, 5)) for d in (0.5, 1.5)])
    depth = lend(lenders, 6, np.random.default_rng(0))[:, 1, T // 2, T // 2].log()
    assert len(depth.unique()) == 6
    assert float(depth.min()) < -0.2
    assert float(depth.max()) > 0.1
    assert float(depth.abs().max()) <= GREATEST * STRENGTH[1]


def test_lent_details_are_mirrored_as_often_as_not():
    """A mole on one side: on either side of some."""
    y, x = np.mgrid[:T, :T]
    mole = torch.from_numpy(np.where(np.hypot(x - 30, y - 60) < 4, 0.1, 0.3).astype(np.float32)).expand(1, 3, T, T)
    log = lend(chart_of(mole), 40, np.random.default_rng(0)).log()
    left, right = (log[:, 0, 60, k].abs() > 1e-3 for k in (30, T - 1 - 30))
    assert not (left & right).any()
    assert 12 <= int(left.sum()) <= 28  # 40 throws of a coin: within 2.5 standard deviations


def test_lending_is_a_function_of_its_random_numbers():
    lenders = chart_of(spot(0.5, 9))
    first, again, other = (lend(lenders, 1, np.random.default_rng(s)) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
