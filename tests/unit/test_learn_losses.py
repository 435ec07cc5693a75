"""Rationale: a loss must be zero at the truth, grow with the error that it is named after, and with nothing else.

Expected behaviour: no weight depends on exposure, resolution, size of the batch, or on how a light is written down;
references are hand computations.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from lightstage.rig import rig
from raytrace_face.face.skin_prior import PERSONAL_SIGMA
from raytrace_face.fit.albedo import EXPOSURE
from raytrace_face.learn import losses
from raytrace_face.learn.light import Lights, radiance_on_sphere


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


# pictures and landmarks


def test_photometric_loss_knows_neither_exposure_nor_resolution_nor_what_is_masked():
    a, b, w = noise(2, 24, 24, 3), noise(2, 24, 24, 3, seed=1), noise(2, 24, 24, seed=2)
    w[:, :, :9] = 0
    here = float(losses.photometric(a, b, w))
    # the smoothing of the L1 is relative to the photo, too: the same to rounding
    assert float(losses.photometric(4 * a, 4 * b, w)) == pytest.approx(here, rel=1e-5)
    big = [x.repeat_interleave(2, 1).repeat_interleave(2, 2) for x in (a, b, w)]
    assert float(losses.photometric(*big)) == pytest.approx(here, rel=1e-5)
    hand = b.clone()
    hand[:, :, :9] = 0  # another thing where the weight is zero
    assert float(losses.photometric(a, hand, w)) == pytest.approx(here, rel=1e-6)
    assert float(losses.photometric(b, b, w)) == 0


def test_photometric_loss_is_the_mean_absolute_error_in_units_of_the_photo():
    photo = torch.full((1, 8, 8, 3), 0.5)
    # 20 % too bright everywhere; the smooth L1 is short by its scale of 0.01
    assert float(losses.photometric(1.2 * photo, photo, torch.ones(1, 8, 8))) == pytest.approx(0.2, abs=0.0101)


def test_a_photo_without_weight_counts_nothing():
    a, b = noise(2, 8, 8, 3), noise(2, 8, 8, 3, seed=1)
    w = torch.ones(2, 8, 8)
    w[1] = 0
    assert float(losses.photometric(a, b, w)) == pytest.approx(float(losses.photometric(a[:1], b[:1], w[:1])), rel=1e-6)
    assert float(losses.photometric(a, b, 0 * w)) == 0


def test_landmark_error_is_in_standard_deviations():
    """With a crop 200 mm wide, 0.01 sides are 2 mm; the deviation is sqrt(6 (1 + 0)) mm: 0.8165 of them."""
    observed = noise(1, 4, 2)
    moved = observed + torch.tensor([0.01, 0.0])
    args = (torch.full((1, 4), 200.0), torch.zeros(4), torch.ones(1, dtype=torch.bool))
    z = 2 / math.sqrt(6)
    expected = (math.sqrt(z * z + 9) - 3) / 2  # the mean over both axes, one of them without error
    assert float(losses.landmark_reprojection(moved, observed, *args)) == pytest.approx(expected, rel=1e-3)
    assert float(losses.landmark_reprojection(observed, observed, *args)) == 0
    far = observed + torch.tensor([1.0, 0.0])  # robust: linear beyond three deviations
    farther = observed + torch.tensor([2.0, 0.0])
    ratio = losses.landmark_reprojection(farther, observed, *args) / losses.landmark_reprojection(far, observed, *args)
    assert float(ratio) == pytest.approx(2, abs=0.1)


def test_photos_without_landmarks_do_not_count():
    observed = noise(2, 4, 2)
    moved = observed.clone()
    moved[1] += 0.3
    args = (torch.full((2, 4), 200.0), torch.zeros(4))
    assert float(losses.landmark_reprojection(moved, observed, *args, torch.tensor([True, False]))) == 0


# light


def lights(directions: np.ndarray, strength: list[float], ambient: float = 0.02) -> Lights:
    """A stage whose first lights stand at given directions; the others are dark."""
    from lightstage.solve import condense

    B = 1
    stages = [condense(rig(), d[None], np.ones((1, 3))) for d in directions]
    distance, area, centre = torch.full((B, 20), 5.0), torch.full((B, 20), 0.01), torch.full((B, 20, 2), 1 / 3)
    irradiance = torch.zeros(B, 20, 3)
    for stage, value in zip(stages, strength, strict=True):
        face = int(np.argmax(stage.intensity.max(axis=1)))
        centre[0, face] = torch.from_numpy(stage.centre[face].astype(np.float32))
        irradiance[0, face] = value
    return Lights(distance, area, centre, irradiance, torch.full((B, 12, 3), ambient))


def at(azimuth_deg: float, elevation_deg: float = 10.0) -> np.ndarray:
    a, e = np.radians(azimuth_deg), np.radians(elevation_deg)
    return np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])


def truth_of(light: Lights) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return light.directions(), light.irradiance, light.ambient_sh()


def test_blur_on_the_sphere_keeps_the_irradiance():
    """The mean over the sphere of a light's lobe, times 4 pi, is pi times its irradiance / pi."""
    for k, rel in ((2.0, 1e-3), (8.0, 1e-3), (32.0, 5e-3)):  # the narrowest lobe spans few directions
        blurred = radiance_on_sphere(torch.tensor([[[0.3, 0.1, 0.9487]]]), torch.ones(1, 1, 3), torch.zeros(1, 9, 3), k)
        assert 4 * math.pi * float(blurred.mean()) == pytest.approx(math.pi, rel=rel)


