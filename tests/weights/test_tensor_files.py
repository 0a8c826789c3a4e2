"""Files of tensors are read in memory close to their size, whatever they claim to hold."""

import io
import json
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save

from mmaction_lite.errors import UserError
from mmaction_lite.weights import pickles
from mmaction_lite.weights.converters.files import find_state_dict, read_checkpoint
from mmaction_lite.weights.pickles import Ignored
from mmaction_lite.weights.tensor_files import HEADER_BYTES, UnknownFormatError, read_tensor_file
from tests.weights.test_pickles import TENSOR, dumped, name, text

SAVED = {
    "float": torch.randn(3, 4),
    "expanded bias": torch.ones(1).expand(100),
    "complex": torch.ones(2, dtype=torch.complex64),
    "uint16": torch.ones(3, dtype=torch.uint16),
    "float8": torch.ones(3).to(torch.float8_e4m3fn),
    "empty": torch.empty(0, 3),
    "list": [torch.ones(1), {"a": 1.5}],
}


@pytest.mark.parametrize("checks_crc", [True, False])
@pytest.mark.parametrize("zipped", [True, False])
def test_content_equals_that_of_torch(zipped, checks_crc, tmp_path):
    kept = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(checks_crc)
    try:
        saved = SAVED if zipped else {key: value for key, value in SAVED.items() if "8" not in key}
        torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    finally:
        torch.serialization.set_crc32_options(kept)
    file = read_tensor_file(tmp_path / "x.pth")
    assert not file.ignored
    assert file.content.keys() == saved.keys()
    for key, value in saved.items():
        found = file.content[key]
        if isinstance(value, torch.Tensor):
            assert (found.dtype, found.shape) == (value.dtype, value.shape)
            assert torch.equal(found.contiguous().view(torch.uint8), value.contiguous().view(torch.uint8))
    assert file.content["list"] == saved["list"]


def test_metadata_of_safetensors(tmp_path):
    (tmp_path / "x").write_bytes(save({"a": torch.ones(2)}, {"card": "text"}))
    file = read_tensor_file(tmp_path / "x")
    assert (file.content["a"].tolist(), file.metadata) == ([1, 1], {"card": "text"})


def test_a_changed_byte_of_a_weight_is_found(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "x.pth")
    content = bytearray((tmp_path / "x.pth").read_bytes())
    content[content.index(b"\x00\x00\x80\x3f" * 9) + 500] ^= 1
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        read_tensor_file(tmp_path / "x.pth")


