"""Where the fit begins if something has looked at the photo before: the encoder, say, in place of landmarks.

A guess is taken for what it is. Its pose is laid on the landmarks, its lights are places where to look first, and its
albedo is the one under which the light is searched once; everything is then fitted as it always is.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lightstage.rig import StageLights
from raytrace_face.capture.colour import luminance
from raytrace_face.config import Config
from raytrace_face.types import Array, Camera, FaceParams

F = NDArray[np.float64]

APART_DEG = 35.0
"""Lights of a guess that are closer are one light, as in `lightstage.solve.greedy`."""
CLUSTER = 12.0
"""Concentration of the kernel that gathers lights of one cluster: half as much at 20 degrees, a tenth at 36. Lights
closer than 35 degrees are one light to the optimiser too (`lightstage.solve.greedy`)."""
FAINT = 0.05
"""Share of all area light below which a cluster is not a place to look at."""


SIZE, LEAST = 0.625, 72
"""Pixels a side of stage 1 from a guess, as a share of those from landmarks, and the least of them where those have as
many. No PSNR or light that 15 photos told; at 60 pixels, in a preview, a light of 8 degrees' error had 10."""
SAMPLES = 0.5
"""Rays a pixel of stage 1, in the same way: +0.1 dB and -0.2 degrees, which is noise."""
ITERATIONS = 16
"""Most steps of the highlights' fit, of 60: -0.1 dB, and maps as smooth as those of all pixels after 60."""


def nearer(config: Config) -> Config:
    """Resolved settings of a fit that begins at a guess: near its end, so that it gets by with less."""
    one, two = config.stage1, config.stage2
    return replace(
        config,
        stage1=replace(
            one, size=max(round(SIZE * one.size), min(one.size, LEAST)), samples=max(round(SAMPLES * one.samples), 1)
        ),
        stage2=replace(two, iterations=min(two.iterations, ITERATIONS)),
    )


@dataclass(frozen=True)
class Guess:
    """A face as something else sees it."""

    camera: Camera
    face: FaceParams
    lights: StageLights
    """Head frame; only their places and their shares count, strengths are solved for."""
    albedo: Array
    """(M,) statistical albedo in standard deviations of `face.skin_prior`."""

    def lamps(self, most: int) -> F:
        """(N, 3) unit vectors to the clusters of its lights, N <= most, head frame, the strongest first.

        An encoder spreads a lamp over the faces of its rig round it. So clusters are gathered: the place where the
        kernel density is largest, then the mean of what lies round it.
        """
        left, directions = luminance(self.lights.irradiance().astype(np.float32)), self.lights.directions()
        cosine, all_light = directions @ directions.T, float(left.sum())
        kernel = np.exp(CLUSTER * (cosine - 1))
        found: list[F] = []
        while len(found) < most:
            near = cosine[int(np.argmax(kernel @ left))] >= np.cos(np.radians(APART_DEG))
            power = left * near
            if power.sum() <= FAINT * all_light:
                break
            towards = power @ directions
            found.append(towards / np.linalg.norm(towards))
            left = left * ~near
        return np.array(found).reshape(-1, 3)

    def expected(self, most: int, found: F) -> F:
        """(N, 3) where to look for lights: those found (M, 3), and `lamps` that are none of them."""
        lamps = self.lamps(most)
        apart = (lamps @ found.T < np.cos(np.radians(APART_DEG))).all(axis=1)
        return np.concatenate([found, lamps[apart]])
