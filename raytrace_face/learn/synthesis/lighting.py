"""One to three lights and an ambient out of those that a sitting was traced under: a new photo of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lightstage.environment import lobe_sh
from raytrace_face.learn.synthesis.sitting import Truth
from raytrace_face.types import Array

F = NDArray[np.float64]

KINDS = (("studio", 0.30), ("sun", 0.22), ("overcast", 0.15), ("one light", 0.23), ("coloured", 0.10))
"""Sort of light and its share of the photos; hard light oftener than in albums, because it is what edits are for."""
SOFT_DEG, HARD_DEG = 4.0, 3.0
"""Lights of studios are at least, suns and flashes at most this large."""
MAX_LIGHTS = 3
LOBE_IRRADIANCE = 17 / 24
"""Irradiance / pi of a lobe of radiance 1 on a surface that faces it: 2 * integral of ((1 + c) / 2)^2 c over [0, 1]."""


class Traced(Protocol):
    """A sitting, in memory or in its file."""

    @property
    def albedo(self) -> Array:
        """(S, S, 3) diffuse albedo of what is seen, linear."""

    @property
    def truth(self) -> Truth:
        """What is known of it."""

    def plane(self, kind: str, number: int) -> Array:
        """(S, S) one-light image, "diffuse" or "gloss"."""

    def sky(self, kind: str) -> Array:
        """(6, S, S) images under the lobes."""


@dataclass(frozen=True)
class Lighting:
    """Weights of the one-light images of a sitting."""

    kind: str
    chosen: NDArray[np.int64]
    """(n,) lights that are on, the strongest first."""
    irradiance: F
    """(n, 3) irradiance / pi of each."""
    sky: F
    """(6, 3) weights of the lobes."""


def _tint(rng: np.random.Generator, sigma: float) -> F:
    """(3,) colour about white: warm to cool, and a little green to magenta. Mean 1."""
    warm, green = rng.normal(0, sigma), rng.normal(0, 0.3 * sigma)
    colour = np.exp([warm, green, -warm])
    return colour / colour.mean()


def _choose(rng: np.random.Generator, fit: NDArray[np.bool_], taken: list[int]) -> int:
    """One of the lights that fit and are not taken; if there is none, any that is not taken."""
    free = np.setdiff1d(np.flatnonzero(fit), taken)
    if not len(free):
        free = np.setdiff1d(np.arange(len(fit)), taken)
    return int(rng.choice(free))


def random_lighting(
    directions: NDArray[np.floating], radii_deg: NDArray[np.floating], rng: np.random.Generator
) -> Lighting:
    """A plausible set-up.

    Args:
        directions: (L, 3) unit vectors to the lights, *camera* frame.
        radii_deg: (L,) their angular radii.
    """
    kind = str(rng.choice([name for name, _ in KINDS], p=[share for _, share in KINDS]))
    front, above = directions[:, 2] > -0.25, directions[:, 1] > -0.2
    soft, hard = radii_deg >= SOFT_DEG, radii_deg <= HARD_DEG
    chosen: list[int] = []
    strengths: list[F] = []

    def add(fit: NDArray[np.bool_], strength: float, tint: float = 0.08) -> None:
        chosen.append(_choose(rng, fit, chosen))
        strengths.append(strength * _tint(rng, tint))

    if kind == "studio":
        add(soft & front & above, 1.0)
        if rng.random() < 0.7:
            add(soft & front, rng.uniform(0.1, 0.7))
        if rng.random() < 0.3:
            add(~front, rng.uniform(0.3, 1.5))
        share = rng.uniform(0.1, 0.45)
    elif kind == "sun":
        add(hard & above & (front | (rng.random() < 0.3)), 1.0, 0.12)
        share = rng.uniform(0.08, 0.4)
    elif kind == "overcast":
        if rng.random() < 0.7:
            add(soft & above, 1.0)
        share = rng.uniform(0.55, 0.9)
    elif kind == "one light":  # a flash in the dark, a window at night, a laboratory
        add(front, 1.0)
        share = rng.uniform(0.0, 0.1)
    else:
        for strength in (1.0, rng.uniform(0.3, 0.9)):
            add(front, strength, 0.35)
        share = rng.uniform(0.05, 0.4)
    scale = sum(float(s.mean()) for s in strengths) if strengths else 1.0
    level = scale * share / (1 - share) / (LOBE_IRRADIANCE * 2)
    lobes = rng.dirichlet(np.full(6, rng.uniform(0.6, 4.0))) * 6
    lobes *= [1, 1, rng.uniform(0.8, 2.0), rng.uniform(0.2, 1.0), 1, 1]  # skies are above
    spread = 0.3 if kind == "coloured" else 0.08
    even = _tint(rng, spread)
    sky = level * lobes[:, None] * np.stack([even * _tint(rng, 0.7 * spread) for _ in range(6)])
    order = np.argsort([-float(s.mean()) for s in strengths])
    irradiance = np.array(strengths).reshape(-1, 3)[order]
    return Lighting(kind, np.array(chosen, np.int64)[order], irradiance, sky)


def photograph(sitting: Traced, light: Lighting) -> Array:
    """(S, S, 3) linear picture of a sitting under a lighting; it goes on, meaninglessly, where the head ends."""
    weights = np.concatenate([light.irradiance, light.sky]).astype(np.float32)
    size = sitting.albedo.shape[0]
    parts = []
    for kind in ("diffuse", "gloss"):
        lamps = [sitting.plane(kind, int(k))[None] for k in light.chosen]
        planes = np.concatenate([*lamps, sitting.sky(kind)]).reshape(len(weights), -1)
        parts.append((weights.T @ planes).T.reshape(size, size, 3))
    return sitting.albedo * parts[0] + parts[1]


def ambient_sh(sky_axes: NDArray[np.floating], sky: NDArray[np.floating]) -> Array:
    """(9, 3) SH coefficients of lobes about axes (6, 3) with weights (6, 3)."""
    return (lobe_sh(sky_axes.astype(np.float64)).T @ sky).astype(np.float32)
