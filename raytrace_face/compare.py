"""Results side by side: pictures in the region that they share, light, geometry and albedo.

Pictures can be compared pixel by pixel when they are of one photo: each result is then traced anew in its own camera on
*one* window, and only what every result has fitted counts. Results of different photos are each scored in their own;
what can be compared between them is light, the neutral face, and albedo in the common texture.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.segmentation import resample
from raytrace_face.errors import InputError
from raytrace_face.export_scene import write_scene
from raytrace_face.face.model import PARTS
from raytrace_face.measure.appearance import AlbedoErrors, FaceScores, Perceptual, albedo_errors, face_mask, face_scores
from raytrace_face.measure.geometry import Errors, align
from raytrace_face.measure.light import angle_deg
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array, Photo, Window

Mask = NDArray[np.bool_]
Renderer = Literal["own", "mitsuba", "mitsuba-stock"]
Results = Mapping[str, Reconstruction]

SCENE_FILES = {"mitsuba": "scene.xml", "mitsuba-stock": "scene_stock.xml"}
"""Exported scene that a renderer loads."""
OBSERVED = 0.5
"""Confidence above which a texel counts as seen."""


@dataclass(frozen=True)
class Setting:
    """How a result is rendered."""

    renderer: Renderer = "own"
    """`Reconstruction.render`, or the exported scene by Mitsuba's path tracer: our skin BSDF, or stock plugins."""
    spp: int = 64
    """Rays a pixel."""
    shadows: bool = True
    """True: as the result was made. False lets light through the head; Mitsuba's scenes always have shadows."""

    @property
    def label(self) -> str:
        return f"{self.renderer}, {self.spp} spp" + ("" if self.shadows else ", no shadows")


@dataclass(frozen=True)
class View:
    """What results of one photo are compared on."""

    names: tuple[str, ...]
    """The results."""
    window: Window
    photo: Array
    """(S, S, 3) linear."""
    mask: Mask
    """(S, S) where every result was fitted."""


@dataclass(frozen=True)
class Entry:
    """One result under one setting."""

    name: str
    setting: Setting
    view: View
    picture: Array
    """(S, S, 3) rendered on the view's window, linear."""
    scores: FaceScores
    """Against the photo."""
    to_first: FaceScores | None
    """Against the first entry of the same view; None for that entry."""


@dataclass(frozen=True)
class Pair:
    """How far the second result is from the first one."""

    names: tuple[str, str]
    light_camera_deg: float
    """Angle between the main lights as the cameras see them: what matters between results of one photo."""
    light_head_deg: float
    """The same as the heads see them: light from the same side of the face, however it was turned."""
    rigid: Errors
    """Millimetres from the second's neutral face to the first one's surface after rotation and shift."""
    similar: Errors
    """The same after scale, too: distance and focal length of a photo leave size open."""
    scale: float
    """Second over first, of `similar`."""
    albedo: AlbedoErrors | None
    """Of the second's diffuse map against the first one's, where both were seen; None where nothing was."""


def settings(
    renderers: Sequence[Renderer] = ("own",), spp: Sequence[int] = (64,), no_shadows: bool = False
) -> tuple[Setting, ...]:
    """Every renderer with every number of rays; with `no_shadows` also our own without shadows.

    >>> [s.label for s in settings(spp=(16, 256))]
    ['own, 16 spp', 'own, 256 spp']
    """
    shown = [Setting(renderer, rays) for renderer in renderers for rays in spp]
    return (*shown, *(replace(s, shadows=False) for s in shown if no_shadows and s.renderer == "own"))


def same_photo(a: Reconstruction, b: Reconstruction) -> bool:
    """Whether two results are of one photo: equal digests; of arrays, which have none, equal names and sizes."""
    if a.photo_sha256 or b.photo_sha256:
        return a.photo_sha256 == b.photo_sha256
    size = (a.camera.width, a.camera.height) == (b.camera.width, b.camera.height)
    return size and a.photo_name == b.photo_name


def views(results: Results, photo: Photo | None = None) -> list[View]:
    """One view for each photo among the results, in the order given; with `photo` one for all, scored against it.

    The window is that of the photo's first result, which holds the region that all of them share.

    Raises:
        InputError: the photo is not of the size of a result's, or the results of one photo share no region.
    """
    if photo is not None:
        for name, result in results.items():
            if (photo.width, photo.height) != (result.camera.width, result.camera.height):
                raise InputError(
                    f"{photo.name} is {photo.width} x {photo.height}, the photo of {name} was "
                    f"{result.camera.width} x {result.camera.height}: give a photo of that size"
                )
        return [_view(results, photo)]
    grouped: list[dict[str, Reconstruction]] = []
    for name, result in results.items():
        home = next((g for g in grouped if same_photo(result, next(iter(g.values())))), None)
        if home is None:
            grouped.append({name: result})
        else:
            home[name] = result
    return [_view(group, None) for group in grouped]


