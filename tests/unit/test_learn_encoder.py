"""Rationale: a network begins where statistics end, needs nobody else's photo, and no landmarks.

Expected behaviour: untrained it predicts the start and the statistical maps; maps stay within their bounds; a photo is
predicted alike in any company; without a hint nothing of landmarks and chart is left in the prediction.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from raytrace_face.learn.chart import CHANNELS, EVIDENCE, RATIO
from raytrace_face.learn.decoders import (
    DIFFUSE_LOG,
    RESERVE,
    SPECULAR_LOG,
    Decoders,
    StatisticalSkin,
    statistical_maps,
    with_increments,
)
from raytrace_face.learn.encoder import Encoder, EncoderConfig, Hint
from raytrace_face.learn.parameters import ALBEDO, EXPRESSION, SIZE, as_it_is, bounded, unpack
from raytrace_face.learn.recipe import Network
from raytrace_face.learn.start import Start
from tests.unit.learned import neutral

SMALL = EncoderConfig(crop=32, width=16, latent=32)
SCALES = [16, 32, 64, 128]
"""Channels of the chart's features in it."""


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def crops(batch: int, seed: int = 0) -> Tensor:
    return noise(batch, 3, 32, 32, seed=seed)


def charts(batch: int, seed: int = 1) -> Tensor:
    return 2 * noise(batch, CHANNELS, 32, 32, seed=seed) - 1


def hint_of(batch: int, given: bool = True, seed: int = 9) -> Hint:
    landmarks, weights = noise(batch, 478, 2, seed=seed), noise(batch, EXPRESSION, seed=seed + 1)
    return Hint(landmarks, weights, torch.full((batch,), given))


def shaken(seed: int = 0) -> Encoder:
    """A small encoder whose last layer is not zero."""
    torch.manual_seed(seed)
    encoder = Encoder(SMALL)
    torch.nn.init.normal_(encoder.out.weight, std=0.1)
    return encoder


# the encoder


@torch.no_grad()
def test_the_untrained_network_predicts_the_start():
    code = Encoder(SMALL)(crops(2), charts(2), neutral(2), hint_of(2))
    assert not code.raw.any()
    assert code.latent.shape == (2, 32)
    assert code.latent.any()
    assert [tuple(s.shape) for s in code.scales] == [(2, c, 8 >> k, 8 >> k) for k, c in enumerate(SCALES)]


@torch.no_grad()
def test_a_photo_is_predicted_alike_alone_and_in_a_batch():
    """No batch statistics: two processes with half the batch each make the same step as one."""
    encoder, photos, unwrapped, hint = shaken(), crops(4), charts(4), hint_of(4)
    together = encoder(photos, unwrapped, neutral(4), hint)
    for i in range(4):
        own = Hint(hint.landmarks[i : i + 1], hint.blendshapes[i : i + 1], hint.given[i : i + 1])
        alone = encoder(photos[i : i + 1], unwrapped[i : i + 1], neutral(), own)
        assert torch.allclose(together.raw[i], alone.raw[0], atol=1e-4)  # float32 sums in another order
        assert all(torch.allclose(a[i], b[0], atol=1e-4) for a, b in zip(together.scales, alone.scales, strict=True))
    assert float((together.raw[0] - together.raw[1]).abs().max()) > 0.01


@torch.no_grad()
def test_hints_taken_away_leave_no_trace():
    """Nor does the chart, whatever it holds; and no hint at all is the same as one that is not given."""
    encoder, photos = shaken(), crops(3)
    bare = encoder(photos, charts(3, seed=2), neutral(3))
    kept = torch.tensor([True, False, False])
    some = encoder(photos, charts(3), neutral(3), hint_of(3).only(kept))
    assert torch.equal(bare.raw[1:], some.raw[1:])
    assert all(not s[1:].any() for s in some.scales)
    assert not torch.allclose(bare.raw[:1], some.raw[:1])


