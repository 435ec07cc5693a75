"""Writing one picture or video in one piece: it appears complete or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from raytrace_face import output
from raytrace_face.capture.colour import encode_u8
from raytrace_face.errors import InputError
from raytrace_face.export import linear_u8, write_exr, write_png
from raytrace_face.types import Array

PICTURE_SUFFIXES = (".png", ".exr")
VIDEO_SUFFIXES = (".mp4",)
FRAMES_PER_SECOND = 24
"""Of films."""
VIDEO_QUALITY = 8
"""Of x264 on imageio-ffmpeg's scale, 0 to 10: no blocks in smooth skin."""


def check_file(path: Path, force: bool, suffixes: tuple[str, ...] = PICTURE_SUFFIXES) -> None:
    """Find out *before* the work whether a file can be written.

    Raises:
        InputError: the name does not end in one of `suffixes`.
        OutputError: it exists and `force` is not set, or its folder does not.
    """
    if path.suffix.lower() not in suffixes:
        raise InputError(f"output {str(path)!r} must end in one of {', '.join(suffixes)}")
    output.check_file(path, force)


def write_picture(path: Path, picture: Array, cover: Array | None = None) -> None:
    """Write a linear picture (H, W, 3): .png as 8-bit sRGB, .exr as linear float32.

    Args:
        cover: (H, W) opacity; the PNG then holds it beside the colours, the EXR multiplies them by it, as each format
            wants.

    Raises:
        OutputError: it cannot be written.
    """
    with output.new_file(path, force=True) as temporary:
        if path.suffix.lower() == ".exr":
            write_exr(temporary, picture if cover is None else picture * cover[..., None])
        elif cover is None:
            write_png(temporary, encode_u8(picture))
        else:
            write_png(temporary, np.concatenate([encode_u8(picture), linear_u8(cover)[..., None]], axis=2))


def write_video(path: Path, frames: Iterable[Array]) -> None:
    """Write linear pictures (H, W, 3) of one size as H.264 in sRGB, at 24 frames a second.

    Raises:
        OutputError: it cannot be written.
    """
    import imageio_ffmpeg

    with output.new_file(path, force=True) as temporary:
        writer = None
        try:
            for frame in frames:
                codes: NDArray[np.uint8] = encode_u8(frame[: frame.shape[0] // 2 * 2, : frame.shape[1] // 2 * 2])
                if writer is None:  # its codec wants even sizes
                    size = (codes.shape[1], codes.shape[0])
                    writer = imageio_ffmpeg.write_frames(
                        str(temporary), size, fps=FRAMES_PER_SECOND, quality=VIDEO_QUALITY, macro_block_size=2,
                        ffmpeg_log_level="error",
                    )  # fmt: skip
                    writer.send(None)
                writer.send(np.ascontiguousarray(codes))
        finally:
            if writer is not None:
                writer.close()
