"""Benchmarks on disk: what is written comes back, what is wrong is refused in one line, other contents, other keys."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raytrace_face.benchmark.spec import FILE, Benchmark, Item, load, write
from raytrace_face.cli import run
from raytrace_face.errors import InputError

VALUES = {
    "photo": "photos/a.png",
    "subject": 'Zoë "Z" \\ back\tslash \x7f 𝒙',
    "yaw_deg": -30.0,
    "tiny": 1e-12,
    "huge": 1e22,
    "count": 7,
    "wet": True,
    "pose": [[1.0, 0.0], [0.0, -1.5]],
    "expression": {"mouthSmileLeft": 0.7, "jawOpen": 0.0},
    "none": [],
}
GOOD = 'format_version = 1\nprotocol = "yaleb"\n[[item]]\nid = "a"\n'


def folder_with(path: Path, text: str) -> Path:
    (path / FILE).write_text(text, encoding="utf-8")
    return path


def test_what_is_written_comes_back(tmp_path):
    items = [Item("a_A+000E-35", VALUES), Item("b.2", {"photo": "b.png"})]
    write(tmp_path, "synthetic", "Köpfe", {"colour": "srgb", "sizes": np.arange(3)}, items)
    found = load(tmp_path)
    assert (found.protocol, found.title) == ("synthetic", "Köpfe")
    assert found.options["colour"] == "srgb"
    assert found.options["sizes"] == [0, 1, 2]
    assert [i.id for i in found.items] == ["a_A+000E-35", "b.2"]
    assert dict(found.items[0].values) == VALUES
    assert found.items[0]["expression"]["mouthSmileLeft"] == 0.7


def test_numpy_values_are_written_as_plain_ones(tmp_path):
    values = {"x": np.float32(0.5), "n": np.int64(3), "yes": np.bool_(True), "T": np.eye(2)}
    write(tmp_path, "now", "t", {}, [Item("a", values)])
    assert dict(load(tmp_path).items[0].values) == {"x": 0.5, "n": 3, "yes": True, "T": [[1, 0], [0, 1]]}


REFUSED = {
    "not TOML": ("format_version = ", "not valid TOML"),
    "not text": (None, "not valid TOML"),
    "no version": ('protocol = "yaleb"\n[[item]]\nid = "a"\n', "format_version None"),
    "newer version": (GOOD.replace("1", "2", 1), "format_version 2: this program reads up to 1"),
    "unknown protocol": (GOOD.replace("yaleb", "yale"), "protocol 'yale': use one of yaleb"),
    "no items": (GOOD.split("[[")[0], "no [[item]]"),
    "items that are no tables": ('format_version = 1\nprotocol = "now"\nitem = [1, 2]\n', "no [[item]]"),
    "options that are no table": ("options = 3\n" + GOOD, "[options] must be a table"),
    "no id": (GOOD.replace("id", "name"), "id ''"),
    "an id that is a path": (GOOD.replace('"a"', '"../a"'), "id '../a'"),
    "an id with a blank": (GOOD.replace('"a"', '"a b"'), "id 'a b'"),
    "an id twice": (GOOD + '[[item]]\nid = "a"\n', "item 'a' twice"),
    "a path that leaves the folder": (GOOD + 'photo = "../secret.png"\n', "leaves the benchmark's folder"),
    "an absolute path": (GOOD + 'photo = "/etc/passwd"\n', "leaves the benchmark's folder"),
    "a missing file": (GOOD + 'photo = "photos/a.png"\n', "does not exist"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_description_is_refused_in_one_line(case, tmp_path, capsys, monkeypatch):
    text, message = REFUSED[case]
    folder = tmp_path / "bench"
    folder.mkdir()
    (tmp_path / "secret.png").touch()
    monkeypatch.chdir(tmp_path)
    if text is None:
        (folder / FILE).write_bytes(b"\xff\xfe\x00")
    else:
        folder_with(folder, text)
    assert run(["benchmark", "run", "bench", "--method", "nothing"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bench", "secret.png"]  # nothing was begun


def test_no_folder_and_no_description_are_refused(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match=r"is not a benchmark .*benchmark make") as error:
            load(folder)
        assert "\n" not in str(error.value)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "bench").mkdir()
    (tmp_path / "secret.png").touch()
    (tmp_path / "bench" / "photo.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(InputError, match="leaves"):
        load(folder_with(tmp_path / "bench", GOOD)).path("photo.png")


def test_a_key_that_an_item_lacks_is_named(tmp_path):
    with pytest.raises(InputError, match="item 'a' has no 'photo'"):
        load(folder_with(tmp_path, GOOD)).items[0]["photo"]


@pytest.mark.parametrize("name", ["a b", "", "../a", "-a"])
def test_items_that_could_not_be_read_are_not_written(name, tmp_path):
    with pytest.raises(InputError, match="letters, digits"):
        write(tmp_path, "now", "t", {}, [Item(name, {})])
    with pytest.raises(InputError, match="twice"):
        write(tmp_path, "now", "t", {}, [Item("a", {}), Item("a", {})])
    assert not list(tmp_path.iterdir())


def test_the_key_changes_with_every_value_and_with_nothing_else():
    item = Item("a", VALUES)
    base = Benchmark(Path("x"), "yaleb", "title", {"colour": "linear", "files": "ab"}, (item,))
    key = base.key(item)
    assert base.key(Item("a", dict(reversed(VALUES.items())))) == key  # order is none
    assert replace(base, folder=Path("elsewhere"), title="another").key(item) == key
    others = [Item("b", VALUES), Item("a", {**VALUES, "new": 1})]
    for name, value in VALUES.items():
        changed = (not value) if isinstance(value, bool) else ([1] if value == [] else None)
        others.append(Item("a", {**VALUES, name: changed}))
        others.append(Item("a", {k: v for k, v in VALUES.items() if k != name}))
    keys = {base.key(other) for other in others}
    keys |= {
        replace(base, protocol="now").key(item),
        replace(base, options={"colour": "srgb", "files": "ab"}).key(item),
        replace(base, options={"colour": "linear", "files": "cd"}).key(item),
    }
    assert key not in keys
    assert len(keys) == len(others) + 3


def test_made_from_other_data_it_is_another_benchmark(tmp_path):
    """The description may be the same word for word: figures that were found on old photos must not be taken for it."""
    keys = []
    for content in (b"old", b"new", b"old"):
        (tmp_path / "photo.png").write_bytes(content)
        write(tmp_path, "now", "t", {}, [Item("a", {"photo": "photo.png"})])
        keys.append(load(tmp_path).key(load(tmp_path).items[0]))
    assert keys[0] != keys[1]
    assert keys[0] == keys[2]
