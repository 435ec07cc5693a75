"""What every benchmark shares: the data folder, tables, picture sheets."""

from __future__ import annotations

import argparse
import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from raytrace_face.capture.colour import encode_u8
from raytrace_face.config import Config

DATA_VARIABLE = "RAYTRACE_FACE_DATA"


def data_folder(*parts: str) -> Path:
    """A folder of the measurement data; ends the process politely (exit code 0) where there is none."""
    root = os.environ.get(DATA_VARIABLE)
    path = Path(root or "", *parts)
    if not root or not path.exists():
        print(f"skipped: {path if root else DATA_VARIABLE} is not there; set {DATA_VARIABLE} (docs/benchmarks.md)")
        sys.exit(0)
    return path


def add_common(parser: argparse.ArgumentParser, out: str) -> None:
    """Options that every benchmark has."""
    parser.add_argument("--out", type=Path, default=Path(out), help="folder for tables and pictures")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="setting, as light.max_lights=2"
    )
    parser.add_argument("--quality", choices=("preview", "standard", "high"), default="standard")


def config_of(args: argparse.Namespace, **changes: Any) -> Config:
    """The configuration of the command line, with nested `--set` values and further top-level changes."""
    values: dict[str, Any] = {"quality": args.quality, **changes}
    for item in args.set:
        key, _, text = item.partition("=")
        node = values
        *groups, last = key.split(".")
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = _value(text)
    return Config.from_dict(values)


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def markdown(header: Sequence[str], rows: Sequence[Sequence[Any]], digits: int = 2) -> str:
    """A Markdown table; floats with `digits` decimals, NaN as a dash."""

    def cell(value: Any) -> str:
        if isinstance(value, float | np.floating):
            return "-" if np.isnan(value) else f"{value:.{digits}f}"
        return str(value)

    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in rows]
    return "\n".join(lines)


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Dictionaries as rows; the columns are the union of the keys in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)


def publish(out: Path, name: str, text: str) -> None:
    """Print a report and keep it as `<out>/<name>.md`."""
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.md").write_text(text + "\n", encoding="utf-8")
    print(text)


def to_u8(image: NDArray[Any], encoded: bool = False) -> NDArray[np.uint8]:
    """(H, W), (H, W, 3) or a mask to 8-bit RGB: linear light unless `encoded` is set."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.dtype == np.bool_ or encoded:
        return (np.clip(array.astype(np.float32), 0, 1) * 255 + 0.5).astype(np.uint8)
    return encode_u8(array)


def sheet(path: Path, rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]], titles: Sequence[str]) -> None:
    """A contact sheet: titles on top, a label above every row of equally large pictures."""
    height, width = rows[0][1][0].shape[:2]
    band = 13
    canvas = Image.new("RGB", (width * len(titles), band + len(rows) * (height + band)))
    draw = ImageDraw.Draw(canvas)
    for k, title in enumerate(titles):
        draw.text((k * width + 2, 1), title, fill="yellow")
    for i, (label, pictures) in enumerate(rows):
        top = band + i * (height + band)
        draw.text((2, top), label, fill="white")
        for k, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (k * width, top + band))
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.save(path)
