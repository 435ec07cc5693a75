"""Rationale: the loss of a traced picture reaches every weight of the network, and with the right derivative.

Expected behaviour: `backward` through tracer, head, stage, maps, vector and network agrees with central differences of
the same picture along directions in the space of weights. Both see the *same random numbers*: the tracer draws its
backward samples from seed 2 s + 1, so differences are taken of that picture; and they see the same choice of lights,
because the gradient holds importance sampling: it is even in these tests. The network runs in float64 and
the tracer in float32.

Visibility is sampled and not differentiated (`tracer.render`): where shape or lights move, pixels are well inside the
forehead and shadows are off; where only strengths, colours and maps change, the whole face is traced with shadows. The
ambient is sampled about the normal, which the gradient holds: it is dark where shape moves.

The transport form is the same picture by another sum: for light and albedo its gradient is that of the path tracer.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from raytrace_face.face.store import load_embedded
from raytrace_face.learn import start as starts
from raytrace_face.learn.chart import CHANNELS, EVIDENCE
from raytrace_face.learn.decoders import Decoders, PredictedMaps, StatisticalSkin, statistical_maps, with_increments
from raytrace_face.learn.encoder import Encoder, EncoderConfig, Hint
from raytrace_face.learn.head import TorchHead
from raytrace_face.learn.parameters import BLOCKS, EXPRESSION, SIZE, Predicted, unpack

SEED = 5
CROP, PICTURE, TEXTURE = 32, 40, 32
"""Pixels a side that the network sees and that are traced; texels."""
CHANGE = 3e-4
"""Change of the sum of a picture by a difference, relative. Smaller, and float32 pixels do not resolve it well; larger,
and too many samples pass to another triangle or texel where something moves."""
TOLERANCE = 0.02
"""Relative. Found are 1e-4 where nothing moves, 5e-3 where samples pass to other triangles and texels."""
LIGHT = ("strength", "lamp_colour", "ambient")
SHAPE = ("identity", "expression", "rotation", "centre", "log_width", "log_distance")
PLACE = ("lamp_share", "lamp_direction", "lamp_distance", "lamp_area")
"""Shares too: where two lamps hang on one face of the rig, its light stands between them."""


@dataclass
class World:
    """A small network and everything between its weights and a picture."""

    encoder: Encoder
    decoders: Decoders
    crop: Tensor
    chart: Tensor
    start: starts.Start
    hint: Hint
    evidence: Tensor
    """Held, as in training: decoders are judged by their maps, and lights by theirs."""
    head: TorchHead
    skin: StatisticalSkin
    scene: object
    pixels: np.ndarray
    weight: Tensor

    def predict(self) -> tuple[Predicted, Tensor, PredictedMaps]:
        code = self.encoder(self.crop, self.chart, self.start, self.hint)
        p = unpack(code.raw, self.start)
        increments = self.decoders.increments(code.latent, code.scales, self.evidence)
        return p, self.head.vertices(p.identity, p.expression), with_increments(self.skin, p.albedo, *increments)

    def loss(self, shadows: bool) -> Tensor:
        from raytrace_face.learn.render import render_batch

        pixels = [self.pixels] * len(self.crop)
        pictures = render_batch(self.scene, *self.predict(), pixels, PICTURE, SEED, shadows=shadows)
        return (pictures.flatten(1, 2)[:, self.pixels] * self.weight).sum()

    @torch.no_grad()
    def same_noise(self, shadows: bool) -> float:
        """The loss with the random numbers of the backward pass."""
        from raytrace_face.learn import render as learned
        from raytrace_face.tracer import render as tracer

        p, vertices, maps = self.predict()
        total = 0.0
        for i, inputs in enumerate(learned.render_inputs(p, vertices, maps, PICTURE)):
            view = tracer.View(p.crop_camera(i, PICTURE), self.pixels, learned.SAMPLES, shadows)
            flat = [tracer._flat(t) for t in inputs.tensors()]
            seed = 2 * (learned.STRIDE * SEED + i) + 1
            image = tracer._shade(self.scene, view, flat, (TEXTURE,) * 3, seed).numpy().astype(np.float64)
            total += float(image @ self.weight[i].numpy().ravel().astype(np.float64))
        return total


@pytest.fixture(scope="module")
def tracing(mi):
    """The coarse embedded head and its statistical skin."""
    from raytrace_face.tracer.scene import HeadScene
    from raytrace_face.tracer.texture import texel_map

    model = load_embedded(0)
    skin = StatisticalSkin.of(model, texel_map(model, TEXTURE))
    # less shiny than skin: at F0 = 0.04, where lips lie, F90 = min(1, 25 F0) has a kink, and no derivative
    return model, HeadScene(model), replace(skin, specular=0.6 * skin.specular)


@pytest.fixture
def world(tracing) -> World:
    """Two crops and charts of noise, a network past its first step, pixels over the whole face."""
    from raytrace_face.tracer.render import gbuffer

    model, scene, skin = tracing
    torch.manual_seed(1)
    encoder = Encoder(EncoderConfig(crop=CROP, width=16, latent=32))
    decoders = Decoders(32, encoder.chart.channels, TEXTURE, 16)
    torch.nn.init.normal_(encoder.out.weight, std=0.05)
    for decoder in (decoders.diffuse, decoders.specular):
        torch.nn.init.normal_(decoder.last.weight, std=0.1)
    start = starts.neutral(torch.full((2, 2), 0.5, dtype=torch.float64), EXPRESSION)

    def noise(*shape: int) -> Tensor:
        return torch.rand(*shape, dtype=torch.float64)

    made = World(
        encoder.double(), decoders.double(), noise(2, 3, CROP, CROP), noise(2, CHANNELS, TEXTURE, TEXTURE), start,
        Hint(noise(2, 478, 2), noise(2, EXPRESSION), torch.tensor([True, True])),
        2 * noise(2, EVIDENCE, TEXTURE, TEXTURE) - 1, TorchHead.of(model), skin, scene, np.zeros(0, np.int64),
        torch.zeros(0),
    )  # fmt: skip
    scene.move(model.mean)
    p = unpack(torch.zeros(1, SIZE), starts.neutral(torch.full((1, 2), 0.5), EXPRESSION))
    g = gbuffer(scene, p.crop_camera(0, PICTURE), p.T_camera_head[0].numpy())
    return look_at(made, np.flatnonzero((g.part == 0) & ((g.normal * g.view).sum(1) > 0.4)))


def look_at(world: World, pixels: np.ndarray) -> World:
    weight = np.random.default_rng(0).uniform(0.5, 1.5, (2, len(pixels), 3)).astype(np.float32)
    return replace(world, pixels=pixels, weight=torch.from_numpy(weight))


@pytest.fixture
def even_choice(monkeypatch) -> None:
    """Every light is as likely to be sampled as any other, whatever its strength."""
    from raytrace_face.tracer import render as tracer

    def choose(corners, radiance):
        p = np.full(len(radiance), 1 / len(radiance), np.float32)
        return np.cumsum(p).astype(np.float32), p

    monkeypatch.setattr(tracer, "_light_choice", choose)


def rows(*names: str) -> Tensor:
    """(SIZE,) one for the outputs of some blocks, zero for the others."""
    return torch.cat([torch.full((b.size,), float(b.name in names)) for b in BLOCKS]).double()


Direction = list[tuple[torch.nn.Parameter, Tensor]]


def check(world: World, direction: Direction, shadows: bool, rel: float = TOLERANCE) -> None:
    """Derivative of the loss along a direction in weight space, by gradient and by central differences."""
    gradient = slope(world, direction, shadows)
    step = CHANGE / 2 * abs(world.same_noise(shadows) / gradient)
    ends = []
    for s in (-step, step):
        with torch.no_grad():
            for p, d in direction:
                p += s * d
            ends.append(world.same_noise(shadows))
            for p, d in direction:
                p -= s * d
    assert gradient == pytest.approx((ends[1] - ends[0]) / (2 * step), rel=rel)


def slope(world: World, direction: Direction, shadows: bool) -> float:
    """Derivative of the loss along a direction, by `backward`."""
    gradients(world, shadows)
    total = 0.0
    for p, d in direction:
        assert p.grad is not None
        assert torch.isfinite(p.grad).all()
        total += float((p.grad * d).sum())
    return total


def gradients(world: World, shadows: bool) -> None:
    world.encoder.zero_grad()
    world.decoders.zero_grad()
    world.loss(shadows).backward()


def uphill(world: World, shadows: bool, parameters: list[torch.nn.Parameter], mask: Tensor | None = None) -> Direction:
    """Some way from the gradient: a direction that matters, so that differences stand out from rounding."""
    gradients(world, shadows)
    generator = torch.Generator().manual_seed(3)
    out = []
    for p in parameters:
        assert p.grad is not None
        d = p.grad * (0.5 + torch.rand(p.shape, generator=generator, dtype=torch.float64))
        out.append((p, d if mask is None else d * mask.view(-1, *[1] * (d.ndim - 1))))
    size = float(torch.stack([(d**2).sum() for _, d in out]).sum().sqrt())
    assert size > 0
    return [(p, d / size) for p, d in out]


@pytest.mark.usefixtures("even_choice")
@pytest.mark.parametrize("block", LIGHT)
def test_strength_and_colour_of_light_under_shadows(world, block):
    """Nothing moves: the last layer's rows of one block, over the whole face with traced shadows."""
    parameters = [world.encoder.out.weight, world.encoder.out.bias]
    check(world, uphill(world, True, parameters, rows(block)), shadows=True)


