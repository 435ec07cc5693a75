"""From a photo to a reconstruction in one pass of the network, and as many steps of refinement as are wanted.

This module loads the tracer: call `raytrace_face.backend.start` before it is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from raytrace_face.capture import CLASSES, segment, sight
from raytrace_face.capture import capture as run_capture
from raytrace_face.capture.glimpse import glimpse
from raytrace_face.capture.photo import codes_of
from raytrace_face.config import Config
from raytrace_face.errors import InputError
from raytrace_face.face.model import FaceModel
from raytrace_face.face.store import load_embedded
from raytrace_face.fit.reconstruct import Stopwatch
from raytrace_face.learn import objective, weights
from raytrace_face.learn.crop import aligned_crop
from raytrace_face.learn.decoders import statistical_maps
from raytrace_face.learn.inputs import begun, behold
from raytrace_face.learn.light import luminance
from raytrace_face.learn.parameters import Predicted
from raytrace_face.learn.recipe import Recipe
from raytrace_face.learn.start import LandmarkStart
from raytrace_face.learn.validate import disagreement
from raytrace_face.pictures import Untraced
from raytrace_face.result import Reconstruction, installed_versions
from raytrace_face.types import Camera, Capture, FaceParams, Maps, Photo, Sighting, Window

REFINE_RATE = 0.05
"""Step of Adam in the network's outputs, whose unit is a usual deviation: 20 steps go as far as one."""


@dataclass(frozen=True)
class Prediction:
    """What the network says of one photo, and how far it can be believed."""

    camera: Camera
    face: FaceParams
    predicted: Predicted
    maps: Maps
    statistical: np.ndarray
    """(T, T, 3) diffuse albedo without the decoders."""
    window: Window
    strange: float
    """`FaceNetwork.strangeness`."""
    unlike_landmarks: float
    """RMS distance from the detected landmarks, sides of the crop."""
    history: list[float]
    """Loss of every step of refinement."""


class Predictor:
    """Weights and everything else that is loaded once."""

    def __init__(self, path: Path) -> None:
        """Read weights; InputError says what is wrong with them."""
        self.weights = weights.load(path)
        self.model: FaceModel = load_embedded()
        self.world = objective.World.of(self.weights.network.sizes.texture)
        self.start = LandmarkStart(self.world.model)

    def predict(self, photo: Photo, config: Config | None = None, refine: int = 0) -> Reconstruction:
        """The result, whose pictures are traced when they are first used: that takes ten times as long.

        Args:
            config: which face, seed and size of the pictures; default preview quality.
            refine: steps of gradient descent through the tracer on the prediction.

        Raises:
            InputError, NoFaceError: the photo cannot be used.
        """
        given = Config(quality="preview") if config is None else config
        settings, watch = given.resolved(), Stopwatch()
        size = settings.stage2.size
        with watch.phase("capture"):
            seen = sight(photo, size) if settings.face is None else run_capture(photo, settings.face, size)
        with watch.phase("network"):
            found = self.look(photo, seen, refine, settings.seed)
        return self._result(photo, seen, found, given, watch)

    def look(self, photo: Photo, seen: Sighting, refine: int = 0, seed: int = 0) -> Prediction:
        """The prediction alone; refinement segments the face if `seen` is not a `Capture`."""
        network, world = self.weights.network, self.world
        batch, place = _batch(photo, seen, network.sizes.crop, self.model)
        batch["start"] = {k: v[None] for k, v in begun(self.start, {k: v[0] for k, v in batch.items()}).items()}
        beheld = behold(world.head, world.chart, batch, torch.ones(1, dtype=torch.bool))
        with torch.no_grad():
            out = network(*beheld.tensors(), self.weights.decoded)
            strange = float(network.strangeness(out["latent"])[0])
        raw, history = out["raw"], list[float]()
        if refine:
            batch["mask"] = _mask(photo, seen, network.sizes.crop)
            raw, history = self._refined(out, beheld.start, batch, refine, seed)
        with torch.no_grad():
            faces = objective.faces_of(world, {**out, "raw": raw}, beheld.start)
            predicted, maps = faces.predicted, faces.maps
            plain = statistical_maps(world.skin, predicted.albedo).diffuse
        if photo.monochrome:  # luminance is all that is known, as in the fit
            lights = predicted.lights
            lights = replace(lights, irradiance=_grey(lights.irradiance), ambient=_grey(lights.ambient))
            predicted, maps = replace(predicted, lights=lights), replace(maps, diffuse=_grey(maps.diffuse))
            plain = _grey(plain)
        detected = batch["landmarks"][:, world.head.landmark_index]
        return Prediction(
            predicted.photo_camera(0, photo.width, photo.height, place),
            predicted.face(0, self.model),
            predicted,
            maps.maps(0),
            plain[0].numpy(),
            place,
            strange,
            float(disagreement(faces.landmarks, detected)[0]),
            history,
        )

    def _refined(
        self, out: dict[str, Tensor], start: Any, batch: dict[str, Any], steps: int, seed: int
    ) -> tuple[Tensor, list[float]]:
        """The network's outputs after steps of Adam on the losses of training, through the tracer."""
        world, recipe = self.world, Recipe()
        raw = out["raw"].clone().requires_grad_()
        optimiser = torch.optim.Adam([raw], lr=REFINE_RATE)
        history = []
        for step in range(steps):
            faces = objective.faces_of(world, {**out, "raw": raw}, start)
            target = objective.look_at(world, faces, batch, recipe.picture)
            picture = objective.traced(world, faces, target, (seed + step) % 2**19, recipe.samples)
            terms = objective.self_supervised(world, faces, batch, target, picture, batch["blendshapes"], False)
            loss = objective.weighted(terms, recipe.weights)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            history.append(float(loss.detach()))
        return raw.detach(), history

    def _result(
        self, photo: Photo, seen: Sighting, found: Prediction, given: Config, watch: Stopwatch
    ) -> Reconstruction:
        lights = found.predicted.lights
        towards = lights.dominant()[0].numpy()
        return Reconstruction(
            model_name=self.model.name,
            camera=found.camera,
            window=seen.window,
            face=found.face,
            lights=lights.stage(0),
            ambient_sh=lights.ambient_of(0),
            dominant_light=(found.face.T_camera_head[:3, :3] @ towards).astype(np.float32),
            maps=found.maps,
            statistical_diffuse=found.statistical,
            pictures=Untraced(glimpse(photo, seen.window)),
            landmarks_px=seen.landmarks_px,
            photo_name=photo.name,
            photo_sha256=photo.sha256,
            config=given,
            timings=watch.total(),
            metrics={
                "landmark_rms_px": found.unlike_landmarks * found.window.side_px,
                "face_presence": seen.score,
                "strangeness": found.strange,
            },
            warnings=(*seen.warnings, *self.doubts(found)),
            versions=installed_versions(),
            history={"refine": found.history},
        )

    def doubts(self, found: Prediction, slack: float = 1.0) -> tuple[str, ...]:
        """Warnings where a photo is not like those of training: a network's mistakes look like faces too.

        Args:
            slack: factor on what is usual, from which on there is doubt.
        """
        notes = []
        if not found.strange <= slack * self.weights.strange:
            notes.append(
                f"the photo is unlike those of training (code {found.strange:.1f} standard deviations off, usual are "
                f"up to {self.weights.strange:.1f}): do not rely on the prediction, use reconstruct"
            )
        if not found.unlike_landmarks <= slack * self.weights.unlike_landmarks:
            notes.append(
                f"the predicted face misses the detected landmarks by {100 * found.unlike_landmarks:.1f} % of the crop "
                f"(usual are up to {100 * self.weights.unlike_landmarks:.1f} %): use --refine, or reconstruct"
            )
        return tuple(notes)


