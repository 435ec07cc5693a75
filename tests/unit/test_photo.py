"""Reading photographs: every format gives the same light, every bad input one clear line."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageCms

from raytrace_face.capture.colour import linear_to_srgb, srgb_to_linear
from raytrace_face.capture.photo import load_photo, photo_from_array
from raytrace_face.errors import InputError


def gradient(height=72, width=96):
    """(H, W, 3) uint8 whose channels differ everywhere."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 2, y * 3, 250 - x - y], -1).astype(np.uint8)


def chunk(kind, body):
    """One chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(width, height):
    """A PNG that claims a size and holds no pixels."""
    size = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.fixture
def picture(tmp_path):
    """Save a picture under a name and return its path."""

    def save(name, values=None, **options):
        path = tmp_path / name
        Image.fromarray(gradient() if values is None else values).save(path, **options)
        return path

    return save


def test_srgb_transfer_function_known_values():
    assert srgb_to_linear(np.array([0.0, 0.04045, 0.5, 1.0])) == pytest.approx([0, 0.0031308, 0.214041, 1], abs=1e-6)


def test_srgb_transfer_function_is_undone_by_its_inverse():
    codes = np.linspace(0, 1, 1001)
    assert np.abs(linear_to_srgb(srgb_to_linear(codes)) - codes).max() < 1e-6


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.bmp", "a.ppm", "a.webp"])
def test_lossless_formats_give_the_same_light(picture, name):
    options = {"lossless": True} if name.endswith("webp") else {}
    photo = load_photo(picture(name, **options))
    assert np.abs(photo.linear - srgb_to_linear(gradient() / 255)).max() < 1e-6
    assert (photo.height, photo.width, photo.name, len(photo.sha256)) == (72, 96, name, 64)
    assert photo.linear.dtype == np.float32
    assert not photo.monochrome


def test_jpeg_gives_nearly_the_same_light(picture):
    photo = load_photo(picture("a.jpg", quality=97, subsampling=0))
    assert np.abs(photo.linear - srgb_to_linear(gradient() / 255)).max() < 0.05


def test_grey_files_are_monochrome(picture):
    for name in ("a.pgm", "a.png"):
        photo = load_photo(picture(name, gradient()[..., 0]))
        assert photo.monochrome
        assert np.abs(photo.linear[..., 1] - srgb_to_linear(gradient()[..., 0] / 255)).max() < 1e-6


def test_palette_file_is_expanded(tmp_path):
    indexed = Image.fromarray(gradient()).quantize(64)
    indexed.save(tmp_path / "p.png")
    expected = srgb_to_linear(np.asarray(indexed.convert("RGB")) / 255)
    assert np.abs(load_photo(tmp_path / "p.png").linear - expected).max() < 1e-6


def png_16(codes, filters):
    """16-bit RGB PNG of (H, W, 3) codes, rows filtered in turn by `filters` as the PNG specification says."""
    height, width, _ = codes.shape
    data = codes.astype(">u2").tobytes()
    rows = np.frombuffer(data, np.uint8).reshape(height, width * 6).astype(int)
    body = b""
    for y in range(height):
        now, up = rows[y], rows[y - 1] if y else np.zeros_like(rows[0])
        left, corner = (np.concatenate([np.zeros(6, int), r[:-6]]) for r in (now, up))
        distances = np.abs(np.stack([left, up, corner]) - (left + up - corner))
        paeth = np.choose(distances.argmin(0), [left, up, corner])
        kind = filters[y % len(filters)]
        body += bytes([kind]) + bytes(((now - [0 * now, left, up, (left + up) // 2, paeth][kind]) % 256).tolist())
    size = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size) + chunk(b"IDAT", zlib.compress(body)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("filters", [[0], [1], [2], [3], [4], [4, 2, 0, 3, 1]])
def test_16_bit_colour_png_keeps_its_precision(tmp_path, filters):
    codes = np.random.default_rng(1).integers(0, 65536, (70, 80, 3)).astype(np.uint16)
    (tmp_path / "deep.png").write_bytes(png_16(codes, filters))
    photo = load_photo(tmp_path / "deep.png", colour="linear")
    assert np.abs(photo.linear * 65535 - codes).max() < 0.01


def test_wide_gamut_profile_changes_colours_also_of_16_bit_files(tmp_path):
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = bytearray(lab)  # an sRGB profile whose red and blue primaries are exchanged, under another name
    tags = {lab[i : i + 4]: i for i in range(132, 132 + 12 * int.from_bytes(lab[128:132], "big"), 12)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    swapped[red + 4 : red + 8], swapped[blue + 4 : blue + 8] = lab[blue + 4 : blue + 8], lab[red + 4 : red + 8]
    profile = bytes(swapped).replace("sRGB".encode("utf-16-be"), "mine".encode("utf-16-be"))
    (tmp_path / "s.png").write_bytes(png_16(gradient().astype(np.uint16) * 257, [1]))
    values = gradient()
    Image.fromarray(values).save(tmp_path / "s8.png", icc_profile=profile)
    compressed = b"mine\0\0" + zlib.compress(profile)
    deep = (tmp_path / "s.png").read_bytes()
    (tmp_path / "s.png").write_bytes(deep[:33] + chunk(b"iCCP", compressed) + deep[33:])
    for name in ("s8.png", "s.png"):
        seen = linear_to_srgb(load_photo(tmp_path / name).linear) * 255
        assert np.abs(seen - values[..., ::-1]).max() < 4


def test_16_bit_and_float_tiff_keep_their_precision(tmp_path):
    import tifffile

    codes = np.random.default_rng(2).integers(0, 65536, (70, 80, 3)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", codes, photometric="rgb")
    assert np.abs(load_photo(tmp_path / "a.tif", colour="linear").linear * 65535 - codes).max() < 0.01
    light = codes.astype(np.float32) / 20000
    tifffile.imwrite(tmp_path / "b.tif", light, photometric="rgb")
    assert np.array_equal(load_photo(tmp_path / "b.tif").linear, light)


def test_16_bit_grey_png_keeps_its_precision(tmp_path):
    codes = (
        np.linspace(20000, 20100, 64 * 64).astype(np.uint16).reshape(64, 64) + 100 * np.eye(64, dtype=np.uint16) * 100
    )
    Image.fromarray(codes).save(tmp_path / "deep.png")
    photo = load_photo(tmp_path / "deep.png", colour="linear")
    assert np.abs(photo.linear[..., 0] * 65535 - codes).max() < 0.01
    assert len(np.unique(photo.linear)) > 60


def test_transparent_pixels_lie_over_white(tmp_path):
    rgba = np.dstack([gradient(), np.full((72, 96), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    Image.fromarray(rgba).save(tmp_path / "t.png")
    photo = load_photo(tmp_path / "t.png")
    assert np.all(photo.linear[:10] == 1)
    assert np.abs(photo.linear[10:] - srgb_to_linear(gradient()[10:] / 255)).max() < 1e-6


def test_saturation_is_marked_before_decoding():
    values = np.full((64, 64, 3), 100, np.uint8)
    values[5, 7, 1] = 250  # 0.980 of white
    values[6, 7, 1] = 249
    saturated = photo_from_array(values).saturated
    assert saturated[5, 7]
    assert saturated.sum() == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    upright = gradient()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "o.png", exif=exif)
    assert np.array_equal(load_photo(tmp_path / "o.png").linear, photo_from_array(upright).linear)


def with_focal(path, tags, size=(300, 200)):
    exif = Image.Exif()
    exif.get_ifd(0x8769).update(tags)
    Image.fromarray(gradient(size[1], size[0])).save(path, exif=exif)
    return load_photo(path).focal_px


def test_focal_length_from_35_mm_equivalent(tmp_path):
    # 43.27 mm is the diagonal of the film, so the focal length is the diagonal of the picture
    assert with_focal(tmp_path / "f.jpg", {0xA405: 43}) == pytest.approx(np.hypot(300, 200) * 43 / 43.27)


def test_focal_length_from_focal_plane_resolution(tmp_path):
    # 50 mm at 10 pixels per mm of sensor, picture as taken
    tags = {0x920A: 50.0, 0xA20E: 10.0, 0xA210: 4, 0xA002: 300, 0xA003: 200}
    assert with_focal(tmp_path / "f.jpg", tags) == pytest.approx(500)
    # the same picture at half its size
    assert with_focal(tmp_path / "h.jpg", {**tags, 0xA002: 600, 0xA003: 400}) == pytest.approx(250)


def test_focal_length_of_a_crop_is_unknown(tmp_path):
    assert with_focal(tmp_path / "f.jpg", {0xA405: 50}, size=(250, 200)) is None  # no sensor is 5:4


@pytest.mark.parametrize("tags", [{}, {0xA405: 0}, {0xA405: 2000}, {0xA405: 50, 0xA002: 300, 0xA003: 300}])
def test_focal_length_missing_implausible_or_cropped_is_none(tmp_path, tags):
    assert with_focal(tmp_path / "f.jpg", tags) is None


def test_embedded_srgb_profile_changes_nothing(picture):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    with_profile = load_photo(picture("i.png", icc_profile=profile)).linear
    assert np.abs(linear_to_srgb(with_profile) * 255 - gradient()).max() < 1.6


def test_broken_profile_is_ignored(picture):
    photo = load_photo(picture("i.png", icc_profile=b"nonsense" * 30))
    assert np.abs(photo.linear - srgb_to_linear(gradient() / 255)).max() < 1e-6


def test_exr_and_hdr_are_linear(tmp_path):
    import imageio.v3 as imageio
    import OpenEXR

    light = (gradient() / 64).astype(np.float32)  # up to 3.9: brighter than white stays
    OpenEXR.File({}, {"RGB": OpenEXR.Channel(light)}).write(str(tmp_path / "a.exr"))
    exr = load_photo(tmp_path / "a.exr")
    assert np.array_equal(exr.linear, light)
    assert not exr.saturated.any()
    imageio.imwrite(tmp_path / "a.hdr", light)
    assert np.abs(load_photo(tmp_path / "a.hdr").linear - light).max() < 0.02 * light.max()


def test_arrays_float_and_integer_agree():
    eight = photo_from_array(gradient()).linear
    assert np.abs(photo_from_array(gradient() / 255).linear - eight).max() < 1e-6
    assert np.abs(photo_from_array(gradient().astype(np.uint16) * 257).linear - eight).max() < 1e-6
    assert np.abs(photo_from_array(eight, "linear").linear - eight).max() == 0


def encoded(values, kind):
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


BAD_FILES = {
    "text.jpg": (b"this is no picture", "not a picture"),
    "empty.png": (b"", "0 bytes"),
    "cut.jpg": (encoded(gradient(), "JPEG")[:900], "damaged"),
    "cut.png": (encoded(np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8), "PNG")[:5000], "damaged"),
    "bomb.png": (png_header(20000, 20000), "megapixels"),
    "huge.png": (png_header(60000, 60000), "megapixels"),
    "dot.png": (encoded(np.zeros((1, 1, 3), np.uint8), "PNG"), "1 x 1"),
    "thin.png": (encoded(gradient(63, 200), "PNG"), "200 x 63"),
    "black.png": (encoded(np.zeros((80, 80, 3), np.uint8), "PNG"), "all black"),
    "white.png": (encoded(np.full((80, 80, 3), 255, np.uint8), "PNG"), "one single value"),
    "red.png": (encoded(np.tile(np.array([255, 0, 0], np.uint8), (80, 80, 1)), "PNG"), "one single value"),
    "grey.jpg": (encoded(np.full((80, 80, 3), 90, np.uint8), "JPEG"), "one single value"),
    "noise.exr": (b"\x76\x2f\x31\x01" + bytes(200), "EXR"),
    "text.exr": (b"hello", "EXR"),
    "text.hdr": (b"hello", "HDR"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_give_one_clear_line(tmp_path, name):
    data, reason = BAD_FILES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=reason) as caught:
        load_photo(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200
    assert name in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_photo(tmp_path / "nowhere.jpg")
    with pytest.raises(InputError, match="is a folder"):
        load_photo(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        load_photo("a\0b.jpg")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_not_a_number_in_exr(tmp_path, bad):
    import OpenEXR

    light = (gradient() / 255).astype(np.float32)
    light[3, 4, 1] = bad
    OpenEXR.File({}, {"RGB": OpenEXR.Channel(light)}).write(str(tmp_path / "n.exr"))
    with pytest.raises(InputError, match="1 values that are NaN or infinite"):
        load_photo(tmp_path / "n.exr")


def test_bad_arrays_and_options(picture):
    for wrong in (np.zeros((80, 80, 2)), np.zeros(5), np.zeros((80, 80, 3), np.int32), np.zeros((80, 80, 3), bool)):
        with pytest.raises(InputError, match="array of"):
            photo_from_array(wrong)
    with pytest.raises(InputError, match="all black"):
        photo_from_array(np.zeros((80, 80, 3)))
    with pytest.raises(InputError, match='"adobe" is unknown'):
        load_photo(picture("a.png"), colour="adobe")
