"""Reading photographs: any common file to upright linear Rec. 709 light, or one clear line why not."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, UnidentifiedImageError

from raytrace_face.capture.colour import encode_u8, srgb_to_linear
from raytrace_face.capture.deep import MAX_PIXELS, check_size, read_deep
from raytrace_face.errors import InputError
from raytrace_face.types import Photo

SATURATED = 0.98
"""A channel from this share of the largest code on counts as clipped, before the transfer curve is undone."""
MIN_CONTRAST = 1e-3
"""Pictures whose encoded values span less carry no face."""
GREY_TOLERANCE = 0.005
"""Channels closer than this, encoded, are equal: a monochrome photo (JPEG rounds colours a little)."""
FILM_DIAGONAL_MM = 43.27
"""Diagonal of the 35 mm film frame, to which "35 mm equivalent" focal lengths refer (CIPA DCG-001)."""
FOCAL_RANGE = (0.4, 8.0)
"""Plausible focal lengths in units of the photo's diagonal (17 to 350 mm on film)."""

FLOAT_SUFFIXES = {".exr", ".hdr"}
SENSOR_SHAPES = (1.0, 4 / 3, 3 / 2, 16 / 9)
"""Long over short side of what cameras record; another shape means that the photo was cropped."""
_ORIENTATION, _EXIF_IFD, _FOCAL, _FOCAL_35 = 0x0112, 0x8769, 0x920A, 0xA405
_PLANE_X, _PLANE_UNIT, _PIXELS_X, _PIXELS_Y = 0xA20E, 0xA210, 0xA002, 0xA003
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0}


def load_photo(path: str | Path, colour: str = "srgb") -> Photo:
    """Read a picture file: JPEG, PNG, WebP, PPM/PGM, TIFF, BMP (Pillow), EXR, HDR (linear light).

    `colour` says how integer pictures are encoded: "srgb" (the default) or "linear". EXR and HDR are always linear.
    EXIF orientation is applied, embedded ICC profiles are converted to sRGB, transparent pictures are laid over
    white. Raises InputError: no such file, not a picture, damaged, too large, too small, empty of contrast, NaN.
    """
    _check_colour(colour)
    values, digest, focal = _load(path)
    is_float = values.dtype.kind == "f"
    name = Path(path).name or str(path)
    return _finish(values, "linear" if is_float else colour, name, digest, focal, is_float=is_float)


def codes_of(photo: Photo) -> NDArray[np.uint8]:
    """(H, W, 3) 8-bit sRGB codes of a photo: those of its file, or its light encoded anew."""
    return encode_u8(photo.linear) if photo.codes is None else photo.codes


def load_values(path: str | Path) -> NDArray[np.float32]:
    """Numbers (H, W, 1 or 3) of a map, upright, as they stand: depth, normals, masks, environment maps.

    EXR, HDR and float TIFF unchanged (negative values and NaN, too), 8- and 16-bit codes over their largest; no
    transfer curve, transparency left out. Raises InputError: no such file, not a picture, damaged, too large.
    """
    values = _load(path)[0]
    top = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
    return values[..., :3].astype(np.float32) / np.float32(top)


def _load(path: str | Path) -> tuple[NDArray[Any], str, float | None]:
    """Codes or floats (H, W, 1|3|4) of a picture file, the hex digest of its bytes and the focal length in pixels."""
    file = Path(path)
    name = file.name or str(path)
    data = _read(file, str(path))
    digest = hashlib.sha256(data).hexdigest()
    if file.suffix.lower() in FLOAT_SUFFIXES:
        return _read_float(file, data), digest, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values, focal = _decode(data, name)
    except UnidentifiedImageError:
        raise InputError(
            f"{name} is not a picture that can be read: use JPEG, PNG, WebP, TIFF, BMP, PPM, EXR or HDR"
        ) from None
    except Image.DecompressionBombError:
        raise InputError(
            f"{name} is too large: more than {MAX_PIXELS // 1_000_000} megapixels are refused; make it smaller"
        ) from None
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds, all of them mean damaged bytes
        raise InputError(
            f"{name} is damaged and cannot be decoded ({str(error).splitlines()[0][:80] if str(error) else 'no reason'}"
            "): export or download it again"
        ) from error
    return values, digest, focal


