"""Which published model a file or folder is, told from its content, and the reader for it."""

from __future__ import annotations

import mmap
import zipfile
from pathlib import Path

from raytrace_face.errors import ModelError
from raytrace_face.face.formats.check import check_raw, reading
from raytrace_face.face.formats.raw import RawModel

OWN = "raytrace_face"
KNOWN = {
    "ICT-FaceKit": "a folder with FaceXModel/generic_neutral_mesh.obj",
    "BFM 2009": "01_MorphableModel.mat",
    "BFM 2017/2019": "model2017-1_*.h5, model2019_*.h5",
    "AlbedoMM": "albedoModel2020_*.h5, beside a BFM 2017",
    "AlbedoMM-FLAME": "albedoModel2020_FLAME_albedoPart.npz, beside FLAME",
    "FLAME pickle": "generic_model.pkl, flame2023.pkl",
    "FLAME npz": "the same as npz",
    "GNM Head": "gnm_head.npz",
    OWN: "a folder with model.json and model.safetensors",
}
"""What `recognise` can answer, and how such files are called where they are published."""

_NPZ_KEYS = {
    "AlbedoMM-FLAME": {"MU", "PC", "vt", "ft"},
    "FLAME npz": {"v_template", "f", "shapedirs", "weights"},
    "GNM Head": {"template_vertex_positions", "vertex_identity_basis", "triangles"},
}
_H5_GROUPS = {"BFM 2017/2019": "shape/model/mean", "BFM 2009": "shapeMU", "AlbedoMM": "diffuseAlbedo/model/mean"}
_MAT_NAMES = {"shapeMU", "shapePC", "shapeEV"}
_ZIP, _HDF5, _PICKLE, _MAT = b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", (b"\x80", b"(d", b"(i", b"(c", b"}"), b"MATLAB"
_FLAME_NAMES = (b"v_template", b"shapedirs", b"J_regressor")


def recognise(path: Path) -> str | None:
    """The key of `KNOWN` that a file or folder is; None: nothing that is known. Names of files say nothing here.

    Raises:
        ModelError: nothing is there, or it begins as a known container and is damaged.
    """
    if not path.exists():
        raise ModelError(f"{str(path)!r} does not exist: give the file or folder of a face model")
    if path.is_dir():
        return _recognise_folder(path)
    with path.open("rb") as file:
        head = file.read(128)
    if head.startswith(_ZIP):
        return _recognise_zip(path)
    if head.startswith((_HDF5, _MAT)):
        return _recognise_matrices(path, matlab=head.startswith(b"MATLAB 5"))
    if head.startswith(_PICKLE):
        return "FLAME pickle" if _holds(path, _FLAME_NAMES) else None
    return None


def read(path: Path, albedo: Path | None = None, modes: int = 100) -> RawModel:
    """Read a model of any known format.

    Args:
        path: file or folder.
        albedo: an albedo model of the same vertices (AlbedoMM), where the format has one.
        modes: identity modes to keep, those of the largest variance.

    Raises:
        ModelError: the format is not known, the file is damaged, or the albedo model does not fit.
    """
    kind = recognise(path)
    if albedo is not None and not (kind or "").startswith(("BFM", "FLAME")):
        raise ModelError(f"{str(path)!r} takes no albedo model: there is one for BFM 2017 and for FLAME only")
    if kind is not None and kind.startswith("BFM"):
        from raytrace_face.face.formats import bfm

        return bfm.read(path, albedo, modes)
    if kind is not None and kind.startswith("FLAME"):
        from raytrace_face.face.formats import flame

        return check_raw(flame.read(path, albedo, modes), path)
    if kind == "GNM Head":
        from raytrace_face.face.formats import gnm

        return check_raw(gnm.read(path, modes), path)
    if kind == "ICT-FaceKit":
        from raytrace_face.face.formats import ict

        return ict.read(path, modes)
    if kind == OWN:
        raise ModelError(f"{str(path)!r} is a model of this program already: use it as it is")
    if kind is not None:
        raise ModelError(f"{str(path)!r} is albedo only ({kind}): add the face model, and give this with --albedo")
    known = "; ".join(f"{name} ({files})" for name, files in KNOWN.items())
    raise ModelError(f"{str(path)!r} is no face model that is known. Known are: {known}")


def _recognise_folder(path: Path) -> str | None:
    from raytrace_face.face.formats import ict

    if ict.model_folder(path) is not None:
        return "ICT-FaceKit"
    return OWN if all((path / name).is_file() for name in ("model.json", "model.safetensors")) else None


def _recognise_zip(path: Path) -> str | None:
    with reading(path, "an npz archive"), zipfile.ZipFile(path) as archive:
        names = {name.removesuffix(".npy") for name in archive.namelist()}
    return next((kind for kind, keys in _NPZ_KEYS.items() if keys <= names), None)


def _recognise_matrices(path: Path, matlab: bool) -> str | None:
    if matlab:
        from scipy.io import whosmat

        with reading(path, "a MATLAB file"):
            names = {name for name, _, _ in whosmat(path)}
        # One is enough: scipy lists what is left of a file that is cut off, and the reader says what is missing.
        return "BFM 2009" if names & _MAT_NAMES else None
    import h5py

    with reading(path, "an HDF5 file"), h5py.File(path) as file:
        return next((kind for kind, name in _H5_GROUPS.items() if name in file), None)


def _holds(path: Path, names: tuple[bytes, ...]) -> bool:
    """Whether all these bytes occur in a file; nothing of it is run."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return all(data.find(name) >= 0 for name in names)
