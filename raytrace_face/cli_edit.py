"""Commands that edit a result: `raytrace-face relight | shadows | transfer | animate` (docs/edits.md)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from tyro.conf import Positional

from raytrace_face.errors import InputError

if TYPE_CHECKING:
    from raytrace_face.result import Reconstruction
    from raytrace_face.types import Array

Flag = tyro.conf.FlagCreatePairsOff[bool]
_unset = {"help_behavior_hint": ""}
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", **_unset)]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", **_unset)]
OptionalText = Annotated[str | None, tyro.conf.arg(metavar="TEXT", **_unset)]

SIZE_RANGE = (16, 4096)
MAX_OWN_SIZE = 512
"""Pixels a side up to which the window is traced as finely as the photo; beyond, the photo's own detail is enough."""


@dataclass(frozen=True)
class Output:
    """Where an edit goes, and how finely it is traced."""

    out: OptionalPath = None
    """Picture to write: .png (sRGB) or .exr (linear)."""
    force: Flag = False
    """Replace existing files."""
    quiet: Flag = False
    """No progress and no summary."""
    photo: OptionalPath = None
    """The photo of the result: the edit is laid into all of it, not only into the fitted window."""
    size: OptionalInt = None
    """Pixels a side of the window that is traced (default: the fit's; with --photo the photo's, up to 512)."""
    spp: int = 64
    """Rays a pixel."""
    seed: int = 0
    """Another seed gives other noise."""


Common = Annotated[Output, tyro.conf.arg(name="")]


def relight(
    result: Positional[Path],
    *,
    light: str,
    rotate: float = 0.0,
    exposure: float = 0.0,
    stage: Flag = False,
    video: OptionalPath = None,
    turn: Literal["light", "camera"] = "light",
    save: OptionalPath = None,
    output: Common = Output(),
) -> None:
    """Put a face under another light.

    Args:
        result: folder written by `reconstruct`.
        light: rembrandt, split, butterfly, loop, rim, overcast, sunset; a lat-long FILE.exr or FILE.hdr; or
            azimuth,elevation[,size] in degrees as the camera sees them (--light=-40,20 when it begins with a minus).
        rotate: degrees about the vertical, positive towards the image's right.
        exposure: stops; 0 is as bright as the photo's own light.
        stage: reduce the light to the lights of the result's light stage.
        video: turntable to write, .mp4.
        turn: what goes round in the video: the light (in the photo) or the camera (over black).
        save: new result folder, with the light reduced to the light stage.
        output: where it goes.
    """
    _check(output, save, video)
    from raytrace_face.edit import illumination
    from raytrace_face.edit.relight import relit, relit_photo

    face = _load(result)
    shown = illumination.named(light, face, rotate).scaled(_stops(exposure))
    if stage:
        lights, ambient = illumination.on_stage(shown, face.config.light.rig)
        shown = illumination.Illumination(lights.area_lights(), ambient)
    photo, options = _photo(output, face), _options(output, face)
    if output.out is not None:
        from raytrace_face.picture import write_picture

        write_picture(output.out, relit_photo(face, shown, photo, **options))
        _say(output, f"picture     {output.out}")
    if save is not None:
        note = f"relit with {light}, rotated {rotate:g} degrees, {exposure:+g} stops"
        relit(face, shown, note, output.seed).save(save, force=output.force)
        _say(output, f"result      {save}")
    if video is not None:
        from raytrace_face.edit import video as turntable
        from raytrace_face.picture import write_video

        options = {**options, "spp": min(output.spp, 32)}
        if turn == "light":
            frames = turntable.light_turntable(face, shown, photo, **options)
        else:
            frames = turntable.camera_turntable(face, shown, **options)
        write_video(video, _progress(frames, turntable.FRAMES, output))
        _say(output, f"video       {video}")


def shadows(result: Positional[Path], *, strength: float = 1.0, soften: float = 0.0, output: Common = Output()) -> None:
    """Fade the cast shadows of a face out of its photo, or soften them. Attached shading stays.

    Args:
        result: folder written by `reconstruct`.
        strength: 0 removes them, 1 leaves them, between fades.
        soften: degrees by which the angular radius of the lights grows.
        output: where it goes.
    """
    _check(output)
    from raytrace_face.edit.shadows import reshadowed

    face = _load(result)
    photo = _photo(output, face)
    _finish(output, face, photo, *reshadowed(face, strength, soften, **_options(output, face)))


