"""Files are written atomically."""

import errno
import os
import signal
import stat
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.files import (
    FolderLock,
    check_output_folder,
    check_replaceable,
    has_marker,
    open_regular,
    partial_files,
    read_json_lines,
    rewriting,
    write_atomically,
    writing,
)
from mmaction_lite.weights.checkpoint import save_state


def test_a_failed_write_keeps_the_file_before(tmp_path):
    path = tmp_path / "state.pt"
    save_state(path, {"card": "first"})
    before = path.read_bytes()

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        UserError, match=r"state\.pt: could not be written .*No space left.*earlier file is unchanged"
    ):
        write_atomically(path, fail)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["state.pt"]  # noqa: PTH208


def test_a_file_is_replaced_and_nothing_is_left_beside_it(tmp_path):
    path = tmp_path / "table.csv"
    for text in (b"first", b"second"):
        write_atomically(path, lambda file, text=text: file.write(text))
        assert path.read_bytes() == text
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_files_honor_the_umask_and_replaced_files_keep_their_permissions(tmp_path):
    path = tmp_path / "table.csv"
    for mask, mode in ((0o002, 0o664), (0o022, 0o644), (0o077, 0o600)):
        before = os.umask(mask)
        try:
            write_atomically(path, lambda file: file.write(b"new"))
            assert path.stat().st_mode & 0o777 == mode
            path.chmod(0o640)
            write_atomically(path, lambda file: file.write(b"replaced"))
            assert path.stat().st_mode & 0o777 == 0o640
        finally:
            os.umask(before)
        path.unlink()


def test_a_folder_that_does_not_exist_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"none/a\.txt: could not be written"):
        write_atomically(tmp_path / "none" / "a.txt", lambda file: file.write(b"text"))


def test_a_folder_that_is_a_file_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/a\.txt: could not be written"):
        write_atomically(tmp_path / "file" / "a.txt", lambda file: file.write(b"text"))


def test_only_files_that_are_ours_are_replaced(tmp_path):
    marked, other = tmp_path / "ours.html", tmp_path / "mine.html"
    marked.write_bytes(b"<html>by us")
    other.write_bytes(b"<html>by me")
    is_ours = has_marker(b"by us")
    check_replaceable(marked, "a page", is_ours)
    check_replaceable(tmp_path / "new.html", "a page", is_ours)
    with pytest.raises(UserError, match=r"mine\.html: exists and is not a page, so it is not overwritten"):
        check_replaceable(other, "a page", is_ours)
    with pytest.raises(UserError, match=r"ours\.html: is an input of this command"):
        check_replaceable(marked, "a page", is_ours, sources=[tmp_path / "." / "ours.html"])
    with pytest.raises(UserError, match=r"ours\.html: expected a new file"):
        check_replaceable(marked, "a new file")


def test_places_that_cannot_be_written_are_found_before_the_work(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    for path, message in [
        (tmp_path, "is a folder"),
        (tmp_path / "none" / "x", "none does not exist"),
        (tmp_path / "file" / "x", "file is a file"),
        (tmp_path / "link", "is a link to a missing file"),
        (tmp_path / "pipe", "exists and is not a page"),
        (tmp_path / ("x" * 250), "File name too long"),
        (Path("/proc/x"), "could not be written"),
    ]:
        with pytest.raises(UserError, match=message):
            check_replaceable(path, "a page", lambda path: True)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "link", "pipe"]


def test_an_output_folder_lies_apart_from_the_data(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "link").symlink_to(data)
    for out in (data, data / ".", data / "x" / "..", tmp_path / "link", tmp_path):
        with pytest.raises(UserError, match="holds the data that are read"):
            check_output_folder(out, [data])
    with pytest.raises(UserError, match="inside of the data that are read"):
        check_output_folder(tmp_path / "link" / "checked", [data], [data])
    check_output_folder(data / "checked", [data])
    check_output_folder(tmp_path / "new" / "checked", [data], [data])
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UserError, match="file is a file"):
        check_output_folder(tmp_path / "file" / "x")
    assert not (tmp_path / "new").exists()