@torch.no_grad()
def test_crop_chart_landmarks_and_start_are_all_looked_at():
    encoder, start = shaken(), neutral(1)
    own = encoder(crops(1), charts(1), start, hint_of(1)).raw
    moved = replace(start, identity=torch.ones_like(start.identity))
    others = [
        encoder(crops(1, seed=5), charts(1), start, hint_of(1)), encoder(crops(1), charts(1, 5), start, hint_of(1)),
        encoder(crops(1), charts(1), start, hint_of(1, seed=5)), encoder(crops(1), charts(1), moved, hint_of(1)),
    ]  # fmt: skip
    assert all(float((other.raw - own).abs().max()) > 1e-3 for other in others)


@torch.no_grad()
@pytest.mark.parametrize("size", [64, 96])
def test_crops_of_any_multiple_of_32_fit(size):
    assert shaken()(torch.rand(1, 3, size, size), charts(1), neutral(), hint_of(1)).raw.shape == (1, SIZE)


def test_every_weight_is_reached_by_the_gradient():
    encoder, decoders = shaken(), Decoders(32, SCALES, 32, 16)
    for module in decoders.modules():  # past their first step, when the last layers are no longer zero
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.2)
    for module in encoder.modules():
        if isinstance(module, torch.nn.GroupNorm):
            torch.nn.init.ones_(module.weight)
    code = encoder(crops(4), charts(4), neutral(4), hint_of(4))
    maps = decoded(decoders, code.latent, code.scales, evidence(4), unpack(code.raw, neutral(4)).albedo)
    (code.raw.square().sum() + maps.diffuse.sum() + maps.specular.sum() + maps.confidence.sum()).backward()
    for name, parameter in [*encoder.named_parameters(), *decoders.named_parameters()]:
        assert parameter.grad is not None, name
        assert float(parameter.grad.abs().max()) > 0, name


# the decoders


def flat_skin(size: int) -> StatisticalSkin:
    """Even skin whose modes are even, too."""
    mode = torch.linspace(-0.3, 0.3, ALBEDO)[:, None, None, None].expand(ALBEDO, size, size, 3)
    even = torch.full((size, size), 0.03)
    return StatisticalSkin(torch.full((size, size, 3), -1.2), mode.contiguous(), even, torch.full((size, size), 0.5))


def decoded(decoders: Decoders, latent: Tensor, scales: tuple[Tensor, ...], shown: Tensor, albedo: Tensor):
    return with_increments(flat_skin(shown.shape[-1]), albedo, *decoders.increments(latent, scales, shown))


def features(batch: int, texture: int) -> tuple[Tensor, ...]:
    return tuple(noise(batch, c, texture >> k, texture >> k, seed=k) for k, c in enumerate(SCALES, start=2))


def evidence(batch: int, texture: int = 32, seed: int = 3) -> Tensor:
    return RATIO * (2 * noise(batch, EVIDENCE, texture, texture, seed=seed) - 1)


@torch.no_grad()
def test_untrained_decoders_without_evidence_give_the_statistical_maps():
    """Whatever code and features are: the last layers are zero."""
    albedo = torch.randn(2, ALBEDO, generator=torch.Generator().manual_seed(7))
    maps = decoded(Decoders(32, SCALES, 32, 16), torch.rand(2, 32), features(2, 32), 0 * evidence(2), albedo)
    plain = statistical_maps(flat_skin(32), albedo)
    assert torch.equal(maps.diffuse, plain.diffuse)
    assert torch.equal(maps.specular, plain.specular)
    expected = np.exp(-1.2 + albedo.numpy() @ np.linspace(-0.3, 0.3, ALBEDO))
    assert plain.diffuse[:, 5, 9, 1].numpy() == pytest.approx(np.clip(expected, 0.002, 0.98), rel=1e-5)
    assert not plain.confidence.any()
    assert float(maps.confidence.max()) < 0.15  # and trust themselves little


@torch.no_grad()
def test_untrained_decoders_take_a_twentieth_of_the_photos_own_ratio():
    shown = evidence(1)
    increment, gloss, _ = Decoders(32, SCALES, 32, 16).increments(torch.rand(1, 32), features(1, 32), shown)
    gain = 1 / (1 + np.exp(RESERVE))
    assert gain == pytest.approx(0.05, abs=0.005)
    # bent by its bound by less than a hundredth
    assert increment[0].numpy() == pytest.approx(gain * shown[0, :3].permute(1, 2, 0).numpy(), rel=0.01, abs=1e-6)
    assert not gloss.any()


