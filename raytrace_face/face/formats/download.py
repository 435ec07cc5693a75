"""ICT-FaceKit Light from its public repository: resumable, every file checked.

The files are those of one commit, so they cannot change. For 68 of the 156 (neutral mesh, expressions, 12 identities)
`assets/ict_facekit.sha256` holds their SHA-256; for all of them the repository publishes size and git blob SHA-1, which
are asked for first. Single files rather than the archive: its host sends archives without byte ranges, so a broken
download of 400 MB would start again.
"""

from __future__ import annotations

import hashlib
import http
import http.client
import json
import re
import urllib.error
import urllib.request
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from tqdm import tqdm

from raytrace_face.errors import ModelError, OutputError

COMMIT = "da5f95a607f5e6b37755b38d3385d7f2853732e5"
"""Of 2020-12-01, the last that changed the model."""
URL = f"https://raw.githubusercontent.com/USC-ICT/ICT-FaceKit/{COMMIT}"
LISTING = f"https://api.github.com/repos/USC-ICT/ICT-FaceKit/git/trees/{COMMIT}?recursive=1"
WANTED = re.compile(r"LICENSE|FaceXModel/(vertex_indices\.json|(?!PupilDilate|cheekRaiser)\w+\.obj)")
"""What `ict.read` reads, and the licence; the units left out are not ARKit's."""
ATTEMPTS = 4
"""Connections to try for a file before giving up; each goes on where the last broke."""
TIMEOUT_S = 30.0
"""Silence after which a connection counts as broken."""
CHUNK = 1 << 18


@dataclass(frozen=True)
class Published:
    """What the repository says of a file."""

    name: str
    """Path in the repository."""
    size: int
    """Bytes."""
    blob: str
    """Git's SHA-1 of it."""
    sha256: str | None
    """Known to this program; None: only the repository vouches for it."""


def get_ict(folder: Path, url: str = URL, listing: str = LISTING, quiet: bool = False) -> Path:
    """Download ICT-FaceKit Light (400 MB, MIT licence), or go on with it.

    Args:
        folder: where to; made if it does not exist.
        url: where the files of the commit lie.
        listing: the commit's git tree, recursive, as GitHub's API gives it.
        quiet: no progress bar.

    Returns:
        `folder`, as `ict.read` takes it.

    Raises:
        ModelError: offline, the server refuses, or a file differs from what was published. What came stays, and the
            next call goes on from there.
        OutputError: the folder cannot be written.
    """
    files = published(listing)
    total = sum(file.size for file in files)
    with tqdm(total=total, unit="B", unit_scale=True, desc="ICT-FaceKit", disable=quiet, leave=False) as bar:
        for file in files:
            target = folder / file.name
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if target.is_file() and fault(target, file) is None:
                    bar.update(file.size)
                else:
                    _fetch(f"{url}/{file.name}", target, file, bar)
            except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
                raise _refused(f"{url}/{file.name}", error) from error
            except OSError as error:
                advice = "free space, or set RAYTRACE_FACE_HOME"
                raise OutputError(f"{str(target)!r} cannot be written ({error}): {advice}") from error
    return folder


def published(listing: str) -> list[Published]:
    """The wanted files of a git tree listing, by name.

    Raises:
        ModelError: the listing cannot be had, is cut off, or lacks a file that is known to belong to the model.
    """
    try:
        with urllib.request.urlopen(_request(listing), timeout=TIMEOUT_S) as response:
            tree = json.load(response)
        entries = {str(entry["path"]): entry for entry in tree["tree"] if WANTED.fullmatch(str(entry["path"]))}
        known = known_sha256()
        files = [Published(n, int(e["size"]), str(e["sha"]), known.get(n)) for n, e in sorted(entries.items())]
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _refused(listing, error) from error
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{listing} is no listing of a repository ({error}): try again later") from error
    missing = sorted(known.keys() - entries.keys())
    if tree.get("truncated") or missing:
        raise ModelError(f"{listing} lacks {missing[0] if missing else 'files'}: it is not that of ICT-FaceKit")
    return files


def known_sha256() -> dict[str, str]:
    """Path in the repository -> SHA-256, as `sha256sum` writes them."""
    text = resources.files("raytrace_face").joinpath("assets/ict_facekit.sha256").read_text(encoding="utf-8")
    return {name: digest for digest, name in (line.split("  ") for line in text.splitlines())}


def fault(path: Path, file: Published) -> str | None:
    """What is wrong with a file that came; None: it is the published one."""
    data = path.read_bytes()
    if len(data) != file.size:
        return f"has {len(data)} bytes instead of {file.size}"
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    if blob != file.blob:
        return f"has git SHA-1 {blob[:12]} instead of {file.blob[:12]}"
    own = hashlib.sha256(data).hexdigest()
    return None if file.sha256 in (None, own) else f"has SHA-256 {own[:12]} instead of {str(file.sha256)[:12]}"


def _fetch(url: str, target: Path, file: Published, bar: tqdm) -> None:
    """Bring one file, through as many connections as it takes, and put it in its place if it is the published one."""
    part = target.with_name(f"{target.name}.part")
    for attempt in range(ATTEMPTS):
        have = part.stat().st_size if part.is_file() else 0
        if attempt == 0:
            bar.update(min(have, file.size))
        if have >= file.size:
            break
        try:
            with urllib.request.urlopen(_request(url, have), timeout=TIMEOUT_S) as response:
                goes_on = response.status == http.HTTPStatus.PARTIAL_CONTENT
                if have and not goes_on:
                    bar.update(-have)
                with part.open("ab" if goes_on else "wb") as out:
                    while chunk := response.read1(CHUNK):
                        out.write(chunk)
                        bar.update(len(chunk))
        except (http.client.HTTPException, ConnectionError, TimeoutError):
            if attempt == ATTEMPTS - 1:
                raise
    wrong = fault(part, file)
    if wrong is not None and part.stat().st_size < file.size:
        raise ModelError(f"{url} broke off {ATTEMPTS} times: run the command again, it goes on from there")
    if wrong is not None:
        part.unlink()
        raise ModelError(f"{url} {wrong}: it was changed on its way and is not kept; run the command again")
    part.replace(target)


def _request(url: str, first: int = 0) -> urllib.request.Request:
    headers = {"User-Agent": "raytrace-face", "Accept-Encoding": "identity"}
    return urllib.request.Request(url, headers=headers | ({"Range": f"bytes={first}-"} if first else {}))


def _refused(url: str, error: Exception) -> ModelError:
    if isinstance(error, urllib.error.HTTPError):
        advice = "too many requests from here, try again in an hour" if error.code in (403, 429) else "try again later"
        return ModelError(f"{url} answers {error.code} {error.reason}: {advice}")
    reason = getattr(error, "reason", None) or error
    return ModelError(
        f"{url} cannot be reached ({reason}): connect this machine to the internet and run the command again, or copy "
        "the folder FaceXModel here from another machine and add it"
    )