def test_changed_files_are_not_rewritten(tmp_path):
    def write(text):
        with rewriting(tmp_path, ["a.csv", "b.csv"]):
            (tmp_path / "a.csv").write_text(text)

    write("first")
    write("second")
    (tmp_path / "a.csv").write_text("mine")
    with pytest.raises(UserError, match=r"a\.csv: was changed since it was written"):
        write("third")
    assert (tmp_path / "a.csv").read_text() == "mine"
    (tmp_path / "a.csv").unlink()
    with suppress(OSError), rewriting(tmp_path, ["a.csv"]):
        (tmp_path / "a.csv").write_text("half")
        raise OSError("full")
    write("after an interruption")
    (tmp_path / "b.csv").write_text("mine")
    with pytest.raises(UserError, match=r"b\.csv: was changed"):
        write("fourth")
    (tmp_path / ".written.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"a\.csv: was changed"):
        write("fifth")


def test_a_file_system_that_flushes_no_folders_keeps_the_file(tmp_path, monkeypatch):
    flush = os.fsync

    def fail(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(number)

    monkeypatch.setattr(os, "fsync", fail)
    write_atomically(tmp_path / "a.txt", lambda file: file.write(b"text"))
    assert (tmp_path / "a.txt").read_bytes() == b"text"


def test_only_our_temporary_files_count_as_partial(tmp_path):
    for name in (".recipe.txt.swp", ".recipe.txt.a1b2c3_d", "recipe.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in partial_files(tmp_path / "recipe.txt")] == [".recipe.txt.a1b2c3_d"]


HOLDER = """
import sys, time
from pathlib import Path
from mmaction_lite.files import FolderLock
with FolderLock(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(100)
"""


@pytest.mark.skipif(os.name != "posix", reason="POSIX locks")
def test_a_folder_is_locked_by_one_process_until_that_process_ends(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    with holder:
        try:
            assert holder.stdout.readline() == "locked\n"
            message = rf"^{tmp_path}: process {holder.pid} on .+ writes to this folder; wait until it ends"
            with pytest.raises(UserError, match=message):
                FolderLock(tmp_path).acquire()
        finally:
            holder.kill()
    assert (tmp_path / ".lock").exists()  # of the killed process
    with FolderLock(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_locked_is_left_to_the_first_write(tmp_path):
    with FolderLock(tmp_path / "none"):
        pass
    message = r"a\.txt: could not be written \(No space left on device\); free space"
    with pytest.raises(UserError, match=message), writing(tmp_path / "a.txt"):
        raise OSError(28, "No space left on device")


def test_lines_of_json_are_read_with_their_numbers(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n{"a": "\xe2\x80\xa8"}\n{"a": 3')
    assert read_json_lines(path, "a") == [(1, {"a": 1}), (3, {"a": "\u2028"})]


@pytest.mark.parametrize("line", ["{", "[]", "{}", "3", '{"a": 1' + "0" * 5000 + "}", "[" * 10**5, "\x1b"])
def test_a_damaged_line_is_named_and_kept(line, tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"a": 1}}\n{line}\n{{"a": 2}}\n')
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"^[^\n]*a\.jsonl, line 2: damaged [^\n\x1b]*; delete this line$"):
        read_json_lines(path, "a")
    assert path.read_bytes() == before
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"a\.jsonl: cannot be read .*restore the file"):
        read_json_lines(path)


def test_only_regular_files_are_opened_and_their_path_is_hidden(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"text")
    with open_regular(tmp_path / "a.txt", UserError("irregular")) as file:
        assert file.read() == b"text"
        assert isinstance(file.name, int)
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "."):
        with pytest.raises(UserError, match="irregular"):
            open_regular(tmp_path / name, UserError("irregular"))


SLOW_WRITER = """
import sys, time
from pathlib import Path
from mmaction_lite.files import write_atomically

def write(file):
    file.write(b"part")
    print("writing", flush=True)
    time.sleep(60)

write_atomically(Path(sys.argv[1]), write)
"""


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_signal_deletes_the_temporary_file(number, tmp_path):
    """The first two are also what `kill` and Ctrl-C send; the exit status stays that of the signal."""

    def accept_signal() -> None:  # which nohup and shells make background processes ignore
        signal.signal(getattr(signal, number), signal.SIG_DFL)

    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_WRITER, str(tmp_path / "out.mp4")],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        preexec_fn=accept_signal,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(getattr(signal, number))
        assert process.wait(timeout=60) == -getattr(signal, number)
    assert list(tmp_path.iterdir()) == []
