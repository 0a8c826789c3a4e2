import io
import json
import tarfile
import threading
import tracemalloc
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from mmaction_lite.cli import app
from mmaction_lite.data.annotations.class_folders import VIDEO_SUFFIXES
from mmaction_lite.data.annotations.splits import read_split
from mmaction_lite.data.loading.batch_plan import BatchPlan
from mmaction_lite.data.loading.loader import VideoDataset, training_loader
from mmaction_lite.data.loading.workers import WorkerSettings
from mmaction_lite.data.sources import shards
from mmaction_lite.data.sources.shards import _members, read_packed
from mmaction_lite.data.sources.source import open_sample, open_source
from mmaction_lite.data.sources.write_shards import index_shards
from mmaction_lite.data.tools.prepare import Form, prepare
from mmaction_lite.data.tools.validate import validate
from mmaction_lite.errors import UserError, VideoError


class RangeHandler(SimpleHTTPRequestHandler):
    """A file server that answers requests for parts of files, as real ones do, and counts bytes."""

    sent = 0

    def do_GET(self):
        wanted = self.headers.get("Range")
        path = self.translate_path(self.path)
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                data = file.read()
        except OSError:
            self.send_error(404)
            return
        first, end = 0, len(data)
        if wanted:
            a, b = wanted.removeprefix("bytes=").split("-")
            first, end = int(a), min(int(b) + 1 if b else end, end)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(end - first))
        self.send_header("Accept-Ranges", "bytes")
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{end - 1}/{len(data)}")
        self.end_headers()
        RangeHandler.sent += end - first  # before the client can continue
        self.wfile.write(data[first:end])

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """The address of a server of `tmp_path`."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(RangeHandler, directory=tmp_path)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def packed(tiny, tmp_path):
    """`tiny` in two tar files of folders of classes, as packed by another program."""
    clips = sorted((tiny / "train").rglob("*.mp4"))
    for number in range(2):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for clip in clips[number::2]:
                archive.add(clip, f"./{clip.parent.name}/{clip.name}")
    return tmp_path, clips


def assert_same_clips(samples, clips):
    by_name = {clip.name: clip for clip in clips}
    assert len(samples) == len(clips)
    for sample in range(len(samples)):
        clip = by_name[samples.path(sample).name]
        assert samples.classes[samples.labels[sample]] == clip.parent.name
        with open_sample(samples, sample) as shard, open_source(clip) as plain:
            assert (len(shard), shard.fps, shard.size) == (len(plain), plain.fps, plain.size)
            assert (shard.frames([3, 15, 0]) == plain.frames([3, 15, 0])).all()


def test_indexed_tar_files_read_like_the_files(packed, tiny, recipe):
    folder, clips = packed
    tars = [str(folder / f"{number}.tar") for number in range(2)]
    app(["data", "index", *tars, "--out", str(folder / "train.csv")], standalone_mode=False)
    samples = read_split(folder, "train")
    assert_same_clips(samples, clips)
    loader = training_loader(
        VideoDataset(samples, recipe.train, seed=0, batch_plan=BatchPlan(len(samples), 4)),
        0,
        6,
        WorkerSettings(num_workers=2),
    )
    assert sum(len(batch.samples) for batch in loader) == 24


def test_tar_files_on_a_server_are_read_by_parts(packed, server):
    folder, clips = packed
    tars = [str(folder / f"{number}.tar") for number in range(2)]
    arguments = ["data", "index", *tars, "--out", str(folder / "train.csv"), "--url", server]
    app(arguments, standalone_mode=False)
    samples = read_split(folder, "train")
    assert samples.name(0).startswith("http")
    assert_same_clips(samples, clips)
    sizes = sum(clip.stat().st_size for clip in clips)
    RangeHandler.sent = 0
    for sample in range(len(samples)):
        open_sample(samples, sample).__exit__()
    assert RangeHandler.sent == sizes  # indexes are known, of each clip came its bytes and no more
    report = validate(folder, lambda items, total, title: items, folder / "checked")
    assert not report.faults
    checked = read_split(folder / "checked", "train")
    assert [checked.name(i) for i in range(12)] == [samples.name(i) for i in range(12)]
    prepare(folder, folder / "prepared", Form(), lambda items, total, title: items)
    assert len(read_split(folder / "prepared", "train")) == 12
    (folder / "train.csv").write_text(f"path,label\n{server}/0.tar/none.mp4,x\n{server}/9.tar/a.mp4,x\n")
    samples = read_split(folder, "train")
    with pytest.raises(VideoError, match=r"none\.mp4: .*0\.tar has no such member; its index lists 6"):
        open_sample(samples, 0)
    with pytest.raises(VideoError, match=r"9\.tar\.index\.json: no such file; .*data index"):
        open_sample(samples, 1)


def test_labels_of_webdataset_shards(tiny, tmp_path):
    clip = next((tiny / "train" / "up").glob("*.mp4"))
    (tmp_path / "label").write_text("going up\n")
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.add(clip, "000.mp4")
        archive.add(tmp_path / "label", "000.cls")
    command = ["data", "index", str(tmp_path / "0.tar"), "--out", str(tmp_path / "train.csv")]
    app(command, standalone_mode=False)
    assert read_split(tmp_path, "train").classes == ("going up",)
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.add(clip, "000.mp4")
    with pytest.raises(UserError, match=r"0\.tar: 000\.mp4 has no label"):
        app(command, standalone_mode=False)
    (tmp_path / "0.tar").write_bytes(b"\1" * 2000)
    with pytest.raises(UserError, match=r"0\.tar: is not an uncompressed tar file"):
        app(command, standalone_mode=False)


@pytest.mark.parametrize("kind", ["video", "frames"])
def test_preparing_shards_resumes_after_an_interruption(tiny, tmp_path, kind, monkeypatch):
    (tmp_path / "in").mkdir()
    clips = sorted((tiny / "train").rglob("*.mp4"))
    (tmp_path / "in" / "broken.mp4").write_bytes(b"text")
    lines = [f'"{clip}" {clip.parent.name}\n' for clip in clips]
    (tmp_path / "in" / "train.txt").write_text("".join([*lines[:3], "broken.mp4 up\n", *lines[3:]]))
    form = Form(kind=kind, shard=5, short_side=24)

    def stop_after_a_shard(items, total, title):
        return items

    faults = prepare(tmp_path / "in", tmp_path / "whole", form, stop_after_a_shard)
    assert len(faults) == 1
    tars = sorted(path.name for path in (tmp_path / "whole" / "shards").glob("*.tar"))
    assert tars == ["train-00000.tar", "train-00001.tar", "train-00002.tar"]
    assert not [path for path in (tmp_path / "whole" / "videos").rglob("*") if path.is_file()]
    samples = read_split(tmp_path / "whole", "train")
    assert len(samples) == 12
    with open_sample(samples, 4) as shard, open_source(clips[4]) as plain:
        assert (len(shard), shard.size) == (16, (24, 32))
        difference = shard.frames(range(16)).astype(int) - plain.frames(range(16), None, (24, 32))
        assert np.abs(difference).mean() < 6

    # Killed after the first of the tar files: the others are made, and all is as if nothing had happened.
    prepare(tmp_path / "in", tmp_path / "again", form, stop_after_a_shard)
    for file in ("train.csv", "shards/train-00001.tar", "shards/train-00002.tar"):
        (tmp_path / "again" / file).unlink()
    assert prepare(tmp_path / "in", tmp_path / "again", form, stop_after_a_shard) == faults
    for file in ("train.csv", "quarantine.jsonl", *(f"shards/{tar}" for tar in tars)):
        assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def test_a_truncated_tar_file_and_a_damaged_index_are_reported(packed):
    folder, _ = packed
    app(["data", "index", str(folder / "0.tar"), "--out", str(folder / "train.csv")], standalone_mode=False)
    samples = read_split(folder, "train")
    index = json.loads((folder / "0.tar.index.json").read_text())["members"]
    starts = [index[str(samples.path(i).relative_to(folder / "0.tar"))][0][1] for i in range(len(samples))]
    (folder / "0.tar").write_bytes((folder / "0.tar").read_bytes()[:6000])
    with pytest.raises(VideoError, match=r"is after the end of .*0\.tar"):
        open_sample(samples, int(np.argmax(starts)))
    (folder / "0.tar.index.json").write_text("[]")
    _members.cache_clear()
    with pytest.raises(VideoError, match=r"0\.tar\.index\.json: is damaged"):
        open_sample(samples, 0)


def test_folders_of_images_in_a_tar_file(tmp_path):
    for number in (1, 2, 10):
        (tmp_path / "run" / "a").mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 24), (number, 0, 0)).save(tmp_path / "run" / "a" / f"{number}.png")
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.add(tmp_path / "run", "run")
    app(
        ["data", "index", str(tmp_path / "0.tar"), "--out", str(tmp_path / "train.csv")],
        standalone_mode=False,
    )
    samples = read_split(tmp_path, "train")
    assert samples.classes == ("run",)
    with open_sample(samples, 0) as source:
        assert source.frames([0, 1, 2])[:, 0, 0, 0].tolist() == [1, 2, 10]


def test_an_index_replaces_no_file_but_a_table(tmp_path):
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        archive.add(__file__, "a/clip.mp4")
    before = (tmp_path / "0.tar").read_bytes()
    with pytest.raises(UserError, match=r"0\.tar: .*expected a name that ends in \.csv"):
        app(
            ["data", "index", str(tmp_path / "0.tar"), "--out", str(tmp_path / "0.tar")],
            standalone_mode=False,
        )
    assert (tmp_path / "0.tar").read_bytes() == before


def tar_of(path, members):
    """Write a tar file of small members; their headers contain nothing but name and size."""
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


CLIPS = {
    "a/1.mp4": b"first",
    "a/2.mp4": b"other",
    "b/3.mp4": b"third",
    "b/x/1.jpg": b"jpg_1",
    "b/x/2.jpg": b"jpg_2",
}


@pytest.mark.parametrize("version", ["0.2", "0.1"])
@pytest.mark.parametrize("change", ["order", "longer", "renamed", "one less"])
def test_the_index_of_another_tar_file_never_gives_another_clip(tmp_path, change, version):
    """The length of the tar file may be the same."""
    tar, index = tmp_path / "0.tar", tmp_path / "0.tar.index.json"
    tar_of(tar, CLIPS)
    index_shards([tar], VIDEO_SUFFIXES)
    content = json.loads(index.read_text())
    if version == "0.1":  # without checksums of the headers
        content["members"] = {m: [place[:3] for place in places] for m, places in content["members"].items()}
        index.write_text(json.dumps(content))
    for name in ("a/1.mp4", "b/3.mp4"):
        assert read_packed(tar / name)[0][1] == CLIPS[name]
    assert [data for _, data in read_packed(tar / "b/x")] == [b"jpg_1", b"jpg_2"]
    other = {
        "order": dict(reversed(CLIPS.items())),
        "longer": {**CLIPS, "a/1.mp4": b"another"},
        "renamed": {name.replace("1", "2").replace("b", "c"): data for name, data in reversed(CLIPS.items())},
        "one less": dict(list(CLIPS.items())[1:]),
    }[change]
    tar_of(tar, other)
    found = 0
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4", "b/x"):
        try:
            data = [data for _, data in read_packed(tar / name)]
        except VideoError as error:
            found += "was changed after its index was written" in str(error) or "after the end of" in str(
                error
            )
        else:
            assert data == [
                data for file, data in other.items() if file == name or file.startswith(f"{name}/")
            ]
    assert found
    index_shards([tar], VIDEO_SUFFIXES)  # the new index replaces the one in memory
    for name in other:
        if name.endswith("mp4"):
            assert read_packed(tar / name)[0][1] == other[name]


def edited_indexes():
    """Indexes of CLIPS edited by hand, and the message of each."""
    damaged, changed = "index.json: is damaged", "was changed after"
    good = ["a/1.mp4", 512, 5, None]
    return [
        (text, damaged)
        for text in ("", "[]", "null", "{}", '{"members": []}', "[" * 100000, "{'members': {}}", "\udcff")
    ] + [
        (json.dumps({"members": {"a/1.mp4": [place] if place is not None else []}}), message)
        for place, message in [
            (None, damaged),
            ([], damaged),
            (5, damaged),
            ({"name": "a/1.mp4"}, damaged),
            (["a/1.mp4", "512", 5], damaged),
            (["a/1.mp4", 512.0, 5], damaged),
            (["a/1.mp4", float("nan"), 5], damaged),
            (["a/1.mp4", True, 5], damaged),
            (["a/1.mp4", -512, 5], damaged),
            (["a/1.mp4", 0, 5], damaged),
            (["a/1.mp4", 512, -5], damaged),
            (["a/1.mp4", None, 5], damaged),
            (["b/3.mp4", 512, 5], damaged),
            ([*good, 5], damaged),
            (["a/1.mp4", 512, 5, "1"], damaged),
            (["a/1.mp4", 512, 6], changed),
            (["a/1.mp4", 1024, 5], changed),
            (["a/1.mp4", 1536, 5], changed),  # that of the second clip, which is as long
            (["a/1.mp4", 512, 5, 1], changed),
            (["a/1.mp4", 512, 2**62], "after the end of"),
            (["a/1.mp4", 2**62, 5], "after the end of"),
            (["a/1.mp4", 10**30, 5], "after the end of"),
        ]
    ]


@pytest.mark.parametrize(("text", "message"), edited_indexes())
def test_an_index_edited_by_hand_is_one_line(tmp_path, text, message):
    tar = tmp_path / "0.tar"
    tar_of(tar, CLIPS)
    (tmp_path / "0.tar.index.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(VideoError, match=rf"^{tar}[^\n]*{message}[^\n]*$"):
        open_source(tar / "a/1.mp4")


@pytest.mark.parametrize("missing", ["index", "tar", "both"])
def test_a_missing_index_or_tar_file_is_one_line(tmp_path, missing):
    tar = tmp_path / "0.tar"
    tar_of(tar, CLIPS)
    index_shards([tar], VIDEO_SUFFIXES)
    for file in (tar, tmp_path / "0.tar.index.json"):
        if missing == "both" or (file == tar) == (missing == "tar"):
            file.unlink()
    with pytest.raises(VideoError, match=rf"^{tar}[^\n]*cannot be read \(No such file[^\n]*$"):
        open_source(tar / "a/1.mp4")


def test_images_in_any_order_of_a_tar_file_take_little_memory(tmp_path):
    """Those of a directory may lie at both ends of a large tar file."""
    tar = tmp_path / "0.tar"
    tar_of(tar, {"a/x/2.jpg": b"two", "a/big.mp4": bytes(2**26), "a/x/1.jpg": b"one"})
    index_shards([tar], VIDEO_SUFFIXES)
    tracemalloc.start()
    assert dict(read_packed(tar / "a/x")) == {f"{tar}/a/x/2.jpg": b"two", f"{tar}/a/x/1.jpg": b"one"}
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("fault", ["short", "whole", "exception"])
def test_a_faulty_server_is_one_line(tmp_path, fault, monkeypatch):
    """A connection that ends early, a server without ranges, and one that fails."""
    tar = tmp_path / "0.tar"
    tar_of(tar, CLIPS)
    index_shards([tar], VIDEO_SUFFIXES)

    class Server:
        def cat_file(self, path, start, end):
            data = (tmp_path / path).read_bytes()
            if path.endswith("json"):
                return data
            if fault == "exception":
                raise RuntimeError("the server is\non fire")
            return data if fault == "whole" else data[start:end][:-1]

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (Server(), url.rpartition("/")[2]))
    _members.cache_clear()
    message = {
        "short": "after the end of",
        "whole": "HTTP ranges",
        "exception": "RuntimeError: the server is on fire",
    }
    with pytest.raises(VideoError, match=rf"^http://x/0\.tar[^\n]*{message[fault]}[^\n]*$"):
        read_packed("http://x/0.tar/a/1.mp4")
    _members.cache_clear()


@pytest.mark.parametrize(("refusals", "status"), [(2, 503), (2, 429), (6, 503), (1, 404)])
def test_a_busy_server_is_asked_again(tmp_path, monkeypatch, refusals, status):
    """As often as there are pauses, and only if it may answer later."""
    left, pauses = [refusals], []

    class Refused(Exception):
        status = 0

    class Server:
        def cat_file(self, path, start, end):
            if left[0]:
                left[0] -= 1
                error = Refused("refused")
                error.status = status
                raise error
            return b"0123456789"[start:end]

    monkeypatch.setattr("fsspec.core.url_to_fs", lambda url: (Server(), url))
    monkeypatch.setattr(shards.time, "sleep", pauses.append)
    if refusals == 2:
        assert read_packed("http://x/a.mp4") == [("http://x/a.mp4", b"0123456789")]
        assert len(pauses) == 2
        assert 0.05 <= pauses[0] <= 0.15
        assert 0.1 <= pauses[1] <= 0.3
    else:
        with pytest.raises(VideoError, match=r"http://x/a.mp4: cannot be read \(Refused: refused\)"):
            read_packed("http://x/a.mp4")
        assert len(pauses) == {503: 5, 404: 0}[status]


@pytest.mark.parametrize("path", ["file:///etc/a.mp4", "ssh://host/a.mp4", "https://a/b::file:///etc/a.mp4"])
def test_addresses_of_other_protocols_are_not_opened(path):
    with pytest.raises(VideoError, match="expected an address of http, https"):
        read_packed(path)
