"""From what a model's file says to what the fit needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from raytrace_face.adopt.atlas import Atlas, make_atlas
from raytrace_face.adopt.correspond import Match, Surface, match_by_part, register
from raytrace_face.adopt.expressions import Expressions, make_expressions
from raytrace_face.adopt.frame import Frame, eye_centres, find_frame
from raytrace_face.adopt.parts import find_parts
from raytrace_face.adopt.regions import carry_regions, mirror_map
from raytrace_face.errors import ModelError
from raytrace_face.face.formats.raw import RawModel
from raytrace_face.face.mesh import Floats, rigid_fit
from raytrace_face.face.model import PARTS, AlbedoBasis, FaceModel
from raytrace_face.face.store import check_model, load_embedded
from raytrace_face.fit.embedding import calibrate, mitsuba_render, network_detector
from raytrace_face.types import Array

CALIBRATION_IDENTITIES = 2
"""Random shapes beside the mean that are shown to the landmark network, each from nine sides."""
PATHS = 12
"""Paths a pixel in pictures for the network: their noise moves a mark by 0.4 mm, and 27 views are averaged."""
RESIDUAL_LIMIT_MM = 3.0
"""A registered face that stays further from the model's mean (median) has not found it."""
STEPS = ("frame", "correspondence", "regions", "expressions", "texture", "landmarks")


@dataclass(frozen=True)
class Placed:
    """A model's mean in the head frame with its correspondence to the embedded model."""

    frame: Frame
    surface: Surface
    part: NDArray[np.uint8]
    """(F,) index into `PARTS`."""
    moved: Floats
    """(V_e, 3) mm: the embedded mean laid on it."""
    residual_mm: float
    found: Match


def adopt(raw: RawModel, name: str, seed: int = 0, quiet: bool = True) -> FaceModel:
    """A complete face model of what a file says.

    What the file has is kept: its mesh, statistics, named expressions, parts and texture coordinates. What it lacks is
    brought over from the embedded model by a non-rigid registration of the means.

    Args:
        raw: the model as read, in mm, y up, z out of the face.
        name: what the user calls it.
        seed: of the shapes that are shown to the landmark network.
        quiet: show no progress.

    Raises:
        ModelError: no face is found on the mean, or it is not one in mm.
    """
    embedded, detect, render = load_embedded(), network_detector(), partial(mitsuba_render, spp=PATHS)
    with _progress(quiet) as step:
        step("frame")
        frame, marks = find_frame(raw, embedded, detect, render)
        step("correspondence")
        placed = place(raw, embedded, frame, marks)
        step("regions")
        regions = carry_regions(placed.surface, placed.part, embedded, placed.found)
        step("expressions")
        expressions = make_expressions(
            placed.surface, placed.part, embedded, placed.found, regions["face"].astype(np.float64),
            placed.frame.fields(raw.expression), raw.expression_names, placed.frame.fields(raw.expression_modes),
        )  # fmt: skip
        step("texture")
        mean = placed.surface.vertices
        atlas = make_atlas(mean, raw.triangles, placed.part, regions["face"], raw.uv, raw.uv_triangles)
        model = assemble(raw, name, placed, regions, expressions, atlas)
        step("landmarks")
        try:
            return check_model(calibrate(model, detect, render, identities=CALIBRATION_IDENTITIES, seed=seed))
        except ValueError as error:
            raise ModelError(f"the landmark network does not know the faces of {name!r} ({error})") from error


@contextmanager
def _progress(quiet: bool) -> Iterator:
    with tqdm(total=len(STEPS), disable=quiet, leave=False, unit="step") as bar:

        def step(name: str) -> None:
            bar.set_description(name)
            bar.update(STEPS.index(name) - bar.n)

        yield step