def test_light_loss_grows_with_the_angle_and_is_zero_at_the_truth():
    truth = truth_of(lights(at(30)[None], [1.0]))
    error = [float(losses.light_distance(lights(at(30 + d)[None], [1.0]), *truth)) for d in (0, 4, 10, 25, 60, 120)]
    assert error[0] == pytest.approx(0, abs=1e-5)
    assert error == sorted(error)
    assert error[-1] > 1.15 * error[-2]  # still a slope, far beyond the width of the narrow lobes


def test_light_loss_does_not_care_how_a_light_is_written_down():
    """Half the light twice, slots in any order, dark slots anywhere: all the same light."""
    light = lights(np.stack([at(40), at(-70)]), [1.0, 0.5])
    directions, irradiance, sky = truth_of(light)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    twice = torch.cat([directions, directions], dim=1), torch.cat([irradiance, irradiance], dim=1) / 2, sky
    other = lights(at(-20)[None], [1.0])
    expected = float(losses.light_distance(other, directions, irradiance, sky))
    assert float(losses.light_distance(light, directions[:, order], irradiance[:, order], sky)) == pytest.approx(
        0, abs=1e-5
    )
    assert float(losses.light_distance(other, *twice)) == pytest.approx(expected, rel=1e-5)


def test_light_loss_does_not_depend_on_exposure():
    a, b = lights(at(30)[None], [1.0], 0.02), lights(at(50)[None], [1.2], 0.03)
    bright = [lights(at(30)[None], [4.0], 0.08), lights(at(50)[None], [4.8], 0.12)]
    assert float(losses.light_distance(*bright[:1], *truth_of(bright[1]))) == pytest.approx(
        float(losses.light_distance(a, *truth_of(b))), rel=1e-4
    )


def test_descent_on_the_light_loss_finds_the_light():
    """From even light, free shares and centres reach a light 70 degrees to the side: within 3 degrees in 200 steps."""
    truth = lights(at(70, 20)[None], [1.0])
    share, centre = torch.zeros(1, 20, requires_grad=True), torch.zeros(1, 20, 3, requires_grad=True)
    optimiser = torch.optim.Adam([share, centre], lr=0.1)
    for _ in range(200):
        light = Lights(
            truth.distance, truth.area, torch.softmax(centre, 2)[..., :2],
            torch.softmax(share, 1)[..., None].expand(-1, -1, 3), truth.ambient,
        )  # fmt: skip
        loss = losses.light_distance(light, *truth_of(truth))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    found = light.dominant().detach()[0].numpy()
    assert np.degrees(np.arccos(min(float(found @ at(70, 20)), 1.0))) < 3


@pytest.mark.parametrize("degrees", [0.0, 2.0, 12.0, 60.0, 180.0])
def test_dominant_light_error_is_the_chord(degrees):
    """2 sin(angle / 2), smooth below 0.05, which is 3 degrees."""
    light = lights(at(30, 0)[None], [1.0])
    truth = torch.from_numpy(at(30 + degrees, 0)[None].astype(np.float32))
    chord = 2 * math.sin(math.radians(degrees) / 2)
    expected = math.sqrt(chord**2 + 0.05**2) - 0.05
    assert float(losses.dominant_light(light, truth, torch.ones(1))) == pytest.approx(expected, abs=1e-4)
    assert float(losses.dominant_light(light, truth, torch.zeros(1))) == 0


