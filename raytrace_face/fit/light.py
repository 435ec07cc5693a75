"""The light of a photo, from transport: sparse area lights and a smooth ambient.

`lightstage.solve` does the algebra on columns; here the columns are traced where they are needed: a dense stage for
the search, small rings round each light found for its exact direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightstage import solve
from lightstage.environment import lobe_sh, lobes
from lightstage.rig import StageLights, directional_lights, geodesic, rig
from lightstage.transport import Transport
from raytrace_face.capture.colour import REC709_LUMINANCE, luminance
from raytrace_face.config import LightConfig
from raytrace_face.tracer.onelight import head_transport
from raytrace_face.tracer.render import View
from raytrace_face.tracer.scene import HeadScene
from raytrace_face.types import Array

F = NDArray[np.float64]

RESIDUAL_SCALE = 0.15
"""Cauchy scale relative to the mean luminance: skin detail and small shadows are inliers, hair and hands are not."""
LEAST_SQUARES = 3.0
"""The same where the loss shall not be robust: a residual as large as the mean luminance still counts as its square."""
AMBIENT_RIDGE = 0.02
"""Ridge on the ambient lobes: what an area light explains must not leak into the ambient."""
MAIN_REACH = 0.07
"""A light that gives the face less than this share of what the best placed one would is not the main light, however
strong: little of the face says that it is there."""
COLOUR_PULL = 0.05
"""Pull of each light's colour to that of all light, as a share of the evidence that the light has when it is alone."""
SEARCH_PIXELS = 2000
"""Most pixels the search looks at: light is a global unknown, more do not change it."""
SEARCH_ITERATIONS, EXPECTED_ITERATIONS = 8, 4
"""Reweightings of each candidate's robust fit: over the whole stage, and where lights are expected. Four stop short of
the last per cent of a cost, and found the lights of eight photos of Extended Yale B no worse."""
AMBIENT_LEVEL = 1
"""Geodesic level of the ambient quadrature: 42 directions integrate an order-2 light under visibility to 2 %."""
REFINE_RADII_DEG = (11.0, 5.0)
"""Radii of the rings traced round a light: two thirds of the dense grid's spacing, then half of that."""
COARSE_RADIUS_DEG = 20.0
"""The same for a light found among the `AMBIENT_LEVEL` directions, 32 degrees apart, where none was expected."""


@dataclass(frozen=True)
class Surface:
    """What the light falls on, over the P pixels of a view."""

    albedo: Array
    """(P, 3) diffuse albedo."""
    f0: Array
    """(P,) Fresnel reflectance."""
    specular_map: Array
    """(T, T) F0 texture, for tracing."""
    roughness_map: Array
    """(T, T) roughness texture."""


@dataclass(frozen=True)
class Light:
    """Lights far away and an ambient, head frame."""

    directions: F
    """(N, 3) unit vectors to the lights; the main one first (`main_first`)."""
    irradiance: F
    """(N, 3) irradiance / pi at the head's centre."""
    ambient: F
    """(A, 3) weights of the lobes about `ambient_axes()`."""

    def dominant(self) -> F:
        """(3,) unit vector to the main light; without lights, to where most of the ambient comes from."""
        if len(self.directions):
            return self.directions[0]
        towards = self.ambient.mean(axis=1) @ ambient_axes()
        size = float(np.linalg.norm(towards))
        return towards / size if size > 1e-9 else np.array([0.0, 0.0, 1.0])

    def ambient_sh(self) -> Array:
        """(9, 3) SH coefficients of the ambient radiance."""
        return (lobe_sh(ambient_axes()).T @ self.ambient).astype(np.float32)


def ambient_axes() -> F:
    """(12, 3) axes of the ambient lobes: the corners of the icosahedron."""
    return geodesic(0).vertices


@dataclass(frozen=True)
class Tracing:
    """Everything `head_transport` needs besides lights."""

    head: HeadScene
    view: View
    T_camera_head: Array
    surface: Surface

    def columns(self, directions: F, angular_radius_deg: float, seed: int) -> Transport:
        """Transport of lights at given directions (L, 3) with irradiance / pi of 1."""
        lights = directional_lights(directions, angular_radius_deg)
        s = self.surface
        return head_transport(self.head, self.view, self.T_camera_head, lights, s.specular_map, s.roughness_map, seed)


