"""Strips of labelled pictures for items of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from raytrace_face.capture.colour import encode_u8

BAND = 13
"""Height of a line of text in pixels."""


def to_u8(image: NDArray[Any], encoded: bool = False) -> NDArray[np.uint8]:
    """(H, W), (H, W, 3) or a mask to 8-bit RGB: linear light unless `encoded` is set."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.dtype == np.bool_ or encoded:
        return (np.clip(array.astype(np.float32), 0, 1) * 255 + 0.5).astype(np.uint8)
    return encode_u8(array)


def strip(title: str, pictures: Sequence[tuple[str, NDArray[np.uint8]]]) -> NDArray[np.uint8]:
    """Equally large pictures side by side, each under its label, below one title."""
    height, width = pictures[0][1].shape[:2]
    canvas = Image.new("RGB", (width * len(pictures), 2 * BAND + height))
    draw = ImageDraw.Draw(canvas)
    draw.text((2, 0), title, fill="white")
    for k, (label, picture) in enumerate(pictures):
        draw.text((k * width + 2, BAND), label, fill="yellow")
        canvas.paste(Image.fromarray(picture), (k * width, 2 * BAND))
    return np.asarray(canvas)


def stack(pictures: Sequence[NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """Pictures of any width on top of each other, on black."""
    width = max(p.shape[1] for p in pictures)
    return np.concatenate([np.pad(p, ((0, 0), (0, width - p.shape[1]), (0, 0))) for p in pictures])
