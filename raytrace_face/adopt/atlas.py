"""Texture coordinates: the model's own where they can carry maps, else charts packed by xatlas.

Skin alone carries maps, so it alone fills the square. Eyes get the chart that the painted iris of `face.parts` expects,
teeth and mouth a frontal projection; these may overlap the skin's.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raytrace_face.adopt.disc import distance_to, find_disc, flatten, signed_areas
from raytrace_face.adopt.parts import pieces
from raytrace_face.face.mesh import Floats, Index, triangle_normals
from raytrace_face.face.model import PARTS
from raytrace_face.face.parts import EYE_CENTRE_U, EYE_CENTRE_V, IRIS_RADIUS_UV
from raytrace_face.types import Array

IRIS_MM = 6.0
RASTER = 1024
"""Texels across in which overlaps are looked for, and charts are packed."""
PADDING = 4
"""Texels between charts at that size: two at the 512 of a standard reconstruction."""
FACE_SHARE = 0.4
"""Least share of the square that the face must fill in charts of the model's own; new ones give it about half or more.
ICT-FaceKit's own, drawn for the whole head and the shoulders, give it 0.21."""
OVERLAP_SHARE = 0.01
"""Largest share of the skin's texels that two triangles may claim: mirrored halves have a half."""
REST_SCALE = 0.125
"""Texel density of skin outside the face, as a share of the face's: nothing is observed there."""
FACE_EDGE = 0.02
"""Weight of the region "face" above which a vertex gets the full density."""
MARGIN_MM = 50.0
"""The face's chart goes on so far beyond the face, so that what maps say at its edge can fade out around it."""
FADE_MM = 15.0
"""Distance from the face over which the density falls within this margin."""


Chart = tuple[Index, Floats, Index]
"""Triangles of the mesh (n,), positions (v, 2) in the plane, and corners (n, 3) among these."""


@dataclass(frozen=True)
class Atlas:
    """A mesh split along the seams of its texture."""

    source: NDArray[np.int32]
    """(V',) vertex of the unsplit mesh."""
    triangles: NDArray[np.int32]
    """(F, 3) into the split vertices, in the order of the unsplit mesh."""
    uv: Array
    """(V', 2)"""
    charts: int
    """Of the skin."""
    own: bool
    """Whether this is the model's own layout."""


def make_atlas(
    mean: Floats, triangles: Index, part: NDArray[np.uint8], face: Floats, uv: Floats | None, uv_triangles: Index | None
) -> Atlas:
    """Split a mesh so that every vertex has one texture coordinate.

    Args:
        mean: (V, 3) mm, head frame.
        part: (F,) index into `PARTS`.
        face: (V,) weight of the region "face".
        uv, uv_triangles: (T, 2) and (F, 3), or None.
    """
    skin = part == PARTS.index("skin")
    corner_uv = np.zeros((len(triangles), 3, 2))
    corner_id = np.zeros((len(triangles), 3), np.int64)
    weight = face[triangles[skin]].mean(1)
    own, layout = False, None
    if uv is not None and uv_triangles is not None:
        layout = uv[uv_triangles[skin]], uv_triangles[skin]
        own = usable(layout[0], weight)
        if not own:
            layout = repacked(mean, triangles[skin], uv, uv_triangles[skin], face)
            layout = layout if usable(layout[0], weight) else None
    corner_uv[skin], corner_id[skin] = layout or charted(mean, triangles[skin], face)
    charts = _chart_count(corner_id[skin])
    offset = int(corner_id.max()) + 1
    flat = part_uv(mean, triangles, part)
    for number in range(1, len(PARTS)):
        here = part == number
        corner_uv[here] = flat[number][triangles[here]]
        corner_id[here] = offset + number
    return _split(triangles, corner_uv, corner_id, charts, own)


def _split(triangles: Index, corner_uv: Floats, corner_id: Index, charts: int, own: bool) -> Atlas:
    key = triangles.ravel().astype(np.int64) * (int(corner_id.max()) + 1) + corner_id.ravel()
    _, first, inverse = np.unique(key, return_index=True, return_inverse=True)
    return Atlas(
        source=triangles.ravel()[first].astype(np.int32),
        triangles=inverse.reshape(-1, 3).astype(np.int32),
        uv=np.clip(corner_uv.reshape(-1, 2)[first], 0, 1).astype(np.float32),
        charts=charts,
        own=own,
    )


def _chart_count(corner_id: Index) -> int:
    used, local = np.unique(corner_id, return_inverse=True)
    return int(pieces(local.reshape(-1, 3), len(used)).max()) + 1


def usable(corner_uv: Floats, face: Floats) -> bool:
    """Whether a layout (F, 3, 2) of the skin lies in the unit square and does not overlap, and the face fills enough.

    Args:
        face: (F,) weight of the region "face".
    """
    if corner_uv.min() < -1e-4 or corner_uv.max() > 1 + 1e-4:
        return False
    a, b, c = corner_uv[:, 0], corner_uv[:, 1], corner_uv[:, 2]
    area = 0.5 * np.abs((b - a)[:, 0] * (c - a)[:, 1] - (b - a)[:, 1] * (c - a)[:, 0])
    return bool(area[face > 0.5].sum() > FACE_SHARE and overlap(corner_uv) < OVERLAP_SHARE)


def overlap(corner_uv: Floats, size: int = RASTER) -> float:
    """Share of the covered texel centres that lie in more than one triangle (F, 3, 2)."""
    from skimage.draw import polygon

    claims = np.zeros((size, size), np.int32)
    for triangle in corner_uv * size - 0.5:
        rows, columns = polygon(triangle[:, 1], triangle[:, 0], claims.shape)
        claims[rows, columns] += 1
    # Centres on a common edge are claimed twice by chance; a third claim is none.
    return float((claims > 1).sum() / max((claims > 0).sum(), 1))