@pytest.mark.usefixtures("even_choice")
def test_statistical_albedo_under_shadows(world):
    parameters = [world.encoder.out.weight, world.encoder.out.bias]
    check(world, uphill(world, True, parameters, rows("albedo")), shadows=True)


@pytest.mark.usefixtures("even_choice")
@pytest.mark.parametrize("which", ["diffuse", "specular"])
def test_decoders_under_shadows(world, which):
    decoder = getattr(world.decoders, which)
    check(world, uphill(world, True, list(decoder.parameters())), shadows=True)


@pytest.fixture
def forehead(world, tracing) -> World:
    """Only the convex forehead, with the ambient dark."""
    from raytrace_face.tracer.render import gbuffer

    model, scene, _ = tracing
    with torch.no_grad():
        world.encoder.out.bias += -12 * rows("ambient")
        p, vertices, _ = world.predict()
        pixels = None
        for i in range(2):
            scene.move(vertices[i].numpy())
            g = gbuffer(scene, p.crop_camera(i, PICTURE), p.T_camera_head[i].numpy().astype(np.float32))
            here = (g.part == 0) & (g.interpolate(model.regions["forehead"]) > 0.8)
            here &= (g.normal * g.view).sum(1) > 0.6
            pixels = here if pixels is None else pixels & here
    assert pixels.sum() > 25
    return look_at(world, np.flatnonzero(pixels))