def _view(results: Results, photo: Photo | None) -> View:
    first = next(iter(results.values()))
    window = first.window
    mask = np.ones((window.size, window.size), bool)
    for result in results.values():
        mask &= on_window(face_mask(result).astype(np.float32), result.window, window) > 0.5
    if not mask.any():
        raise InputError(f"the fitted regions of {', '.join(results)} do not overlap: compare results of one face")
    shown = first.pictures.photo if photo is None else resample(photo.linear, window)[0]
    return View(tuple(results), window, shown, mask)


def on_window(picture: Array, source: Window, target: Window) -> Array:
    """A picture (S, S) or (S, S, C) of one window of a photo, seen through another one; black outside of the first."""
    if source == target:
        return picture
    k = source.size / source.side_px
    part = Window(
        (target.left_px - source.left_px) * k, (target.top_px - source.top_px) * k, target.side_px * k, target.size
    )
    return resample(picture, part)[0].reshape(target.size, target.size, *picture.shape[2:])


def rendered(result: Reconstruction, window: Window, setting: Setting, seed: int = 0) -> Array:
    """A result traced on a window of its photo, (S, S, 3) linear, black where the head is not."""
    if setting.renderer == "own":
        shadows = None if setting.shadows else False
        return result.render(result.camera.windowed(window), spp=setting.spp, seed=seed, shadows=shadows)
    from raytrace_face.backend import start

    start(result.config.device, result.config.deterministic)
    from raytrace_face.tracer.exported import render_file

    file = SCENE_FILES[setting.renderer]
    with tempfile.TemporaryDirectory(prefix="raytrace-face-") as folder:
        write_scene(replace(result, window=window), Path(folder) / "scene", (file,))
        return render_file(Path(folder) / "scene" / file, setting.spp, seed)


def entries(
    results: Results,
    shown: Sequence[View],
    chosen: Sequence[Setting] = (Setting(),),
    perceptual: Perceptual | None = None,
    seed: int = 0,
    progress: Callable[[Sequence[tuple[View, str, Setting]]], Iterator[tuple[View, str, Setting]]] = iter,
) -> list[Entry]:
    """Render and score every result under every setting, the results of one photo together.

    Args:
        perceptual: a further distance, such as `raytrace_face.measure.perceptual.st_lpips`.
        progress: wraps the list of what there is to do, as `tqdm` does.

    Two entries of one renderer with equal seeds have equal noise where nothing else differs.
    """
    todo = [(view, name, setting) for view in shown for name in view.names for setting in chosen]
    found: list[Entry] = []
    for view, name, setting in progress(todo):
        picture = rendered(results[name], view.window, setting, seed)
        scores = face_scores(picture, view.photo, view.mask, perceptual)
        first = next((e for e in found if e.view is view), None)
        to_first = None if first is None else face_scores(picture, first.picture, view.mask, perceptual)
        found.append(Entry(name, setting, view, picture, scores, to_first))
    return found


def pairs(results: Results) -> list[Pair]:
    """Every two results, the first one given first."""
    return [pair((a, b), results[a], results[b]) for a, b in itertools.combinations(results, 2)]


def pair(names: tuple[str, str], first: Reconstruction, second: Reconstruction) -> Pair:
    """How far the second result is from the first one, in everything that does not depend on the photo's pixels."""
    model = first.face_model()
    skin = model.triangles[model.triangle_part == PARTS.index("skin")]
    points = second.vertices(expression=False)[_face_vertices(second)]
    surface = first.vertices(expression=False)
    rigid, similar = (align(surface, skin, points, scale) for scale in (False, True))
    return Pair(
        names,
        float(angle_deg(first.dominant_light, second.dominant_light)),
        float(angle_deg(first.dominant_light_head(), second.dominant_light_head())),
        Errors.of(rigid.distance_mm),
        Errors.of(similar.distance_mm),
        similar.motion.scale,
        _albedo(first, second),
    )


def _face_vertices(result: Reconstruction) -> NDArray[np.integer]:
    """Vertices of the skin in the region that the fit may use."""
    model = result.face_model()
    skin = np.unique(model.triangles[model.triangle_part == PARTS.index("skin")])
    return skin[model.regions["face"][skin] > 0.5]


def _albedo(first: Reconstruction, second: Reconstruction) -> AlbedoErrors | None:
    """Diffuse maps where both photos show the skin; None without such a place or with another texture layout."""
    if first.model_name != second.model_name:
        return None
    size, other = len(first.maps.diffuse), len(second.maps.diffuse)
    whole, target = Window(0, 0, other, other), Window(0, 0, other, size)
    diffuse, confidence = (on_window(m, whole, target) for m in (second.maps.diffuse, second.maps.confidence))
    both = (first.maps.confidence > OBSERVED) & (confidence > OBSERVED)
    return albedo_errors(diffuse, first.maps.diffuse, both) if both.any() else None
