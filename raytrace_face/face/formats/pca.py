"""Principal components as the Basel files keep them, and colour models made linear."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.colour import srgb_to_linear
from raytrace_face.errors import ModelError
from raytrace_face.face.formats.check import expect
from raytrace_face.face.model import AlbedoBasis
from raytrace_face.types import Array

UNIT_NORM = (0.5, 1.5)
"""Range of the lengths of basis columns: they are unit vectors, a little shorter where a model was cut out of a larger
one. Columns outside are already scaled, or are rows, and the modes would be wrong by orders of magnitude."""
ALBEDO_RANGE = (1e-3, 0.999)
"""Mean albedo is kept inside: a surface of albedo 0 gives no gradient, one of 1 loses no energy."""


@dataclass(frozen=True)
class Pca:
    """A Gaussian model of n vertices: mean + sum of coefficient times mode, coefficients ~ N(0, 1)."""

    mean: NDArray[np.float64]
    """(n, 3)"""
    modes: Array
    """(K, n, 3) per standard deviation, by falling variance."""
    found: int
    """Modes in the file; K of them are kept."""
    share: float
    """Share of the variance that the kept modes hold."""

    def left_out(self, noun: str) -> tuple[str, ...]:
        """The line for the limits of a model that says how many modes were kept; empty if all."""
        if len(self.modes) == self.found:
            return ()
        return (f"{len(self.modes)} of {self.found} {noun} modes are kept ({100 * self.share:.1f} % of the variance)",)


def stored(file: Any, name: str) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Mean, basis and variances of a model in an open HDF5 file of Statismo.

    Raises:
        KeyError: one of them is missing; its name.
    """
    mean, basis, variance = (dataset(file, f"{name}/model/{key}") for key in ("mean", "pcaBasis", "pcaVariance"))
    return mean, basis, variance


def dataset(file: Any, name: str) -> NDArray[Any]:
    """An array of an open HDF5 file; KeyError with its name if it is missing, which HDF5 says less plainly."""
    if name not in file:
        raise KeyError(name)
    return np.asarray(file[name])


def principal(
    mean: NDArray[Any], basis: NDArray[Any], sigma: NDArray[Any], keep: int, scale: float, path: Path, name: str
) -> Pca:
    """Modes in units of standard deviation.

    Args:
        mean: (3 n,) or (3 n, 1), vertex by vertex.
        basis: (3 n, K), unit columns.
        sigma: (K,) or (K, 1) standard deviations.
        keep: modes to keep, those of the largest variance.
        scale: factor from the file's units to ours.
        path: the file, for messages.
        name: what the model is about, for messages.

    Raises:
        ModelError: the shapes do not fit together, a number is not finite, or a column is not of unit length.
    """
    flat, spread = np.asarray(mean).reshape(-1), np.asarray(sigma, np.float64).reshape(-1)
    expect(flat, (-1,), path, f"{name} mean")
    if len(flat) == 0 or len(flat) % 3:
        raise ModelError(f"{path.name!r}: {name} mean has {len(flat)} numbers, not three a vertex: get it again")
    expect(basis, (len(flat), len(spread)), path, f"{name} basis")
    expect(spread, (-1,), path, f"{name} variance")
    if (spread < 0).any():
        raise ModelError(f"{path.name!r}: {name} has a negative standard deviation: the file is damaged; get it again")
    order = np.argsort(-spread, kind="stable")[: min(keep, np.count_nonzero(spread))]
    modes = np.ascontiguousarray(np.asarray(basis)[:, order].T, dtype=np.float32)
    length = np.linalg.norm(modes, axis=1)
    if len(length) and not (UNIT_NORM[0] < length.min() and length.max() < UNIT_NORM[1]):
        raise ModelError(
            f"{path.name!r}: columns of the {name} basis are {length.min():.3g} to {length.max():.3g} long, but the "
            "layout says 1: it is of another version; export it again with unit columns and variances beside them"
        )
    modes *= (spread[order] * scale).astype(np.float32)[:, None]
    share = float((spread[order] ** 2).sum() / max((spread**2).sum(), 1e-300))
    return Pca(flat.astype(np.float64).reshape(-1, 3) * scale, modes.reshape(len(order), -1, 3), len(spread), share)


def deviations(variance: NDArray[Any], path: Path, name: str) -> NDArray[np.float64]:
    """Standard deviations (K,) of variances.

    Raises:
        ModelError: a variance is negative by more than rounding, or not finite.
    """
    values = np.asarray(variance, np.float64).reshape(-1)
    expect(values, (-1,), path, f"{name} variance")
    if len(values) and values.min() < -1e-6 * values.max():
        raise ModelError(f"{path.name!r}: {name} has a negative variance: the file is damaged; get it again")
    return np.sqrt(np.maximum(values, 0))


def linear_albedo(colour: Pca) -> AlbedoBasis:
    """Diffuse albedo of a model of sRGB-encoded colours in [0, 1].

    The mean goes through the transfer curve f, the modes through its tangent there: f(c + m) ~ f(c) + f'(c) m.
    """
    mean = np.clip(colour.mean, 0, 1)
    diffuse = np.clip(srgb_to_linear(mean), *ALBEDO_RANGE)
    return AlbedoBasis(diffuse, colour.modes * srgb_slope(mean).astype(np.float32))


def srgb_slope(encoded: NDArray[np.floating]) -> NDArray[np.float64]:
    """Derivative of linear light by the sRGB code (IEC 61966-2-1), of codes in [0, 1].

    >>> [float(slope.round(4)) for slope in srgb_slope(np.array([0.0, 0.5, 1.0]))]
    [0.0774, 0.9256, 2.2749]
    """
    code = np.asarray(encoded, np.float64)
    return np.where(code <= 0.04045, 1 / 12.92, 2.4 / 1.055 * ((code + 0.055) / 1.055) ** 1.4)