def load_radiance(path: str | Path) -> NDArray[np.float32]:
    """(H, W, 3) linear Rec. 709 of an EXR or HDR file that is no photo (an environment map), negative values as 0.

    Raises:
        InputError: no such file, damaged, or not finite.
    """
    file = Path(path)
    values = _read_float(file, _read(file, str(path)))
    if not np.isfinite(values).all():
        raise InputError(f"{file.name} holds values that are NaN or infinite: export it again without them")
    return np.maximum(np.broadcast_to(values, (*values.shape[:2], 3)), 0).astype(np.float32)


def photo_from_array(array: NDArray[Any], colour: str = "srgb", name: str = "array") -> Photo:
    """A Photo from pixels (H, W), (H, W, 3) or (H, W, 4).

    Integers are codes from 0 to the largest of their type. Floats are encoded values in [0, 1] with
    `colour="srgb"`, light of any size with `colour="linear"`. Raises InputError as `load_photo` does.
    """
    _check_colour(colour)
    values = np.asarray(array)
    if values.ndim == 2:
        values = values[..., None]
    if values.ndim != 3 or values.shape[2] not in (1, 3, 4) or values.dtype.kind not in "uif" or values.size == 0:
        raise InputError(
            f"array of shape {np.shape(array)} and type {values.dtype} is no picture: give (H, W), (H, W, 3) or "
            "(H, W, 4) of uint8, uint16 or float"
        )
    if values.dtype.kind == "i":
        raise InputError(f"array of type {values.dtype} has no clear white: convert it to uint8, uint16 or float")
    check_size(values.shape[1], values.shape[0], name)
    return _finish(values, colour, name, "", None, is_float=values.dtype.kind == "f")


def _check_colour(colour: str) -> None:
    if colour not in ("srgb", "linear"):
        raise InputError(f'colour "{colour}" is unknown: choose "srgb" or "linear"')


def _read(file: Path, given: str) -> bytes:
    if file.is_dir():
        raise InputError(f"{given} is a folder: give a picture file")
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{given} does not exist: check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "invalid path"
        raise InputError(f"{given} cannot be read ({reason}): check the path and its permissions") from None
    if not data:
        raise InputError(f"{file.name} is empty (0 bytes): export or download it again")
    return data


def _decode(data: bytes, name: str) -> tuple[NDArray[Any], float | None]:
    """Codes (H, W, 1|3|4) as stored (8 or 16 bit, or float) but upright and in sRGB, and the focal length."""
    try:
        picture: Image.Image = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        # Pillow does not know float TIFF in colour
        deep = read_deep(data, "TIFF", name) if data[:4] in (b"II*\0", b"MM\0*") else None
        if deep is None:
            raise
        return deep, None
    check_size(*picture.size, name)
    focal, orientation = _focal_px(picture), picture.getexif().get(_ORIENTATION, 1)
    profile = picture.info.get("icc_profile")
    deep = read_deep(data, picture.format or "", name)
    if deep is not None and (deep.dtype.kind == "f" or not profile or _is_srgb(profile)):
        return _turned(deep, orientation), focal  # other profiles: right colours matter more than 16 bits
    if picture.mode in ("P", "PA") or (picture.mode != "RGBA" and "transparency" in picture.info):
        picture = picture.convert("RGBA" if "transparency" in picture.info or picture.mode == "PA" else "RGB")
    elif picture.mode not in ("L", "LA", "RGB", "RGBA", "F", "CMYK") and not picture.mode.startswith("I"):
        picture = picture.convert("RGB")
    picture.load()
    if profile:
        picture = _to_srgb(picture, profile)
    if picture.mode == "CMYK":
        picture = picture.convert("RGB")
    if picture.mode == "LA":
        picture = picture.convert("RGBA")
    values = np.asarray(picture)
    if picture.mode == "I":  # 16-bit codes in a 32-bit container
        values = np.clip(values, 0, 65535).astype(np.uint16)
    elif picture.mode.startswith("I;16"):
        values = values.astype(np.uint16)
    return _turned(values[..., None] if values.ndim == 2 else values, orientation), focal


