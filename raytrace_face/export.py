"""Files that other programs read: EXR, PNG, PLY and GLB. No Mitsuba here.

Every map keeps the convention of `raytrace_face.types.Maps`: row 0 of the file is v = 1, the top of the picture.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lightstage.environment import sh_to_latlong, stage_to_latlong
from raytrace_face.capture.colour import encode_u8
from raytrace_face.face.mesh import vertex_normals
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.parts import PART_MATERIALS, eye_texture
from raytrace_face.types import Array

if TYPE_CHECKING:
    import pygltflib

    from raytrace_face.result import Reconstruction

ENVIRONMENT_HEIGHT = 128
"""Rows of `light.exr`: 1.4 degrees a pixel."""
SPECULAR_PREVIEW_WHITE = 0.08
"""F0 that is white in `specular.png`: skin (0.028 to 0.04) then lies at mid grey, as in other engines."""
GLTF_F0 = 0.04
"""Dielectric F0 that KHR_materials_specular scales (index of refraction 1.5)."""


def write_assets(result: Reconstruction, folder: Path) -> None:
    """Meshes, textures, light, shadow and render of the result folder."""
    model, maps, pictures = result.face_model(), result.maps, result.pictures
    posed = result.vertices()
    write_ply(folder / "mesh_neutral.ply", result.vertices(expression=False), model)
    write_ply(folder / "mesh_posed.ply", posed, model)
    textures = folder / "textures"
    textures.mkdir()
    for name in ("diffuse", "specular", "roughness", "confidence"):
        write_exr(textures / f"{name}.exr", getattr(maps, name))
    write_png(textures / "diffuse.png", encode_u8(maps.diffuse))
    write_png(textures / "specular.png", linear_u8(maps.specular / SPECULAR_PREVIEW_WHITE))
    write_png(textures / "roughness.png", linear_u8(maps.roughness))
    write_png(textures / "confidence.png", linear_u8(maps.confidence))
    write_exr(folder / "shadow.exr", pictures.shadow)
    write_exr(folder / "light.exr", environment(result))
    write_exr(folder / "render.exr", pictures.render)
    write_png(folder / "render.png", encode_u8(pictures.render))
    write_glb(folder / "face.glb", posed, model, maps.diffuse, maps.specular, maps.roughness)


def environment(result: Reconstruction) -> Array:
    """Lat-long map (128, 256, 3) of the stage lights and the surroundings, head frame, as seen from the origin.

    Row 0 is +y, the middle column +z, as Mitsuba's `envmap` wants it (`lightstage.environment`).
    """
    area = result.lights.area_lights()
    ambient = sh_to_latlong(np.asarray(result.ambient_sh, np.float64), ENVIRONMENT_HEIGHT)
    return (stage_to_latlong(area.corners, area.radiance, ENVIRONMENT_HEIGHT) + ambient).astype(np.float32)


def linear_u8(values: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Values in [0, 1] to codes 0-255 without any transfer curve."""
    return (np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def write_exr(path: Path, image: NDArray[np.floating]) -> None:
    """Float32 EXR: (H, W, 3) as R, G, B (linear Rec. 709), (H, W) as Y."""
    import OpenEXR

    pixels = np.ascontiguousarray(image, np.float32)
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    OpenEXR.File(header, {"RGB" if pixels.ndim == 3 else "Y": pixels}).write(str(path))


def write_png(path: Path, codes: NDArray[np.uint8]) -> None:
    """8-bit PNG of codes (H, W, 3) or (H, W)."""
    path.write_bytes(_png(codes))


def _png(codes: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(codes)).save(buffer, "PNG")
    return buffer.getvalue()


def write_ply(path: Path, vertices: NDArray[np.floating], model: FaceModel) -> None:
    """Binary PLY of the whole head, mm, head frame: positions, normals, uv (`s`, `t`, origin bottom-left)."""
    normals = vertex_normals(vertices, model.triangles, model.weld)
    write_triangles(path, vertices, model.triangles, normals, model.uv)


def write_triangles(
    path: Path,
    vertices: NDArray[np.floating],
    triangles: NDArray[np.integer],
    normals: NDArray[np.floating] | None = None,
    uv: NDArray[np.floating] | None = None,
) -> None:
    """Binary little-endian PLY of a triangle mesh, with normals (V, 3) and uv (V, 2) where given."""
    columns, names = [vertices], ["x", "y", "z"]
    if normals is not None:
        columns, names = [*columns, normals], [*names, "nx", "ny", "nz"]
    if uv is not None:
        columns, names = [*columns, uv], [*names, "s", "t"]
    table = np.concatenate(columns, axis=1).astype("<f4")
    faces = np.empty(len(triangles), np.dtype([("count", "u1"), ("index", "<i4", 3)]))
    faces["count"], faces["index"] = 3, triangles
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment raytrace_face",
        f"element vertex {len(table)}",
        *(f"property float {name}" for name in names),
        f"element face {len(faces)}",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    path.write_bytes("\n".join(header).encode("ascii") + table.tobytes() + faces.tobytes())


class _Blob:
    """The binary chunk of a GLB, grown one 4-byte aligned view at a time."""

    def __init__(self, gltf: pygltflib.GLTF2) -> None:
        self.gltf, self.data = gltf, bytearray()

    def view(self, data: bytes, target: int | None = None) -> int:
        import pygltflib

        start = len(self.data)
        self.data += data + b"\0" * (-len(data) % 4)
        view = pygltflib.BufferView(buffer=0, byteOffset=start, byteLength=len(data), target=target)
        self.gltf.bufferViews.append(view)
        return len(self.gltf.bufferViews) - 1

    def vectors(self, values: NDArray[np.floating]) -> int:
        """Accessor of float vectors (N, 2 or 3), with the bounds that glTF wants of positions."""
        import pygltflib

        data = np.ascontiguousarray(values, np.float32)
        accessor = pygltflib.Accessor(
            bufferView=self.view(data.tobytes(), pygltflib.ARRAY_BUFFER),
            componentType=pygltflib.FLOAT,
            count=len(data),
            type=f"VEC{data.shape[1]}",
            min=data.min(axis=0).tolist(),
            max=data.max(axis=0).tolist(),
        )
        self.gltf.accessors.append(accessor)
        return len(self.gltf.accessors) - 1

    def indices(self, values: NDArray[np.integer]) -> int:
        import pygltflib

        data = np.ascontiguousarray(values, np.uint32).ravel()
        view = self.view(data.tobytes(), pygltflib.ELEMENT_ARRAY_BUFFER)
        accessor = pygltflib.Accessor(
            bufferView=view, componentType=pygltflib.UNSIGNED_INT, count=len(data), type="SCALAR"
        )
        self.gltf.accessors.append(accessor)
        return len(self.gltf.accessors) - 1

    def texture(self, name: str, codes: NDArray[np.uint8]) -> int:
        import pygltflib

        image = pygltflib.Image(name=name, mimeType="image/png", bufferView=self.view(_png(codes)))
        self.gltf.images.append(image)
        self.gltf.textures.append(pygltflib.Texture(sampler=0, source=len(self.gltf.images) - 1))
        return len(self.gltf.textures) - 1


def specular_factors(f0: Array) -> tuple[Array, Array, Array]:
    """F0 (T, T, 3) as KHR_materials_specular: strength (T, T) and colour (T, T, 3) in [0, 1], colour factor (3,).

    The extension has F0 = min(0.04 colour, 1) strength and F90 = strength; the skin BSDF has F90 = min(1, 25 F0). With
    strength = min(1, F0 / 0.04) the two agree exactly for grey F0, below 0.04 and above.
    """
    scale = np.asarray(f0, np.float32) / GLTF_F0
    strength = np.clip(scale.max(axis=-1), 0, 1)
    colour = scale / np.maximum(strength, 1e-6)[..., None]
    colour = np.where(strength[..., None] > 1e-6, colour, 1)
    factor = np.maximum(colour.reshape(-1, 3).max(axis=0), 1e-6)
    return strength, colour / factor, factor


def _skin_material(blob: _Blob, diffuse: Array, specular: Array, roughness: Array) -> pygltflib.Material:
    import pygltflib

    strength, colour, factor = specular_factors(specular)
    size = (*strength.shape, 4)
    rgba = np.full(size, 255, np.uint8)
    rgba[..., 3] = linear_u8(strength)
    extension: dict[str, Any] = {
        "specularFactor": 1.0,
        "specularTexture": {"index": blob.texture("specular", rgba)},
        "specularColorFactor": [float(v) for v in factor],
    }
    if float(colour.min()) < 1 - 1 / 512:
        extension["specularColorTexture"] = {"index": blob.texture("specular_colour", encode_u8(colour))}
    rough = np.zeros((*roughness.shape, 3), np.uint8)
    rough[..., 1] = linear_u8(roughness)
    base = pygltflib.PbrMetallicRoughness(
        baseColorTexture=pygltflib.TextureInfo(index=blob.texture("diffuse", encode_u8(diffuse))),
        metallicFactor=0.0,
        roughnessFactor=1.0,
        metallicRoughnessTexture=pygltflib.TextureInfo(index=blob.texture("roughness", rough)),
    )
    return pygltflib.Material(name="skin", pbrMetallicRoughness=base, extensions={"KHR_materials_specular": extension})


def _part_material(blob: _Blob, part: str) -> pygltflib.Material:
    import pygltflib

    colour, f0, roughness = PART_MATERIALS[part]
    base = pygltflib.PbrMetallicRoughness(metallicFactor=0.0, roughnessFactor=roughness)
    if part == "eyes":
        base.baseColorTexture = pygltflib.TextureInfo(index=blob.texture("eyes", encode_u8(eye_texture())))
    else:
        base.baseColorFactor = [*colour, 1.0]
    extension = {"KHR_materials_specular": {"specularFactor": min(f0 / GLTF_F0, 1.0)}}
    return pygltflib.Material(name=part, pbrMetallicRoughness=base, extensions=extension)


def write_glb(
    path: Path, vertices: NDArray[np.floating], model: FaceModel, diffuse: Array, specular: Array, roughness: Array
) -> None:
    """Binary glTF 2.0 of a head (V, 3) in mm: one primitive and one PBR material a part, written in metres.

    glTF's axes are the head frame's (y up, z out of the face); its uv origin is the top left, so v is flipped.
    """
    import pygltflib

    gltf = pygltflib.GLTF2(
        asset=pygltflib.Asset(version="2.0", generator="raytrace_face"),
        scene=0,
        scenes=[pygltflib.Scene(nodes=[0])],
        nodes=[pygltflib.Node(name="head", mesh=0)],
        extensionsUsed=["KHR_materials_specular"],
        samplers=[
            pygltflib.Sampler(
                magFilter=pygltflib.LINEAR,
                minFilter=pygltflib.LINEAR_MIPMAP_LINEAR,
                wrapS=pygltflib.CLAMP_TO_EDGE,
                wrapT=pygltflib.CLAMP_TO_EDGE,
            )
        ],
    )
    blob = _Blob(gltf)
    normals = vertex_normals(vertices, model.triangles, model.weld)
    primitives = []
    for number, part in enumerate(PARTS):
        chosen = model.triangles[model.triangle_part == number]
        if not len(chosen):
            continue
        used, local = np.unique(chosen, return_inverse=True)
        attributes = pygltflib.Attributes(
            POSITION=blob.vectors(np.asarray(vertices)[used] / 1000),
            NORMAL=blob.vectors(_unit(normals[used])),
            TEXCOORD_0=blob.vectors(np.stack([model.uv[used, 0], 1 - model.uv[used, 1]], axis=1)),
        )
        material = _skin_material(blob, diffuse, specular, roughness) if part == "skin" else _part_material(blob, part)
        gltf.materials.append(material)
        primitives.append(
            pygltflib.Primitive(
                attributes=attributes, indices=blob.indices(local.reshape(-1, 3)), material=len(gltf.materials) - 1
            )
        )
    gltf.meshes = [pygltflib.Mesh(name="head", primitives=primitives)]
    gltf.buffers = [pygltflib.Buffer(byteLength=len(blob.data))]
    gltf.set_binary_blob(bytes(blob.data))
    path.write_bytes(b"".join(gltf.save_to_bytes()))


def _unit(normals: NDArray[np.floating]) -> NDArray[np.floating]:
    """Unit vectors; where there is none (a vertex without area) up, because glTF allows no zero normal."""
    length = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.where(length > 1e-6, normals / np.maximum(length, 1e-12), [0.0, 1.0, 0.0])
