"""AlbedoMM (Smith et al., "A Morphable Face Albedo Model", CVPR 2020): diffuse and specular albedo on BFM's vertices.

`albedoModel2020_bfm_albedoPart.h5` and `..._face12_albedoPart.h5`: groups `diffuseAlbedo` and `specularAlbedo` in the
layout of BFM 2017 (`model/mean`, `model/pcaBasis`, `model/pcaVariance`, K = 145), linear sRGB, in the vertex order of
the BFM 2017 file with the same crop. The variant for FLAME (npz, per texel) is read with FLAME.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np

from raytrace_face.errors import ModelError
from raytrace_face.face.formats.check import check_raw, reading
from raytrace_face.face.formats.pca import ALBEDO_RANGE, Pca, deviations, principal, stored
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.model import AlbedoBasis
from raytrace_face.output import sha256

LICENCE = "AlbedoMM: academic research only"
CITATION = (
    "Smith et al., A Morphable Face Albedo Model, CVPR 2020; Stratou et al., Effect of illumination on automatic "
    "expression recognition, FG 2011"
)
GROUPS = ("diffuseAlbedo", "specularAlbedo")


def read(path: Path, modes: int) -> dict[str, Pca]:
    """Both models of a file, by group name, `modes` modes each.

    Raises:
        ModelError: the file is damaged, or its groups do not fit together.
    """
    with reading(path, "an AlbedoMM file"), h5py.File(path) as file:
        arrays = {group: stored(file, group) for group in GROUPS}
    found = {
        group: principal(mean, basis, deviations(variance, path, group), modes, 1.0, path, group)
        for group, (mean, basis, variance) in arrays.items()
    }
    diffuse, specular = (len(found[group].mean) for group in GROUPS)
    if diffuse != specular:
        raise ModelError(f"{path.name!r}: diffuse albedo has {diffuse} vertices, specular {specular}: get it again")
    return found


def attach(raw: RawModel, path: Path, modes: int, source: Path) -> RawModel:
    """The model `raw` of the file `source` with this albedo in the place of its own colours.

    Raises:
        ModelError: the albedo model is damaged, or has another number of vertices.
    """
    found = read(path, modes)
    diffuse, specular = (found[group] for group in GROUPS)
    if len(diffuse.mean) != len(raw.mean):
        raise ModelError(
            f"{path.name!r} has {len(diffuse.mean)} vertices, {source.name!r} {len(raw.mean)}: give the AlbedoMM file "
            "of the same crop (bfm with bfm, face12 with face12, both of BFM 2017)"
        )
    albedo = AlbedoBasis(
        np.clip(diffuse.mean, *ALBEDO_RANGE).astype(np.float32),
        diffuse.modes,
        np.maximum(specular.mean, 0).astype(np.float32),
        specular.modes,
    )
    own = tuple(limit for limit in raw.limits if "colours" not in limit)
    return check_raw(
        replace(
            raw,
            albedo=albedo,
            licence=f"{raw.licence}; {LICENCE}",
            citation=f"{raw.citation}; {CITATION}",
            provenance=raw.provenance | {path.name: sha256(path)},
            limits=(*own, *diffuse.left_out("albedo")),
        ),
        path,
    )