@pytest.mark.usefixtures("even_choice")
@pytest.mark.parametrize("block", SHAPE)
def test_shape_and_pose_on_the_forehead(forehead, block):
    parameters = [forehead.encoder.out.weight, forehead.encoder.out.bias]
    # at one size in the picture, distance hardly shows on a forehead: a hundredth of what the others do
    rel = 0.05 if block == "log_distance" else TOLERANCE
    check(forehead, uphill(forehead, False, parameters, rows(block)), shadows=False, rel=rel)


@pytest.mark.usefixtures("even_choice")
@pytest.mark.parametrize("block", PLACE)
def test_places_of_lights_on_the_forehead(forehead, block):
    parameters = [forehead.encoder.out.weight, forehead.encoder.out.bias]
    check(forehead, uphill(forehead, False, parameters, rows(block)), shadows=False)


@pytest.mark.usefixtures("even_choice")
@pytest.mark.parametrize(
    "layer", ["crop's first convolution", "crop's last block", "chart's first convolution", "join"]
)
def test_from_the_picture_to_the_first_convolutions(forehead, layer):
    """End to end: a change of early weights moves everything at once, shape, pose, light and maps."""
    for module in forehead.encoder.modules():
        if isinstance(module, torch.nn.GroupNorm):  # the residual branches of an untrained network are zero
            torch.nn.init.ones_(module.weight)
    chosen = {
        "crop's first convolution": [forehead.encoder.photo.stem[0].weight],
        "crop's last block": list(forehead.encoder.photo.scales[-1][-1].parameters()),
        "chart's first convolution": [forehead.encoder.chart.stem[0].weight],
        "join": [forehead.encoder.join.weight],
    }[layer]
    check(forehead, uphill(forehead, False, chosen), shadows=False)


# the transport form


