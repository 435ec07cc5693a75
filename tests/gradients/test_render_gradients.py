"""Rationale: the tracer's gradients are the derivatives of its pictures, for everything that the fit moves.

Expected behaviour: automatic differentiation of a weighted sum of pixels agrees with central differences of the same
sum. The two use the *same random numbers*: `render` draws its forward samples from seed 2 s and those of the backward
pass from 2 s + 1, so the differences are taken of `_shade` with 2 s + 1. Then both are derivatives of one smooth
function, and no Monte-Carlo noise is left between them.

Visibility is sampled, not differentiated (see `tracer.render`). So where something moves, pixels are interior to a
convex patch and shadows are off: no silhouette, horizon or shadow edge crosses a sample. Where only radiance or
albedo changes, nothing moves, and gradients are exact with shadows on: tested on the real head.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from lightstage.rig import light_corners, light_radiance, rig
from raytrace_face.face.store import load_embedded
from raytrace_face.types import Camera
from tests.physics.bodies import ball, both, inputs_of, model_of, portrait, triangle_light

SEED = 3
TOLERANCE = 0.01
"""Relative. Sums of 1e4 float32 values carry 1e-6; over steps that change them by 1e-3 to 1e-2 that is 1e-3 to 1e-4.
Samples that change triangle, texel or the sign of a cosine within the step add a few 1e-3."""
KEY = triangle_light((200, 150, 600), 120, (14, 12, 9))


@pytest.fixture(scope="module")
def tracer(mi):
    from raytrace_face.tracer import render, scene

    return render, scene


class Subject:
    """A body under a light, the pixels looked at, and the weights that make one number of them."""

    def __init__(self, tracer, model, camera: Camera, T, pixels, inputs, shadows: bool = False, samples: int = 16):
        self.render, scene = tracer
        self.head = scene.HeadScene(model)
        self.view = self.render.View(camera, pixels, samples, shadows)
        self.inputs = inputs
        self.T = T
        self.weight = torch.from_numpy(np.random.default_rng(0).uniform(0.5, 1.5, (len(pixels), 3)).astype(np.float32))

    def loss(self, inputs) -> torch.Tensor:
        return (self.render.render(self.head, self.view, inputs, SEED) * self.weight).sum()

    def same_noise(self, inputs) -> float:
        """The loss with the random numbers of the backward pass."""
        tensors = inputs.tensors()
        sizes = (tensors[3].shape[0], tensors[4].shape[0], tensors[5].shape[0])
        flat = [self.render._flat(t) for t in tensors]
        image = self.render._shade(self.head, self.view, flat, sizes, 2 * SEED + 1).numpy()
        return float(image.astype(np.float64) @ self.weight.numpy().ravel().astype(np.float64))

    def compare(self, change: Callable[[torch.Tensor], object], x: np.ndarray, step: float, rel: float = TOLERANCE):
        """Derivative along each direction of the parameters `x` (N,), by gradient and by differences.

        Args:
            change: parameters -> render inputs.
        """
        t = torch.tensor(x, dtype=torch.float32, requires_grad=True)
        self.loss(change(t)).backward()
        assert t.grad is not None
        gradient = t.grad.numpy().astype(np.float64)
        assert np.isfinite(gradient).all()
        numeric = np.empty_like(gradient)
        with torch.no_grad():
            for k in range(len(x)):
                shift = np.zeros(len(x), np.float32)
                shift[k] = step
                ends = [self.same_noise(change(torch.tensor(x + s * shift, dtype=torch.float32))) for s in (-1, 1)]
                numeric[k] = (ends[1] - ends[0]) / (2 * step)
        # relative to the largest: a parameter that hardly matters is compared with those that do
        assert gradient == pytest.approx(numeric, rel=rel, abs=rel * np.abs(numeric).max())
        assert np.abs(numeric).max() > 0


def interior(tracer, model, camera: Camera, T, least_cosine: float = 0.75) -> np.ndarray:
    """Pixels that look at the body well inside its outline."""
    g = tracer[0].gbuffer(tracer[1].HeadScene(model), camera, T)
    return np.flatnonzero((g.part == 0) & ((g.normal * g.view).sum(1) > least_cosine))


@pytest.fixture(scope="module")
def subject(tracer):
    """A ball with varied maps under one lamp that reaches every pixel looked at."""
    model = model_of(ball(80, level=3))
    camera, T = portrait(24)
    inputs = inputs_of(model, T, camera, KEY, f0=0.03, roughness=0.5, texels=8)
    rng = np.random.default_rng(1)
    varied = {}
    for name in ("diffuse", "specular", "roughness"):
        even = getattr(inputs, name)
        varied[name] = even * torch.from_numpy(rng.uniform(0.8, 1.2, even.shape).astype(np.float32))
    return Subject(tracer, model, camera, T, interior(tracer, model, camera, T), replace(inputs, **varied))


def along(subject: Subject, name: str, directions: list[np.ndarray]) -> Callable[[torch.Tensor], object]:
    """Inputs with one field moved along given directions by the parameters."""
    start = getattr(subject.inputs, name)
    fixed = [torch.from_numpy(d.astype(np.float32)) for d in directions]
    return lambda x: replace(subject.inputs, **{name: start + sum(x[k] * d for k, d in enumerate(fixed))})


def test_vertices(subject):
    start = subject.inputs.vertices.numpy()
    rng = np.random.default_rng(2)
    smooth = [np.stack([np.zeros(len(start)), np.zeros(len(start)), np.cos(start[:, 0] / 40)], 1), start / 80]
    single = np.zeros_like(start)  # the vertex nearest to the camera, and one beside it, along all axes
    nearest = np.argsort(-start[:, 2])[:4]
    single[nearest] = rng.normal(size=(4, 3))
    subject.compare(along(subject, "vertices", [*smooth, single]), np.zeros(3), 0.05)


def rotation(w: torch.Tensor) -> torch.Tensor:
    """Rotation matrix of an axis-angle vector, by the matrix exponential."""
    zero = torch.zeros(())
    return torch.linalg.matrix_exp(torch.stack([zero, -w[2], w[1], w[2], zero, -w[0], -w[1], w[0], zero]).reshape(3, 3))


def test_pose(subject):
    T0 = subject.inputs.T_camera_head

    def moved(x: torch.Tensor):
        T = torch.eye(4)
        T[:3, :3] = rotation(x[:3] / 100) @ T0[:3, :3]  # hundredths of a radian, so that one step fits all
        T[:3, 3] = T0[:3, 3] + x[3:]
        return replace(subject.inputs, T_camera_head=T)

    subject.compare(moved, np.zeros(6), 0.05, rel=0.02)  # rays walk over texels: more samples change theirs


def test_focal_length(subject):
    focal = float(subject.inputs.focal_px)
    subject.compare(lambda x: replace(subject.inputs, focal_px=focal * x.exp()[0]), np.zeros(1), 2e-3)


@pytest.mark.parametrize(("name", "step"), [("diffuse", 0.02), ("specular", 0.002), ("roughness", 0.01)])
def test_maps(subject, name, step):
    shape = getattr(subject.inputs, name).shape
    one = np.zeros(shape)
    one[3, 4] = 1  # a single texel, as well as two patterns over all
    pattern = np.random.default_rng(4).uniform(-1, 1, shape)
    subject.compare(along(subject, name, [np.ones(shape), pattern, one]), np.zeros(3), step)


def test_light_radiance(subject):
    subject.compare(lambda x: replace(subject.inputs, light_radiance=x.reshape(1, 3)), KEY.radiance[0], 0.2)


def test_ambient(subject):
    sky = np.zeros((9, 3))
    sky[0] = 2.0  # positive everywhere, so that clipping at zero does not act
    rng = np.random.default_rng(6)
    directions = [rng.uniform(-0.1, 0.1, (9, 3)) for _ in range(3)]
    base = replace(subject.inputs, ambient_sh=torch.from_numpy(sky.astype(np.float32)))
    other = Subject.__new__(Subject)
    other.__dict__.update({**subject.__dict__, "inputs": base})
    other.compare(along(other, "ambient_sh", directions), np.zeros(3), 0.2)


@pytest.mark.parametrize("name", ["distance", "area", "centre", "intensity"])
def test_parameters_of_a_stage_light(subject, name):
    """d, a, p and i of one light of the icosahedron (EG 2021, section 4); the others are off."""
    own = rig("icosahedron")
    on = int(np.argmax(own.face_directions @ np.array([0.3, 0.2, 0.9])))
    intensity = np.zeros((20, 3))
    intensity[on] = [2.0, 1.8, 1.5]
    start = {
        "distance": np.full(20, 1.3),
        "area": np.full(20, 0.4),
        "centre": np.full((20, 2), 1 / 3),
        "intensity": intensity,
    }
    fixed = {k: torch.from_numpy(v.astype(np.float32)) for k, v in start.items()}
    first = start[name][on].ravel()
    step = {"distance": 0.02, "area": 0.01, "centre": 0.01, "intensity": 0.05}[name]

    def lit(x: torch.Tensor):
        p = dict(fixed)
        p[name] = fixed[name].clone()
        p[name][on] = x.reshape(p[name][on].shape)
        corners = light_corners(own, p["distance"], p["area"], p["centre"])
        radiance = light_radiance(p["distance"], p["area"], p["intensity"])
        return replace(subject.inputs, light_corners=corners, light_radiance=radiance)

    if name in ("distance", "area"):
        # d and a hardly change the picture by design (that is what I = (d^2 / a) i is for): differences are small, and
        # float32 rounds them by some 2 % at this step
        subject.compare(lit, first, step, rel=0.03)
    else:
        subject.compare(lit, first, step)


def test_surroundings_that_move_with_the_geometry(tracer):
    """The sky is sampled about the normal, held still; its gradient agrees with differences only on average."""
    model = model_of(ball(80, level=2))
    camera, T = portrait(12)
    sky = np.zeros((9, 3))
    sky[0], sky[1], sky[3] = 2.5, 0.9, -0.7
    nothing = (np.zeros((0, 3, 3)), np.zeros((0, 3)))
    inputs = inputs_of(model, T, camera, type(KEY)(*nothing), (0.6, 0.42, 0.34), 0.0, ambient=sky)
    pixels = interior(tracer, model, camera, T, 0.8)
    subject = Subject(tracer, model, camera, T, pixels, inputs, samples=1024)
    start = model.mean
    bend = np.stack([np.zeros(len(start)), np.zeros(len(start)), start[:, 0] ** 2 / 400 + start[:, 1] / 10], 1)
    # 1024 samples a pixel: noise of some 2 % of the derivative
    subject.compare(along(subject, "vertices", [bend]), np.zeros(1), 0.2, rel=0.08)


# the real head


@pytest.fixture(scope="module")
def head(tracer):
    """The coarse embedded head; forehead pixels are a convex, well-lit patch."""
    model = load_embedded(0)
    camera = Camera(48, 48, 48 * 900 / 240, (24.0, 25.0))
    T = np.eye(4, dtype=np.float32)
    T[2, 3] = -900
    inputs = inputs_of(model, T, camera, KEY, f0=0.03, texels=16)
    return model, camera, T, inputs, tracer[0].gbuffer(tracer[1].HeadScene(model), camera, T)


def test_identity_coefficients_of_the_head(tracer, head):
    model, camera, T, inputs, g = head
    here = (g.part == 0) & (g.interpolate(model.regions["forehead"]) > 0.9) & ((g.normal * g.view).sum(1) > 0.6)
    assert here.sum() > 30
    subject = Subject(tracer, model, camera, T, np.flatnonzero(here), inputs, samples=32)
    basis = torch.from_numpy(model.identity[[0, 3, 8]])
    mean = torch.from_numpy(model.mean)
    # as for pose: the surface slides under the rays, so that some samples change triangle (normals kink there)
    subject.compare(
        lambda x: replace(inputs, vertices=mean + torch.tensordot(x, basis, 1)), np.zeros(3), 0.05, rel=0.03
    )


def test_shadows_leave_gradients_of_radiance_and_albedo_exact(tracer, head):
    """A hard side light, nose shadow and all: pictures are linear in radiance and albedo for fixed visibility."""
    model, camera, T, inputs, g = head
    pixels = np.flatnonzero(g.part == 0)[::3]
    side = both(triangle_light((800, 100, 20), 80, (30, 28, 25)), triangle_light((-200, 800, 100), 60, (6, 6, 7)))
    lit = replace(
        inputs,
        light_corners=torch.from_numpy(side.corners.astype(np.float32)),
        light_radiance=torch.from_numpy(side.radiance.astype(np.float32)),
    )
    subject = Subject(tracer, model, camera, T, pixels, lit, shadows=True)
    open_sky = Subject(tracer, model, camera, T, pixels, lit, shadows=False)
    assert subject.same_noise(lit) < 0.99 * open_sky.same_noise(lit)  # there are shadows
    radiance = lit.light_radiance.clone().requires_grad_()
    subject.loss(replace(lit, light_radiance=radiance)).backward()
    # Euler: a function of degree one is its gradient times its argument. float32 sums of 1e4 values
    assert float((radiance.grad * radiance.detach()).sum()) == pytest.approx(subject.same_noise(lit), rel=1e-4)
    matte = replace(lit, specular=torch.zeros_like(lit.specular))
    albedo = lit.diffuse.clone().requires_grad_()
    subject.loss(replace(matte, diffuse=albedo)).backward()
    assert float((albedo.grad * albedo.detach()).sum()) == pytest.approx(
        subject.same_noise(matte) - subject.same_noise(replace(matte, diffuse=torch.zeros_like(albedo))), rel=1e-4
    )
    subject.compare(
        along(subject, "diffuse", [np.random.default_rng(3).uniform(-1, 1, albedo.shape)]), np.zeros(1), 0.05
    )


def test_forward_and_backward_are_independent_estimates(tracer, head):
    """Other samples behind the gradient than behind the picture, so that their product has no bias; both converge."""
    model, camera, T, inputs, g = head
    pixels = np.flatnonzero(g.part == 0)[::5]

    def both_sums(samples: int) -> tuple[float, float]:
        subject = Subject(tracer, model, camera, T, pixels, inputs, shadows=True, samples=samples)
        radiance = inputs.light_radiance.clone().requires_grad_()
        loss = subject.loss(replace(inputs, light_radiance=radiance))
        loss.backward()
        return float(loss.detach()), float((radiance.grad * radiance.detach()).sum())

    forward, backward = both_sums(4)
    assert forward != pytest.approx(backward, rel=1e-5)
    # the sum over 200 pixels of 256 samples is good to a part in a thousand
    forward, backward = both_sums(256)
    assert forward == pytest.approx(backward, rel=0.005)


def test_fields_without_gradient_get_none(tracer, head):
    model, camera, T, inputs, g = head
    subject = Subject(tracer, model, camera, T, np.flatnonzero(g.part == 0)[::20], inputs)
    radiance = inputs.light_radiance.clone().requires_grad_()
    subject.loss(replace(inputs, light_radiance=radiance)).backward()
    assert radiance.grad is not None
    assert all(t.grad is None for t in inputs.tensors())
