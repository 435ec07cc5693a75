"""Limits of picture size, and pictures of more than 8 bits a channel that Pillow would round: PNG and TIFF."""

from __future__ import annotations

import io
import zlib

import numpy as np
from numpy.typing import NDArray

from raytrace_face.errors import InputError

MAX_PIXELS = 100_000_000
"""Larger pictures are refused from their header, before decoding."""
MIN_SIDE = 64
"""Smallest usable side, pixels."""
_CHANNELS = {2: 3, 6: 4}
"""PNG colour type -> channels, for the types that Pillow rounds."""


def check_size(width: int, height: int, name: str) -> None:
    """Refuse pictures that are too large to decode or too small to fit, with InputError."""
    if width * height > MAX_PIXELS:
        raise InputError(
            f"{name} is {width} x {height} pixels: more than {MAX_PIXELS // 1_000_000} megapixels are refused; "
            "make it smaller"
        )
    if min(width, height) < MIN_SIDE:
        raise InputError(
            f"{name} is {width} x {height} pixels: both sides must be at least {MIN_SIDE}; use a larger version"
        )


def read_deep(data: bytes, kind: str, name: str) -> NDArray[np.uint16 | np.float32] | None:
    """(H, W, 3|4) codes of a 16-bit colour PNG or of a 16-bit or float TIFF; None when the file is something else.

    `kind` is Pillow's name of the format. Raises what the decoders raise when the file is damaged.
    """
    if kind == "PNG":
        return _read_png(data)
    if kind == "TIFF":
        return _read_tiff(data, name)
    return None


def _read_tiff(data: bytes, name: str) -> NDArray[np.uint16 | np.float32] | None:
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as file:
        page = file.pages[0]
        if page.dtype not in (np.uint16, np.float16, np.float32) or page.axes != "YXS" or page.shape[2] not in (3, 4):
            return None
        check_size(page.shape[1], page.shape[0], name)
        values = page.asarray()
    return values if values.dtype == np.uint16 else values.astype(np.float32)


def _read_png(data: bytes) -> NDArray[np.uint16] | None:
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, colour, _, _, interlaced = data[24:29]
    if depth != 16 or colour not in _CHANNELS or interlaced:
        return None
    packed, at = bytearray(), 8
    while at + 8 <= len(data):
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IDAT":
            packed += data[at + 8 : at + 8 + length]
        at += 12 + length
    step = 2 * _CHANNELS[colour]
    expected = height * (1 + width * step)
    raw = zlib.decompressobj().decompress(bytes(packed), expected)
    if len(raw) != expected:
        raise ValueError(f"{len(raw)} bytes of pixels instead of {expected}")
    rows = np.frombuffer(raw, np.uint8).reshape(height, 1 + width * step)
    plain = _unfilter(rows[:, 0], rows[:, 1:].reshape(height, width, step))
    return plain.reshape(height, width, -1, 2).view(">u2")[..., 0].astype(np.uint16)


def _unfilter(kinds: NDArray[np.uint8], filtered: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Undo PNG's row filters (0 none, 1 left, 2 up, 3 mean, 4 Paeth): (H,), (H, W, bytes) -> (H, W, bytes).

    A byte depends on its left, upper and upper-left neighbours only, so all pixels with the same x + y are
    independent: the loop runs over these diagonals and numpy along them.
    """
    if kinds.size and int(kinds.max()) > 4:
        raise ValueError(f"row filter {int(kinds.max())} does not exist")
    height, width, step = filtered.shape
    out = np.zeros((height + 1, width + 1, step), np.int16)
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        left, up, corner = out[y + 1, x], out[y, x + 1], out[y, x]
        to_left, to_up, to_corner = np.abs(up - corner), np.abs(left - corner), np.abs(left + up - 2 * corner)
        paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
        guess = np.choose(kinds[y][:, None], [np.zeros_like(left), left, up, (left + up) >> 1, paeth])
        out[y + 1, x + 1] = (filtered[y, x] + guess) & 255
    return out[1:, 1:].astype(np.uint8)
