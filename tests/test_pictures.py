"""`uram read`: pictures of every kind become what the models take, each conversion is said, and mistakes answer at
once."""

import struct
import zlib

import numpy as np
import pytest
from conftest import python
from PIL import Image

from uram_lib import UramError, cli, pictures

WORDS = ["read", "--model", "table2/ram-6", "--preset", "paper"]
INK = np.zeros((40, 30), np.uint8)  # light on black, as the models know it
INK[10:30, 12:18] = 255
PAPER = 255 - INK


def png(path, levels: np.ndarray, *chunks: tuple[bytes, bytes]) -> None:
    """Write a PNG by hand, (h, w) or (h, w, C) of uint8 or uint16: Pillow writes no colours of 16 bits."""
    height, width, channels = np.atleast_3d(levels).shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = b"".join(b"\0" + row.astype(levels.dtype.newbyteorder(">")).tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 8 * levels.itemsize, kind, 0, 0, 0)
    chunks = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    written = (struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d)) for t, d in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(written))


def deep(levels: np.ndarray) -> np.ndarray:
    return levels.astype(np.uint16) * 257


def colours(levels: np.ndarray, alpha: np.ndarray | None = None) -> np.ndarray:
    return np.stack([levels] * 3 + ([] if alpha is None else [alpha]), -1)