def transfer(
    *,
    onto: Path,
    light: OptionalPath = None,
    albedo: OptionalPath = None,
    shadow: OptionalPath = None,
    save: OptionalPath = None,
    output: Common = Output(),
) -> None:
    """Put light, skin or self-shadow of other results onto a face, in any mix.

    Args:
        onto: result folder of the face.
        light: result folder whose lamps and surroundings it gets; they stay where that photo's camera saw them.
        albedo: result folder whose skin it gets: albedo, gloss, make-up.
        shadow: result folder whose cast shadows it gets.
        save: new result folder; not with --shadow, which belongs to no light of this face.
        output: where it goes.
    """
    _check(output, save)
    if light is None and albedo is None and shadow is None:
        raise InputError("nothing is to be transferred: give --light, --albedo or --shadow with a result folder")
    if shadow is not None and save is not None:
        raise InputError("--save does not go with --shadow, which no light of this face casts: write a picture, --out")
    from raytrace_face.edit.composite import composite
    from raytrace_face.edit.trace import refreshed
    from raytrace_face.edit.transfer import transfer_renderings, transferred

    target = _load(onto)
    lit, skin, cast = (None if path is None else _load(path) for path in (light, albedo, shadow))
    if output.out is not None:
        photo = _photo(output, target)
        _finish(output, target, photo, *transfer_renderings(target, lit, skin, cast, **_options(output, target)))
    if save is not None:
        old, new = transfer_renderings(target, lit, skin, spp=output.spp, seed=output.seed)
        given = (("light", lit), ("skin", skin))
        note = " and ".join(f"{name} of {other.photo_name}" for name, other in given if other is not None)
        refreshed(transferred(target, lit, skin), composite(target, old, new), note, output.seed).save(
            save, force=output.force
        )
        _say(output, f"result      {save}")


def animate(
    result: Positional[Path],
    *,
    expression: OptionalText = None,
    yaw: float = 0.0,
    pitch: float = 0.0,
    roll: float = 0.0,
    focal: OptionalText = None,
    save: OptionalPath = None,
    output: Common = Output(),
) -> None:
    """Give a face another expression, pose or lens under the same light, which stays fixed to the room.

    A new expression alone is laid into the photo. A new pose or lens shows the head on a transparent background.

    Args:
        result: folder written by `reconstruct`.
        expression: weights in [0, 1] that replace the photo's, as in jawOpen=0.6,mouthSmileLeft=0.8.
        yaw: degrees, positive turns the face to the image's right.
        pitch: degrees, positive raises the face.
        roll: degrees, positive leans the top of the head to the image's right.
        focal: 35 mm equivalent as in 85mm; the head keeps its size in the picture.
        save: new result folder.
        output: where it goes.
    """
    _check(output, save)
    weights, focal_mm = _weights(expression), _millimetres(focal)
    from raytrace_face.edit import pose
    from raytrace_face.edit.trace import refreshed

    face = _load(result)
    edited = pose.animated(face, weights, yaw, pitch, roll, focal_mm)
    moved = bool(yaw or pitch or roll or focal_mm)
    if moved and output.photo is not None:
        raise InputError("--photo does not go with a new pose or lens: the rest of the photo would not move with it")
    photo, options = _photo(output, face), _options(output, face)
    if output.out is not None:
        from raytrace_face.picture import write_picture

        if moved:
            picture, cover = pose.rendered(edited, **options)
            write_picture(output.out, picture, cover)
        else:
            write_picture(output.out, pose.expressed_photo(face, edited, photo, **options))
        _say(output, f"picture     {output.out}")
    if save is not None:
        parts = [expression or "", *(f"{n} {v:g}" for n, v in (("yaw", yaw), ("pitch", pitch), ("roll", roll)) if v)]
        shown = [part for part in (*parts, focal and f"focal {focal}") if part]
        if moved:
            picture, cover = pose.rendered(edited, spp=output.spp, seed=output.seed)
            picture = picture * cover[..., None]
        else:
            picture = pose.expressed_photo(face, edited, spp=output.spp, seed=output.seed)
        note = ", ".join(shown) or "no change"
        refreshed(edited, picture, note, output.seed).save(save, force=output.force)
        _say(output, f"result      {save}")


