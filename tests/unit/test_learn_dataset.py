"""Training data: every process sees its share, a stop costs nothing, and bad files are named and left out."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from raytrace_face.errors import InputError, OutputError
from raytrace_face.learn import pack
from raytrace_face.learn.dataset import EpochSampler, RealPhotos, SyntheticPhotos
from raytrace_face.learn.start import Start, neutral
from raytrace_face.learn.stream import Drawn
from raytrace_face.learn.synthesis import files
from raytrace_face.learn.synthesis.make import FORMAT, sitting_path
from raytrace_face.learn.synthesis.sitting import MAP, SKY_AXES, Sitting, Truth

NAMES = ("jawOpen", "mouthSmileLeft")
SIZE = 48


def ball_sitting(seed: int) -> Sitting:
    """A matte ball under four lights and the lobes, by formula instead of by tracing."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    u, v = (x + 0.5) / SIZE * 2.4 - 1.2, 1.2 - (y + 0.5) / SIZE * 2.4
    z = np.sqrt(np.maximum(1 - u * u - v * v, 0))
    inside = (z > 0).astype(np.float32)
    normals = np.stack([u, v, z], axis=-1)
    directions = rng.normal((0, 0, 1), size=(4, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosine = np.maximum(np.einsum("lc,hwc->lhw", np.concatenate([directions, SKY_AXES]), normals), 0) * inside
    truth = Truth(
        identity=rng.normal(size=5).astype(np.float32),
        expression=rng.random(2).astype(np.float32),
        T_camera_head=np.eye(4, dtype=np.float32),
        focal_px=200.0,
        principal_px=(24.0, 20.0),
        landmarks_px=rng.uniform(10, 38, (7, 2)).astype(np.float32),
        detected_px=np.full((478, 2), np.nan if seed % 2 else 24.0, np.float32),
        blendshapes=np.full(2, np.nan if seed % 2 else 0.1, np.float32),
        light_directions=directions.astype(np.float32),
        light_radius_deg=np.array([1, 2, 5, 15], np.float32),
        sky_axes=SKY_AXES.astype(np.float32),
        albedo_coefficients=rng.normal(size=3).astype(np.float32),
        albedo_map=np.full((MAP, MAP, 3), 0.3, np.float32),
        specular_map=np.full((MAP, MAP), 0.03, np.float32),
        roughness_map=np.full((MAP, MAP), 0.5, np.float32),
    )
    albedo = np.full((SIZE, SIZE, 3), (0.4, 0.25, 0.2), np.float32)
    gloss = (0.05 * cosine**20).astype(np.float32)
    return Sitting(albedo, inside, inside, cosine.astype(np.float32), gloss, truth, ("hair",))


@pytest.fixture(scope="module")
def sittings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sittings")
    (folder / "sittings.json").write_text(json.dumps({"format": FORMAT, "size": SIZE}))
    (folder / "000").mkdir()
    for n in range(7):
        files.save(sitting_path(folder, n), ball_sitting(n))
    return folder


def load_all(data, keys) -> list[dict]:
    return list(DataLoader(data, batch_size=None, sampler=keys))


def same(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# order


@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_an_epoch_without_overlap(world):
    shares = [list(EpochSampler(12, 0, 4, rank=r, world=world)) for r in range(world)]
    numbers = [n for share in shares for _, n in share]
    assert sorted(numbers) == list(range(12))
    assert {epoch for share in shares for epoch, _ in share} == {4}


def test_processes_have_equal_shares_of_what_does_not_divide():
    """None waits for another at the end of an epoch: what fills up the shares has been seen already."""
    shares = [[n for _, n in EpochSampler(10, 0, 0, rank=r, world=4)] for r in range(4)]
    assert [len(s) for s in shares] == [3, 3, 3, 3]
    assert {n for s in shares for n in s} == set(range(10))


def test_epochs_and_seeds_have_orders_of_their_own():
    orders = [tuple(EpochSampler(30, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(n for _, n in o) for o in orders}) == 4
    assert tuple(EpochSampler(30, 1, 1)) == orders[3]


# synthetic photos


def test_a_stopped_epoch_goes_on_with_the_same_items(sittings):
    whole = load_all(SyntheticPhotos(sittings, seed=3), EpochSampler(7, 3, 2))
    rest = load_all(SyntheticPhotos(sittings, seed=3), EpochSampler(7, 3, 2, position=4))
    assert len(rest) == 3
    assert all(same(a, b) for a, b in zip(whole[4:], rest, strict=True))


def test_loading_in_processes_changes_nothing(sittings):
    data = SyntheticPhotos(sittings, seed=3)
    keys = EpochSampler(7, 3, 0)
    here = load_all(data, keys)
    there = list(DataLoader(data, batch_size=None, sampler=keys, num_workers=2))
    assert all(same(a, b) for a, b in zip(here, there, strict=True))


def test_every_epoch_has_new_light_on_the_same_face(sittings):
    data = SyntheticPhotos(sittings)
    a, b = data[0, 2], data[1, 2]
    assert torch.equal(a["identity"], b["identity"])
    assert torch.equal(a["mask"], b["mask"])
    assert not torch.equal(a["image"], b["image"])
    assert not torch.equal(a["light_irradiance"], b["light_irradiance"])
    assert same(a, data[0, 2])


def test_items_are_in_sides_of_the_crop(sittings):
    data, half = SyntheticPhotos(sittings), SyntheticPhotos(sittings, size=24)
    a, b = data[0, 1], half[0, 1]
    assert a["image"].shape == (3, SIZE, SIZE)
    assert b["image"].shape == (3, 24, 24)
    assert b["mask"].shape == (24, 24)
    for name in ("focal", "principal", "true_landmarks"):
        assert torch.equal(a[name], b[name]), name
    assert float(a["focal"]) == pytest.approx(200 / SIZE)
    assert a["principal"].tolist() == pytest.approx([0.5, 20 / SIZE])
    assert float(a["mask"].mean()) == pytest.approx(float(b["mask"].mean()), abs=0.01)


def test_a_face_that_the_network_missed_is_said_to_be_undetected(sittings):
    data = SyntheticPhotos(sittings)
    assert [bool(data[0, n]["detected"]) for n in range(4)] == [True, False, True, False]
    assert torch.isfinite(data[0, 1]["landmarks"]).all()


def test_every_item_begins_at_its_own_landmarks_which_are_fitted_once(sittings):
    """Faces 0 and 2 are detected, 1 and 3 are not; two epochs, the second in batches."""
    fitted = []

    def fit(landmarks, blendshapes, principal) -> Start:
        fitted.append((landmarks, blendshapes, principal))
        return neutral(torch.full((1, 2), 0.7), len(blendshapes))

    data = SyntheticPhotos(sittings)
    drawn = Drawn(data, fit, seed=1, hints=0.5)
    items = [drawn[0, n] for n in range(4)]
    (batch,) = DataLoader(drawn, batch_sampler=[[(1, n) for n in range(4)]])
    assert len(fitted) == 2
    for asked, n in zip(fitted, (0, 2), strict=True):
        for values, name in zip(asked, ("landmarks", "blendshapes", "principal"), strict=True):
            assert torch.equal(torch.from_numpy(values), data[0, n][name])
    for n, item in enumerate(items):
        assert item["number"] == n
        own = item["start"]["principal"]
        assert torch.equal(own, item["principal"] if n % 2 else torch.full((2,), 0.7))
        assert torch.equal(batch["start"]["principal"][n], own)
    assert {name: len(value) for name, value in batch["start"].items()} == dict.fromkeys(Start.__dataclass_fields__, 4)


def test_hints_are_kept_by_chance_and_alike_in_every_run(sittings):
    def kept(share: float) -> list[bool]:
        drawn = Drawn(SyntheticPhotos(sittings), lambda *asked: neutral(torch.zeros(1, 2), 2), 1, share)
        return [drawn[epoch, 0]["kept"] for epoch in range(60)]

    assert np.mean(kept(0.7)) == pytest.approx(0.7, abs=0.18)  # three standard deviations of 60 draws
    assert kept(0.7) == kept(0.7)
    assert all(kept(1.0))
    assert not any(kept(0.0))


def test_truth_of_the_light_explains_the_photo(sittings):
    """The ball's shading recomputed from an item's own truth, in the photo's units, has the photo's brightness.

    The response curve is not part of the truth and differs from camera to camera: within a factor, right on average.
    """
    data = SyntheticPhotos(sittings)
    ball = ball_sitting(0)
    u = (np.arange(SIZE) + 0.5) / SIZE * 2.4 - 1.2
    normals = np.stack([*np.meshgrid(u, -u), np.zeros((SIZE, SIZE))], axis=-1)
    normals[..., 2] = np.sqrt(np.maximum(1 - (normals**2).sum(axis=-1), 0))
    logs = []
    for epoch in range(60):
        item = data[epoch, 0]
        if item["monochrome"]:
            continue
        light = np.einsum("lc,hwc->lhw", item["light_direction"].numpy(), normals).clip(0)
        shading = np.einsum("lhw,lk->hwk", light, item["light_irradiance"].numpy())
        shading += _sky(normals, item["ambient_sh"].numpy())
        predicted = ball.albedo * shading
        codes = item["image"].numpy().transpose(1, 2, 0)
        photo = np.where(codes <= 0.04045, codes / 12.92, ((codes + 0.055) / 1.055) ** 2.4)
        usable = (ball.mask > 0.5) & (predicted.max(axis=2) < 0.6) & (predicted.min(axis=2) > 0.05)
        if usable.sum() > 50:
            logs.append(np.log(photo[usable].mean() / predicted[usable].mean()))
    assert len(logs) > 15
    assert np.median(logs) == pytest.approx(0, abs=0.2)
    assert np.std(logs) < 0.6


def _sky(normals: np.ndarray, sh: np.ndarray) -> np.ndarray:
    """The ball's own (wrong) lobes are max(cos, 0) about the axes: find their weights from the harmonics."""
    from lightstage.environment import lobe_sh

    weights = np.linalg.lstsq(lobe_sh(SKY_AXES).T, sh, rcond=None)[0]
    return np.maximum(normals @ SKY_AXES.T, 0) @ weights


def test_damaged_sittings_are_named_and_left_out(tmp_path, sittings):
    (tmp_path / "sittings.json").write_bytes((sittings / "sittings.json").read_bytes())
    (tmp_path / "000").mkdir()
    for n in range(3):
        data = sitting_path(sittings, n).read_bytes()
        sitting_path(tmp_path, n).write_bytes(data[: len(data) // 2] if n == 1 else data)
    found = SyntheticPhotos(tmp_path)
    assert len(found) == 2
    assert [name for name, _ in found.skipped.entries] == ["000001.safetensors"]
    assert "1 skipped: 000001.safetensors" in str(found.skipped)
    for n in (0, 2):
        sitting_path(tmp_path, n).write_bytes(b"junk")
    with pytest.raises(InputError, match="no sitting that can be read"):
        SyntheticPhotos(tmp_path)
    with pytest.raises(InputError, match="no sittings"):
        SyntheticPhotos(tmp_path / "nowhere")


# real photos


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two people, one photo without a face, one that is no photo."""
    from skimage.data import astronaut

    folder = tmp_path_factory.mktemp("photos")
    face = Image.fromarray(astronaut()[:300, 80:380])
    for person, side in (("Ann", 300), ("Ann", 260), ("Bob", 280)):
        (folder / person).mkdir(exist_ok=True)
        face.resize((side, side)).save(folder / person / f"{side}.png")
    noise = np.random.default_rng(0).integers(100, 140, (80, 80, 3), np.uint8)
    Image.fromarray(noise).save(folder / "Bob" / "wall.png")
    (folder / "Bob" / "broken.jpg").write_bytes(b"\xff\xd8 not a photo")
    (folder / "notes.txt").write_text("no photo, not even skipped")
    return folder


@pytest.fixture(scope="module")
def shards(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "shards"
    packed = pack.pack(photos, out, size=96, quiet=True)
    assert packed.photos == 3
    return out


def test_photos_that_cannot_be_used_are_named_and_counted(photos, shards):
    packed = pack.pack(photos, shards, size=96, quiet=True)  # everything is there: only read
    assert (packed.photos, packed.shards) == (3, 1)
    assert {name.rpartition("/")[2] for name, _ in packed.skipped} == {"wall.png", "broken.jpg"}
    log = (shards / pack.LOG).read_text()
    assert "Bob/wall.png: no face" in log
    assert "Bob/broken.jpg" in log


def test_packed_photos_keep_person_camera_and_face(shards):
    data = RealPhotos(shards, NAMES)
    assert data.people.tolist() == [0, 0, 1]
    items = load_all(data, EpochSampler(3, 0, 0))
    assert sorted(int(i["person"]) for i in items) == [0, 0, 1]
    for item in items:
        assert item["image"].shape == (3, 96, 96)
        assert item["landmarks"].shape == (478, 2)
        assert item["blendshapes"].shape == (2,)
        # the window is `WINDOW_SCALE` = 1.6 times the landmarks' extent
        assert np.ptp(item["landmarks"].numpy(), axis=0).max() == pytest.approx(1 / 1.6, abs=1e-3)
        nose = item["landmarks"][1] * 96
        assert item["mask"][int(nose[1]), int(nose[0])] > 0.8
        assert item["mask"][0, 0] < 0.2
    # two sizes of one photo: the same crop, the same camera in sides of it
    one, two = (data[0, n] for n in range(2))
    assert one["principal"].numpy() == pytest.approx(two["principal"].numpy(), abs=0.02)
    assert (one["image"] - two["image"]).abs().mean() < 0.03


def test_packing_again_gives_the_same_bytes(photos, shards, tmp_path):
    again = tmp_path / "again"
    pack.pack(photos, again, size=96, quiet=True)
    assert (again / pack.shard_name(0)).read_bytes() == (shards / pack.shard_name(0)).read_bytes()
    assert not list(again.glob("*.part"))
    with pytest.raises(OutputError, match="other photos or at another size"):
        pack.pack(photos, again, size=128, quiet=True)


def test_empty_folders_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InputError, match="folder of photos"):
            pack.pack(folder, tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="holds no shards"):
        RealPhotos(tmp_path, NAMES)


def test_a_folder_without_any_face_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)).save(tmp_path / "in" / "a.png")
    with pytest.raises(InputError, match="none of the 1 photos"):
        pack.pack(tmp_path / "in", tmp_path / "out", quiet=True)


@pytest.mark.parametrize("damage", ["truncated", "header", "picture", "member"])
def test_corrupt_shards_are_named_and_left_out(shards, tmp_path, damage):
    data = (shards / pack.shard_name(0)).read_bytes()
    (tmp_path / "shard-00000.tar").write_bytes(data)
    bad = tmp_path / "shard-00001.tar"
    if damage == "truncated":
        bad.write_bytes(data[: len(data) // 2])
    elif damage == "header":
        bad.write_bytes(b"x" * 600 + data[600:])
    elif damage == "picture":
        at = data.index(b"\xff\xd8\xff")
        bad.write_bytes(data[:at] + bytes(400) + data[at + 400 :])
    else:
        with tarfile.open(bad, "w") as tar:
            info = tarfile.TarInfo("000000.json")
            info.size = 2
            tar.addfile(info, io.BytesIO(b"{}"))
    found = RealPhotos(tmp_path, NAMES)
    assert len(found) == 3
    assert [name for name, _ in found.skipped.entries] == ["shard-00001.tar"]
    (tmp_path / "shard-00000.tar").unlink()
    with pytest.raises(InputError, match=r"shard-00001\.tar"):
        RealPhotos(tmp_path, NAMES)
