"""Make the `yaleb` benchmark from a CroppedYale folder (Lee, Ho and Kriegman, PAMI 2005)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from PIL import Image
from tqdm import tqdm

from raytrace_face.benchmark.spec import Item, write
from raytrace_face.errors import InputError
from raytrace_face.measure import photometric_stereo, yaleb
from raytrace_face.output import new_folder

TITLE = "Extended Yale B"


def make(data: Path, out: Path, *, subjects: Sequence[str], lights: Sequence[str], force: bool, quiet: bool) -> None:
    """Copy what the protocol needs: photos, the photos they are relit to, and the truth.

    Truth is taken from `<data>/truth/<subject>.npz` where it is there, else made by photometric stereo from all
    photos of the subject.

    Args:
        data: folder with `yaleB01/yaleB01_P00A+000E+00.pgm` and so on.
        subjects: names; none: all there are.
        lights: the photos to score; none: the 14 of the direction test.

    Raises:
        InputError: no such photos.
        OutputError: the folder exists and `force` is not set.
    """
    names = list(dict.fromkeys(subjects)) or yaleb.subjects(data)
    if not names:
        raise InputError(f"{str(data)!r} has no folders yaleB01, yaleB02, ...: give the CroppedYale folder")
    chosen = tuple(dict.fromkeys(lights)) or yaleb.LIGHTS
    needed = dict.fromkeys([*chosen, *(b for pairs in yaleb.RELIGHT.values() for a, b in pairs if a in chosen)])
    items = []
    with new_folder(out, force) as folder:
        (folder / "photos").mkdir()
        (folder / "truth").mkdir()
        for subject in tqdm(names, desc="subjects", disable=quiet, dynamic_ncols=True):
            for light in needed:
                try:
                    photo = yaleb.load_image(data, subject, light)
                except (OSError, ValueError) as error:
                    raise InputError(
                        f"{str(data)!r}: photo {subject}_P00{light}.pgm cannot be read ({error}): CroppedYale has it"
                    ) from error
                Image.fromarray(photo).save(folder / "photos" / f"{subject}_{light}.png")
            _write_truth(data, subject, folder / "truth")
            items += [
                Item(f"{subject}_{light}", {
                    "photo": f"photos/{subject}_{light}.png", "subject": subject, "light": light,
                }) for light in chosen
            ]  # fmt: skip
        write(folder, "yaleb", f"{TITLE}, {len(names)} subjects, {len(chosen)} lights", {"colour": "linear"}, items)


def _write_truth(data: Path, subject: str, folder: Path) -> None:
    if (data / "truth" / f"{subject}.npz").is_file():
        try:
            truth = yaleb.load_truth(data, subject)
        except (OSError, ValueError, KeyError, BadZipFile) as error:
            raise InputError(
                f"truth of {subject} in {str(data / 'truth')!r} cannot be read ({error}): it holds normal, albedo, "
                "gain and names; without it photometric stereo is made"
            ) from error
    else:
        truth = photometric_stereo.of_subject(data, subject)
    np.savez_compressed(
        folder / f"{subject}.npz",
        normal=np.moveaxis(truth.normals, -1, 0),
        albedo=truth.albedo,
        gain=np.array(list(truth.gain.values())),
        names=np.array(list(truth.gain)),
    )
