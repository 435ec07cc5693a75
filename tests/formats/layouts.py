"""Small files in the exact layouts of published face models, made of any mean, modes and triangles.

What a layout says (units, order of axes, index base, winding, names of groups) is written here a second time, from the
publishers' descriptions and not from the readers, so that a round trip proves the readers. Lengths go in as mm and
modes as mm per standard deviation; every writer converts to the units of its format.

`head()` is a real head for them, the skin of the embedded model; `ict_mesh()` a stand-in with ICT's vertex ranges.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from scipy.io import savemat

from raytrace_face.face.model import PARTS
from raytrace_face.face.store import load_embedded

Floats = NDArray[np.floating]
Index = NDArray[np.integer]

ICT_SHEETS = (
    ("M_Face", 0, 9409, 0),
    ("M_BackHead", 9409, 11_248, 1),
    ("M_BackHead", 11_248, 14_062, 1),
    ("M_GumsTongue", 14_062, 17_039, 2),
    ("M_Teeth", 17_039, 21_451, 3),
    ("M_ScleraLeft", 21_451, 22_221, 0),
    ("M_IrisLeft", 22_221, 23_021, 0),
    ("M_ScleraRight", 23_021, 23_791, 0),
    ("M_IrisRight", 23_791, 24_591, 0),
    ("M_LacrimalFluid", 24_591, 24_999, 4),
    ("M_EyeBlend", 24_999, 25_047, 0),
    ("M_EyeOcclusion", 25_047, 25_351, 0),
    ("M_EyeLashes", 25_351, 26_719, 6),
)
"""Material, first vertex, end, and tile of the texture coordinates."""
BUILT_2017, BUILT_2019 = "Tue Oct 17 11:49:54 CEST 2017", "Mon Mar 04 09:12:00 CET 2019"
ICT_UNITS = ("browInnerUp_L", "browInnerUp_R", "jawOpen", "mouthSmile_L")


@dataclass(frozen=True)
class Head:
    """One closed-lipped face: n vertices, mm, y up, z out of the face, x to its left; triangles counter-clockwise."""

    mean: Floats
    """(n, 3) mm."""
    modes: Floats
    """(K, n, 3) mm per standard deviation, by falling length."""
    triangles: Index
    """(F, 3) 0-based."""
    expression_mean: Floats
    """(n, 3) mm."""
    expression_modes: Floats
    """(E, n, 3) mm per standard deviation."""
    colour: Floats
    """(n, 3) sRGB code in [0, 1]."""
    colour_modes: Floats
    """(C, n, 3) sRGB code per standard deviation."""


def head(modes: int = 6, expressions: int = 4, subdivide: int = 0) -> Head:
    """Skin and eyes of the embedded model, welded, with its first modes and some of its expressions.

    `subdivide` 0: 3,488 vertices; 1: 13,810. Lips, brows and irises are painted, as BFM's are.
    """
    model = load_embedded(subdivide)
    shown = np.isin(model.triangle_part, [PARTS.index("skin"), PARTS.index("eyes")])
    used, triangles = np.unique(model.weld[model.triangles[shown]], return_inverse=True)
    eyes = np.isin(used, model.weld[model.triangles[model.triangle_part == PARTS.index("eyes")]])
    names = ["jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp", "mouthPucker", "noseSneerLeft"]
    chosen = [model.expression_names.index(name) for name in names[:expressions]]
    mean = model.mean[used].astype(np.float64)
    height = (mean[:, 1:2] - mean[:, 1].min()) / np.ptp(mean[:, 1])
    colour = np.array([0.8, 0.62, 0.54]) + np.array([0.05, -0.05, -0.08]) * (height - 0.5)
    for region, paint in (("lips", [0.7, 0.4, 0.4]), ("brows", [0.3, 0.22, 0.18])):
        weight = model.regions[region][used, None]
        colour = (1 - weight) * colour + weight * np.array(paint)
    iris = np.hypot(np.abs(mean[:, 0]) - np.abs(mean[eyes, 0]).mean(), mean[:, 1] - mean[eyes, 1].mean()) < 6
    colour[eyes] = np.where(iris[eyes, None], [0.2, 0.13, 0.1], [0.88, 0.85, 0.83])
    darker = np.ones_like(mean) * [-0.08, -0.07, -0.05]
    return Head(
        mean,
        model.identity[:modes][:, used].astype(np.float64),
        triangles.reshape(-1, 3),
        0.2 * model.expression[chosen[1]][used].astype(np.float64),
        model.expression[chosen][:, used].astype(np.float64),
        colour,
        np.stack([darker, np.sin(mean / 40) * 0.03]),
    )


def columns(modes: Floats) -> tuple[Floats, Floats]:
    """Modes (K, n, 3) as unit columns (3 n, K) and their lengths (K,)."""
    flat = modes.reshape(len(modes), -1)
    length = np.linalg.norm(flat, axis=1)
    return (flat / length[:, None]).T, length


# BFM 2009


def write_bfm_2009(path: Path, face: Head, hdf5: bool = False) -> None:
    """`01_MorphableModel.mat`: float32 micrometres and 0-255 codes, EV standard deviations, `tl` 1-based clockwise.

    `hdf5`: as MATLAB 7.3 saves it, axes reversed behind a 512-byte header.
    """
    shape, deviation = columns(face.modes)
    texture, texture_deviation = columns(face.colour_modes)
    values = {
        "shapeMU": (face.mean.reshape(-1, 1) * 1000).astype(np.float32),
        "shapePC": shape.astype(np.float32),
        "shapeEV": (deviation * 1000)[:, None].astype(np.float32),
        "texMU": (face.colour.reshape(-1, 1) * 255).astype(np.float32),
        "texPC": texture.astype(np.float32),
        "texEV": (texture_deviation * 255)[:, None].astype(np.float32),
        "tl": (face.triangles[:, ::-1] + 1).astype(np.float64),
        "segbin": np.zeros((len(face.mean), 4), np.uint8),
    }
    if not hdf5:
        savemat(path, values, do_compression=True)
        return
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, value in values.items():
            file[name] = value.T
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


# BFM 2017 and 2019, AlbedoMM


def write_bfm_2017(path: Path, face: Head, built: str = BUILT_2017, landmarks: bool = True) -> None:
    """`model2017-1_*.h5` and, with another date, `model2019_*.h5`: Statismo 0.9 with catalog and landmarks."""
    with h5py.File(path, "w") as file:
        data = dict.fromkeys(("color", "expression"), "POLYGON_MESH_DATA_MODEL")
        _catalog(file, {"shape": "POLYGON_MESH_MODEL", **data})
        _statismo(file, "shape", "Shape", face.mean, face.modes, face, built)
        _statismo(file, "expression", "Expression", face.expression_mean, face.expression_modes, face, built)
        _statismo(file, "color", "Color", face.colour, face.colour_modes, face, built)
        file["color/representer/colorspace"] = np.bytes_(b"RGB\0")
        if landmarks:
            file["metadata/landmarks/json"] = np.bytes_(json.dumps(landmarks_of(face.mean)).encode())


def write_albedomm(path: Path, face: Head, specular: Floats, specular_modes: Floats) -> None:
    """`albedoModel2020_*_albedoPart.h5`; the colours of `face` are taken for linear diffuse albedo here."""
    built = "Fri Apr 03 10:00:00 CEST 2020"
    with h5py.File(path, "w") as file:
        _catalog(file, dict.fromkeys(("diffuseAlbedo", "specularAlbedo"), "POLYGON_MESH_DATA_MODEL"))
        _statismo(file, "diffuseAlbedo", "DiffuseAlbedo", face.colour, face.colour_modes, face, built)
        _statismo(file, "specularAlbedo", "SpecularAlbedo", specular, specular_modes, face, built)
        for group in ("diffuseAlbedo", "specularAlbedo"):
            file[f"{group}/representer/colorspace"] = np.bytes_(b"RGB\0")


def landmarks_of(mean: Floats) -> list[dict[str, object]]:
    """Some of BFM's named landmarks, found by their place."""
    nose = mean[np.argmax(mean[:, 2])]
    middle = mean[np.abs(mean[:, 0]) < 5]
    chin = middle[np.argmin(np.hypot(middle[:, 1] - nose[1] + 65, middle[:, 2] - nose[2] + 25))]
    named = {"center.nose.tip": nose, "center.chin.tip": chin}
    for side, sign in (("left", 1), ("right", -1)):
        at = nose + np.array([sign * 45, 38, -35])
        named[f"{side}.eye.corner_outer"] = mean[np.argmin(((mean - at) ** 2).sum(1))]
    return [{"id": name, "coordinates": point.tolist()} for name, point in named.items()]


