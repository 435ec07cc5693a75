"""Named arrays of one model file, taken out with a check of shape, numbers and range.

Every complaint names the file, the array and the rule, because a model file is nothing its owner can look into.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from raytrace_face.errors import ModelError
from raytrace_face.output import sha256


def read_npz(path: str | Path, wanted: Collection[str]) -> dict[str, NDArray]:
    """Arrays of an npz that are `wanted` and there; pickled members are refused.

    Raises:
        ModelError: the file or one of these members cannot be read.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as data:
            names = [name for name in data.files if name in wanted]
            return {name: data[name] for name in names}
    except ValueError as error:
        raise ModelError(f"{path} holds pickled objects or is damaged ({error}): save plain arrays") from error
    except (OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError, TypeError) as error:
        raise ModelError(f"{path} cannot be read as npz ({error}): take the file from its publisher again") from error


def digest(path: str | Path) -> dict[str, str]:
    """Provenance entry of a file: its name and sha256."""
    return {Path(path).name: sha256(Path(path))}


def kept_modes(kept: NDArray[np.floating], basis: NDArray[np.floating]) -> str:
    """The line for a model's limits that says how many modes (K, V, 3) of a basis (N, V, 3) are kept."""
    share = np.vdot(kept, kept) / max(float(np.vdot(basis, basis)), 1e-30)
    return f"{len(kept)} of {len(basis)} identity modes are kept ({100 * share:.1f} % of the variance)"


@dataclass(frozen=True)
class ModelArrays:
    """The arrays of a file; a letter in a shape stands for one size wherever it comes again."""

    path: Path
    arrays: Mapping[str, Any]
    sizes: dict[str, int] = field(default_factory=dict)

    def has(self, name: str) -> bool:
        return name in self.arrays

    def floats(self, name: str, *shape: int | str) -> NDArray[np.floating]:
        """Finite numbers of this shape; sparse matrices come out dense, float64 stays, all else becomes float32."""
        values = self._shaped(name, shape)
        if values.dtype.kind not in "fiu":
            raise ModelError(f"{self.path}: {name} has type {values.dtype}, expected numbers")
        if values.dtype != np.float64:
            values = values.astype(np.float32)
        if not np.isfinite(values).all():
            raise ModelError(f"{self.path}: {name} holds values that are not finite: the file is damaged")
        return values

    def indices(self, name: str, *shape: int | str, below: str, lowest: int = 0) -> NDArray[np.int32]:
        """Whole numbers in [lowest, size of the letter `below`)."""
        values = self._shaped(name, shape)
        if values.dtype.kind not in "iu":
            raise ModelError(f"{self.path}: {name} has type {values.dtype}, expected whole numbers")
        if values.size and (values.min() < lowest or values.max() >= self.sizes[below]):
            raise ModelError(
                f"{self.path}: {name} points outside [{lowest}, {self.sizes[below]}): it belongs to another mesh"
            )
        return values.astype(np.int32)

    def names(self, name: str, *shape: int | str) -> tuple[str, ...]:
        return tuple(str(value) for value in self._shaped(name, shape))

    def _shaped(self, name: str, shape: tuple[int | str, ...]) -> NDArray[Any]:
        if name not in self.arrays:
            raise ModelError(f"{self.path} lacks the array {name!r}: it is another kind of file, or not all of it")
        values = self.arrays[name]
        found = tuple(getattr(values, "shape", ()))
        expected = tuple(self.sizes.get(n, n) if isinstance(n, str) else n for n in shape)
        fits = len(found) == len(expected) and all(
            isinstance(want, str) or have == want for have, want in zip(found, expected, strict=True)
        )
        if not fits:
            said = ", ".join(str(n) for n in expected)
            raise ModelError(f"{self.path}: {name} has shape {found}, expected ({said})")
        if 0 in found:
            raise ModelError(f"{self.path}: {name} is empty: the file is damaged")
        self.sizes.update({n: size for n, size in zip(shape, found, strict=True) if isinstance(n, str)})
        return values.toarray() if sparse.issparse(values) else np.asarray(values)