def charted(mean: Floats, triangles: Index, face: Floats) -> tuple[Floats, Index]:
    """Corner coordinates (F, 3, 2) and ids (F, 3) of skin: the face in one chart, the rest as xatlas cuts it.

    Charts of the face keep its scale, the others get fewer texels.
    """
    import xatlas

    away = distance_to(mean, triangles, np.flatnonzero(face > FACE_EDGE), MARGIN_MM)
    disc = find_disc(triangles, np.asarray(np.isfinite(away[triangles]).all(1)))
    used, local = np.unique(triangles[disc], return_inverse=True)
    density = np.interp(away[used], [0, FADE_MM], [1, REST_SCALE])
    flat = flatten(mean[used], local.reshape(-1, 3), density)
    charts: list[Chart] = []
    if flat is None:
        disc = np.zeros(len(triangles), bool)
    else:
        charts.append((np.flatnonzero(disc), flat, local.reshape(-1, 3)))
    if not disc.all():
        charts += _cut(xatlas, REST_SCALE * mean, triangles, np.flatnonzero(~disc))
    return _pack(xatlas, charts, len(triangles))


def _cut(xatlas, mean: Floats, triangles: Index, group: Index) -> list[Chart]:
    """Charts of some triangles by xatlas, as few as it makes: it never joins what faces away from each other."""
    options = xatlas.ChartOptions()
    options.max_cost = 64.0
    options.normal_deviation_weight = 0.5
    options.normal_seam_weight = 0.0
    used, local = np.unique(triangles[group], return_inverse=True)
    atlas = xatlas.Atlas()
    atlas.add_mesh(mean[used].astype(np.float32), local.reshape(-1, 3).astype(np.uint32))
    packing = xatlas.PackOptions()
    packing.texels_per_unit = 1.0  # so that coordinates stay in the mesh's unit
    atlas.generate(chart_options=options, pack_options=packing)
    _, indices, uv = atlas.get_mesh(0)
    return _islands(group, uv * np.array([atlas.width, atlas.height]), indices.astype(np.int64))


def _islands(group: Index, uv: Floats, indices: Index) -> list[Chart]:
    """A layout taken apart into its charts."""
    chart = pieces(indices, len(uv))[indices[:, 0]]
    out: list[Chart] = []
    for number in np.unique(chart):
        own = chart == number
        used, local = np.unique(indices[own], return_inverse=True)
        out.append((group[own], uv[used] - uv[used].min(0), local.reshape(-1, 3)))
    return out


def repacked(mean: Floats, triangles: Index, uv: Floats, uv_triangles: Index, face: Floats) -> tuple[Floats, Index]:
    """The model's own charts (tiles side by side, or too small) laid into one square with even texel density."""
    import xatlas

    inner = np.asarray((face[triangles] > FACE_EDGE).any(1))
    charts: list[Chart] = []
    for group, flat, local in _islands(np.arange(len(triangles)), uv, uv_triangles):
        area = np.linalg.norm(triangle_normals(mean, triangles[group]), axis=1).sum()
        scale = np.sqrt(area / max(2 * np.abs(signed_areas(flat, local)).sum(), 1e-12))
        charts.append((group, flat * scale * (1.0 if inner[group].any() else REST_SCALE), local))
    return _pack(xatlas, charts, len(triangles))


def _pack(xatlas, charts: list[Chart], count: int) -> tuple[Floats, Index]:
    """Charts in mm laid side by side in the unit square: corner coordinates (F, 3, 2) and ids (F, 3)."""
    atlas = xatlas.Atlas()
    for _, flat, local in charts:
        atlas.add_uv_mesh(flat.astype(np.float32), local.astype(np.uint32))
    options = xatlas.PackOptions()
    options.resolution = RASTER
    options.padding = PADDING
    options.rotate_charts = options.rotate_charts_to_axis = False  # the face stays upright
    atlas.generate(pack_options=options)
    corner_uv, corner_id = np.zeros((count, 3, 2)), np.zeros((count, 3), np.int64)
    first = 0
    for number, (group, _, _) in enumerate(charts):
        _, indices, uv = atlas.get_mesh(number)
        corner_uv[group] = uv[indices]  # of each side of its own, so that the square is filled
        corner_id[group] = indices.astype(np.int64) + first
        first += len(uv)
    return corner_uv, corner_id


def part_uv(mean: Floats, triangles: Index, part: NDArray[np.uint8]) -> dict[int, Floats]:
    """Part number -> (V, 2): eyes as `face.parts.eye_texture` paints them, other parts from the front."""
    out = {}
    for number, name in enumerate(PARTS[1:], start=1):
        uv = np.full((len(mean), 2), 0.5)
        used = np.unique(triangles[part == number])
        if len(used) and name == "eyes":
            for side, u in ((-1, EYE_CENTRE_U[0]), (1, EYE_CENTRE_U[1])):
                ball = used[side * mean[used, 0] > 0]
                if len(ball):
                    middle = 0.5 * (mean[ball].min(0) + mean[ball].max(0))
                    scale = np.array(IRIS_RADIUS_UV) / IRIS_MM
                    uv[ball] = np.array([u, EYE_CENTRE_V]) + (mean[ball, :2] - middle[:2]) * scale
                    back = ball[mean[ball, 2] < middle[2] - IRIS_MM]
                    uv[back, 1] = 0.99  # white; nobody sees it
        elif len(used):
            low, high = mean[used].min(0)[:2], mean[used].max(0)[:2]
            uv[used] = (mean[used, :2] - low) / np.maximum(high - low, 1e-6)
        out[number] = np.clip(uv, 0, 1)
    return out