@dataclass(frozen=True)
class LightColumns:
    """Transport of the lights found and of an even stage round them, as far as it was traced to find them."""

    lights: Transport
    """(P, N)"""
    sky: Transport
    """(P, D)"""
    directions: F
    """(D, 3) of the even stage."""

    def shade(self, surface: Surface, light: Light) -> tuple[F, F, F]:
        """Diffuse shading (P, 3), highlight (P, 3) and visibility of each light (P, N)."""
        t = joined([self.lights, self.sky])
        D = len(self.directions)
        strengths = np.concatenate([light.irradiance, ambient_columns(np.eye(D), self.directions) @ light.ambient])
        visibility = self.lights.diffuse / np.maximum(self.lights.unshadowed, 1e-6)
        return t.diffuse @ strengths, surface.f0[:, None] * (t.specular @ strengths), visibility


def picked(t: Transport, lights: Any) -> Transport:
    """The columns of some lights (index or slice)."""
    return Transport(t.diffuse[:, lights], t.specular[:, lights], t.unshadowed[:, lights])


def joined(parts: list[Transport]) -> Transport:
    """All columns of several transports of the same pixels."""
    names = ("diffuse", "specular", "unshadowed")
    return Transport(*(np.concatenate([getattr(t, name) for t in parts], axis=1) for name in names))


def radiance_columns(transport: Transport, surface: Surface) -> F:
    """(P, L, 3) image under each light: albedo T_d + F0 T_s."""
    diffuse = surface.albedo[:, None, :] * transport.diffuse[:, :, None]
    return (diffuse + (surface.f0[:, None] * transport.specular)[:, :, None]).astype(np.float64)


def ambient_columns(dense: F, directions: F) -> F:
    """(P, A, ...) columns of the ambient lobes, by quadrature over a dense stage that covers the sphere evenly."""
    weight = lobes(directions, ambient_axes()) * (4 / len(directions))
    return np.tensordot(dense, weight, axes=(1, 0)) if dense.ndim == 2 else np.einsum("plc,la->pac", dense, weight)


