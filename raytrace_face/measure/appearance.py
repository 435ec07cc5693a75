"""Protocols of appearance: re-rendering, transfer from a source photo to a target photo, albedo against a truth.

A re-rendering that resembles its own photo proves little: whoever bakes shadows and glasses into the skin scores best.
The source -> target protocol of DeFace (Huang et al., "Learning to Decouple the Lights for 3D Face Texture Modeling",
NeurIPS 2024) asks what the skin is worth elsewhere: the maps of a *source* photo (occluded or shadowed) on the geometry
and in the light of a *target* photo (clean) of the same person.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raytrace_face.capture.colour import linear_to_srgb
from raytrace_face.errors import InputError
from raytrace_face.measure.images import psnr_db, relative_rmse, ssim
from raytrace_face.result import Reconstruction

Image = NDArray[np.floating]
Mask = NDArray[np.bool_]
Perceptual = Callable[[Image, Image, Mask], float]
"""(predicted, truth, mask), linear (H, W, 3) -> distance: `raytrace_face.measure.perceptual.st_lpips` or any other."""


@dataclass(frozen=True)
class FaceScores:
    """How alike two pictures of a face are."""

    psnr_db: float
    ssim: float
    perceptual: float
    """By the function given, NaN without one."""


@dataclass(frozen=True)
class Transfer:
    """One pair of the source -> target protocol."""

    source: FaceScores
    """The source's own re-rendering against the source photo: rewards baking, so read it beside `target` only."""
    target: FaceScores
    """The source's maps on the target's geometry and light against the target photo."""
    picture: Image
    """(S, S, 3) what `target` was scored on, linear; black where the head is not."""


@dataclass(frozen=True)
class AlbedoErrors:
    """Root-mean-square errors of albedo over the mean of the truth."""

    as_it_stands: float
    one_scale: float
    """After the best factor for all channels: brightness of skin and light cannot be told apart in one photo."""
    scale_per_channel: float
    """After the best factor for each channel: neither can their colours."""


def face_mask(result: Reconstruction) -> Mask:
    """(S, S) the parsed face region of a result: pixels that count more than half in its fit."""
    return result.pictures.mask > 0.5


def face_scores(predicted: Image, truth: Image, mask: Mask, perceptual: Perceptual | None = None) -> FaceScores:
    """PSNR and SSIM of linear images (H, W, 3) inside `mask`, on sRGB-encoded values in [0, 1] as papers have it.

    Raises:
        InputError: sizes differ, or the mask is empty.
    """
    _check(predicted, truth, mask)
    p, t = (linear_to_srgb(np.clip(image, 0, 1)) for image in (predicted, truth))
    distance = float("nan") if perceptual is None else perceptual(predicted, truth, mask)
    return FaceScores(psnr_db(p, t, mask), ssim(p, t, mask), distance)


def transfer(
    source: Reconstruction, target: Reconstruction, perceptual: Perceptual | None = None, spp: int = 64, seed: int = 0
) -> Transfer:
    """Score the maps of `source` on the geometry, camera and light of `target`, in the target's parsed face region.

    `transfer(target, target).target` is the most that a pair can reach.

    Args:
        perceptual: a further distance.
        spp: rays a pixel, at least 1; 64 leaves noise at about 50 dB, far below what is measured.
        seed: of the rendering.

    Raises:
        InputError: the two belong to different face models.
    """
    if source.model_name != target.model_name:
        raise InputError(
            f"source has the face model {source.model_name!r}, target {target.model_name!r}: their textures do not "
            "fit each other; reconstruct both with one model"
        )
    picture = replace(target, maps=source.maps).render(spp=spp, seed=seed)
    own = source.render(spp=spp, seed=seed)
    return Transfer(
        face_scores(own, source.pictures.photo, face_mask(source), perceptual),
        face_scores(picture, target.pictures.photo, face_mask(target), perceptual),
        picture,
    )


def albedo_errors(predicted: Image, truth: Image, mask: Mask) -> AlbedoErrors:
    """Errors of linear albedo (H, W, 3) against a known map inside `mask`, with ever more scale taken out.

    Raises:
        InputError: sizes differ, the mask is empty, or the truth is black.
    """
    _check(predicted, truth, mask)
    p, t = predicted[mask].astype(np.float64), truth[mask].astype(np.float64)
    mean = float(t.mean())
    if mean <= 0:
        raise InputError("the true albedo is black inside the mask: nothing can be relative to it")
    power = (p * p).sum(axis=0)
    gain = np.where(power > 0, (p * t).sum(axis=0) / np.maximum(power, 1e-300), 1)
    return AlbedoErrors(
        float(np.sqrt(((p - t) ** 2).mean())) / mean,
        relative_rmse(predicted, truth, mask),
        float(np.sqrt(((gain * p - t) ** 2).mean())) / mean,
    )


def _check(predicted: Image, truth: Image, mask: Mask) -> None:
    if predicted.shape != truth.shape or truth.ndim != 3 or mask.shape != truth.shape[:2]:
        raise InputError(
            f"images {predicted.shape} and {truth.shape} and mask {mask.shape} do not fit: give (H, W, C) and (H, W)"
        )
    if not mask.any():
        raise InputError("the mask is empty: nothing to score")