def _catalog(file: h5py.File, models: dict[str, str]) -> None:
    _version(file)
    file["catalog/MorphableModel/modelPath"] = np.bytes_(b"/")
    file["catalog/MorphableModel/modelType"] = np.bytes_(b"CUSTOM_MODEL")
    for name, kind in models.items():
        file[f"catalog/MorphableModel.{name}/modelPath"] = np.bytes_(f"/{name}".encode())
        file[f"catalog/MorphableModel.{name}/modelType"] = np.bytes_(kind.encode())


def _version(group: h5py.Group) -> None:
    group["version/majorVersion"], group["version/minorVersion"] = np.int32(0), np.int32(9)


def _statismo(file: h5py.File, name: str, kind: str, mean: Floats, modes: Floats, face: Head, built: str) -> None:
    basis, deviation = columns(modes)
    group = file.create_group(name)
    _version(group)
    group["model/mean"] = mean.reshape(-1).astype(np.float32)
    group["model/noiseVariance"] = np.zeros(1, np.float32)
    group["model/pcaBasis"] = basis.astype(np.float32)
    group["model/pcaVariance"] = (deviation**2).astype(np.float32)
    group["modelinfo/build-time"] = np.bytes_(built.encode())
    group["modelinfo/scores"] = np.zeros((1, 1), np.float32)
    representer = group.create_group("representer")
    representer.attrs["name"] = np.bytes_(f"gravis::Mesh{kind}Representer".encode())
    representer.attrs["datasetType"] = np.bytes_(b"POLYGON_MESH")
    representer["points"] = face.mean.T.astype(np.float32)
    representer["cells"] = face.triangles.T.astype(np.int32)


