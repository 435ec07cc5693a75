"""ICT-FaceKit is downloaded once, goes on where it broke, and keeps nothing that differs from what was published."""

from __future__ import annotations

import hashlib
import http.server
import json
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from raytrace_face.errors import ModelError, OutputError
from raytrace_face.face.formats import download

FILES = {
    name: np.random.default_rng(seed).bytes(200_000 + seed)
    for seed, name in enumerate(
        ["LICENSE", *(f"FaceXModel/{n}" for n in ("generic_neutral_mesh.obj", "identity000.obj"))]
    )
}
UNWANTED = ("README.md", "FaceXModel/PupilDilate_L.obj", "FaceXModel/ICTFaceModelMaterial.mtl", "Scripts/face_model.py")
KNOWN = "FaceXModel/generic_neutral_mesh.obj"


def git_blob(data: bytes) -> str:
    return hashlib.sha1(b"blob " + str(len(data)).encode() + b"\0" + data).hexdigest()


class Repository(http.server.ThreadingHTTPServer):
    """Serves `files` with byte ranges, and a git tree of `FILES`; breaks off as often as `breaks` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = dict(FILES)
        self.breaks, self.ranges, self.refuse = 0, True, 0
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Repository

    def do_GET(self) -> None:
        path, wanted = self.path[1:], self.headers.get("Range")
        self.server.asked.append((path, wanted))
        if self.server.refuse:
            self.send_error(self.server.refuse)
            return
        if path == "tree":
            names = [*FILES, *UNWANTED]
            entries = [
                {"path": n, "type": "blob", "size": len(FILES.get(n, b"")), "sha": git_blob(FILES.get(n, b""))}
                for n in names
            ]
            self._send(json.dumps({"sha": "0", "tree": entries, "truncated": False}).encode(), 200)
            return
        data = self.server.files[path]
        first = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0
        self._send(data[first:], 206 if first else 200)

    def _send(self, data: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.server.breaks and self.path != "/tree":
            self.server.breaks -= 1
            data = data[: len(data) // 2]
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def repository(monkeypatch) -> Iterator[Repository]:
    known = {KNOWN: hashlib.sha256(FILES[KNOWN]).hexdigest()}
    monkeypatch.setattr(download, "known_sha256", lambda: known)
    with Repository() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def get(home: Path, server: Repository) -> Path:
    return download.get_ict(home / "ict", server.url, f"{server.url}/tree", quiet=True)


def downloaded(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_all_that_is_wanted_comes_and_nothing_else(repository, tmp_path):
    folder = get(tmp_path, repository)
    assert folder == tmp_path / "ict"
    assert downloaded(folder) == FILES


def test_second_call_downloads_nothing(repository, tmp_path):
    get(tmp_path, repository)
    repository.asked.clear()
    get(tmp_path, repository)
    assert repository.asked == [("tree", None)]


def test_broken_connection_goes_on_by_itself(repository, tmp_path):
    repository.breaks = 2
    assert downloaded(get(tmp_path, repository)) == FILES
    size = len(FILES[KNOWN])
    assert (KNOWN, None) in repository.asked
    assert (KNOWN, f"bytes={size // 2}-") in repository.asked


def test_next_call_goes_on_where_this_one_gave_up(repository, tmp_path):
    repository.breaks = download.ATTEMPTS
    with pytest.raises(ModelError, match=r"mesh\.obj broke off 4 times: run the command again, it goes on"):
        get(tmp_path, repository)
    part = tmp_path / "ict" / f"{KNOWN}.part"
    have = part.stat().st_size
    assert 0 < have < len(FILES[KNOWN])
    repository.asked.clear()
    assert downloaded(get(tmp_path, repository)) == FILES
    assert (KNOWN, f"bytes={have}-") in repository.asked
    assert not part.exists()


def test_server_without_ranges_starts_a_file_again(repository, tmp_path):
    repository.breaks, repository.ranges = 1, False
    assert downloaded(get(tmp_path, repository)) == FILES


def test_changed_file_is_not_kept(repository, tmp_path):
    spoiled = bytearray(FILES["FaceXModel/identity000.obj"])
    spoiled[1000] ^= 1
    repository.files["FaceXModel/identity000.obj"] = bytes(spoiled)
    with pytest.raises(ModelError, match=r"identity000\.obj has git SHA-1 .* instead of .* not kept"):
        get(tmp_path, repository)
    left = downloaded(tmp_path / "ict")
    assert not any("identity000" in name for name in left)


def test_repository_that_rewrote_a_known_file_is_refused(repository, tmp_path, monkeypatch):
    """The listing vouches for it, the checksum that this program knows does not."""
    monkeypatch.setattr(download, "known_sha256", lambda: {KNOWN: "0" * 64})
    with pytest.raises(ModelError, match=r"has SHA-256 .* instead of 000000000000"):
        get(tmp_path, repository)


def test_file_spoiled_on_disk_is_fetched_again(repository, tmp_path):
    folder = get(tmp_path, repository)
    (folder / KNOWN).write_bytes(b"spoiled")
    assert downloaded(get(tmp_path, repository)) == FILES


def test_offline_is_one_clear_line(tmp_path):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(ModelError, match=r"cannot be reached .*refused.*: connect this machine") as caught:
            download.get_ict(tmp_path, url, f"{url}/tree", quiet=True)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(("status", "advice"), [(403, "too many requests"), (404, "try again later")])
def test_refusal_of_the_server_is_said(repository, tmp_path, status, advice):
    repository.refuse = status
    with pytest.raises(ModelError, match=f"answers {status} .*{advice}"):
        get(tmp_path, repository)


def test_listing_of_something_else_is_refused(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "known_sha256", lambda: {"FaceXModel/jawOpen.obj": "0" * 64})
    with pytest.raises(ModelError, match=r"lacks FaceXModel/jawOpen\.obj"):
        get(tmp_path, repository)
    with pytest.raises(ModelError, match="is no listing of a repository"):
        download.published(f"{repository.url}/LICENSE")


def test_folder_that_cannot_be_written_is_named(repository, tmp_path):
    (tmp_path / "ict").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        get(tmp_path, repository)


def test_known_checksums_are_those_of_the_published_files():
    known = download.known_sha256()
    assert len(known) == 68
    assert all(download.WANTED.fullmatch(name) and re.fullmatch("[0-9a-f]{64}", d) for name, d in known.items())
    # of the mesh that other projects pin, too
    assert known["FaceXModel/generic_neutral_mesh.obj"].startswith("eedbc2576d8e5ea5")
