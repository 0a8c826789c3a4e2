import os
import struct
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
import pytest
from PIL import Image

from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.sources import frames as frames_module
from mmaction_lite.data.sources import images
from mmaction_lite.data.sources.frames import Frames
from mmaction_lite.data.sources.resample import crop_and_resize
from mmaction_lite.data.sources.source import open_sample, open_source
from mmaction_lite.data.sources.write_shards import index_shards
from mmaction_lite.data.tools.find import find_clips
from mmaction_lite.data.tools.validate import validate
from mmaction_lite.errors import VideoError
from tests import barcode


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve frames named 1.jpg to 12.jpg beside a file that is no image."""
    for code in range(12):
        Image.fromarray(barcode.draw(code)).save(tmp_path / f"{code + 1}.jpg", quality=95)
    (tmp_path / "notes.txt").write_text("no frame")
    return tmp_path


@pytest.mark.parametrize("decoder", ["simplejpeg", "pillow"])
def test_frames_in_any_order_with_repeats(
    folder: Path, decoder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if decoder == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(images, "simplejpeg", None)
    with Frames(folder, fps=12.5) as video:
        assert (len(video), video.fps, video.size) == (12, 12.5, (barcode.HEIGHT, barcode.WIDTH))
        pattern = [11, 0, 1, 9, 1]  # by name, 10.jpg would follow 1.jpg
        frames = video.frames(pattern)
        assert frames.dtype == np.uint8
        assert [barcode.read(frame) for frame in frames] == pattern
        with Image.open(folder / "12.jpg") as image:
            assert np.array_equal(frames[0], np.asarray(image))


def test_hidden_files_are_no_frames(folder: Path) -> None:
    (folder / "._1.jpg").write_bytes(b"what some systems leave beside a file")
    (folder / ".jpg").touch()
    with Frames(folder) as video:
        assert len(video) == 12


def test_box_and_size_as_for_a_video(folder: Path) -> None:
    with Frames(folder) as video:
        whole = video.frames([7, 3, 7])
        for antialias in (True, False):
            expected = crop_and_resize(whole, (8, 16, 64, 72), (32, 40), antialias=antialias)
            got = video.frames([7, 3, 7], (8, 16, 64, 72), (32, 40), antialias=antialias)
            assert np.array_equal(got, expected)
        with pytest.raises(ValueError, match="outside the 96x128 frame"):
            video.frames([0], box=(0, 100, 10, 40))


def test_gray_and_png_frames_become_rgb(tmp_path: Path) -> None:
    Image.fromarray(barcode.draw(5)).convert("L").save(tmp_path / "a.jpg")
    Image.fromarray(barcode.draw(6)).save(tmp_path / "b.png")
    with Frames(tmp_path) as video:
        frames = video.frames([1, 0])
    assert np.array_equal(frames[0], barcode.draw(6))
    assert barcode.read(frames[1]) == 5


def test_indices_outside_are_an_error(folder: Path) -> None:
    with Frames(folder) as video:
        for index in (12, -1):
            with pytest.raises(IndexError, match=f"frame {index} is out of range; expected 0 to 11"):
                video.frames([index])


def test_damaged_directories(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="is not a directory of frames"):
        Frames(tmp_path / "missing")
    with pytest.raises(VideoError, match="is not a directory of frames"):
        Frames(folder / "1.jpg")
    (tmp_path / "empty").mkdir()
    with pytest.raises(VideoError, match="contains no image"):
        Frames(tmp_path / "empty")


@pytest.mark.parametrize("decoder", ["simplejpeg", "pillow"])
def test_a_damaged_frame_is_named(folder: Path, decoder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if decoder == "simplejpeg":
        pytest.importorskip("simplejpeg")
    else:
        monkeypatch.setattr(images, "simplejpeg", None)
    whole = (folder / "3.jpg").read_bytes()
    for content in (b"", b"text", whole[: len(whole) // 2]):
        (folder / "3.jpg").write_bytes(content)
        with Frames(folder) as video:
            video.frames([1, 3])
            with pytest.raises(VideoError, match=rf"^{folder / '3.jpg'}: [^\n]+$"):
                video.frames([1, 2])


def test_frames_of_two_sizes_are_an_error(folder: Path) -> None:
    Image.new("RGB", (64, 48)).save(folder / "4.jpg")
    with Frames(folder) as video, pytest.raises(VideoError, match=r"4\.jpg: size 48x64; expected 96x128"):
        video.frames([0, 3])


def test_a_zip_file_of_frames_reads_like_the_folder(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in (1, 2, 10):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(folder / f"{number}.jpg")
    with ZipFile(tmp_path / "clip.zip", "w") as archive:
        for number in (10, 2, 1):
            archive.write(folder / f"{number}.jpg", f"clip/{number}.jpg")
    with open_source(folder) as plain, open_source(tmp_path / "clip.zip") as zipped:
        assert len(zipped) == 3
        assert zipped.size == (24, 32)
        assert (zipped.frames([2, 0, 1]) == plain.frames([2, 0, 1])).all()
    (tmp_path / "bad.zip").write_bytes(b"PK nothing")
    with pytest.raises(VideoError, match=r"bad\.zip: is not a zip file"):
        open_source(tmp_path / "bad.zip")


@pytest.mark.parametrize("turbo", [True, False])
def test_large_frames_are_decoded_at_a_reduced_scale(tmp_path, monkeypatch, turbo):
    if not turbo:
        monkeypatch.setattr(images, "simplejpeg", None)
    wave = np.sin(np.arange(512) / 40)
    image = (127 + 100 * wave[:384, None, None] * wave[None, :, None] + np.zeros(3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "1.jpg", quality=95)
    shapes = []
    decode = frames_module.decode_image
    monkeypatch.setattr(
        frames_module,
        "decode_image",
        lambda *arguments: (shapes.append(decode(*arguments).shape[:2]), decode(*arguments))[1],
    )
    with open_source(tmp_path) as source:
        small = source.frames([0], None, (90, 120)).astype(int)
        cut = source.frames([0], (0, 0, 384, 512), (90, 120)).astype(int)
        exact = source.frames([0], None, (90, 120), antialias=False).astype(int)
    assert shapes == [(96, 128), (384, 512), (384, 512)]
    assert np.abs(small - cut).max() <= 3
    assert np.abs(exact - cut).max() <= 6


def save(folder: Path, template: str, reds: list[int]) -> list[Path]:
    """Write images of one color each."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / template.format(number) for number in range(1, len(reds) + 1)]
    for file, red in zip(files, reds, strict=True):
        Image.new("RGB", (12, 8), (red, 0, 0)).save(file)
    return files


