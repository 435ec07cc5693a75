"""From a photo to a reconstruction: capture, landmark start, stage 1, stage 2, pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from raytrace_face.backend import start
from raytrace_face.capture import capture as run_capture
from raytrace_face.capture import load_photo, photo_from_array, segmented, sight
from raytrace_face.capture.colour import luminance
from raytrace_face.config import Config
from raytrace_face.face.model import FaceModel
from raytrace_face.fit.checkpoint import Checkpoint
from raytrace_face.fit.guess import Guess, nearer
from raytrace_face.result import Reconstruction, installed_versions
from raytrace_face.types import Capture, Maps, Photo

if TYPE_CHECKING:
    from raytrace_face.tracer.texture import TexelMap

NOT_TRUSTED = "the encoder does not trust what it sees in this photo: the fit began at the landmarks"
COARSE_TEXTURE = 128
"""Texels a side of maps that are smooth: prior F0 and roughness while light and shape are sought."""
Look = Callable[[Photo, Capture, Config], Guess | None]
"""Sees a face in a photo at once."""


class Progress:
    """One tqdm bar over the whole reconstruction, showing phase and loss."""

    def __init__(self, shown: bool) -> None:
        self.bar = tqdm(disable=not shown, unit="step", dynamic_ncols=True, leave=False)

    def __call__(self, phase: str, loss: float) -> None:
        self.bar.set_description(phase)
        self.bar.set_postfix(loss=f"{loss:.4f}")
        self.bar.update()

    def close(self) -> None:
        self.bar.close()


class Stopwatch:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.begin = time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time inside to a phase."""
        before = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - before

    def total(self) -> dict[str, float]:
        """All phases, and the time since the start."""
        return {**self.seconds, "total": time.perf_counter() - self.begin}


def reconstruct(
    photo: Photo | str | Path | NDArray[Any],
    config: Config | None = None,
    *,
    model: FaceModel | None = None,
    progress: bool = True,
    checkpoint: str | Path | None = None,
    look: Look | None = None,
) -> Reconstruction:
    """Recover geometry, reflectance, camera, light and self-shadows of a face.

    `raytrace_face.reconstruct` is this function with the encoder as `look` where the configuration asks for it.

    Args:
        photo: a `Photo`, a file, or an array (H, W) or (H, W, 3) of 8- or 16-bit codes or floats (`config.colour`).
        config: settings; default standard quality.
        model: face model; default the one that `config.face_model` names.
        progress: show a bar with the loss on stderr.
        checkpoint: folder to resume from after a kill.
        look: sees a face in a photo at once, and the fit begins at what it says; None where it does not trust itself,
            and the fit begins at the landmarks. Only for the embedded face model, whose coefficients it speaks.

    Raises:
        InputError, NoFaceError: the photo cannot be used, or there is no such face model.
        MachineError: no usable libLLVM or GPU.
    """
    from raytrace_face.face.archive import fingerprint
    from raytrace_face.face.library import EMBEDDED, find

    given = Config() if config is None else config
    settings = given.resolved()
    if (settings.start == "encoder") != (look is not None):
        raise ValueError(f"start is {settings.start!r}, and look is {look}: call raytrace_face.reconstruct")
    watch = Stopwatch()
    with watch.phase("model"):
        brought = find(settings.face_model) if model is None and settings.face_model != EMBEDDED else model
    with watch.phase("load"):
        picture = _as_photo(photo, settings.colour)
        start(settings.device, settings.deterministic)
    with watch.phase("capture"):
        seen = _captured(picture, settings)
    with watch.phase("encoder"):
        guess = None if look is None else look(picture, seen, settings)
        settings = settings if guess is None else nearer(settings)
    folder = None if checkpoint is None else Path(checkpoint)
    store = Checkpoint(folder, picture, settings, "" if brought is None or folder is None else fingerprint(brought))
    bar = Progress(progress)
    try:
        return _fit(picture, seen, given, settings, brought, store, bar, watch, guess)
    finally:
        bar.close()


def _captured(photo: Photo, config: Config) -> Capture:
    """The face that the configuration means; where the encoder begins the fit, as `predict` looks for it.

    There hair is looked for once, not mirrored too: that moved no PSNR of 14 of 15 photos by more than 0.3 dB.
    """
    if config.start == "encoder" and config.face is None:
        return segmented(photo, sight(photo, config.stage2.size), mirrored=False)
    return run_capture(photo, config.face, config.stage2.size)


def _as_photo(photo: Photo | str | Path | NDArray[Any], colour: str) -> Photo:
    if isinstance(photo, Photo):
        return photo
    if isinstance(photo, str | Path):
        return load_photo(photo, colour)
    return photo_from_array(photo, colour)


