"""The way in: a reconstruction by its settings, begun at the landmarks or at what the encoder sees."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from raytrace_face.config import Config
from raytrace_face.errors import InputError
from raytrace_face.face.model import FaceModel
from raytrace_face.types import Capture, Photo

if TYPE_CHECKING:
    from raytrace_face.fit.guess import Guess
    from raytrace_face.fit.reconstruct import Look
    from raytrace_face.result import Reconstruction

SLACK = 1.6
"""Factor on the limits of what a prediction is believed at, within which a fit still begins there: it finds light and
skin anew. Of 15 photos three were beyond the limits of the shipped weights, by 1.16 at most, and five beyond those of
the weights before, by 1.53: these had 25.5 dB and a light 6.0 degrees off from landmarks, 25.3 dB and 6.3 degrees from
the encoder, in half the time."""


def reconstruct(
    photo: Photo | str | Path | NDArray[Any],
    config: Config | None = None,
    *,
    model: FaceModel | None = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
) -> Reconstruction:
    """Recover geometry, reflectance, camera, light and self-shadows of a face.

    Args:
        photo: a `Photo`, a file, or an array (H, W) or (H, W, 3) of 8- or 16-bit codes or floats (`config.colour`).
        config: settings; default standard quality.
        model: face model; default the one that `config.face_model` names.
        progress: show a bar with the loss on stderr.
        checkpoint: folder to resume from after a kill.

    Raises:
        InputError, NoFaceError: the photo or the encoder's weights cannot be used, or there is no such face model.
        MachineError: no usable libLLVM or GPU.
    """
    from raytrace_face.fit import reconstruct as fit

    settings = (Config() if config is None else config).resolved()
    options: dict[str, Any] = {"progress": progress, "checkpoint": checkpoint}
    if model is not None:
        options["model"] = model
    if settings.start == "encoder":
        if model is not None:
            raise InputError("start is 'encoder', which speaks of the embedded face model alone: use start landmarks")
        options["look"] = encoder(settings)
    return fit.reconstruct(photo, config, **options)


def encoder(config: Config) -> Look:
    """What `config.weights` (empty: the shipped weights) see in a photo. They are read once a process.

    Raises:
        InputError: the weights cannot be used.
        MachineError: no usable libLLVM or GPU.
    """
    from raytrace_face.backend import start

    start(config.device, config.deterministic)  # before the tracer is loaded
    from raytrace_face.fit.guess import Guess
    from raytrace_face.learn.predict import loaded
    from raytrace_face.learn.weights import shipped

    network = loaded(Path(config.weights) if config.weights else shipped())

    def look(photo: Photo, seen: Capture, settings: Config) -> Guess | None:
        found = network.look(photo, seen, seed=settings.seed)
        if network.doubts(found, SLACK):
            return None
        albedo = found.predicted.albedo[0].detach().cpu().numpy()
        return Guess(found.camera, found.face, found.predicted.lights.stage(0), albedo)

    return look
