"""Checkpoints of other programs: weights are read, no code is executed, errors are one line."""

import argparse
import copyreg
import io
import pickle
import random
import struct
import sys
import types
import zipfile
from collections import Counter, OrderedDict, defaultdict
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import torch

from mmaction_lite.errors import UserError
from mmaction_lite.weights.converters import files
from mmaction_lite.weights.converters.files import find_state_dict, read_checkpoint
from mmaction_lite.weights.pickles import Ignored, Unpickler

FIRED: list[object] = []


def fire(*arguments: object) -> "Trap":
    FIRED.append(arguments)
    return Trap.__new__(Trap)


class Trap:
    """Whatever is done to it leaves a trace."""

    def __new__(cls, *_: object, **__: object) -> "Trap":
        FIRED.append("new")
        return super().__new__(cls)

    def __setstate__(self, state: object) -> None:
        FIRED.append("setstate")

    def __setitem__(self, key: object, value: object) -> None:
        FIRED.append("setitem")

    def __hash__(self) -> int:
        FIRED.append("hash")
        return 0

    def extend(self, items: object) -> None:
        FIRED.append("extend")


class Bomb:
    """Pickles as a call of `fire`."""

    def __reduce__(self):
        return fire, ()


@pytest.fixture(autouse=True)
def _nothing_fires():
    FIRED.clear()
    yield
    assert not FIRED


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def name(path: str) -> bytes:
    module, _, attribute = path.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def dumped(value: object, protocol: int = 2) -> bytes:
    """The opcodes that push a value."""
    return pickle.dumps(value, protocol)[2:-1]


FIRE, TRAP = name(f"{__name__}.fire"), name(f"{__name__}.Trap")
EMPTY = b")"
# Each pushes one object; Python's own unpickler runs code of ours on the way.
ATTACKS = {
    "reduce": FIRE + EMPTY + b"R",
    "inst": f"(i{__name__}\nfire\n".encode(),
    "obj": b"(" + FIRE + text("now") + b"o",
    "newobj": TRAP + EMPTY + b"\x81",
    "newobj_ex": TRAP + EMPTY + b"}\x92",
    "stack_global": text(__name__) + text("fire") + b"\x93" + EMPTY + b"R",
    "dotted stack_global": b"\x80\x04" + text(__name__) + text("Trap.__new__") + b"\x93" + TRAP + b"\x85R",
    "build calls setstate": TRAP + EMPTY + b"\x81}b",
    "setitem": TRAP + EMPTY + b"\x81K\x00K\x00s",
    "appends": TRAP + EMPTY + b"\x81(K\x00e",
    "key that is hashed": b"}" + TRAP + EMPTY + b"\x81K\x00s",
    "getattr chain": name("builtins.getattr") + TRAP + text("__new__") + b"\x86R" + TRAP + b"\x85R",
    "eval": name("builtins.eval") + text(f"__import__('{__name__}', fromlist=['fire']).fire()") + b"\x85R",
    "map": name("builtins.list") + name("builtins.map") + FIRE + dumped([1]) + b"\x86R\x85R",
    "inside an allowed call": name("collections.OrderedDict") + b"]" + FIRE + EMPTY + b"R0\x85R",
    "as an allowed factory": name("collections.defaultdict") + FIRE + b"\x85R" + FIRE + EMPTY + b"R0",
    "apply through functools": name("functools.partial") + FIRE + b"\x85R" + EMPTY + b"R",
    "nested pickle": name("pickle.loads") + dumped(b"\x80\x02" + FIRE + EMPTY + b"R.", 3) + b"\x85R",
    "memo": FIRE + b"q\x010h\x01" + EMPTY + b"R",
    "object array": dumped(np.array([Bomb()], object)),
}
WEIGHTS = {"conv.weight": torch.arange(6.0).reshape(2, 3)}


def plain(path: Path, body: bytes) -> Path:
    weights = dumped({key: value.numpy() for key, value in WEIGHTS.items()})
    path.write_bytes(b"\x80\x04}(" + text("state_dict") + weights + text("extra") + body + b"u.")
    return path


def zipped(path: Path, body: bytes) -> Path:
    """What torch.save writes, with the opcodes of `body` beside the weights."""
    torch.save({"state_dict": WEIGHTS}, path, pickle_protocol=4)
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    (data,) = (member for member in members if member.endswith("data.pkl"))
    members[data] = members[data][:-1] + text("extra") + body + b"s."
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return path


def legacy(path: Path, body: bytes) -> Path:
    """What torch.save wrote before 1.6: five pickles, of which the fourth is the checkpoint."""
    file = io.BytesIO()
    torch.save({"state_dict": WEIGHTS}, file, _use_new_zipfile_serialization=False)
    file.seek(0)
    reader = Unpickler(file, lambda reference: torch.empty(6))
    for _ in range(4):
        reader.load()
    end, content = file.tell() - 1, file.getvalue()
    path.write_bytes(content[:end] + text("extra") + body + b"s" + content[end:])
    return path


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_attack_would_work(attack):
    pickle.loads(b"\x80\x04" + ATTACKS[attack] + b".")
    assert FIRED
    FIRED.clear()