def test_transport_has_the_path_tracers_gradient_of_light_and_albedo(world):
    """One trace of one-light-at-a-time columns against 256 rays a pixel, the same light and maps, shadows on.

    By the logarithms of lights: of a slot that is all but dark the path tracer sees few rays, and the change by its
    absolute strength is their noise.
    """
    from raytrace_face.learn.render import render_batch, shade, trace_columns

    with torch.no_grad():
        p, vertices, _ = world.predict()
    x = {
        "irradiance": p.lights.irradiance.float().log(), "ambient": p.lights.ambient.float().log(),
        "albedo": p.albedo.float(),
    }  # fmt: skip
    for tensor in x.values():
        tensor.requires_grad_()
    held = replace(p, lights=replace(p.lights, irradiance=x["irradiance"].exp(), ambient=x["ambient"].exp()))
    maps = statistical_maps(world.skin, x["albedo"])
    seen = render_batch(world.scene, held, vertices, maps, [world.pixels] * 2, PICTURE, SEED, samples=256)
    pictures = seen.flatten(1, 2)[:, world.pixels]
    traced = torch.autograd.grad((pictures * world.weight).sum(), list(x.values()))
    total = torch.zeros(())
    maps = statistical_maps(world.skin, x["albedo"])
    for i in range(2):
        columns = trace_columns(world.scene, p, vertices, maps, i, world.pixels, PICTURE, seed=SEED + i, samples=64)
        light = x["irradiance"][i].exp(), x["ambient"][i].exp()
        colours = shade(columns, *light, maps.diffuse[i], maps.specular[i])
        # pictures: noise of 64 and 256 rays, and the ambient by 42 directions, which is good to 2 % of it
        assert float(((colours - pictures[i]).abs().mean() / pictures[i].mean()).detach()) < 0.03
        total = total + (colours * world.weight[i]).sum()
    linear = torch.autograd.grad(total, list(x.values()))
    for name, a, b in zip(x, traced, linear, strict=True):
        # sums over some 500 pixels: noise below a per cent of the largest entry; the ambient's quadrature 2 %
        error = float((a - b).abs().max() / b.abs().max())
        assert error < (0.03 if name == "ambient" else 0.02), (name, error)
        cosine = float(torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0))
        assert cosine > 0.9995, (name, cosine)


def test_transport_is_linear_in_light_and_its_gradient_is_the_column(world):
    """Derivative of a pixel by the irradiance of a light: albedo times column, to rounding; no second trace."""
    from raytrace_face.learn.render import shade, trace_columns

    with torch.no_grad():
        p, vertices, maps = world.predict()
    columns = trace_columns(world.scene, p, vertices, maps, 0, world.pixels[:50], PICTURE, seed=1, samples=4)
    maps32 = maps.diffuse[0].float(), maps.specular[0].float()
    irradiance = p.lights.irradiance[0].float().requires_grad_()
    ambient = p.lights.ambient[0].float()
    colours = shade(columns, irradiance, ambient, *maps32)
    assert torch.allclose(shade(columns, 2 * irradiance, 2 * ambient, *maps32), 2 * colours, rtol=1e-5, atol=1e-7)
    (gradient,) = torch.autograd.grad(colours[7, 1], irradiance)
    dark = torch.zeros_like(irradiance)
    for light in (0, 7, 13):
        lone = dark.clone()
        lone[light] = 1
        expected = float(shade(columns, lone, 0 * ambient, *maps32)[7, 1])
        assert float(gradient[light, 1]) == pytest.approx(expected, rel=1e-5, abs=1e-9)
    assert not gradient[:, [0, 2]].any()  # the other channels
    assert float(columns.diffuse[:, :20].max()) > 0


def test_seeds_of_faces_and_steps_do_not_repeat(world):
    """The same face twice in a batch, and in the next step, is seen with fresh noise each time."""
    from raytrace_face.learn.render import render_batch

    with torch.no_grad():
        p, vertices, maps = world.predict()
        twin = [0, 0]
        pick = lambda x: x[twin]  # noqa: E731
        same = replace(
            p, identity=pick(p.identity), expression=pick(p.expression), T_camera_head=pick(p.T_camera_head),
            focal=pick(p.focal), principal=pick(p.principal), albedo=pick(p.albedo),
            lights=type(p.lights)(*(pick(getattr(p.lights, f)) for f in p.lights.__dataclass_fields__)),
        )  # fmt: skip
        maps = PredictedMaps(*(pick(getattr(maps, f)) for f in maps.__dataclass_fields__))
        args = (world.scene, same, pick(vertices), maps, [world.pixels] * 2, PICTURE)
        first, second = render_batch(*args, seed=0), render_batch(*args, seed=1)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    # but the same face: 8 rays a pixel leave tens of per cent of noise on each, two on the mean
    assert float(first[0].mean()) == pytest.approx(float(first[1].mean()), rel=0.05)
    off = np.setdiff1d(np.arange(PICTURE * PICTURE), world.pixels)
    assert not first.flatten(1, 2)[:, off].any()