def _grey(colours: Tensor) -> Tensor:
    return luminance(colours)[..., None].expand_as(colours)


def loaded(path: Path) -> Predictor:
    """The predictor of a file of weights: read once a process, and again when the file has changed.

    Raises:
        InputError: there is no such file, or it is no file of weights.
    """
    if not path.is_file():
        raise InputError(f"weights {str(path)!r} do not exist: check the path (`train export` writes such a file)")
    return _loaded(path.resolve(), path.stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _loaded(path: Path, changed_ns: int) -> Predictor:
    return Predictor(path)


def _batch(photo: Photo, seen: Sighting, size: int, model: FaceModel) -> tuple[dict[str, Any], Window]:
    """A photo as an item of `learn.dataset.RealPhotos` without its mask, B = 1, and the window of its crop."""
    codes, place = aligned_crop(codes_of(photo), seen.landmarks_px, size)
    middle = (np.array([photo.width, photo.height]) / 2 - (place.left_px, place.top_px)) / place.side_px
    weights = np.array([seen.blendshapes.get(name, 0.0) for name in model.expression_names], np.float32)
    return {
        "image": torch.from_numpy(codes.transpose(2, 0, 1).astype(np.float32) / np.float32(255))[None],
        "landmarks": torch.from_numpy((place.to_window(seen.landmarks_px) / size).astype(np.float32))[None],
        "blendshapes": torch.from_numpy(weights)[None],
        "detected": torch.tensor([True]),
        "principal": torch.from_numpy(middle.astype(np.float32))[None],
        "monochrome": torch.tensor([photo.monochrome]),
        "person": torch.tensor([-1]),
    }, place


def _mask(photo: Photo, seen: Sighting, size: int) -> Tensor:
    """(1, S, S) what of the crop is skin of the face."""
    classes = seen.segmentation if isinstance(seen, Capture) else segment(photo.linear, seen.window, seen.landmarks_px)
    skin = np.ascontiguousarray(classes[..., CLASSES.index("face skin")], np.float32)
    return functional.interpolate(torch.from_numpy(skin)[None, None], (size, size), mode="area")[:, 0]