@pytest.mark.parametrize("container", [plain, zipped, legacy])
@pytest.mark.parametrize("attack", ATTACKS)
def test_attacks_run_nothing_and_hide_no_weights(attack, container, tmp_path, capsys):
    checkpoint = read_checkpoint(container(tmp_path / "evil.pth", ATTACKS[attack]))
    torch.testing.assert_close(find_state_dict(checkpoint), WEIGHTS)
    assert capsys.readouterr().err.count("\n") == 1


def test_registered_extensions_are_not_called(tmp_path):
    copyreg.add_extension(__name__, "fire", 200)
    try:
        read_checkpoint(plain(tmp_path / "evil.pkl", b"\x82\xc8" + EMPTY + b"R"))
    finally:
        copyreg.remove_extension(__name__, "fire", 200)


TENSOR = name("torch._utils._rebuild_tensor_v2")
HOSTILE = {
    "persistent reference in a plain pickle": b"Pkey\n",
    "calls a string": text("print") + EMPTY + b"R",
    "tensor without storage": TENSOR + dumped((None, 0, (2,), (1,), False, None)) + b"R",
    "encoding": name("_codecs.encode") + dumped(("a" * 99, "zlib_codec")) + b"R",
    "set of a number": name("builtins.set") + dumped((1,)) + b"R",
    "array of another length": dumped(np.zeros(9)).replace(b"K\x09", b"K\x63"),
    "appends to a tuple": b")K\x00a",
    "memo that is empty": b"h\xff",
    "no mark": b"0000000t",
    "unknown opcode": b"\xff",
    "out-of-band buffer": b"\x97",
    "long without end": b"\x8b\xff\xff\xff\x7f",
    "text without end": b"\x8d" + b"\xff" * 7 + b"\x0f",
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_arguments_are_one_line(body, tmp_path):
    with pytest.raises(UserError, match=r"^[^\n]*evil.pkl: damaged[^\n]*$"):
        read_checkpoint(plain(tmp_path / "evil.pkl", body))


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((7,), (1,), 0),
        ((2, 3), (3, 2), 0),
        ((6,), (1,), 1),
        ((2**40,), (0,), 0),
        ((1,), (1,), 2**62),
        ((-1,), (1,), 0),
    ],
)
def test_tensors_stay_inside_their_storage(size, stride, offset):
    body = b"\x80\x02" + TENSOR + b"(" + text("s") + b"Q"
    for value in (offset, size, stride):
        body += dumped(value)
    reader = Unpickler(io.BytesIO(body + b"tR."), lambda reference: torch.zeros(6))
    with pytest.raises((ValueError, TypeError)):
        reader.load()


def test_a_storage_larger_than_its_file_is_never_allocated(tmp_path):
    kind = name("torch.FloatStorage")
    tensor = (
        TENSOR + b"((" + text("storage") + kind + text("0") + text("cpu") + b"\x8a\x06" + bytes(5) + b"\x10Nt"
    )
    body = tensor + b"Q" + dumped((0, (1,), (1,)))[:-1] + b"tR"
    with pytest.raises(UserError, match="more than the file can hold"):
        read_checkpoint(plain(tmp_path / "evil.pth", body))


def test_keys_that_would_take_forever_to_hash_are_left_out():
    nested = b")" + b"2\x86" * 200  # a tuple of 2**200 leaves
    assert Unpickler(io.BytesIO(b"}" + nested + b"K\x01sK\x07K\x08s.")).load() == {7: 8}
    deep = b")" + b"\x85" * 100_000
    assert Unpickler(io.BytesIO(b"}" + deep + b"K\x01s" + b"(" + deep + b"\x91.")).load() == set()


def test_an_archive_that_unpacks_to_more_than_its_size_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"N0" * 10**6 + b"N.")
    with pytest.raises(UserError, match="members are larger than the file"):
        read_checkpoint(tmp_path / "bomb.pth")


class Foreign:
    """Stands for another project's class, which the reader does not have."""


