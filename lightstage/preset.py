"""Named light set-ups, as photographers name them: data in `presets/*.toml`.

Angles are those of a face that looks at the camera: azimuth positive from the image's right, 0 from the camera, 180
from behind; elevation positive from above. Strengths are irradiance / pi at the centre of the stage, so that a white
surface there that faces a light of [1, 1, 1] has radiance 1.
"""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightstage.environment import lobe_sh
from lightstage.rig import AreaLights, directional_lights

F = NDArray[np.float64]

UNIFORM_SH = np.sqrt(4 * np.pi)
"""Order-0 coefficient of a radiance of 1 from everywhere."""
UP = np.array([[0.0, 1.0, 0.0]])


def names() -> tuple[str, ...]:
    """Names of the presets, sorted.

    >>> "rembrandt" in names()
    True
    """
    files = (resources.files("lightstage") / "presets").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def read(name: str) -> dict[str, Any]:
    """A preset as it is written: `description`, `lights`, `ambient`, `sky`.

    Raises:
        ValueError: there is no preset of that name.
    """
    if name not in names():
        raise ValueError(f"preset is {name!r}: use one of {', '.join(names())}")
    return tomllib.loads((resources.files("lightstage") / "presets" / f"{name}.toml").read_text("utf-8"))


def load(name: str) -> tuple[AreaLights, F]:
    """Lights and surroundings of a preset.

    Returns:
        lights: one triangle for each light of the preset, mm.
        ambient_sh: (9, 3) SH coefficients of the radiance of the surroundings: `ambient` from everywhere plus `sky`,
            which is 1 overhead, 1/4 at the horizon and 0 below (the lobe ((1 + cos) / 2)^2).

    Raises:
        ValueError: there is no preset of that name.
    """
    values = read(name)
    corners, radiance = np.zeros((0, 3, 3)), np.zeros((0, 3))
    for light in values["lights"]:
        towards = direction(light["azimuth_deg"], light["elevation_deg"])[None]
        one = directional_lights(towards, light["angular_radius_deg"])
        corners = np.concatenate([corners, one.corners])
        radiance = np.concatenate([radiance, one.radiance * np.array(light["irradiance"], float)])
    ambient = np.zeros((9, 3))
    ambient[0] = UNIFORM_SH * np.array(values["ambient"], float)
    ambient += lobe_sh(UP)[0][:, None] * np.array(values.get("sky", [0.0, 0.0, 0.0]), float)
    return AreaLights(corners, radiance), ambient


def direction(azimuth_deg: float, elevation_deg: float) -> F:
    """Unit vector (3,) to a light."""
    azimuth, elevation = np.radians([azimuth_deg, elevation_deg])
    return np.array([np.sin(azimuth) * np.cos(elevation), np.sin(elevation), np.cos(azimuth) * np.cos(elevation)])
