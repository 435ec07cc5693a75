"""Rationale: a brought albedo basis is the prior of the skin, in log space, with the tone of all people beside it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from brought_model import brought

from raytrace_face.face.model import FaceModel
from raytrace_face.face.skin_prior import (
    ALBEDO_MODES,
    F0_FACE,
    HAEMOGLOBIN_SIGMA,
    MELANIN_SIGMA,
    absorption,
    albedo,
    skin_prior,
    specular_prior,
)


@pytest.fixture(scope="module")
def model() -> FaceModel:
    return brought()


def test_mean_of_the_basis_is_the_mean_of_the_prior(model):
    prior = skin_prior(model)
    mean = albedo(prior, np.zeros(len(prior.modes)))
    assert mean == pytest.approx(model.albedo.diffuse, rel=1e-5)  # exp and log of float32


def test_coefficients_are_those_of_the_basis_to_first_order(model):
    """exp(x) - (1 + x) lies in [0, x^2] for |x| <= 1: the error of the log space is of second order."""
    prior, basis = skin_prior(model), model.albedo
    own = np.array([2.0, -2.0, 1.0])
    found = albedo(prior, np.concatenate([[0, 0], own]))
    change = np.tensordot(own, basis.diffuse_modes, 1)
    x = change / basis.diffuse
    assert np.abs(x).max() < 1
    assert np.abs(x).max() > 0.1
    error = (found - (basis.diffuse + change)) / basis.diffuse
    assert error.min() > -1e-5
    assert (error <= x**2 + 1e-5).all()


def test_tone_stays_free(model):
    """The first two modes are the chromophores over the whole face, as without a basis."""
    prior, (melanin, haemoglobin) = skin_prior(model), absorption()
    assert prior.names == ("melanin", "haemoglobin", "albedo 1", "albedo 2", "albedo 3")
    for mode, expected in zip(prior.modes, (MELANIN_SIGMA * melanin, HAEMOGLOBIN_SIGMA * haemoglobin), strict=False):
        assert np.allclose(mode, expected, rtol=1e-6)


def test_no_more_modes_than_the_fit_can_tell_apart(model):
    many = np.repeat(model.albedo.diffuse_modes, 30, axis=0)
    prior = skin_prior(replace(model, albedo=replace(model.albedo, diffuse_modes=many)))
    assert len(prior.modes) == 2 + ALBEDO_MODES < 2 + len(many)


def test_black_places_of_a_basis_do_not_explode(model):
    black = replace(model.albedo, diffuse=np.zeros_like(model.albedo.diffuse))
    prior = skin_prior(replace(model, albedo=black))
    assert np.isfinite(prior.offset).all()
    assert np.abs(prior.modes[2:]).max() <= 1


def test_specular_mean_sets_the_pattern_and_not_the_level(model):
    f0, pattern = specular_prior(model), model.albedo.specular.mean(axis=1)
    face = model.regions["face"] > 0.5
    assert np.median(f0[face]) == pytest.approx(F0_FACE, rel=1e-5)
    assert f0 / F0_FACE == pytest.approx(pattern / np.median(pattern[face]), rel=1e-5)
    brighter = replace(model, albedo=replace(model.albedo, specular=3 * model.albedo.specular))
    assert specular_prior(brighter) == pytest.approx(f0, rel=1e-5)


def test_without_a_basis_regions_decide(model):
    plain = replace(model, albedo=None)
    assert skin_prior(plain).names == ("melanin", "haemoglobin", "lips")
    assert specular_prior(plain).max() == pytest.approx(0.040, rel=1e-3)  # lips
