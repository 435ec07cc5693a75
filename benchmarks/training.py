"""Training in one process and in two: is the loss the same, and how much faster is it?

    python -m benchmarks.training sittings

Three short runs of the supervised stage, the same recipe and photos: one process with one thread; two such processes
with batches of the same size; and one process with the double batch, which must give the loss curve of the two.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import Section, table
from raytrace_face.learn import checkpoint

BATCH = 16
STEPS = 80
"""A curve of 8 points, a minute or two a run."""
REPORT_STEPS = 10
"""Steps of a line of the log."""


@dataclass(frozen=True)
class Run:
    """A short training."""

    processes: int
    batch: int
    """Photos a step of each process."""
    loss: list[float]
    """Means over ten steps."""
    photos_per_second: float


def measure(synthetic: Path, folder: Path, processes: int, batch: int, steps: int) -> Run:
    """Train for `steps` steps with one thread a process.

    Raises:
        RuntimeError: training failed.
    """
    recipe, out = folder / f"recipe{batch}.toml", folder / f"{processes}x{batch}"
    recipe.write_text(f"validate = 100000\n[supervised]\nepochs = 1000\nsynthetic = {batch}\n", encoding="utf-8")
    command = [
        *((sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"
           ) if processes > 1 else (sys.executable,)),
        *("-m", "raytrace_face", "train", "run", "--synthetic", str(synthetic), "--recipe", str(recipe)),
        *("--out", str(out), "--steps", str(steps), "--threads", "1", "--quiet"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"training with {processes} processes failed: {done.stderr.strip().splitlines()[-1]}")
    _, state, _ = checkpoint.load(out / "checkpoint.safetensors")
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]
    return Run(processes, batch, [line["loss"] for line in lines], processes * batch * state.total / state.seconds)


def section(synthetic: Path, folder: Path, steps: int) -> Section:
    """Both answers."""
    one, two, double = (
        measure(synthetic, folder, processes, batch, steps)
        for processes, batch in ((1, BATCH), (2, BATCH), (1, 2 * BATCH))
    )
    rows: list[dict[str, Any]] = [
        {"processes": r.processes, "batch of each": r.batch, "photos/s": round(r.photos_per_second, 1),
         **{f"loss, step {REPORT_STEPS * (k + 1)}": round(v, 3) for k, v in enumerate(r.loss)}}
        for r in (one, two, double)
    ]  # fmt: skip
    header = list(rows[0])
    apart = np.abs(np.array(two.loss) / np.array(double.loss) - 1)
    speed = two.photos_per_second / one.photos_per_second
    text = (
        f"{table(header, [[r[k] for k in header] for r in rows])}\n\n"
        f"Two processes against one with the double batch: losses differ by at most {100 * apart.max():.1f} %. "
        f"Two processes against one: {speed:.2f} x the photos a second, efficiency {100 * speed / 2:.0f} %."
    )
    return Section("training", "Training in two processes", text, rows)


def main() -> None:
    """Run the section alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sittings", type=Path, help="folder of `raytrace-face train data make-synthetic`")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(section(args.sittings, Path(folder), args.steps).markdown())


if __name__ == "__main__":
    main()
