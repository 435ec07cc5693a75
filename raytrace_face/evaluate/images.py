"""`raytrace-face evaluate images | albedo | normals | depth | light`: scores of any two files, as one table.

Pictures of colour are read as photos are (docs/conventions.md): PNG is sRGB unless `--colour linear` says otherwise,
EXR is linear. Everything else is numbers as they stand. Nothing here belongs to results of this program alone.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from raytrace_face.config import Colour
from raytrace_face.errors import InputError, OutputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Flag = tyro.conf.FlagCreatePairsOff[bool]
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
OptionalFocal = Annotated[float | None, tyro.conf.arg(metavar="PX", help_behavior_hint="")]
Scores = dict[str, float]


def images(
    *,
    predicted: Path,
    truth: Path,
    mask: OptionalPath = None,
    gain_free: Flag = False,
    st_lpips: Flag = False,
    colour: Colour = "srgb",
    json: OptionalPath = None,
) -> None:
    """Score a picture: PSNR and SSIM on sRGB values in [0, 1], relative rmse of the light after the best gain.

    Args:
        predicted: picture to score: PNG, EXR or any other that photos may be.
        truth: true picture of the same size.
        mask: picture that is brighter than half where pixels count; default everywhere.
        gain_free: first scale the prediction (linear light) to the truth.
        st_lpips: also ST-LPIPS (ECCV 2022, not the LPIPS of 2018), which needs the extra "perceptual".
        colour: how 8- and 16-bit pixels are encoded: srgb or linear.
        json: file to keep the scores in.
    """
    _check_json(json)
    from raytrace_face.measure import perceptual
    from raytrace_face.measure.appearance import face_scores
    from raytrace_face.measure.images import best_gain, relative_rmse

    p, t = _colours(predicted, truth, colour)
    inside = _mask(mask, t)
    if gain_free:
        p = p * best_gain(p, t, inside)
    found = face_scores(p, t, inside, perceptual.st_lpips if st_lpips else None)
    scores = {"PSNR dB": found.psnr_db, "SSIM": found.ssim, "relative rmse, gain-free": relative_rmse(p, t, inside)}
    if st_lpips:
        scores[perceptual.NAME] = found.perceptual
    _publish({**scores, "pixels": int(inside.sum())}, json)


def albedo(
    *, predicted: Path, truth: Path, mask: OptionalPath = None, colour: Colour = "srgb", json: OptionalPath = None
) -> None:
    """Score an albedo map: rmse over the mean of the truth, as it stands and with ever more scale taken out.

    Args:
        predicted: albedo to score, PNG or EXR.
        truth: true albedo of the same size.
        mask: picture that is brighter than half where pixels count; default everywhere.
        colour: how 8- and 16-bit pixels are encoded: srgb or linear.
        json: file to keep the scores in.
    """
    _check_json(json)
    from raytrace_face.measure.appearance import albedo_errors

    p, t = _colours(predicted, truth, colour)
    inside = _mask(mask, t)
    found = albedo_errors(p, t, inside)
    scores = {
        "rmse as it stands": found.as_it_stands,
        "one scale": found.one_scale,
        "a scale per channel": found.scale_per_channel,
    }
    _publish({**scores, "pixels": int(inside.sum())}, json)


def normals(*, predicted: Path, truth: Path, mask: OptionalPath = None, json: OptionalPath = None) -> None:
    """Score normals: angles in degrees, and the share of pixels below three of them.

    Args:
        predicted: normals to score: EXR with components in [-1, 1], or PNG with codes of (n + 1) / 2.
        truth: true normals in the same frame, of the same size.
        mask: picture that is brighter than half where pixels count; default where both maps hold a vector.
        json: file to keep the scores in.
    """
    _check_json(json)
    import numpy as np

    from raytrace_face.measure.light import angle_deg

    p, t = _vectors(predicted), _vectors(truth)
    _check_sizes(predicted, p, truth, t)
    held = (np.linalg.norm(p, axis=-1) > 0.5) & (np.linalg.norm(t, axis=-1) > 0.5)
    inside = held if mask is None else _mask(mask, t) & held
    if not inside.any():
        raise InputError("no pixel holds a normal in both maps inside the mask: nothing to score")
    angles = angle_deg(p[inside], t[inside])
    scores = {"mean deg": float(angles.mean()), "median deg": float(np.median(angles))}
    scores |= {f"below {limit:g} deg": float((angles < limit).mean()) for limit in (11.25, 22.5, 30)}
    _publish({**scores, "pixels": int(inside.sum())}, json)


def depth(
    *,
    predicted: Path,
    truth: Path,
    mask: OptionalPath = None,
    focal: OptionalFocal = None,
    json: OptionalPath = None,
) -> None:
    """Score depth as Unsup3d does: SIDE, and with --focal MAD of the normals; scale does not matter.

    The outermost pixel of the mask is left out, as in the paper.

    Args:
        predicted: distance along the optical axis, EXR (Y, or R of RGB), any unit.
        truth: true depth of the same size.
        mask: picture that is brighter than half where pixels count; default where both depths are positive.
        focal: focal length in pixels, principal point in the middle of the picture.
        json: file to keep the scores in.
    """
    _check_json(json)
    import numpy as np

    from raytrace_face.capture.photo import load_values
    from raytrace_face.measure.depth import depth_scores
    from raytrace_face.types import Camera

    if focal is not None and not focal > 0:
        raise InputError(f"focal is {focal}: it must be a positive number of pixels")
    p, t = load_values(predicted)[..., 0], load_values(truth)[..., 0]
    _check_sizes(predicted, p, truth, t)
    known = np.isfinite(p) & np.isfinite(t) & (p > 0) & (t > 0)
    inside = known if mask is None else _mask(mask, t) & known
    height, width = t.shape
    camera = None if focal is None else Camera(width, height, focal, (width / 2, height / 2))
    found = depth_scores(p, t, inside, camera)
    scores = {"SIDE x100": 100 * found.side}
    if camera is not None:
        scores["MAD deg"] = found.mad_deg
    _publish({**scores, "pixels": found.pixels}, json)


def light(*, predicted: str, truth: str, json: OptionalPath = None) -> None:
    """Score light: two lat-long environment maps, or two directions.

    Maps are weighted by solid angle; their rmse is over the mean of the truth.

    Args:
        predicted: EXR, HDR or PNG of linear light (row 0 looks up), or "azimuth,elevation" in degrees.
        truth: the same of the truth, in the same frame and of the same size.
        json: file to keep the scores in.
    """
    _check_json(json)
    from raytrace_face.capture.photo import load_values
    from raytrace_face.measure.light import angle_deg, direction, environment_errors

    given = [_angles(text) for text in (predicted, truth)]
    if given[0] is not None and given[1] is not None:
        _publish({"angle deg": float(angle_deg(direction(*given[0]), direction(*given[1])))}, json)
        return
    if given[0] is not None or given[1] is not None:
        raise InputError(f"{predicted!r} and {truth!r} are a direction and a map: give two of one kind")
    found = environment_errors(_finite(load_values(predicted), predicted), _finite(load_values(truth), truth))
    scores = {
        "relative rmse": found.relative_rmse,
        "relative rmse, one scale": found.relative_rmse_one_scale,
        "main direction deg": found.dominant_deg,
    }
    _publish(scores, json)


def _colours(predicted: Path, truth: Path, colour: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Two linear pictures (H, W, 3) of one size."""
    from raytrace_face.capture.photo import load_photo

    p, t = load_photo(predicted, colour).linear, load_photo(truth, colour).linear
    _check_sizes(predicted, p, truth, t)
    return p, t