def reds(path: Path) -> list[int]:
    with open_source(path) as source:
        return source.frames(range(len(source)))[:, 0, 0, 0].tolist()


def pack(archive: Path, folder: Path) -> Path:
    """Write the files of a folder to a .zip or .tar file, in reverse order."""
    files = sorted(folder.rglob("*"), reverse=True)
    if archive.suffix == ".zip":
        with ZipFile(archive, "w") as zipped:
            for file in files:
                zipped.write(file, file.relative_to(folder.parent))
        return archive
    with tarfile.open(archive, "w") as tar:
        for file in files:
            tar.add(file, f"class/{file.relative_to(folder.parent)}", recursive=False)
    index_shards([archive], VIDEO_SUFFIXES)
    return archive / "class" / folder.name


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_rgb_frames_are_read_beside_other_images(tmp_path, kind) -> None:
    """A folder, a zip file and a tar file agree on the frames, and on the pattern of others."""
    folder = tmp_path / "v1"
    for template, values in (
        ("img_{:05}.png", [1, 2, 3]), ("flow_x_{:05}.png", [11, 12]), ("flow_y_{:05}.png", [21, 22])
    ):  # fmt: skip
        save(folder, template, values)
    save(folder, "thumb.png", [99])
    for name in ("Thumbs.db", ".DS_Store", "._img_00001.png", "notes.txt"):
        (folder / name).write_bytes(b"no image")
    path = folder if kind == "folder" else pack(tmp_path / f"clips.{kind}", folder)
    assert reds(path) == [1, 2, 3]
    assert reds(path / "flow_x_*.png") == [11, 12]
    with open_source(path) as source:
        assert isinstance(source, Frames)
        assert source.note == (
            "contains other images, which are not read: "
            "1 without a number (thumb.png), 2 flow_x_*.png, 2 flow_y_*.png"
        )
    with pytest.raises(VideoError, match=r"contains no image that matches 'depth_\*\.png'"):
        open_source(path / "depth_*.png")


