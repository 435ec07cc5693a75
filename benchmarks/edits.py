"""The edit behind `raytrace-face relight` on Extended Yale B: photo A under the light of photo B, against photo B.

    python -m benchmarks.edits --bench out/report/yaleb --out out/report/edits

Both photos are reconstructed; the photo itself is edited, at its own resolution. The true direction is given to the
edit as a user would (`--light azimuth,elevation,size`), or the light is B's own, as it was estimated from photo B. One
file a subject, so that a stopped run goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from benchmarks.report import command, data_folder
from raytrace_face.backend import environment, threads_each
from raytrace_face.benchmark import yaleb as protocol
from raytrace_face.benchmark.pictures import stack, strip, to_u8
from raytrace_face.benchmark.relight import SAMPLES
from raytrace_face.benchmark.spec import Benchmark, Item, load
from raytrace_face.benchmark.table import figure, markdown, sums
from raytrace_face.config import Config
from raytrace_face.measure import images, yaleb
from raytrace_face.output import write_json
from raytrace_face.result import Reconstruction
from raytrace_face.types import Array

SIZE_DEG = 1.0
"""Angular radius of the flashes: small lamps two metres away."""
VARIANTS = {
    "copy": "photo A itself",
    "true": "`relight` to B's true direction",
    "estimated": "`relight` to the light estimated from B",
    "unshadowed": "`relight` to B's true direction, shadows switched off in fit and edit",
}
SHOWN = "hard -> front"


def angles(light: str) -> str:
    """`--light` of a light's true direction.

    >>> angles("A+035E+40")
    '35,40,1'
    """
    x, y, z = yaleb.light_direction(light)
    return f"{np.degrees(np.arctan2(x, z)):g},{np.degrees(np.arcsin(y)):g},{SIZE_DEG:g}"


def relightings(
    a: Reconstruction, b: Reconstruction, unshadowed: Reconstruction, photo: Array, light: str
) -> dict[str, Array]:
    """Variant -> (H, W) photo A (H, W, 3) edited towards the light of photo B."""
    from raytrace_face.edit import illumination
    from raytrace_face.edit.relight import relit_photo

    def edited(r: Reconstruction, shown: illumination.Illumination) -> Array:
        return relit_photo(r, shown, photo, spp=SAMPLES).mean(axis=2)

    return {
        "copy": photo.mean(axis=2),
        "true": edited(a, illumination.named(angles(light), a)),
        "estimated": edited(a, illumination.seen_from(illumination.of_result(b), b, a)),
        "unshadowed": edited(unshadowed, illumination.named(angles(light), unshadowed)),
    }


def run_subject(folder: Path, subject: str, out: Path) -> None:
    """All pairs of one subject: `<out>/<subject>.json` and a picture of the pairs of `SHOWN`."""
    from raytrace_face.capture import photo_from_array
    from raytrace_face.fit.reconstruct import reconstruct

    benchmark = load(folder)
    item = next(i for i in benchmark.items if i["subject"] == subject)
    mask = yaleb.score_mask(protocol.read_truth(benchmark, item))
    kept: dict[tuple[str, bool], Reconstruction] = {}

    def result(light: str, shadows: bool = True) -> Reconstruction:
        if (light, shadows) not in kept:
            config = Config.from_dict({"colour": "linear", "light": {"shadows": shadows}})
            photo = photo_from_array(protocol.read_photo(benchmark, item, light), "linear", f"{subject}_{light}")
            kept[light, shadows] = reconstruct(photo, config, progress=False)
        return kept[light, shadows]

    rows: list[dict[str, Any]] = []
    strips = []
    for group, pairs in yaleb.RELIGHT.items():
        for source, target in pairs:
            photo = _linear(benchmark, item, source)
            real = _linear(benchmark, item, target)[..., 0]
            found = relightings(result(source), result(target), result(source, False), photo, target)
            for variant, picture in found.items():
                psnr, ssim = protocol.likeness(picture, real, mask)
                rows.append({"subject": subject, "group": group, "variant": variant, "psnr_db": psnr, "ssim": ssim})
            if group == SHOWN:
                shown = [(k, to_u8(images.best_gain(p, real, mask) * p)) for k, p in found.items()]
                strips.append(strip(f"{subject} {source} to {target}", [*shown, ("real", to_u8(real))]))
    Image.fromarray(stack(strips)).save(out / f"{subject}.png")
    write_json(out / f"{subject}.json", {"rows": rows})


def _linear(benchmark: Benchmark, item: Item, light: str) -> Array:
    codes = protocol.read_photo(benchmark, item, light)
    return np.repeat(codes[..., None], 3, axis=2).astype(np.float32) / np.float32(255)


def run(folder: Path, out: Path, processes: int) -> None:
    """All subjects that are not done."""
    out.mkdir(parents=True, exist_ok=True)
    subjects = dict.fromkeys(str(i["subject"]) for i in load(folder).items)
    todo = [s for s in subjects if not (out / f"{s}.json").exists()]
    with environment(threads_each(1)), ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(run_subject, folder, s, out) for s in todo]
        for job in tqdm(jobs, desc="subjects", dynamic_ncols=True):
            job.result()


def table(out: Path) -> str:
    """One row a variant: PSNR / SSIM by group, and over all pairs with the interval over people."""
    rows = [r for path in sorted(out.glob("*.json")) for r in json.loads(path.read_text(encoding="utf-8"))["rows"]]
    lines = []
    for variant, text in VARIANTS.items():
        cells = []
        for group in (*yaleb.RELIGHT, None):
            own = [r for r in rows if r["variant"] == variant and group in (None, r["group"])]
            psnr, ssim = (figure(*sums(own, key, "subject")) for key in ("psnr_db", "ssim"))
            last = group is None
            cells.append(f"{psnr.text(1, last)} / {ssim.text(3, last)}")
        lines.append([text, *cells])
    return markdown(["photo A becomes photo B by", *yaleb.RELIGHT, "all pairs, PSNR dB / SSIM"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.edits", description=__doc__.split("\n")[0])
    parser.add_argument("--bench", type=Path, default=Path("out/report/yaleb"), help="folder of the yaleb benchmark")
    parser.add_argument("--out", type=Path, default=Path("out/report/edits"), help="folder for figures and pictures")
    parser.add_argument("--processes", type=int, default=2, help="subjects at a time, one thread each")
    args = parser.parse_args(argv)
    if not (args.bench / "benchmark.toml").exists():
        command("benchmark", "make", "yaleb", str(data_folder("yaleb")), str(args.bench))
    run(args.bench, args.out, args.processes)
    text = table(args.out)
    (args.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