def test_dominant_light_error_is_as_steep_near_the_truth_as_far_away():
    """A degree counts as much at 12 degrees as at 70, and at the truth the gradient is finite."""
    light = lights(at(30, 0)[None], [1.0])

    def error(degrees: float) -> torch.Tensor:
        return losses.dominant_light(light, torch.from_numpy(at(30 + degrees, 0)[None]).float(), torch.ones(1))

    near, far = (float(error(d + 0.5) - error(d - 0.5)) for d in (12, 70))
    assert near > far > 0
    light.centre.requires_grad_()
    error(0.0).backward()
    assert light.centre.grad is not None
    assert torch.isfinite(light.centre.grad).all()


def test_few_lights_have_less_entropy_than_many():
    even = Lights(*(getattr(lights(at(0)[None], [1.0]), f) for f in ("distance", "area", "centre")),
                  torch.ones(1, 20, 3), torch.ones(1, 12, 3))  # fmt: skip
    assert float(losses.light_spread(even)) == pytest.approx(1)
    assert float(losses.light_spread(lights(at(0)[None], [1.0]))) == pytest.approx(0, abs=1e-6)
    two = lights(np.stack([at(60), at(-60)]), [1.0, 1.0])
    assert float(losses.light_spread(two)) == pytest.approx(math.log(2) / math.log(20), rel=1e-4)


def test_exposure_prior_is_least_for_white_light_exposed_for_skin():
    """Ambient alone: radiance 4 w from everywhere is irradiance / pi of 4 w."""

    def even(level: float, tint: tuple[float, ...] = (1, 1, 1)) -> float:
        light = lights(at(0)[None], [0.0])
        ambient = torch.full((1, 12, 3), level / 4) * torch.tensor(tint)
        return float(losses.exposure_prior(Lights(light.distance, light.area, light.centre, light.irradiance, ambient)))

    assert even(EXPOSURE) == pytest.approx(0, abs=1e-6)
    assert even(EXPOSURE * math.exp(0.6)) == pytest.approx(1, rel=1e-3)  # one standard deviation
    assert even(EXPOSURE, (1.3, 1.0, 0.8)) > even(EXPOSURE, (1.1, 1.0, 0.95)) > 0.1


# shape, maps, people


def test_vertex_distance_is_a_weighted_mean_in_mm():
    truth = noise(2, 5, 3)
    moved = truth + torch.tensor([3.0, 0.0, 4.0])
    weight = torch.tensor([1.0, 0.5, 0.0, 0.0, 2.0])
    # 5 mm; the smooth part is sqrt(25 + 0.25) - 0.5
    assert float(losses.vertex_distance(moved, truth, weight)) == pytest.approx(math.sqrt(25.25) - 0.5, rel=1e-5)
    moved[:, 2:4] += 100  # without weight
    assert float(losses.vertex_distance(moved, truth, weight)) == pytest.approx(math.sqrt(25.25) - 0.5, rel=1e-5)
    same = truth.clone().requires_grad_()
    losses.vertex_distance(same, truth, weight).backward()
    assert same.grad is not None
    assert torch.isfinite(same.grad).all()


def test_rotation_distance_is_the_squared_angle():
    A = torch.from_numpy(Rotation.from_rotvec([[0.1, 0.2, -0.3]]).as_matrix())
    B = torch.from_numpy(Rotation.from_rotvec([[0.0, 0.08, 0.0]]).as_matrix()) @ A
    # 2 (1 - cos 0.08) is 0.08^2 to a part in 2000
    assert float(losses.rotation_distance(A, B)) == pytest.approx(0.08**2, rel=1e-3)


def test_identity_is_compared_within_people_only():
    """Persons 4, 7, 4 and an unknown one: one pair, (0, 2), whose half mean square is (4 + 0) / 2 / 2 = 1."""
    x = torch.tensor([[1.0, 5.0], [100.0, -100.0], [3.0, 5.0], [-50.0, 0.0]])
    assert float(losses.same_person(x, torch.tensor([4, 7, 4, -1]))) == pytest.approx(1)
    assert float(losses.same_person(x, torch.tensor([-1, -1, -1, -1]))) == 0
    assert float(losses.same_person(x, torch.tensor([0, 1, 2, 3]))) == 0