# ICT-FaceKit


@dataclass(frozen=True)
class IctMesh:
    """26,719 vertices in mm in the ranges of ICT-FaceKit, and faces with their texture coordinates and materials."""

    vertices: Floats
    uv: Floats
    faces: list[tuple[str, Index, Index]]
    """Material, (Q, 4) vertices, (Q, 4) texture coordinates, 0-based."""


def ict_mesh() -> IctMesh:
    """Each range as one sheet of quads: face and back of the head the halves of an egg, the rest small bodies in it."""
    vertices, uv, faces = np.zeros((26_719, 3)), [], []
    for material, first, end, tile in ICT_SHEETS:
        across = int(np.sqrt(end - first))
        rows = (end - first) // across
        t, s = np.meshgrid(np.linspace(0.01, 0.99, rows), np.linspace(0.01, 0.99, across), indexing="ij")
        latitude, longitude = np.pi * (t - 0.5) * 0.95, np.pi * (s - 0.5)
        ball = np.stack(
            [np.cos(latitude) * np.sin(longitude), np.sin(latitude), np.cos(latitude) * np.cos(longitude)], -1
        ).reshape(-1, 3)
        centre, radii = np.zeros(3), np.array([75.0, 110.0, 90.0])
        if first == 9409:
            ball[:, [0, 2]] *= -1
        elif first > 9409:
            side = 1 if "Left" in material else -1 if "Right" in material else 0
            centre, radii = np.array([side * 30.0, 20.0, 60.0]), np.full(3, 8.0 + first / 1e4)
        vertices[first : first + rows * across] = centre + ball * radii
        corner = (np.arange(rows - 1)[:, None] * across + np.arange(across - 1)).ravel()
        quads = np.stack([corner, corner + 1, corner + across + 1, corner + across], 1)
        faces.append((material, quads + first, quads + sum(map(len, uv))))
        low = 0.5 if first == 11_248 else 0.0  # the sockets share the tile of the back of the head
        uv.append(np.stack([tile + (s if first < 9409 else low + s / 2), t], -1).reshape(-1, 2))
    return IctMesh(vertices, np.concatenate(uv), faces)


def write_ict(
    folder: Path, mesh: IctMesh, identity: dict[int, Floats], expression: dict[str, Floats], packed: bool = False
) -> Path:
    """`FaceXModel` in `folder`: neutral mesh, neutral + mode for each number, neutral + unit for each name, in cm.

    `packed`: the modes in `ict_all_modes.npz` beside it instead, in half precision.
    """
    model = folder / "FaceXModel"
    model.mkdir(parents=True)
    write_obj(model / "generic_neutral_mesh.obj", mesh)
    layout = {"expressions": list(ICT_UNITS), "idx_to_landmark_verts": list(range(68))}
    (model / "vertex_indices.json").write_text(json.dumps(layout), encoding="utf-8")
    if packed:
        np.savez_compressed(
            folder / "ict_all_modes.npz",
            mean=(mesh.vertices / 10).astype(np.float32),
            id=np.stack([mode / 10 for mode in identity.values()]).astype(np.float16),
            expr=np.stack([unit / 10 for unit in expression.values()]).astype(np.float16),
            expr_names=np.array(list(expression)),
        )
        return model
    named = {f"identity{number:03d}": mode for number, mode in identity.items()} | expression
    for name, mode in named.items():
        write_obj(model / f"{name}.obj", mesh, mode)
    return model


def write_obj(path: Path, mesh: IctMesh, displacement: Floats | float = 0.0) -> None:
    """One OBJ as ICT writes it: six digits, quads with some triangles among them, one `usemtl` a material."""
    with path.open("w", encoding="ascii") as file:
        file.write("# ICT FaceKit\n\nmtllib ICTFaceModelMaterial.mtl\n")
        np.savetxt(file, (mesh.vertices + displacement) / 10, "v %.6g %.6g %.6g")
        np.savetxt(file, mesh.uv, "vt %.6f %.6f")
        current = ""
        for material, quads, corners in mesh.faces:
            if material != current:
                file.write(f"usemtl {material}\n")
                current = material
            pairs = np.stack([quads, corners], -1).reshape(len(quads), 8) + 1
            np.savetxt(file, pairs[1:], "f %d/%d %d/%d %d/%d %d/%d")
            np.savetxt(
                file, pairs[:1, [0, 1, 2, 3, 4, 5, 0, 1, 4, 5, 6, 7]], "f %d/%d %d/%d %d/%d\nf %d/%d %d/%d %d/%d"
            )