def _fit(
    photo: Photo, seen: Capture, given: Config, config: Config, model: FaceModel | None, store: Checkpoint,
    bar: Progress, watch: Stopwatch, guess: Guess | None,
) -> Reconstruction:  # fmt: skip
    from raytrace_face.face.skin_prior import roughness_prior, skin_prior, specular_prior
    from raytrace_face.face.store import load_embedded
    from raytrace_face.fit import landmarks, montecarlo, stage1, stage2, window
    from raytrace_face.fit.light import stage_lights
    from raytrace_face.fit.observation import observe
    from raytrace_face.tracer.scene import HeadScene
    from raytrace_face.tracer.texture import texel_map

    with watch.phase("model"):
        face_model = load_embedded() if model is None else model
        prior = skin_prior(face_model)
        texels, small = (
            embedded_texels(size) if model is None else texel_map(face_model, size)
            for size in (config.stage2.texture, COARSE_TEXTURE)
        )
        f0_prior, roughness = specular_prior(face_model), roughness_prior(face_model)
    with watch.phase("landmarks"):
        if guess is None:
            begin = landmarks.fit_landmarks(face_model, seen, photo, mean_shape=config.stage1.shape == "mean")
        else:
            known = guess.camera, guess.face
            begin = landmarks.fit_landmarks(face_model, seen, photo, stage1.POSE_STEPS, known=known)
        bar("landmarks", begin.cost[-1])
    with watch.phase("model"):
        head = HeadScene(face_model, face_model.vertices(begin.face.identity, begin.face.expression))
        setting = stage1.Setting(
            face_model, prior, head, photo, seen, config, small, small.spread(f0_prior), small.spread(roughness)
        )
    observation = observe(photo, seen, config.stage2.size)
    with watch.phase("stage1"):
        if config.solver == "montecarlo":
            first = montecarlo.stage1(setting, begin, config.seed, store, bar)
        else:
            first = stage1.run(setting, begin, config.seed, store, bar, guess)
            first = montecarlo.refine(setting, first, config.seed, store, bar)
        lights = stage_lights(first.light, config.light) if first.stage is None else first.stage
        ambient = first.light.ambient_sh()
    thinned = guess is not None and config.stage2.size % 2 == 0
    with watch.phase("stage2"):
        statistical = stage1.statistical_map(setting, texels, first.albedo_coefficients)
        lit = window.light_window(
            setting, observation, first.camera, first.face, lights, ambient, config.stage2.samples, config.seed + 7000,
            thinned,
        )  # fmt: skip
        where = window.texels_in_window(setting, texels, first.camera, first.face, observation)
        f0, rough = texels.spread(f0_prior), texels.spread(roughness)
        plain = Maps(statistical, np.repeat(f0[..., None], 3, 2), rough, np.zeros_like(rough))
        before = window.compose(lit, plain, rough)
        curve: list[float] = []
        if not config.stage2.personal:
            maps = plain
        elif config.solver == "montecarlo":
            maps, curve = montecarlo.stage2(setting, first, plain, lit, where, observation, config.seed, store, bar)
        else:
            maps, curve = stage2.fit_maps(lit.lit, where, statistical, f0, rough, config.stage2, bar, thinned)
        after = window.compose(lit, maps, rough)
        shown = window.pictures(lit, observation, maps, before, after, first.face.T_camera_head)
    R = first.face.T_camera_head[:3, :3]
    dominant = first.light.dominant()
    name = "montecarlo_" if config.solver == "montecarlo" else ""
    weight = lit.lit.weight
    return Reconstruction(
        model_name=face_model.name,
        camera=first.camera,
        window=observation.window,
        face=first.face,
        lights=lights,
        ambient_sh=ambient,
        dominant_light=(R @ dominant).astype(np.float32),
        maps=maps,
        statistical_diffuse=statistical,
        pictures=shown,
        landmarks_px=seen.landmarks_px,
        photo_name=photo.name,
        photo_sha256=photo.sha256,
        config=given,
        timings=watch.total() | {f"{name}{k}": v for k, v in watch.seconds.items() if k.startswith("stage")},
        metrics={
            "psnr_stage1_db": window.psnr_db(before, observation.image, weight),
            "psnr_db": window.psnr_db(after, observation.image, weight),
            "landmark_rms_px": begin.rms_px,
            "face_presence": seen.score,
            "fitted_pixels": float((weight > 0.5).sum()),
            "shadow_fraction": float((shown.shadow[weight > 0.5] < 0.5).mean()) if (weight > 0.5).any() else 0.0,
            "ambient_share": _ambient_share(first.light),
        },
        warnings=(
            *seen.warnings,
            *_doubts(weight, seen),
            *((NOT_TRUSTED,) if config.start == "encoder" and guess is None else ()),
        ),
        versions=installed_versions(),
        history={"landmarks": begin.cost, f"{name}stage1": first.history, f"{name}stage2": curve},
        model=model,
    )


@lru_cache(maxsize=4)
def embedded_texels(size: int) -> TexelMap:
    """The texels of the embedded model, which are the same for every photo."""
    from raytrace_face.face.store import load_embedded
    from raytrace_face.tracer.texture import texel_map

    return texel_map(load_embedded(), size)


def _ambient_share(light: Any) -> float:
    """Share of the ambient in the irradiance at the head's centre, luminance."""
    lamps = float(luminance(light.irradiance.astype(np.float32)).sum())
    sky = float(luminance(light.ambient.astype(np.float32)).sum()) * 4 / 3  # a lobe holds 4 pi / 3 sr
    return sky / max(sky + lamps, 1e-9)


def _doubts(weight: NDArray[np.floating], seen: Capture) -> tuple[str, ...]:
    """Warnings that only the fit can give."""
    share = float((weight > 0.5).mean())
    if share < 0.06:
        return (
            f"only {100 * share:.1f} % of the window could be fitted (hair, hands, glare, borders): low confidence",
        )
    return ()