@torch.no_grad()
@pytest.mark.parametrize("gain", [0.0, 0.3, 1.0])
def test_the_gain_takes_a_part_of_the_photos_own_ratio_and_never_more(gain):
    """From nothing to all of it; the whole ratio of 2 is bent below the bound of the maps."""
    decoders, shown = Decoders(32, SCALES, 32, 16), evidence(1)
    decoders.diffuse.last.bias[3] = RESERVE + torch.logit(torch.tensor(gain)).clamp(-100, 100)
    increment, _, _ = decoders.increments(torch.rand(1, 32), features(1, 32), shown)
    ratio = shown[:, :3].permute(0, 2, 3, 1)
    expected = bounded(gain * ratio, -DIFFUSE_LOG, DIFFUSE_LOG)
    assert torch.allclose(increment, expected, atol=1e-6)
    assert bool((increment.abs() <= ratio.abs() + 1e-6).all())


@torch.no_grad()
@pytest.mark.parametrize("texture", [32, 128])
def test_maps_stay_within_bounds(texture):
    torch.manual_seed(3)
    decoders = Decoders(32, SCALES, texture, 16)
    for parameter in decoders.parameters():
        parameter.normal_(0, 2)
    args = (100 * torch.rand(2, 32), features(2, texture), 50 * evidence(2, texture))
    maps = decoded(decoders, *args, torch.zeros(2, ALBEDO))
    assert maps.diffuse.shape == (2, texture, texture, 3)
    assert float(maps.diffuse_increment.abs().max()) == pytest.approx(DIFFUSE_LOG, abs=1e-6)
    gloss = maps.specular_increment
    assert (float(gloss.min()), float(gloss.max())) == pytest.approx(SPECULAR_LOG, abs=1e-6)  # reached, to rounding
    assert 0 <= float(maps.confidence.min()) <= float(maps.confidence.max()) <= 1
    one = maps.maps(1)
    assert one.specular.shape == (texture, texture, 3)
    assert 0.002 <= one.diffuse.min() <= one.diffuse.max() <= 0.98


def test_a_texture_that_five_doublings_do_not_reach_is_refused():
    with pytest.raises(ValueError, match="100"):
        Decoders(32, SCALES, 100)


# both


@pytest.fixture(scope="module")
def network(mi):
    """A small one, no part of which is zero; `mi` lays out the statistical skin."""
    from raytrace_face.learn.network import FaceNetwork

    torch.manual_seed(4)
    made = FaceNetwork(Network(crop=32, width=16, latent=32, texture=32, decoder_width=16))
    with torch.no_grad():
        for layer in (made.encoder.out, made.decoders.diffuse.last, made.decoders.specular.last):
            layer.weight.normal_(0, 0.1)
        for module in made.modules():
            if isinstance(module, torch.nn.GroupNorm):
                module.weight.fill_(1)
    return made.eval()


@torch.no_grad()
def test_without_a_hint_the_prediction_knows_nothing_of_landmarks_and_chart(network):
    """Neither vector nor maps: the same bits whatever they hold. With the hint, all of them count."""

    def predict(seed: int, given: bool) -> dict[str, Tensor]:
        hint = hint_of(2, given, seed)
        start = neutral(2).tensors()
        return network(crops(2), charts(2, seed), start, (hint.landmarks, hint.blendshapes, hint.given), True)

    one, two = predict(11, False), predict(22, False)
    assert one.keys() == {"raw", "latent", "gain", "diffuse", "specular", "confidence"}
    assert not one["gain"].any()  # there is nothing to expose for
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert all(
        not torch.allclose(a, b) for a, b in zip(predict(11, True).values(), predict(22, True).values(), strict=True)
    )