COMMANDS: dict[str, Any] = {"relight": relight, "shadows": shadows, "transfer": transfer, "animate": animate}


def _check(output: Output, save: Path | None = None, video: Path | None = None) -> None:
    """Everything about the output that can be wrong, before any work."""
    from raytrace_face.output import check_output
    from raytrace_face.picture import VIDEO_SUFFIXES, check_file

    if output.out is None and save is None and video is None:
        raise InputError("there is nothing to write: give --out picture.png")
    low, high = SIZE_RANGE
    if output.size is not None and not low <= output.size <= high:
        raise InputError(f"size is {output.size}: it must lie in [{low}, {high}]")
    if not 1 <= output.spp <= 65536:
        raise InputError(f"spp is {output.spp}: it must lie in [1, 65536]")
    if output.seed < 0:
        raise InputError(f"seed is {output.seed}: it must be at least 0")
    if output.out is not None:
        check_file(output.out, output.force)
    if video is not None:
        check_file(video, output.force, VIDEO_SUFFIXES)
    if save is not None:
        check_output(save, output.force)


def _load(folder: Path) -> Reconstruction:
    from raytrace_face.result import Reconstruction

    return Reconstruction.load(folder)


def _photo(output: Output, result: Reconstruction) -> Array | None:
    """The whole photo, if it was given and is the one that was reconstructed."""
    if output.photo is None:
        return None
    from raytrace_face.capture.photo import load_photo

    photo = load_photo(output.photo, result.config.colour)
    if result.photo_sha256 and photo.sha256 != result.photo_sha256:
        raise InputError(
            f"{str(output.photo)!r} is not the photo of the result ({result.photo_name}; other sha256): give the file "
            "that was reconstructed"
        )
    if (photo.width, photo.height) != (result.camera.width, result.camera.height):
        raise InputError(
            f"{str(output.photo)!r} has {photo.width} x {photo.height} pixels and the photo of the result "
            f"{result.camera.width} x {result.camera.height}: give the file that was reconstructed"
        )
    return photo.linear


def _options(output: Output, result: Reconstruction) -> dict[str, Any]:
    size = output.size
    if size is None and output.photo is not None:
        size = max(min(round(result.window.side_px), MAX_OWN_SIZE), result.window.size)
    return {"size": size, "spp": output.spp, "seed": output.seed}


def _finish(output: Output, result: Reconstruction, photo: Array | None, old: Array, new: Array) -> None:
    """Lay the change between two renderings into the photo, write it and say how much of the face changed."""
    assert output.out is not None
    from raytrace_face.edit.composite import changed_share, composite, face_matte, resized
    from raytrace_face.picture import write_picture

    write_picture(output.out, composite(result, old, new, photo))
    size = old.shape[0]
    share = changed_share(resized(result.pictures.photo, size), composite(result, old, new), face_matte(result, size))
    _say(output, f"changed     {100 * share:.1f} % of the face by more than 1/255")
    _say(output, f"picture     {output.out}")


def _say(output: Output, line: str) -> None:
    if not output.quiet:
        print(line)


def _progress(frames: Iterable[Array], count: int, output: Output) -> Iterable[Array]:
    from tqdm import tqdm

    return tqdm(frames, total=count, disable=output.quiet, unit="frame", leave=False)


def _stops(exposure: float) -> float:
    if not abs(exposure) <= 20:
        raise InputError(f"exposure is {exposure:g}: it must lie in [-20, 20] stops")
    return float(2.0**exposure)


def _weights(text: str | None) -> dict[str, float]:
    """ "jawOpen=0.6,mouthSmileLeft=0.8" as numbers by name."""
    found = {}
    for item in filter(None, (text or "").split(",")):
        name, _, value = item.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            raise InputError(f"expression {item!r} is no name=weight: write it as in jawOpen=0.6") from None
    return found


def _millimetres(text: str | None) -> float | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:mm)?", text)
    if match is None:
        raise InputError(f"focal {text!r} is no focal length: write it as in 85mm")
    return float(match[1])