def test_symmetry_and_consistency_of_maps():
    half = noise(1, 16, 8, 3)
    even = torch.cat([half, half.flip(2)], dim=2)
    assert float(losses.symmetry(even)) == 0
    assert float(losses.symmetry(noise(1, 16, 16, 3))) > 0.1
    assert float(losses.consistency(torch.full((1, 4, 4, 3), 0.3))) == pytest.approx(0.09, rel=1e-5)


def test_smoothness_does_not_depend_on_the_texture():
    """A ramp of one over the texture, at 64 and at 128 texels: the mean squared slope, up to the missing last texel."""
    slope = []
    for size in (64, 128):
        ramp = torch.linspace(0.5 / size, 1 - 0.5 / size, size).view(1, 1, size, 1).expand(1, size, size, 3)
        slope.append(float(losses.smoothness(ramp)))
    assert slope[0] == pytest.approx(1e-4, rel=1e-3)  # in hundredths of the texture
    assert slope[1] == pytest.approx(slope[0], rel=1e-3)


def test_confidence_is_best_where_it_claims_the_error_that_is_there():
    """For errors of RMS e the likelihood is greatest at 1 - c = (e^2 - floor^2) / prior^2."""
    g = torch.Generator().manual_seed(0)
    error = 0.2
    truth = error * torch.randn(1, 64, 64, 3, generator=g)
    claims = torch.linspace(0, 1, 201)
    loss = [
        float(losses.confidence(torch.zeros_like(truth), truth, c.expand(1, 64, 64), torch.ones(1, 64, 64)))
        for c in claims
    ]
    best = float(claims[int(np.argmin(loss))])
    expected = 1 - (error**2 - losses.CONFIDENCE_FLOOR**2) / PERSONAL_SIGMA**2
    assert best == pytest.approx(expected, abs=0.03)  # 12288 draws: the variance is good to 1.3 %


def test_confidence_does_not_move_the_map():
    log, c = noise(1, 8, 8, 3).requires_grad_(), torch.full((1, 8, 8), 0.5, requires_grad=True)
    losses.confidence(log, noise(1, 8, 8, 3, seed=1), c, torch.ones(1, 8, 8)).backward()
    assert log.grad is None
    assert c.grad is not None


def test_albedo_of_a_map_is_compared_where_it_counts():
    truth = noise(1, 8, 8, 3)
    weight = torch.zeros(1, 8, 8)
    weight[:, :4] = 1
    other = truth.clone()
    other[:, 4:] += 9
    assert float(losses.albedo_map(other, truth, weight)) == 0
    other[:, :4] += 0.5
    assert float(losses.albedo_map(other, truth, weight)) == pytest.approx(math.sqrt(0.25 + 0.0025) - 0.05, rel=1e-4)


def test_detail_of_albedo_does_not_count_tone():
    """Skin that is darker or redder all over is no error; a mole that is missing is, and more so beside wrong tone."""
    truth = torch.zeros(1, 8, 8, 3)
    weight = torch.ones(1, 8, 8)
    tone = torch.tensor([0.5, -0.2, 0.1])
    assert float(losses.albedo_detail(truth + tone, truth, weight)) == pytest.approx(0, abs=1e-6)
    mole = truth.clone()
    mole[0, 3, 3] = -1
    assert float(losses.albedo_detail(truth + tone, mole, weight)) == pytest.approx(
        float(losses.albedo_detail(truth, mole, weight)), rel=1e-4
    )
    found = (truth + tone).requires_grad_()
    losses.albedo_detail(found, mole, weight).backward()
    assert float(found.grad[0, 3, 3].sum()) > 0  # darker there would be better, though all is off by tone


def test_priors_are_in_standard_deviations():
    T = torch.eye(4)[None].repeat(2, 1, 1)
    T[0, 2, 3], T[1, 2, 3] = -1100.0, -1100.0 * math.exp(0.45)
    assert float(losses.distance_prior(T)) == pytest.approx(0.5, rel=1e-4)  # zero and one deviation
    x = torch.tensor([[0.5, 0.3]])
    assert float(losses.expression_prior(x, x - 0.2)) == pytest.approx(1, rel=1e-5)
    assert float(losses.gaussian(torch.tensor([1.0, -2.0, 3.0]))) == pytest.approx(14 / 3)