@torch.no_grad()
def test_decoders_see_the_photo_through_the_predicted_face(network, monkeypatch):
    """Not through the start: evidence is that of the photo unwrapped by the prediction, under its exposed lights."""
    from raytrace_face.learn import chart as charted
    from raytrace_face.learn.shadow import reach

    told = []
    keep = network.decoders.increments
    monkeypatch.setattr(network.decoders, "increments", lambda *args: (told.append(args[2]), keep(*args))[1])
    start, hint, crop = neutral(2), hint_of(2, True, 3), crops(2)
    out = network(crop, charts(2, 3), start.tensors(), (hint.landmarks, hint.blendshapes, hint.given), True)
    face = unpack(out["raw"], start)
    albedo = network.log_mean + torch.tensordot(face.albedo, network.modes, dims=1)
    shade, lights = reach(face.lights, network.open_sky, 32), face.lights.exposed(out["gain"])

    def evidence_through(seen) -> Tensor:
        return charted.evidence(charted.unwrap(network.head, network.chart, seen, crop), lights, albedo, shade)

    assert torch.allclose(told[0], evidence_through(face), atol=1e-5)
    assert float((told[0] - evidence_through(as_it_is(start))).abs().max()) > 0.1


@torch.no_grad()
def test_lent_details_reach_encoder_and_decoders(network, monkeypatch):
    """Factors of one change nothing; of two, the code, and what the photo says of albedo, by log 2 less its floor."""
    from raytrace_face.learn.chart import unwrap

    told = []
    keep = network.decoders.increments
    monkeypatch.setattr(network.decoders, "increments", lambda *args: (told.append(args[2]), keep(*args))[1])
    monkeypatch.setattr("raytrace_face.learn.network.exposure", lambda chart, *_: chart.new_zeros(len(chart), 3))
    hint, start, crop = hint_of(2, True, 3), neutral(2), 0.5 * crops(2)
    chart = unwrap(network.head, network.chart, as_it_is(start), crop)
    args = (crop, chart, start.tensors(), (hint.landmarks, hint.blendshapes, hint.given), True)
    ones = torch.ones(2, 3, 32, 32)
    codes = [network(*args, lent=lent)["latent"] for lent in (None, ones, 2 * ones)]
    assert torch.allclose(codes[0], codes[1], atol=1e-4)
    assert not torch.allclose(codes[0], codes[2], atol=1e-2)
    ratio = [shown[:, :3] for shown in told]
    assert torch.allclose(ratio[0], ratio[1], atol=1e-3)
    well = (told[0][:, 3:4] > 0.9).expand_as(ratio[0])
    gained = (ratio[2] - ratio[0])[well]
    assert 0.3 < float(gained.median()) < np.log(2)


@torch.no_grad()
def test_what_is_beheld_of_a_photo_without_landmarks_is_its_crop(mi, network):
    """Undetected, or not told: other landmarks, weights and starts of the item leave the prediction as it is."""
    from raytrace_face.face.store import load_embedded
    from raytrace_face.learn.chart import Chart
    from raytrace_face.learn.decoders import embedded_skin
    from raytrace_face.learn.head import TorchHead
    from raytrace_face.learn.inputs import behold

    model = load_embedded(0)
    head, chart = TorchHead.of(model), Chart.of(model, embedded_skin(32)[1])

    def predict(seed: int, detected: list[bool], kept: list[bool]) -> dict[str, Tensor]:
        bare = neutral(3)
        start = replace(
            bare, centre=bare.centre + 0.1 * noise(3, 2, seed=seed), log_width=bare.log_width + noise(3, seed=seed),
            identity=noise(3, 60, seed=seed), expression=noise(3, EXPRESSION, seed=seed),
        )  # fmt: skip
        batch = {
            "image": crops(3), "landmarks": noise(3, 478, 2, seed=seed), "blendshapes": noise(3, EXPRESSION, seed=seed),
            "detected": torch.tensor(detected),
            "start": dict(zip(Start.__dataclass_fields__, start.tensors(), strict=True)),
        }  # fmt: skip
        seen = behold(head, chart, batch, torch.tensor(kept))
        assert seen.hint.given.tolist() == [a and b for a, b in zip(detected, kept, strict=True)]
        return network(*seen.tensors(), True)

    one, two = (predict(seed, [False, True, True], [True, False, True]) for seed in (1, 2))
    for name in one:
        assert torch.equal(one[name][:2], two[name][:2]), name
        assert not torch.allclose(one[name][2], two[name][2]), name