@pytest.mark.parametrize(
    ("name", "text", "count"),
    [
        ("train.csv", "path,label\nv1/right_*.png,x\n", 3),
        ("train.txt", "v1/right_*.png x\n", 3),
        ("train.txt", "v1/right_*.png 2 0\n", 2),
        ("train.txt", '"v1/right_*.png" 2 0\n', 2),
        ("train.txt", "v1/right_*.png 1 2 0\n", 2),
    ],
)
def test_a_pattern_is_a_path_of_a_list(tmp_path, name, text, count) -> None:
    save(tmp_path / "v1", "left_{}.png", [1, 2, 3])
    save(tmp_path / "v1", "right_{}.png", [4, 5, 6])
    (tmp_path / name).write_text(text)
    samples = read_split(tmp_path, "train")
    with open_sample(samples, 0) as source:
        values = [5, 6] if "1 2 0" in text else [4, 5, 6][:count]
        assert source.frames(range(len(source)))[:, 0, 0, 0].tolist() == values
    assert find_clips([tmp_path / "v1" / "right_*.png"]) == [tmp_path / "v1" / "right_*.png"]
    report = validate(tmp_path, lambda items, total, title: items)
    assert report.faults == []
    save(tmp_path / "v1", "right_*.png", [7])  # a file of this name is that file
    assert reds(tmp_path / "v1" / "right_*.png") == [7]


def test_notes_about_other_images_are_counted(tmp_path) -> None:
    for clip in range(5):
        for template in ("img_{}.png", "flow_x_{}.png"):
            save(tmp_path / "train" / "ab"[clip % 2] / f"v{clip}", template, [1, 2])
    notes = validate(tmp_path, lambda items, total, title: items).notes
    (note,) = notes
    assert note == (
        f"{tmp_path}/train/a/v0: contains other images, which are not read: 2 flow_x_*.png "
        "(and 4 other clips)"
    )


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "bmp", "webp", "tif", "tiff"])
def test_frames_of_every_format(tmp_path, suffix) -> None:
    for number in (1, 2, 10):
        Image.new("RGB", (16, 16), (number * 20, 0, 0)).save(tmp_path / f"{number}.{suffix}")
    assert np.abs(np.array(reds(tmp_path)) - [20, 40, 200]).max() <= 2


def test_the_first_frame_determines_the_size(tmp_path) -> None:
    """Also if it is not read, and if orientations differ: the box of a crop refers to one size."""
    save(tmp_path, "{}.png", [1, 2, 3])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (12, 8)).save(tmp_path / "2.png", exif=exif.tobytes())
    with Frames(tmp_path) as video:
        assert video.size == (8, 12)
        assert len(video.frames([2])) == 1
        for box in (None, (0, 0, 4, 4)):
            with pytest.raises(VideoError, match=r"2\.png: size 12x8; expected 8x12 as in the other frames"):
                video.frames([1], box)


@pytest.mark.parametrize("size", [None, (100, 100)])
def test_a_jpeg_of_another_size_is_an_error_at_any_scale(tmp_path, size) -> None:
    Image.new("RGB", (512, 512)).save(tmp_path / "1.jpg")
    Image.new("RGB", (1024, 1024)).save(tmp_path / "2.jpg")
    with (
        Frames(tmp_path) as video,
        pytest.raises(VideoError, match=r"2\.jpg: size 1024x1024; expected 512x512"),
    ):
        video.frames([1], None, size)


@pytest.mark.parametrize("fault", ["empty", "directory", "dangling", "loop", "fifo", "text", "huge", "gone"])
def test_a_frame_that_cannot_be_read_is_one_line(tmp_path, fault) -> None:
    files = save(tmp_path, "{}.png", [1, 2, 3])
    bad = files[1]
    with Frames(tmp_path) as video:
        bad.unlink()
        if fault == "directory":
            bad.mkdir()
        elif fault == "dangling":
            bad.symlink_to(tmp_path / "gone.png")
        elif fault == "loop":
            bad.symlink_to(bad)
        elif fault == "fifo":
            os.mkfifo(bad)
        elif fault == "huge":
            with bad.open("wb") as file:
                file.truncate(2**40)
        elif fault != "gone":
            bad.write_bytes(b"text" if fault == "text" else b"")
        assert video.frames([0, 2])[:, 0, 0, 0].tolist() == [1, 3]
        with pytest.raises(VideoError, match=rf"^{bad}: [^\n]+$"):
            video.frames([0, 1])


