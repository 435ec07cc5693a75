"""Make the `now` and `micc` benchmarks from the data sets, in the layouts in which they are given out.

NoW (Sanyal et al., CVPR 2019), validation set:

    imagepathsvalidation.txt                                      one photo a line, <subject>/<challenge>/<photo>
    NoW_Dataset/final_release_version/iphone_pictures/<line>      the photos
    scans/<subject>/*.obj                                         the neutral scan
    scans_lmks_onlypp/<subject>/*.pp                              its seven landmarks

MICC Florence (Bagdanov et al. 2011), with what it does not carry, photos and landmarks, beside it:

    subject_<nn>/Model/frontal1/obj/*.obj                         the neutral scan (or frontal2)
    photos/subject_<nn>/*.jpg|png                                 frames of the videos, chosen by the user
    landmarks/subject_<nn>.pp|txt|json|npy|csv                    seven landmarks on the scan
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from raytrace_face.benchmark.spec import Item, write
from raytrace_face.errors import InputError
from raytrace_face.measure.meshes import LANDMARK_SUFFIXES, load_scan
from raytrace_face.output import new_folder

NOW_PHOTOS = Path("NoW_Dataset/final_release_version/iphone_pictures")
PHOTO_SUFFIXES = (".jpg", ".jpeg", ".png")
TITLES = {"now": "NoW challenge, validation set", "micc": "MICC Florence 3D faces"}


@dataclass(frozen=True)
class Source:
    """One photo with the scan of its person."""

    subject: str
    challenge: str
    photo: Path
    scan: Path
    landmarks: Path


def make(kind: str, data: Path, out: Path, *, subjects: Sequence[str], force: bool, quiet: bool) -> None:
    """Copy what the protocol needs into a benchmark folder; every scan is read and checked.

    Args:
        kind: now or micc.
        subjects: only these people; none: all.

    Raises:
        InputError: not that layout, or a scan or its landmarks cannot be used.
        OutputError: the folder exists and `force` is not set.
    """
    found = list(_now(data) if kind == "now" else _micc(data))
    people = dict.fromkeys(s.subject for s in found)
    strangers = [name for name in subjects if name not in people]
    if strangers or not found:
        names = ", ".join(people) or "none at all"
        raise InputError(f"no photo of {', '.join(strangers) or 'anyone'} in {str(data)!r}: there are {names}")
    wanted = [s for s in found if not subjects or s.subject in subjects]
    with new_folder(out, force) as folder:
        for name in ("photos", "scans"):
            (folder / name).mkdir()
        items = []
        for source in tqdm(wanted, desc="photos", disable=quiet, dynamic_ncols=True):
            scan = Path("scans") / f"{source.subject}{source.scan.suffix.lower()}"
            marks = Path("scans") / f"{source.subject}_landmarks{source.landmarks.suffix.lower()}"
            if not (folder / scan).exists():
                load_scan(source.scan, source.landmarks)
                shutil.copyfile(source.scan, folder / scan)
                shutil.copyfile(source.landmarks, folder / marks)
            name = "_".join(part for part in (source.subject, source.challenge, source.photo.stem) if part)
            photo = Path("photos") / f"{name}{source.photo.suffix.lower()}"
            shutil.copyfile(source.photo, folder / photo)
            files = {"photo": photo.as_posix(), "scan": scan.as_posix(), "landmarks": marks.as_posix()}
            values = {**files, "challenge": source.challenge}
            items.append(Item(name, values))
        write(folder, kind, TITLES[kind], {"unit": "mm"}, items)


def _now(data: Path) -> Iterator[Source]:
    listing = data / "imagepathsvalidation.txt"
    try:
        lines = [line.strip() for line in listing.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{str(listing)!r} cannot be read ({error}): give the NoW folder (docs/measures.md)"
        ) from error
    for line in lines:
        parts = Path(line).parts
        if len(parts) != 3 or ".." in parts:
            raise InputError(f"{str(listing)!r} has line {line!r}: a line is <subject>/<challenge>/<photo>")
        subject, challenge, _ = parts
        photo = data / NOW_PHOTOS / line
        if not photo.is_file():
            raise InputError(f"photo {str(photo)!r} does not exist: unpack the NoW photos there")
        yield Source(
            subject, challenge, photo, _one(data / "scans" / subject, (".obj",), "scan"),
            _one(data / "scans_lmks_onlypp" / subject, (".pp",), "landmarks"),
        )  # fmt: skip


def _micc(data: Path) -> Iterator[Source]:
    people = sorted(p for p in data.glob("subject_*") if p.is_dir())
    if not people:
        raise InputError(f"{str(data)!r} has no folders subject_01, ...: give the MICC Florence folder")
    for person in people:
        models = [p for p in (person / "Model" / f"frontal{k}" / "obj" for k in (1, 2)) if p.is_dir()]
        if not models:
            raise InputError(f"{str(person)!r} has no Model/frontal1/obj: unpack the scans of MICC Florence there")
        marks = [p for s in LANDMARK_SUFFIXES if (p := data / "landmarks" / (person.name + s)).is_file()]
        if not marks:
            raise InputError(
                f"{str(data / 'landmarks')!r} has no {person.name}.pp (or txt, json, npy, csv): mark the scan"
            )
        photos = sorted(p for p in (data / "photos" / person.name).glob("*") if p.suffix.lower() in PHOTO_SUFFIXES)
        if not photos:
            raise InputError(f"{str(data / 'photos' / person.name)!r} has no photos: put frames of the videos there")
        scan = _one(models[0], (".obj",), "scan")
        for photo in photos:
            yield Source(person.name, "", photo, scan, marks[0])


def _one(folder: Path, suffixes: tuple[str, ...], what: str) -> Path:
    """The one file of a kind in a folder (NoW names them after the take), the first by name if there are more."""
    found = sorted(p for p in folder.glob("*") if p.suffix.lower() in suffixes)
    if not found:
        raise InputError(f"{str(folder)!r} has no {what} ({'|'.join(suffixes)}): the data set has one there")
    return found[0]
