"""AlbedoMM in FLAME's texture layout: statistical diffuse and specular albedo, sampled at the vertices.

Smith et al. 2020, "A Morphable Face Albedo Model", release `albedoModel2020_FLAME_albedoPart.npz`: `MU` (512, 512, 3)
and `PC` (512, 512, 3, 145) diffuse mean and modes per standard deviation, `specMU`, `specPC` specular, `vt` (T, 2)
texture coordinates with the origin bottom-left, `ft` (F, 3) texture triangles beside FLAME's; linear sRGB.

Written after the project's publications and others' use of the file; no file was seen.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial import cKDTree

from raytrace_face.errors import ModelError
from raytrace_face.face.formats.arrays import ModelArrays, read_npz
from raytrace_face.face.model import AlbedoBasis
from raytrace_face.types import Array

CITATION = "Smith, Seck, Dee, Tiddeman, Tenenbaum, Egger: A Morphable Face Albedo Model, CVPR 2020"
LICENCE = "AlbedoMM: academic research only"
_BLACK = 0.004
"""Albedo below which a texel is background, not skin (skin reflects 3 % and more even in the blue)."""


@dataclass(frozen=True)
class AlbedoTexture:
    """Where AlbedoMM's textures lie on a mesh; they have up to 0.9 GB each, so `sample_albedo` reads them in turn."""

    file: ModelArrays
    """`MU`, `vt` and `ft`."""
    skin: NDArray[np.bool_]
    """(H, W) texels that hold skin, row 0 at v = 1."""
    blue_first: bool
    """Order of the channels in the file, told by the mean: skin reflects more red than blue."""
    uv: Array
    """(T, 2)."""
    uv_triangles: NDArray[np.int32]
    """(F, 3)."""


def read_texture(path: str | Path, triangles: NDArray[np.int32]) -> AlbedoTexture:
    """The textures' chart, if it is one of the mesh with these triangles (F, 3).

    Raises:
        ModelError: arrays are missing, of wrong shape or range, or the chart belongs to another mesh.
    """
    path = Path(path)
    file = ModelArrays(path, read_npz(path, ("MU", "vt", "ft")))
    mean = file.floats("MU", "H", "W", 3)
    uv = file.floats("vt", "T", 2)
    corners = file.indices("ft", "F", 3, below="T")
    if len(corners) != len(triangles):
        raise ModelError(f"{path}: ft has {len(corners)} triangles, the model has {len(triangles)}: not its texture")
    pairs = np.unique(np.stack([corners.ravel(), triangles.ravel()], axis=1), axis=0)
    if len(np.unique(pairs[:, 0])) != len(pairs):
        raise ModelError(f"{path}: ft joins corners that are apart on the model: not its texture")
    if uv.min() < -1e-3 or uv.max() > 1 + 1e-3:
        raise ModelError(f"{path}: vt spans {uv.min():.2f} to {uv.max():.2f}, expected 0 to 1")
    skin = mean.max(axis=2) > _BLACK
    if mean.min() < -0.05 or mean.max() > 1.05 or not skin.any():
        raise ModelError(f"{path}: MU spans {mean.min():.2f} to {mean.max():.2f}, expected linear albedo from 0 to 1")
    first, _, last = mean[skin].mean(axis=0)
    return AlbedoTexture(file, skin, bool(first < last), uv.clip(0, 1).astype(np.float32), corners)


def _sampler(
    uv: Array, uv_triangles: NDArray[np.int32], triangles: NDArray[np.int32], count: int, height: int, width: int
) -> sparse.csr_matrix:
    """(count, H W) bilinear samples at the vertices; a vertex on a seam takes the mean of its texture vertices."""
    x = np.clip(uv[:, 0] * width - 0.5, 0, width - 1)
    y = np.clip((1 - uv[:, 1]) * height - 0.5, 0, height - 1)
    column, row = np.minimum(x.astype(int), width - 2), np.minimum(y.astype(int), height - 2)
    fx, fy = x - column, y - row
    first = row * width + column
    texels = np.stack([first, first + 1, first + width, first + width + 1], axis=1)
    weights = np.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], axis=1)
    rows = np.repeat(np.arange(len(uv)), 4)
    bilinear = sparse.csr_matrix((weights.ravel(), (rows, texels.ravel())), (len(uv), height * width))
    vertex, corner = np.unique(np.stack([triangles.ravel(), uv_triangles.ravel()], axis=1), axis=0).T
    share = 1 / np.bincount(vertex, minlength=count)[vertex]
    return (sparse.csr_matrix((share, (vertex, corner)), (count, len(uv))) @ bilinear).tocsr()


def sample_albedo(
    texture: AlbedoTexture, uv: Array, uv_triangles: NDArray[np.int32], triangles: NDArray[np.int32], points: Array
) -> tuple[AlbedoBasis, int]:
    """Albedo on the vertices (V, 3) `points`, red first, and how many of them have none in the texture.

    Those take the albedo of the nearest vertex that has one: the file covers the face, not the whole head.

    Args:
        texture: what to sample.
        uv: (T, 2), and
        uv_triangles: (F, 3) corner by corner beside
        triangles: (F, 3): the chart, subdivided as the mesh is.
        points: (V, 3) positions; vertices in no triangle count as bare.

    Raises:
        ModelError: an array is missing, of wrong shape, or holds values that are not finite.
    """
    height, width = texture.skin.shape
    matrix = _sampler(uv, uv_triangles, triangles, len(points), height, width)
    matrix = matrix @ sparse.diags(texture.skin.ravel().astype(float))
    cover = np.asarray(matrix.sum(axis=1)).ravel()
    matrix = sparse.diags(1 / np.maximum(cover, 1e-9)) @ matrix  # background beside the face does not darken its rim
    bare = cover < 0.5
    if bare.all():
        raise ModelError(f"{texture.file.path}: MU is black wherever the mesh has its chart: not its texture")
    source = np.arange(len(points))
    source[bare] = np.flatnonzero(~bare)[cKDTree(points[~bare]).query(points[bare])[1]]

    def at(name: str, *shape: int | str) -> Array:
        file = texture.file
        if not file.has(name):
            file = replace(file, arrays=read_npz(file.path, (name,)))
        image = file.floats(name, "H", "W", *shape).reshape(height * width, -1)
        values = np.asarray(matrix.astype(image.dtype) @ image, np.float32)[source]
        values = values.reshape(len(points), 3, -1)[:, :: -1 if texture.blue_first else 1]
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    return AlbedoBasis(
        diffuse=at("MU", 3)[0].clip(0.001, 0.999),
        diffuse_modes=at("PC", 3, "M"),
        specular=at("specMU", 3)[0].clip(0, None),
        specular_modes=at("specPC", 3, "S"),
    ), int(bare.sum())