INVERTED, TRANSPARENT, BITS = "dark on light inverted", "transparency put on white", "16 bits scaled to 8"
SEE_THROUGH = np.zeros_like(INK)  # black ink on nothing
KINDS = {
    "grey": (INK, [], []),
    "grey on paper": (PAPER, [], [INVERTED]),
    "colour": (colours(INK), [], []),
    "16 bits": (deep(INK), [], [BITS]),
    "colour of 16 bits": (deep(colours(PAPER)), [], [BITS, INVERTED]),
    "transparent": (colours(SEE_THROUGH, INK), [], [TRANSPARENT, INVERTED]),
    "transparent grey": (np.stack((SEE_THROUGH, INK), -1), [], [TRANSPARENT, INVERTED]),
    "transparent of 16 bits": (deep(colours(SEE_THROUGH, INK)), [], [BITS, TRANSPARENT, INVERTED]),
    "opaque": (colours(INK, np.full_like(INK, 255)), [], []),
    "one level transparent": (INK // 255 * 9, [(b"tRNS", struct.pack(">H", 0))], [TRANSPARENT, INVERTED]),
    "one level of 16 bits transparent": (deep(INK // 255 * 9), [(b"tRNS", struct.pack(">H", 0))],
                                         [BITS, TRANSPARENT, INVERTED]),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_digit_in_every_kind_of_file_is_light_on_black(tmp_path, kind):
    levels, chunks, expected = KINDS[kind]
    png(tmp_path / "one.png", levels, *chunks)
    image, said = pictures.opened(tmp_path / "one.png")
    canvas, fitting = pictures.fitted(image, 40, 30)
    assert said + fitting == expected and canvas.dtype == np.float32
    np.testing.assert_allclose(canvas, INK / 255, atol=10 / 255 if "level" in kind else 1e-6)


def test_other_sizes_are_scaled_or_padded_and_colours_averaged():
    """A box keeps its middle and its proportions; nothing is enlarged."""
    box = Image.new("RGB", (300, 200))
    box.paste((255, 0, 0), (100, 50, 200, 150))
    canvas, said = pictures.fitted(box, 100, 100)
    assert said == ["colours averaged to grey", "scaled down to 100 x 67 px", "put in the middle of 100 x 100 px"]
    ys, xs = np.nonzero(canvas > 0.17)
    assert canvas.max() == pytest.approx(1 / 3)
    assert (xs.mean(), ys.mean()) == pytest.approx((49.5, 49))  # of 33 empty rows one more below
    assert len(set(xs)) == pytest.approx(33, abs=1) == len(set(ys))
    canvas, said = pictures.fitted(Image.fromarray(INK).convert("RGB"), 45, 30)
    assert said == ["put in the middle of 30 x 45 px"] and np.array_equal(canvas[2:42], INK / 255)
    assert pictures.fitted(Image.new("RGB", (500, 1)), 28, 28)[0].shape == (28, 28)


def test_what_is_not_8_or_16_bits_a_channel_is_refused_and_the_first_frame_is_read(tmp_path):
    for levels in (np.full((4, 4), 0.5, np.float32), *(np.full((4, 4), level, np.int32) for level in (200, 70_000))):
        Image.fromarray(levels).save(tmp_path / "odd.tif")
        with pytest.raises(UramError, match="odd.tif cannot be read as a picture: neither 8 nor 16 bits a channel"):
            pictures.opened(tmp_path / "odd.tif")
    Image.fromarray(INK).save(tmp_path / "two.gif", save_all=True, append_images=[Image.fromarray(PAPER)])
    image, said = pictures.opened(tmp_path / "two.gif")
    assert said == ["the first of 2 frames"] and np.array_equal(np.asarray(image)[..., 0], INK)


def test_a_moving_picture_that_is_cut_off_anywhere_is_read_or_refused_in_one_line(tmp_path):
    whole, cut = tmp_path / "two.gif", tmp_path / "cut.gif"
    Image.fromarray(INK).save(whole, save_all=True, append_images=[Image.fromarray(PAPER)])
    refused = 0
    for kept in range(len(whole.read_bytes())):
        cut.write_bytes(whole.read_bytes()[:kept])
        try:
            pictures.opened(cut)
        except UramError as error:
            assert "cut.gif cannot be read as a picture" in str(error)
            refused += 1
    assert refused > 100


def test_a_blank_picture_is_told_and_hidden_files_of_a_folder_are_left_alone(tmp_path):
    (tmp_path / "._one.png").write_bytes(b"what another system keeps beside a picture")
    Image.new("L", (28, 28), 255).save(tmp_path / "one.png")
    assert pictures.pictures_in(tmp_path) == [tmp_path / "one.png"]
    _, said = pictures.fitted(pictures.opened(tmp_path / "one.png")[0], 28, 28)
    assert "one colour throughout, so there is nothing to read" in said


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_photo_taken_with_the_camera_on_its_side_is_turned_upright(tmp_path, kind):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn clockwise is due
    Image.fromarray(np.rot90(INK)).save(tmp_path / f"photo.{kind}", exif=exif, quality=100)
    image, said = pictures.opened(tmp_path / f"photo.{kind}")
    assert said == ["turned upright, as the camera noted"]
    np.testing.assert_allclose(np.asarray(image)[..., 0], INK, atol=3)


def test_mistakes_answer_before_pytorch_is_loaded(tmp_path):
    good, text, cut, empty = tmp_path / "good.png", tmp_path / "text.png", tmp_path / "cut.png", tmp_path / "empty"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), np.uint8)).save(good)
    text.write_text("no picture")
    cut.write_bytes(good.read_bytes()[:2000])
    empty.mkdir()
    mistakes = {
        ("absent.png",): "there is no picture absent.png",
        (text,): "cannot be read as a picture",
        (good, cut): "cut.png cannot be read as a picture",
        (empty,): "holds no picture",
        (good, "--model", "ours-8"): "--model takes TABLE/ROW",
        (good, "--model", "table9/x"): "unknown table 'table9'; one of: table1",
        (good, "--model", "table2/x"): "unknown row 'x' of table2; one of: ",
        (good, "--preset", "perfect"): "unknown preset 'perfect' of table2; one of: ",
        (good, "--seed", "77"): "seed 77 are published; rows that have: ",
        (good, good, "--png", "x.png"): "--png draws the path of one picture, got 2",
        (good, "--png", "x.pdf"): "--png takes a file that ends in .png",
        (good, "--png", good): "would overwrite the picture itself",
        (300 * "x",): "there is no picture xxx",
    }
    commands = [[*WORDS, *map(str, words)] for words in mistakes]
    script = f"import sys; from uram_lib import cli; print([cli.main(c) for c in {commands}], 'torch' in sys.modules)"
    done = python("-c", script)
    assert done.stdout.strip() == f"{[1] * len(mistakes)} False"
    for line, said in zip(done.stderr.splitlines(), mistakes.values(), strict=True):
        assert line.startswith("uram: error: ") and said in line


@pytest.mark.parametrize("words", [[""], ["one.png", "--png", ""]])
def test_an_empty_name_is_not_the_folder_that_one_is_in(words, capsys):
    """As of a shell's variable that is not set."""
    with pytest.raises(SystemExit):
        cli.main([*WORDS, *words])
    assert "an empty name" in capsys.readouterr().err


def test_a_picture_is_read_and_its_path_drawn(tmp_path, capsys):
    Image.fromarray(PAPER).save(tmp_path / "one.png")
    assert cli.main([*WORDS, str(tmp_path / "one.png"), "--png", str(tmp_path / "path.png")]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert ", probability " in first and f" ({INVERTED}; put in the middle of 100 x 100 px)" in first
    assert second.startswith("glimpse path: ") and Image.open(tmp_path / "path.png").size == (600, 600)
    assert cli.main([*WORDS, str(tmp_path)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_the_readmes_model_is_published(tmp_path, capsys):
    """`uram read` with nothing said but a picture."""
    png(tmp_path / "digit.png", INK)
    assert cli.main(["read", str(tmp_path / "digit.png")]) == 0, capsys.readouterr().err