def damaged_zips() -> dict[str, Callable[[bytearray], object]]:
    """Changes of a zip file of one stored image `1.png`, by the fault that they make."""

    def central(data: bytearray) -> int:
        return data.index(b"PK\1\2")

    def put(data: bytearray, place: int, form: str, value: int) -> None:
        struct.pack_into(form, data, place, value)

    return {
        "wrong checksum": lambda data: put(data, data.index(b"IDAT") + 5, "<B", 0),
        "encrypted": lambda data: (put(data, 6, "<H", 1), put(data, central(data) + 8, "<H", 1)),
        "4 GB": lambda data: put(data, central(data) + 24, "<I", 2**32 - 2),
        "zip64 without its field": lambda data: put(data, central(data) + 24, "<I", 2**32 - 1),
        "member after the end": lambda data: put(data, central(data) + 42, "<I", 2**31),
        "unknown compression": lambda data: put(data, central(data) + 10, "<H", 77),
        "truncated": lambda data: data.__delitem__(slice(len(data) - 30, None)),
        "directory after the end": lambda data: put(data, len(data) - 6, "<I", 2**31),
    }


@pytest.mark.parametrize("fault", damaged_zips())
def test_a_damaged_zip_file_is_one_line(tmp_path, fault) -> None:
    (image,) = save(tmp_path, "{}.png", [5])
    path = tmp_path / "clip.zip"
    with ZipFile(path, "w") as archive:
        archive.write(image, "1.png")
    data = bytearray(path.read_bytes())
    damaged_zips()[fault](data)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=rf"^{path}[^\n]+$"), open_source(path) as source:
        source.frames([0])


def test_a_zip_file_takes_no_memory_for_what_is_no_image(tmp_path) -> None:
    """A member that states 1 GB is not decompressed; one of many bytes that states few is an error."""
    for stated in (2**30, 100):
        with ZipFile(tmp_path / "clip.zip", "w", ZIP_DEFLATED) as archive:
            archive.writestr("1.png", bytes(2**25))
        data = bytearray((tmp_path / "clip.zip").read_bytes())
        struct.pack_into("<I", data, data.index(b"PK\1\2") + 24, stated)
        (tmp_path / "clip.zip").write_bytes(data)
        tracemalloc.start()
        with pytest.raises(VideoError), open_source(tmp_path / "clip.zip") as source:
            source.frames([0])
        assert tracemalloc.get_traced_memory()[1] < 2**24
        tracemalloc.stop()


@pytest.mark.filterwarnings("ignore:Duplicate name:UserWarning")
def test_two_files_of_one_name_in_a_zip_file_are_an_error(tmp_path) -> None:
    (image,) = save(tmp_path, "{}.png", [5])
    with ZipFile(tmp_path / "clip.zip", "w") as archive:
        for _ in range(2):
            archive.write(image, "1.png")
    with pytest.raises(VideoError, match="contains two files of one name"):
        open_source(tmp_path / "clip.zip")


def test_what_macos_and_other_programs_add_to_a_zip_file_is_no_frame(tmp_path) -> None:
    one, two = save(tmp_path, "{}.png", [5, 6])
    with ZipFile(tmp_path / "clip.zip", "w") as archive:
        archive.writestr("clip/", b"")
        for image in (two, one):
            archive.write(image, f"clip/{image.name}")
            archive.writestr(f"__MACOSX/clip/._{image.name}", b"resource fork")
            archive.writestr(f"__MACOSX/{image.name}", b"resource fork")
            archive.write(image, f"clip/.thumbnails/{image.name}")
        archive.writestr("clip/Thumbs.db", b"")
        archive.write(one, "../../3.png")  # never extracted, so that its name does no harm
    assert reds(tmp_path / "clip.zip") == [5, 6]


def test_thumbnails_beside_videos_are_not_the_frames_of_a_clip(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "img_1.jpg")
    (tmp_path / "._img_1.mp4").write_bytes(b"")  # hidden
    assert len(Frames(tmp_path)) == 1
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(VideoError, match=r"contains 1 videos and 1 images; .*append the pattern"):
        Frames(tmp_path)
    assert len(Frames(tmp_path, pattern="*.jpg")) == 1
    Image.new("RGB", (8, 8)).save(tmp_path / "img_2.jpg")  # frames, beside the video that they come from
    assert len(Frames(tmp_path)) == 2