@pytest.fixture
def foreign(monkeypatch):
    """An object whose class can be written but not found again."""
    module = types.ModuleType("engine.logging")
    monkeypatch.setattr(Foreign, "__module__", "engine.logging")
    module.Foreign = Foreign  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "engine", types.ModuleType("engine"))
    monkeypatch.setitem(sys.modules, "engine.logging", module)
    value = Foreign()
    value.history = np.arange(3)  # pyright: ignore[reportAttributeAccessIssue]
    return value


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_training_checkpoint_with_everything_in_it(zipped, protocol, foreign, tmp_path, capsys):
    base = torch.randn(4, 6)
    weights = OrderedDict(
        plain=base,
        view=base[1:3, ::2],
        transposed=base.T,
        scalar=torch.tensor(7),
        parameter=torch.nn.Parameter(torch.ones(2)),
        half=torch.ones(3, dtype=torch.float16),
        bfloat=torch.ones(3, dtype=torch.bfloat16),
        flags=torch.tensor([True, False]),
        empty=torch.empty(0, 5),
    )
    checkpoint = {
        "state_dict": weights,
        "meta": {
            "time": datetime(2020, 1, 2),
            "args": argparse.Namespace(lr=0.1),
            "classes": ("a", "é"),
            "seed": None,
        },
        "message_hub": {"loss": foreign, "best": np.float64(0.5), "names": np.array(["a"], object)},
        "random": {
            "numpy": np.random.default_rng(0).bit_generator.state,
            "bytes": b"\x00\xff",
            "big": 1 << 70,
        },
        "optimizer": {
            "state": {0: {"momentum": torch.ones(2)}},
            "ids": {1, 2},
            "extra": defaultdict(list, a=[1]),
        },
    }
    path = tmp_path / "epoch_1.pth"
    torch.save(checkpoint, path, pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    for module in ("engine", "engine.logging"):
        del sys.modules[module]

    read = read_checkpoint(path)
    torch.testing.assert_close(read["state_dict"], dict(weights), rtol=0, atol=0)
    assert read["meta"]["classes"] == ("a", "é")
    assert read["message_hub"]["best"] == 0.5
    assert read["message_hub"]["loss"] == Ignored("engine.logging.Foreign")
    assert read["random"]["bytes"] == b"\x00\xff"
    assert read["random"]["big"] == 1 << 70
    assert read["optimizer"]["ids"] == {1, 2}
    assert read["optimizer"]["extra"] == {"a": [1]}
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    assert "argparse.Namespace, datetime.datetime, engine.logging.Foreign" in line


@pytest.mark.parametrize("protocol", range(6))
def test_plain_pickles_of_arrays(protocol):
    value = {
        "float": np.arange(6, dtype=np.float32).reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big-endian": np.arange(3, dtype=">i4"),
        "scalar": np.float32(1.5),
        "numbers": [1, -1, 1 << 40, 1.5, True, None, "é", b"\xe9"],
    }
    read = Unpickler(io.BytesIO(pickle.dumps(value, protocol))).load()
    np.testing.assert_equal(read, value)


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_no_numbers_are_ignored(protocol):
    value = {
        "a": np.array(["x", "yz"]),
        "b": np.array([1], "M8[s]"),
        "c": np.zeros(2, "i4,f4"),
        "d": np.ones(2),
    }
    reader = Unpickler(io.BytesIO(pickle.dumps(value, protocol)))
    np.testing.assert_equal(reader.load()["d"], value["d"])
    assert reader.ignored == {"numpy.dtype of no numbers"}


def caffe2(blobs: str) -> bytes:
    """A pickle as Python 2 wrote it: the numbers of an array are a text that is no ASCII."""
    dtype = b"cnumpy\ndtype\n(S'f4'\nI0\nI1\ntR(I3\nS'<'\nNNNI-1\nI-1\nI0\ntb"
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
    array += b"(I1\n(I1\nt" + dtype + b"I00\nS'\\x00\x80\xbf\\x7f'\ntb"
    return f"(dS'{blobs}'\n(dS'conv1_w'\n".encode() + array + b"ss."


def test_python_2_text_is_bytes(tmp_path):
    (tmp_path / "py2.pkl").write_bytes(caffe2("state_dict"))
    array = read_checkpoint(tmp_path / "py2.pkl")["state_dict"]["conv1_w"]
    assert array.tobytes() == b"\x00\x80\xbf\x7f"


@pytest.mark.parametrize("reader", ["both", "ours"])
def test_mutated_files_are_read_or_refused(reader, tmp_path, monkeypatch, capsys):
    if reader == "ours":
        monkeypatch.setattr(files.torch, "load", lambda *_, **__: 1 / 0)
    rng = random.Random(0)
    originals = [
        container(tmp_path / "seed", ATTACKS["reduce"]).read_bytes() for container in (plain, zipped, legacy)
    ]
    originals += [pickle.dumps({"a": np.ones(2), "b": {3}, "c": 1.5}, protocol) for protocol in range(6)]
    outcomes = Counter()
    for _ in range(900):
        content = bytearray(rng.choice(originals))
        for _ in range(rng.choice((1, 1, 3, 10))):
            at = rng.randrange(len(content))
            if rng.random() < 0.6:
                content[at] = rng.randrange(256)
            elif rng.random() < 0.5:
                del content[at : at + rng.randrange(8)]
            else:
                content[at:at] = rng.choice((FIRE, EMPTY + b"R", b"b", b"}", b"\x81", b"Q", rng.randbytes(3)))
        (tmp_path / "x.pth").write_bytes(content)
        try:
            find_state_dict(read_checkpoint(tmp_path / "x.pth"))
            outcomes["read"] += 1
        except UserError as error:
            outcomes["refused" if "\n" not in str(error) else "not one line"] += 1
    capsys.readouterr()
    assert set(outcomes) == {"read", "refused"}
    assert min(outcomes.values()) > 50