def _turned(values: NDArray[Any], orientation: Any) -> NDArray[Any]:
    """(H, W, C) as stored -> upright, by the EXIF orientation 1 to 8 (anything else is taken as 1)."""
    if orientation in (5, 6, 7, 8):
        values = values.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    return values


def _is_srgb(profile: bytes) -> bool:
    try:
        return "srgb" in ImageCms.getProfileName(ImageCms.ImageCmsProfile(io.BytesIO(profile))).lower()
    except (ImageCms.PyCMSError, OSError):
        return True  # an unreadable profile is ignored


def _to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Convert an 8-bit picture from its embedded profile to sRGB; on any doubt leave it as it is."""
    if picture.mode not in ("L", "RGB", "RGBA", "CMYK"):
        return picture
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        converted = ImageCms.profileToProfile(picture, source, target, outputMode=mode)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return picture
    return picture if converted is None else converted


def _focal_px(picture: Image.Image) -> float | None:
    """Focal length in pixels from EXIF; None when it is missing, implausible or no longer true.

    "35 mm equivalent" first (f / 43.27 mm x diagonal), else focal length x focal plane resolution. A picture whose
    shape is not a sensor's, or not the one EXIF records, was cropped: its true focal length is unknown.
    """
    width, height = picture.size
    try:
        tags = picture.getexif().get_ifd(_EXIF_IFD)
        taken = (float(tags.get(_PIXELS_X) or width), float(tags.get(_PIXELS_Y) or height))
        shape = max(width, height) / min(width, height)
        known = min(abs(shape / usual - 1) for usual in SENSOR_SHAPES) < 0.02
        if not known or abs(shape * min(taken) / max(taken) - 1) > 0.02:
            return None
        diagonal = math.hypot(width, height)
        focal = None
        if float(tags.get(_FOCAL_35) or 0) > 0:
            focal = float(tags[_FOCAL_35]) / FILM_DIAGONAL_MM * diagonal
        elif tags.get(_FOCAL) and tags.get(_PLANE_X):
            unit = _UNIT_MM.get(int(tags.get(_PLANE_UNIT, 2)), 25.4)
            focal = float(tags[_FOCAL]) * float(tags[_PLANE_X]) / unit * diagonal / math.hypot(*taken)
    except (ValueError, TypeError, ZeroDivisionError, KeyError, OSError, SyntaxError, OverflowError):
        return None
    if focal is None or not FOCAL_RANGE[0] * diagonal <= focal <= FOCAL_RANGE[1] * diagonal:
        return None
    return focal


def _read_float(file: Path, data: bytes) -> NDArray[np.float32]:
    """(H, W, 1|3) linear values of an EXR or HDR file."""
    name = file.name
    try:
        values = _read_exr(file, data) if file.suffix.lower() == ".exr" else _read_hdr(data, name)
    except InputError:
        raise
    except Exception as error:  # whatever the decoder says, the bytes are not a picture
        raise InputError(
            f"{name} is not a readable {file.suffix[1:].upper()} picture: export or download it again"
        ) from error
    check_size(values.shape[1], values.shape[0], name)
    return values


def _read_exr(file: Path, data: bytes) -> NDArray[np.float32]:
    import OpenEXR

    if data[:4] != b"\x76\x2f\x31\x01":
        raise InputError(f"{file.name} is not an EXR picture: its first bytes are wrong; check the file")
    header = OpenEXR.File(str(file), separate_channels=True, header_only=True).header()
    low, high = header["dataWindow"]
    check_size(int(high[0] - low[0] + 1), int(high[1] - low[1] + 1), file.name)
    channels = OpenEXR.File(str(file), separate_channels=True).channels()
    pixels = {key: np.asarray(channel.pixels, np.float32) for key, channel in channels.items()}
    for wanted in (("R", "G", "B"), ("r", "g", "b"), ("Y",)):
        if all(key in pixels for key in wanted):
            return np.stack([pixels[key] for key in wanted], -1)
    raise InputError(f"{file.name} has channels {sorted(pixels)[:6]}: R, G, B or Y are needed; export it as RGB")


def _read_hdr(data: bytes, name: str) -> NDArray[np.float32]:
    import imageio.v3 as imageio

    size = next((line for line in data[:4096].split(b"\n") if line[:2] in (b"-Y", b"+Y")), b"").split()
    if len(size) == 4:
        check_size(int(size[3]), int(size[1]), name)
    values = np.asarray(imageio.imread(data, extension=".hdr"), np.float32)
    return values[..., None] if values.ndim == 2 else values[..., :3]


def _finish(values: NDArray[Any], colour: str, name: str, digest: str, focal: float | None, is_float: bool) -> Photo:
    """Codes or light (H, W, 1|3|4) to a checked Photo."""
    values = values.astype(np.float32) if is_float else values
    top = 1.0 if is_float else float(np.iinfo(values.dtype).max)
    if is_float and not np.isfinite(values).all():
        bad = int((~np.isfinite(values)).sum())
        raise InputError(f"{name} holds {bad} values that are NaN or infinite: export it again without them")
    channels = values.shape[2]
    colours = values[..., :3] if channels >= 3 else np.repeat(values[..., :1], 3, 2)
    if is_float:
        colours = np.maximum(colours, 0)
    # all in units of the file, because integers take a fraction of the time
    red, green, blue = (colours[..., c] for c in range(3))
    high = np.maximum(np.maximum(red, green), blue)
    low = np.minimum(np.minimum(red, green), blue)
    brightest = float(high.max())
    # light in a float file has no code that clips: nothing is marked
    clipped = high >= SATURATED * top if not (is_float and colour == "linear") else np.zeros(high.shape, bool)
    monochrome = bool(float((high - low).max()) <= GREY_TOLERANCE * max(brightest, 1e-9))
    contrast = max(float(channel.max()) - float(channel.min()) for channel in (red, green, blue))
    if contrast < MIN_CONTRAST * (brightest if is_float and colour == "linear" else top) or brightest == 0:
        what = "black" if brightest <= MIN_CONTRAST * top else "one single value"
        raise InputError(f"{name} is all {what}: there is no face in it; use another photo")
    linear = _decoded(values, colours) if colour == "srgb" else colours.astype(np.float32) / np.float32(top)
    if channels == 4:  # over white, in linear light
        alpha = np.clip(values[..., 3:].astype(np.float32) / np.float32(top), 0, 1)
        linear = linear * alpha + (1 - alpha)
    codes = np.ascontiguousarray(colours) if values.dtype == np.uint8 and colour == "srgb" and channels < 4 else None
    return Photo(np.ascontiguousarray(linear, np.float32), clipped, name, digest, monochrome, focal, codes)


def _decoded(values: NDArray[Any], colours: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB to linear light; integer codes go through a table, which is many times faster."""
    if values.dtype.kind == "f":
        return srgb_to_linear(colours)
    table = srgb_to_linear(np.linspace(0, 1, int(np.iinfo(values.dtype).max) + 1))
    linear = table[values[..., :3]]
    return linear if linear.shape[2] == 3 else np.repeat(linear[..., :1], 3, 2)
