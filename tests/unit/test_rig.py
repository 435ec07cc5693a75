"""Rationale: a light of the stage is where, as large and as strong as its four published parameters say."""

from __future__ import annotations

import numpy as np
import pytest

from lightstage.rig import RIGS, STAGE_RADIUS_MM, StageLights, directional_lights, geodesic, rig, triangle_form_factor

EXACT = 1e-9
"""Double precision arithmetic on numbers of order one (or a thousand, relative)."""


def stage(name: str = "icosahedron", **changes: np.ndarray) -> StageLights:
    """Lights with different parameters on every face."""
    rng = np.random.default_rng(3)
    own = rig(name)
    count = own.count
    centre = rng.dirichlet([3.0, 3.0, 3.0], count)[:, :2]
    values = {
        "distance": rng.uniform(0.5, 5, count),
        "area": rng.uniform(0.05, 1, count),
        "centre": centre,
        "intensity": rng.uniform(0.1, 2, (count, 3)),
    }
    return StageLights(own, **{**values, **changes})  # type: ignore[arg-type]


def areas(corners: np.ndarray) -> np.ndarray:
    return 0.5 * np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)


def normals(corners: np.ndarray) -> np.ndarray:
    n = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    return n / np.linalg.norm(n, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("name", "count"), [("tetrahedron", 4), ("octahedron", 8), ("icosahedron", 20), ("geodesic1", 80)]
)
def test_rigs_have_as_many_lights_as_faces(name, count):
    own = rig(name)
    assert own.count == count
    # Euler: V - E + F = 2 with E = 3 F / 2
    assert len(own.vertices) == count // 2 + 2
    assert np.linalg.norm(own.vertices, axis=1) == pytest.approx(1, abs=EXACT)


@pytest.mark.parametrize("level", [0, 1, 2, 3])
def test_geodesic_spheres_have_20_faces_times_four_to_the_level(level):
    own = geodesic(level)
    assert own.count == 20 * 4**level
    assert len(own.vertices) == 10 * 4**level + 2


@pytest.mark.parametrize("name", RIGS)
def test_every_face_looks_at_the_centre(name):
    own = rig(name)
    # on a sphere the cosine between inward normal and direction is large even on the coarsest solid (its faces are
    # centred under their own normal)
    assert np.einsum("lc,lc->l", normals(own.face_corners), -own.face_directions).min() > 0.99


@pytest.mark.parametrize("name", ["tetrahedron", "octahedron", "icosahedron"])
def test_faces_of_platonic_solids_are_equal(name):
    area = areas(rig(name).face_corners)
    assert area == pytest.approx(np.full(len(area), area[0]), rel=EXACT)


@pytest.mark.parametrize("name", RIGS)
def test_faces_close_the_sphere(name):
    # a closed surface has no net normal area
    corners = rig(name).face_corners
    assert (normals(corners) * areas(corners)[:, None]).sum(0) == pytest.approx(np.zeros(3), abs=EXACT)
    assert rig(name).face_directions.sum(0) == pytest.approx(np.zeros(3), abs=1e-8)


def test_unknown_rig_is_named_with_those_that_exist():
    with pytest.raises(ValueError, match=r"cube.*tetrahedron.*icosahedron"):
        rig("cube")


def test_radiance_is_d_squared_over_a_times_i():
    lights = stage()
    expected = (lights.distance**2 / lights.area)[:, None] * lights.intensity
    assert lights.radiance() == pytest.approx(expected, rel=EXACT)


def test_light_is_parallel_to_its_face():
    lights = stage()
    assert normals(lights.corners_mm()) == pytest.approx(normals(lights.rig.face_corners), abs=EXACT)


def test_area_is_relative_to_the_face():
    lights = stage()
    face = areas(lights.rig.face_corners) * STAGE_RADIUS_MM**2
    assert areas(lights.corners_mm()) == pytest.approx(lights.area * face, rel=EXACT)


def test_centroid_lies_at_barycentric_p_of_the_face_at_distance_d():
    lights = stage()
    p = np.concatenate([lights.centre, 1 - lights.centre.sum(1, keepdims=True)], axis=1)
    expected = np.einsum("lk,lkc->lc", p, lights.rig.face_corners) * lights.distance[:, None] * STAGE_RADIUS_MM
    assert lights.corners_mm().mean(axis=1) == pytest.approx(expected, rel=EXACT, abs=1e-6)


def test_irradiance_at_the_centre_does_not_depend_on_distance_or_area():
    # that is what I = (d^2 / a) i is for; exact in the centroid form factor that bookkeeping uses
    near = stage(centre=np.full((20, 2), 1 / 3), distance=np.full(20, 0.7), area=np.full(20, 0.9))
    far = stage(centre=np.full((20, 2), 1 / 3), distance=np.full(20, 4.0), area=np.full(20, 0.1))
    assert near.irradiance() == pytest.approx(far.irradiance(), rel=EXACT)


def test_a_light_that_is_off_is_absent():
    intensity = np.zeros((20, 3))
    intensity[4], intensity[11] = [1, 2, 3], [0, 0, 0.5]
    lights = stage(intensity=intensity)
    on = lights.area_lights()
    assert on.corners == pytest.approx(lights.corners_mm()[[4, 11]])
    assert on.radiance == pytest.approx(lights.radiance()[[4, 11]])


def test_torch_gives_the_same_lights_as_numpy():
    import torch

    from lightstage.rig import light_corners, light_radiance

    lights = stage()
    d, a, p, i = (torch.from_numpy(v) for v in (lights.distance, lights.area, lights.centre, lights.intensity))
    assert light_corners(lights.rig, d, a, p).numpy() == pytest.approx(lights.corners_mm(), rel=EXACT)
    assert light_radiance(d, a, i).numpy() == pytest.approx(lights.radiance(), rel=EXACT)


@pytest.mark.parametrize("radius_deg", [0.27, 4.0, 10.0])
def test_directional_lights_give_unit_irradiance_and_face_the_centre(radius_deg):
    directions = geodesic(1).vertices
    lights = directional_lights(directions, radius_deg)
    middle = lights.corners.mean(axis=1)
    assert middle / np.linalg.norm(middle, axis=1, keepdims=True) == pytest.approx(directions, abs=EXACT)
    assert np.einsum("lc,lc->l", normals(lights.corners), -directions) == pytest.approx(1, abs=EXACT)
    assert triangle_form_factor(lights.corners) * lights.radiance[:, 0] == pytest.approx(1, rel=EXACT)
    # the triangle has the area of the disc
    disc = np.pi * (np.tan(np.radians(radius_deg)) * 5 * STAGE_RADIUS_MM) ** 2
    assert areas(lights.corners) == pytest.approx(disc, rel=EXACT)