def deflated() -> bytes:
    """40 MB of zeros in 40 kB."""
    plain, packed = io.BytesIO(), io.BytesIO()
    torch.save({"a": torch.zeros(10)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for member in source.namelist():
            is_data = member.endswith("data/0")
            archive.writestr(member, bytes(40 << 20) if is_data else source.read(member))
    return packed.getvalue()


def expanded() -> bytes:
    """1.9 billion elements that share one number."""
    file = io.BytesIO()
    torch.save({"a": torch.ones(1).expand(1_900_000_000)}, file)
    return file.getvalue()


def legacy_claim() -> bytes:
    """A storage of 1.9 billion numbers in the format before PyTorch 1.6, in a file of a few hundred bytes."""
    file = io.BytesIO()
    torch.save({"a": torch.ones(7)}, file, _use_new_zipfile_serialization=False)
    return file.getvalue().replace(b"K\x07N", b"J" + struct.pack("<i", 1_900_000_000) + b"N")


def repeated_copies() -> bytes:
    """A list of 10,000 numbers that is copied 20,000 times."""
    numbers = b"](" + b"K\x01" * 10_000 + b"e"
    copy = name("torch.Size") + b"h\x01\x85R"
    return b"\x80\x02" + numbers + b"q\x01" + b"](" + copy * 20_000 + b"e."


def many_objects() -> bytes:
    return b"\x80\x02](" + b"]" * 100_000 + b"e."


def header_of_safetensors() -> bytes:
    header = b"{" + b" " * HEADER_BYTES + b"}"
    return struct.pack("<Q", len(header)) + header


def overlapping_safetensors() -> bytes:
    entry = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
    header = json.dumps({"a": entry, "b": entry}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(8)


def shape_of_huge_integers() -> bytes:
    tensor = TENSOR + b"(" + text("s") + b"Q" + dumped(0) + b"(" + b"\x8a\x08" + b"\xff" * 7 + b"\x7f"
    return b"\x80\x02" + tensor + b"t)tR."


BOMBS = (
    deflated,
    expanded,
    legacy_claim,
    repeated_copies,
    many_objects,
    header_of_safetensors,
    overlapping_safetensors,
    shape_of_huge_integers,
)


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda bomb: bomb.__name__)
def test_sizes_are_checked_before_memory_is_taken(bomb, tmp_path, monkeypatch):
    (tmp_path / "bomb.pth").write_bytes(bomb())
    empty = torch.empty

    def allocate(size, **options):
        assert np.prod(size) < 1_000_000, "memory was taken before the size was checked"
        return empty(size, **options)

    monkeypatch.setattr(torch, "empty", allocate)
    monkeypatch.setattr(pickles, "FREE_BYTES", 5_000_000)
    with pytest.raises(UserError, match=r"^[^\n]*bomb\.pth: damaged[^\n]*$"):
        read_checkpoint(tmp_path / "bomb.pth")


def test_texts_of_nested_tuples_are_not_printed(tmp_path):
    """A tuple of 2**60 leaves takes 60 bytes, and its text would take forever."""
    nested = b")" + b"2\x86" * 60
    for body in (
        TENSOR + b"(" + text("s") + b"Q" + dumped(0) + nested + b")tR",
        b"(" + text("storage") + name("torch.FloatStorage") + nested + text("cpu") + dumped(1) + b"NtQ",
        name("_codecs.encode") + text("a") + nested + b"\x86R",
    ):
        (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + body + b".")
        with pytest.raises((TypeError, ValueError)):
            read_tensor_file(tmp_path / "x.pkl")


def test_storages_without_bytes_are_not_read(tmp_path):
    """A plain pickle has no numbers for them; the memory would hold those of other objects."""
    reference = b"(" + text("storage") + name("torch.FloatStorage") + text("0") + text("cpu") + b"K\x08NtQ"
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + reference + b"." + bytes(64))
    with pytest.raises(ValueError, match="storages without numbers"):
        read_tensor_file(tmp_path / "x.pkl")


@pytest.mark.parametrize(
    ("kind", "tensor"),
    [
        ("sparse_tensor", torch.ones(2, 2).to_sparse()),
        ("meta_tensor_no_storage", torch.ones(2, device="meta")),
    ],
)
def test_tensors_of_other_kinds_are_named(kind, tensor, tmp_path, capsys):
    torch.save({"state_dict": {"fc.weight": tensor, "fc.bias": torch.ones(2)}}, tmp_path / "x.pth")
    checkpoint = read_checkpoint(tmp_path / "x.pth")
    assert isinstance(checkpoint["state_dict"]["fc.weight"], Ignored)
    with pytest.raises(UserError, match=rf"1 of 2 entries are tensors .* such as fc\.weight \({kind}\)"):
        find_state_dict(checkpoint)
    capsys.readouterr()


def test_a_deep_nesting_ends_in_one_line(tmp_path):
    value: object = torch.ones(1)
    for _ in range(5000):
        value = {"a": value}
    (tmp_path / "x.pkl").write_bytes(b"\x80\x02" + b"}" + (text("a") + b"}") * 5000 + b"s" * 5000 + b".")
    with pytest.raises(UserError, match=r"holds no weights"):
        find_state_dict(read_checkpoint(tmp_path / "x.pkl"))


def test_other_formats_are_named(tmp_path):
    (tmp_path / "x").write_bytes(b"<html>")
    with pytest.raises(UnknownFormatError, match="not a checkpoint, it begins with b'<html>'"):
        read_tensor_file(tmp_path / "x")
    (tmp_path / "x").write_bytes(pickle.dumps(np.ones(3)))
    assert read_tensor_file(tmp_path / "x").content.tolist() == [1, 1, 1]