def _vectors(path: Path) -> NDArray[np.float32]:
    """Vectors (H, W, 3) in [-1, 1]; 0 where the file holds none."""
    import numpy as np

    from raytrace_face.capture.photo import FLOAT_SUFFIXES, load_values

    values = load_values(path)
    if values.shape[2] != 3:
        raise InputError(f"{path.name} has one channel: normals need three")
    if path.suffix.lower() not in FLOAT_SUFFIXES:
        values = 2 * values - 1
    return np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)


def _mask(path: Path | None, truth: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(H, W) which pixels count: all without a file."""
    import numpy as np

    from raytrace_face.capture.photo import load_values

    if path is None:
        return np.ones(truth.shape[:2], bool)
    values = load_values(path)
    if values.shape[:2] != truth.shape[:2]:
        raise InputError(
            f"mask {path.name} is {_size(values)}, the pictures are {_size(truth)}: give one of their size"
        )
    return values.mean(axis=2) > 0.5


def _check_sizes(predicted: Path, p: NDArray[np.float32], truth: Path, t: NDArray[np.float32]) -> None:
    if p.shape[:2] != t.shape[:2]:
        raise InputError(
            f"{predicted.name} is {_size(p)}, {truth.name} is {_size(t)}: give two of one size, pixel on pixel"
        )


def _size(values: NDArray[np.float32]) -> str:
    return f"{values.shape[1]} x {values.shape[0]}"


def _finite(values: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    import numpy as np

    if not np.isfinite(values).all():
        raise InputError(f"{Path(name).name} holds values that are NaN or infinite: export it again without them")
    return values if values.shape[2] == 3 else np.repeat(values, 3, axis=2)


def _angles(text: str) -> tuple[float, float] | None:
    """Azimuth and elevation of "azimuth,elevation"; None for anything else, which is then a file."""
    number = r"\s*([+-]?\d+(?:\.\d*)?)\s*"
    found = re.fullmatch(f"{number},{number}", text)
    if found is None:
        return None
    azimuth, elevation = float(found[1]), float(found[2])
    if abs(azimuth) > 360 or abs(elevation) > 90:
        raise InputError(f"direction {text!r} is outside azimuth [-360, 360] and elevation [-90, 90] degrees")
    return azimuth, elevation


def _check_json(path: Path | None) -> None:
    """Find out before the work whether the scores can be kept."""
    if path is None:
        return
    if path.exists():
        raise OutputError(f"output {str(path)!r} exists: choose another with --json")
    if not path.absolute().parent.is_dir():
        raise OutputError(f"output {str(path)!r} cannot be written: its folder does not exist; make it first")


def _publish(scores: Scores, json: Path | None) -> None:
    """Print one Markdown table, and keep the scores at full precision."""
    if json is not None:
        from raytrace_face.output import write_json

        temporary = json.with_name(f".{json.name}.part")
        try:
            write_json(temporary, scores)
            temporary.replace(json)
        except OSError as error:
            raise OutputError(
                f"output {str(json)!r} cannot be written ({error}): choose another with --json"
            ) from error
        finally:
            temporary.unlink(missing_ok=True)
    cells = [str(value) if isinstance(value, int) else f"{value:.4g}" for value in scores.values()]
    print("\n".join(["| " + " | ".join(scores) + " |", "|" + "---|" * len(scores), "| " + " | ".join(cells) + " |"]))
