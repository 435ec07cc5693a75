"""Basel Face Models of 2009, 2017 and 2019. They come from the University of Basel under a licence of their own.

2009, `01_MorphableModel.mat` (MATLAB 5; re-saved as 7.3 it is HDF5 with all axes reversed): `shapeMU` (3 n, 1),
`shapePC` (3 n, K) unit columns, `shapeEV` (K, 1), which are standard deviations in spite of their name; micrometres.
`texMU`, `texPC`, `texEV` alike, sRGB codes of 0 to 255. `tl` (m, 3) triangles, 1-based, clockwise seen from outside.

2017 and 2019, HDF5 of Statismo 0.9: groups `shape`, `expression` and `color`, each with `model/mean` (3 n,),
`model/pcaBasis` (3 n, K) unit columns, `model/pcaVariance` (K,) variances, `representer/points` (3, n) and
`representer/cells` (3, m) 0-based, `modelinfo/build-time`; `metadata/landmarks/json`; mm; colours sRGB in [0, 1].
The face without coefficients is shape mean + expression mean.

All of them: y up, z out of the face, +x to the face's own left; no texture coordinates, no parts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from raytrace_face.errors import ModelError
from raytrace_face.face.formats import albedomm
from raytrace_face.face.formats.check import check_raw, check_triangles, expect, outward, reading
from raytrace_face.face.formats.pca import dataset, deviations, linear_albedo, principal, stored
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.output import sha256

MODES = 100
"""Modes kept of each basis, 1 to 199. The fit solves for each identity mode, so its time grows with their number; what
is left out holds about 1 % of the variance, and the limits of the model say how much."""
MM_PER_UM = 1e-3
PUBLISHED = {
    53_149: ("BFM 2017", "bfm"),
    28_588: ("BFM 2017", "face12"),
    47_439: ("BFM 2019", "bfm"),
    27_657: ("BFM 2019", "face12"),
    58_203: ("BFM 2019", "fullHead"),
}
"""Vertices of the published HDF5 files -> format and crop."""
VERTICES_2009 = 53_490
LICENCE = "Basel Face Model licence: research at the licensed institution, not commercial, not to be passed on"
CITATIONS = {
    "BFM 2009": "Paysan et al., A 3D Face Model for Pose and Illumination Invariant Face Recognition, AVSS 2009",
    "BFM 2017": "Gerig et al., Morphable Face Models - An Open Framework, FG 2018",
    "BFM 2019": "Gerig et al., Morphable Face Models - An Open Framework, FG 2018",
}
BAKED = "its colours hold the light of the scanner: they are no pure albedo"
NO_PARTS = "no eyeballs, teeth or mouth: eyes are part of the skin"


def read(path: Path, albedo: Path | None = None, modes: int = MODES) -> RawModel:
    """Read a BFM file of any version; `albedo` is the AlbedoMM file that takes the place of its colours.

    Args:
        path: `.mat` of 2009 or `.h5` of 2017 and 2019, by content.
        albedo: `albedoModel2020_*.h5` of the same vertices; None: the model's own colours, made linear.
        modes: modes kept of each basis, those of the largest variance.

    Raises:
        ModelError: the file is damaged, of another layout, or the albedo model has another number of vertices.
    """
    with reading(path, "a Basel Face Model"):
        statismo = h5py.is_hdf5(path)
        if statismo:
            with h5py.File(path) as file:
                statismo = "shapeMU" not in file
    raw = _read_statismo(path, modes) if statismo else _read_2009(path, modes)
    check_raw(raw, path)
    return raw if albedo is None else albedomm.attach(raw, albedo, modes, path)


def _read_2009(path: Path, modes: int) -> RawModel:
    file = _variables(path, ("shapeMU", "shapePC", "shapeEV", "texMU", "texPC", "texEV", "tl"))
    shape = principal(file["shapeMU"], file["shapePC"], file["shapeEV"], modes, MM_PER_UM, path, "shape")
    colour = principal(file["texMU"], file["texPC"], file["texEV"], modes, 1 / 255, path, "texture")
    count = len(shape.mean)
    expect(colour.mean, (count, 3), path, "texMU")
    version = "" if count == VERTICES_2009 else f"{count} vertices, published are {VERTICES_2009}"
    return RawModel(
        format="BFM 2009",
        version=version,
        mean=shape.mean.astype(np.float32),
        identity=shape.modes,
        triangles=_triangles(file["tl"].astype(np.int64) - 1, shape.mean, path),
        licence=LICENCE,
        citation=CITATIONS["BFM 2009"],
        provenance={path.name: sha256(path)},
        expression=np.zeros((0, count, 3), np.float32),
        expression_names=(),
        expression_modes=np.zeros((0, count, 3), np.float32),
        albedo=linear_albedo(colour),
        limits=(*shape.left_out("identity"), NO_PARTS, "no back of the head", "no expressions of its own", BAKED),
    )


def _variables(path: Path, names: tuple[str, ...]) -> Mapping[str, NDArray[Any]]:
    """Named matrices of a MATLAB file, as MATLAB shows them."""
    with reading(path, "a Basel Face Model of 2009"):
        if h5py.is_hdf5(path):
            with h5py.File(path) as file:
                return {name: dataset(file, name).T for name in names}
        from scipy.io import loadmat

        values = loadmat(path, variable_names=names)
        return {name: np.asarray(values[name]) for name in names}


def _read_statismo(path: Path, modes: int) -> RawModel:
    with reading(path, "a Basel Face Model of 2017 or 2019"), h5py.File(path) as file:
        groups = {"shape": stored(file, "shape")}
        groups |= {name: stored(file, name) for name in ("expression", "color") if name in file}
        cells, points = (dataset(file, f"shape/representer/{name}") for name in ("cells", "points"))
        built, landmarks = _text(file, "shape/modelinfo/build-time"), _text(file, "metadata/landmarks/json")
    parts = {
        name: principal(mean, basis, deviations(variance, path, name), modes, 1.0, path, name)
        for name, (mean, basis, variance) in groups.items()
    }
    shape, expression, colour = parts["shape"], parts.get("expression"), parts.get("color")
    count = len(shape.mean)
    for name, part in parts.items():
        expect(part.mean, (count, 3), path, f"{name} mean")
    expect(points, (3, count), path, "shape/representer/points")
    expect(cells, (3, -1), path, "shape/representer/cells")
    known, crop = PUBLISHED.get(count, (_by_date(built), f"{count} vertices, as no published file"))
    mean, limits = shape.mean, [NO_PARTS]
    if expression is not None:
        mean = mean + expression.mean
        moved = float(np.linalg.norm(expression.mean, axis=1).max())
        limits.append(f"its mean face holds the mean expression, up to {moved:.1f} mm from the neutral shape")
    else:
        limits.append("no expressions of its own")
    if crop != "fullHead":
        limits.append("no back of the head")
    if colour is not None:
        limits.append(BAKED)
    _check_axes(landmarks, path)
    return RawModel(
        format=known,
        version=crop,
        mean=mean.astype(np.float32),
        identity=shape.modes,
        triangles=_triangles(cells.T, mean, path),
        licence=LICENCE,
        citation=CITATIONS[known],
        provenance={path.name: sha256(path)},
        expression=np.zeros((0, count, 3), np.float32),
        expression_names=(),
        expression_modes=np.zeros((0, count, 3), np.float32) if expression is None else expression.modes,
        albedo=None if colour is None else linear_albedo(colour),
        limits=(*shape.left_out("identity"), *limits),
    )


def _text(file: h5py.File, name: str) -> str:
    """A string that may be there, with or without the closing zero of C++; "" if not."""
    if name not in file:
        return ""
    value = file[name][()]
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.flat[0]
    raw = value.encode() if isinstance(value, str) else np.asarray(value).tobytes()
    return raw.decode("utf-8", errors="replace").rstrip("\0")


def _by_date(built: str) -> str:
    year = re.search(r"\b20\d\d\b", built)
    return "BFM 2019" if year and int(year[0]) >= 2019 else "BFM 2017"


def _triangles(triangles: NDArray[Any], mean: NDArray[np.float64], path: Path) -> NDArray[np.int32]:
    expect(triangles, (-1, 3), path, "triangles")
    check_triangles(triangles, len(mean), path)
    return np.ascontiguousarray(outward(mean, triangles), dtype=np.int32)


def _check_axes(landmarks: str, path: Path) -> None:
    """Named landmarks tell left from right and up from down: a file turned by an exporter would fit mirrored heads."""
    try:
        points = {str(mark["id"]): np.array(mark["coordinates"], np.float64) for mark in json.loads(landmarks)}
    except (ValueError, KeyError, TypeError):
        return  # landmarks are no part of the model: without them there is nothing to check

    def middle(start: str) -> NDArray[np.float64] | None:
        found = [point for name, point in points.items() if name.startswith(start)]
        return np.mean(found, axis=0) if found else None

    rules = (
        (0, "right.", "left.", "its left landmarks do not lie at larger x than its right ones"),
        (1, "center.chin.tip", "center.nose.tip", "its nose does not lie above its chin"),
        (2, "center.chin.tip", "center.nose.tip", "its nose does not lie in front of its chin"),
    )
    for axis, lower, higher, wrong in rules:
        low, high = middle(lower), middle(higher)
        if low is not None and high is not None and low[axis] >= high[axis]:
            raise ModelError(f"{path.name!r}: {wrong}; turn it to x to the face's left, y up, z out of the face")