def estimate_light(
    tracing: Tracing,
    image: Array,
    weight: Array,
    config: LightConfig,
    seed: int,
    start: Light | None = None,
    clipped: NDArray[np.bool_] | None = None,
    expected: F | None = None,
) -> tuple[Light, LightColumns]:
    """Find the lights of a photo.

    Args:
        image: (P, 3) the photo over the view's pixels.
        weight: (P,) weight of each pixel.
        start: lights already found: only their directions are refined, no search.
        clipped: (P, 3) channels that are at least as bright as the image says.
        expected: (N, 3) unit vectors to where lights are expected. The search then tries them and a ring round each;
            of the rest of the sphere only the directions that are traced for the ambient anyway.

    Returns:
        The lights, the main one first, and what was traced of them.
    """
    bound = np.zeros(image.shape, bool) if clipped is None else clipped
    over = np.asarray(bound.any(axis=1))
    Y = luminance(image).astype(np.float64)
    mean = float((Y * weight).sum() / weight.sum())
    scale = (RESIDUAL_SCALE if config.robust else LEAST_SQUARES) * mean
    w = weight.astype(np.float64)
    angle = config.angular_radius_deg
    dense = geodesic(config.search_level if start is None and expected is None else AMBIENT_LEVEL).vertices
    sky = tracing.columns(dense, angle, seed)
    colour = radiance_columns(sky, tracing.surface)
    Y_dense = colour @ REC709_LUMINANCE
    uniform = Y_dense.sum(axis=1, keepdims=True) * (4 / len(dense))
    iterations = SEARCH_ITERATIONS if expected is None else EXPECTED_ITERATIONS
    some = slice(None, None, -(-len(Y) // SEARCH_PIXELS))
    if start is not None:
        directions, reach_deg = start.directions.copy(), np.full(len(start.directions), REFINE_RADII_DEG[1])
        lamps = tracing.columns(directions, angle, seed + 1)
    else:
        near = _surroundings(np.zeros((0, 3)) if expected is None else expected)
        tried, traced = np.concatenate([near, dense]), joined([tracing.columns(near, angle, seed + 1), sky])
        Y_tried = radiance_columns(traced, tracing.surface) @ REC709_LUMINANCE
        chosen = _search(Y_tried[some], uniform[some], Y[some], w[some], over[some], scale, tried, config, iterations)
        directions, lamps = tried[chosen], picked(traced, chosen)
        coarse = np.full(len(chosen), expected is not None) & (chosen >= len(near))
        reach_deg = np.where(coarse, COARSE_RADIUS_DEG, REFINE_RADII_DEG[0])
    lights = radiance_columns(lamps, tracing.surface)
    for radius in (COARSE_RADIUS_DEG, *REFINE_RADII_DEG) if config.refine and config.kind == "sparse" else ():
        for k in np.flatnonzero(reach_deg >= radius):
            ring = solve.tangent_directions(directions[k], radius)
            ring_Y = radiance_columns(tracing.columns(ring, angle, seed + 2), tracing.surface) @ REC709_LUMINANCE
            fixed = np.concatenate([uniform, np.delete(lights, k, axis=1) @ REC709_LUMINANCE], axis=1)
            cost, _ = solve.search_costs(ring_Y[some], fixed[some], Y[some], w[some], scale, iterations, over[some])
            directions[k] = solve.quadratic_minimum(ring, cost, radius)
            turned = tracing.columns(directions[k : k + 1], angle, seed + 3)
            lamps = joined([picked(lamps, slice(k)), turned, picked(lamps, slice(k + 1, None))])
            lights[:, k] = radiance_columns(turned, tracing.surface)[:, 0]
    found = _colours(directions, lights, ambient_columns(colour, dense), image.astype(np.float64), bound, w, scale)
    order = main_first(found, w @ (lights @ REC709_LUMINANCE) / float((w @ Y_dense).max()))
    ordered = Light(found.directions[order], found.irradiance[order], found.ambient)
    return ordered, LightColumns(picked(lamps, order), sky, dense)


def _surroundings(directions: F) -> F:
    """(7 N, 3) directions (N, 3) and a ring round each."""
    rings = [solve.tangent_directions(d, REFINE_RADII_DEG[0], rings=1) for d in directions]
    return np.concatenate([np.zeros((0, 3)), *rings])


def _search(
    columns: F,
    uniform: F,
    image: F,
    weight: F,
    clipped: NDArray[np.bool_],
    scale: float,
    directions: F,
    config: LightConfig,
    iterations: int,
) -> NDArray[np.int64]:
    """Which lights (columns) of the dense stage are on, by `config.kind`."""
    if config.kind == "sh":
        return np.zeros(0, np.int64)
    if config.kind == "dense":
        A = np.concatenate([columns, uniform], axis=1)
        x = solve.robust_nnls(A, image[:, None], weight, scale, np.full(A.shape[1], 1e-4), clipped=clipped)[:-1, 0]
        return np.flatnonzero(x > 1e-3 * max(x.max(), 1e-12))
    found = solve.greedy(
        columns, uniform, image, weight, scale, directions, config.max_lights, config.light_penalty,
        clipped=clipped, iterations=iterations,
    )  # fmt: skip
    return np.asarray(found.chosen, np.int64)


def _colours(
    directions: F, lights: F, ambient: F, image: F, clipped: NDArray[np.bool_], weight: F, scale: float
) -> Light:
    """RGB strengths of lights and lobes, channel by channel, robustly.

    What no pixel tells apart goes to lights of one colour (`COLOUR_PULL`): two lights that shine on the same skin would
    else be as colourful as their errors.
    """
    N, A = lights.shape[1], ambient.shape[1]
    x = np.zeros((N + A, 3))
    ridge = np.concatenate([np.full(N, 1e-4), np.full(A, AMBIENT_RIDGE)])
    columns = np.concatenate([lights, ambient], axis=1)
    Y, over = (image @ REC709_LUMINANCE)[:, None], np.asarray(clipped.any(axis=1))
    grey = solve.robust_nnls(columns @ REC709_LUMINANCE, Y, weight, scale, ridge, clipped=over)
    known = weight * ~over
    for c in range(3):
        tint = (known @ image[:, c]) / max(float(known @ (columns[:, :, c] @ grey[:, 0])), 1e-12)
        solved = solve.robust_nnls(
            columns[:, :, c], image[:, c : c + 1], weight, scale, ridge,
            pull=COLOUR_PULL, towards=tint * grey, clipped=clipped[:, c],
        )  # fmt: skip
        x[:, c] = solved[:, 0]
    return Light(directions, x[:N], x[N:])


def main_first(light: Light, reach: F) -> NDArray[np.int64]:
    """(N,) order of the lights: strongest first, but those last that hardly reach the face (`MAIN_REACH`).

    Args:
        reach: (N,) what each gives the photo's pixels, relative to the best placed light of the same strength.
    """
    strength = light.irradiance.mean(axis=1)
    return np.lexsort((-strength, reach < MAIN_REACH))


def stage_lights(light: Light, config: LightConfig) -> StageLights:
    """The lights in the published parameterisation, one for each face of the rig."""
    return solve.condense(rig(config.rig), light.directions, light.irradiance, config.angular_radius_deg)