def place(raw: RawModel, embedded: FaceModel, frame: Frame, marks: Floats) -> Placed:
    """Register the embedded mean to the raw one, and take from it parts and the exact head frame.

    Raises:
        ModelError: the registration does not come near the surface.
    """
    surface = Surface.of(frame.points(raw.mean.astype(np.float64)), raw.triangles)
    skin = surface
    if raw.triangle_part is not None:
        skin = Surface.of(surface.vertices, raw.triangles[raw.triangle_part == PARTS.index("skin")])
    laid = register(embedded, skin, marks)
    if laid.residual_mm > RESIDUAL_LIMIT_MM:
        raise ModelError(
            f"the mean of this {raw.format} model could not be registered: the face stays {laid.residual_mm:.1f} mm "
            f"away, more than {RESIDUAL_LIMIT_MM:.0f}"
        )
    part = find_parts(surface, embedded, laid.vertices) if raw.triangle_part is None else raw.triangle_part
    # The face as a whole gives the axes and the middle; the eyes give height and depth of the origin.
    weight = embedded.regions["face"].astype(np.float64)
    _, rotation, shift = rigid_fit(laid.vertices, embedded.mean.astype(np.float64), weight)
    eyes = eye_centres(surface.vertices @ rotation.T + shift, raw.triangles, part)
    if eyes is None:
        eyes = eye_centres(laid.vertices @ rotation.T + shift, embedded.triangles, embedded.triangle_part)
        assert eyes is not None  # the embedded model has eyeballs
    shift = shift - eyes.mean(0) * np.array([0.0, 1.0, 1.0])
    moved = laid.vertices @ rotation.T + shift
    surface = Surface.of(surface.vertices @ rotation.T + shift, raw.triangles)
    found = match_by_part(surface, part, embedded, moved)
    return Placed(frame.then(rotation, shift), surface, part, moved, laid.residual_mm, found)


def assemble(
    raw: RawModel, name: str, placed: Placed, regions: dict[str, Array], expressions: Expressions, atlas: Atlas
) -> FaceModel:
    """The model on the split mesh, without landmarks."""
    source = atlas.source
    mean = placed.surface.vertices[source].astype(np.float32)
    mirror, asymmetry = mirror_map(mean.astype(np.float64), atlas.triangles, placed.part, source)
    first = np.full(len(raw.mean), len(source))
    np.minimum.at(first, source, np.arange(len(source)))
    none = np.zeros(0, np.int32)
    return FaceModel(
        name=name,
        mean=mean,
        identity=placed.frame.fields(raw.identity[:, source]),
        expression=np.ascontiguousarray(expressions.basis[:, source]),
        expression_names=load_embedded().expression_names,
        triangles=atlas.triangles,
        triangle_part=placed.part.astype(np.uint8),
        uv=atlas.uv,
        weld=first[source].astype(np.int32),
        mirror=mirror,
        landmark_index=none,
        landmark_triangle=none,
        landmark_barycentric=np.zeros((0, 3), np.float32),
        landmark_sigma_mm=np.zeros(0, np.float32),
        regions={key: weight[source] for key, weight in regions.items()},
        licence=raw.licence,
        provenance=_provenance(raw, placed, expressions, atlas, asymmetry),
        albedo=None if raw.albedo is None else _split_albedo(raw.albedo, source),
        native_expression=expressions.native,
        source=source if raw.own_vertices is None else np.where(source < raw.own_vertices, source, -1).astype(np.int32),
    )


def _split_albedo(basis: AlbedoBasis, source: NDArray[np.int32]) -> AlbedoBasis:
    return AlbedoBasis(
        basis.diffuse[source],
        basis.diffuse_modes[:, source],
        None if basis.specular is None else basis.specular[source],
        None if basis.specular_modes is None else basis.specular_modes[:, source],
    )


def _provenance(
    raw: RawModel, placed: Placed, expressions: Expressions, atlas: Atlas, asymmetry_mm: float
) -> dict[str, str]:
    """What the model is and what was made here, one line each; digests of its files beside it."""
    face = placed.found.trust > 0.5
    made = {
        "format": f"{raw.format} {raw.version}".strip(),
        "citation": raw.citation,
        "limits": "; ".join(raw.limits),
        "registration": f"face {placed.residual_mm:.2f} mm (median) from the embedded mean; "
        f"{100 * face.mean():.0f} % of the vertices correspond",
        "parts": "of the file" if raw.triangle_part is not None else "by registration to the embedded model",
        "mirror": f"mirrored vertices at most {asymmetry_mm:.1f} mm from their partners",
        "texture": f"{'layout of the file' if atlas.own else 'packed here'}, {atlas.charts} charts",
        "expressions": _expressions_line(expressions),
    }
    return {key: value for key, value in made.items() if value} | {f"sha256 {k}": v for k, v in raw.provenance.items()}


def _expressions_line(expressions: Expressions) -> str:
    count = len(expressions.transferred)
    if not count:
        return "all of the file"
    line = f"{len(expressions.basis) - count} of the file, {count} by deformation transfer from the embedded model"
    if expressions.kept:
        ranked = sorted(expressions.kept.items(), key=lambda item: item[1])
        middle = float(np.median(list(expressions.kept.values())))
        worst = ", ".join(f"{name} {100 * share:.0f} %" for name, share in ranked[:3])
        line += f", of which the model's own modes keep {100 * middle:.0f} % (median; least {worst})"
    return line
