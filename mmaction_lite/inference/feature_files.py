"""Rows of features, and their files: `.npz`, `.npy` with a `.json` file beside it, or Parquet."""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from mmaction_lite.errors import UserError, printable, reading
from mmaction_lite.files import check_replaceable, open_regular, write_atomically

Format = Literal["npz", "npy", "parquet"]
FORMATS: tuple[Format, ...] = ("npz", "npy", "parquet")
KIND = "a features file of mmaction-lite"
SPANS = ("start_seconds", "end_seconds", "first_frame", "end_frame")
_KEY = "mmaction_lite.features"  # of the metadata


@dataclass(frozen=True, kw_only=True)
class Features:
    """Features of one video or of several, one row for each video, view or window.

    Args:
        values: float32 or float16 (N, ...). A row is (C, T, H, W) without the pooled axes.
        start_seconds: float64 (N,), start of each row in its video; NaN if the frame rate is unknown.
        end_seconds: float64 (N,), end of each row, exclusive.
        first_frame: int64 (N,).
        end_frame: int64 (N,), exclusive.
        video: int64 (N,), the index in `videos` of each row.
        videos: names of the videos.
        info: what the rows depend on: layer, pool, protocol line, fingerprints and further settings.
        note: which frames cannot be read; files do not store it.
    """

    values: np.ndarray
    start_seconds: np.ndarray
    end_seconds: np.ndarray
    first_frame: np.ndarray
    end_frame: np.ndarray
    video: np.ndarray
    videos: tuple[str, ...]
    info: dict[str, Any]
    note: str = ""

    def __len__(self) -> int:
        return len(self.values)

    @property
    def protocol_line(self) -> str:
        """Views, and how they become rows; print and store it with every number."""
        return self.info["protocol"]


def join_features(parts: Sequence[Features]) -> Features:
    """Return the rows of all parts, which have the same `info`."""
    videos = [name for part in parts for name in part.videos]
    starts = np.cumsum([0, *(len(part.videos) for part in parts)])
    arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in ("values", *SPANS)}
    numbers = [part.video + start for part, start in zip(parts, starts, strict=False)]
    return replace(parts[0], **arrays, video=np.concatenate(numbers), videos=tuple(videos))


def check_features_out(path: Path) -> None:
    """Check that features can be written to `path`; an earlier features file is replaced.

    Raises:
        UserError: the suffix is unknown, pyarrow is missing, or see `check_replaceable`.
    """
    suffix = format_of(path)
    check_format(path, suffix)
    check_replaceable(path, KIND, is_features_file)
    if suffix == "npy":
        check_replaceable(path.with_suffix(".json"), "the metadata of a features file", _is_metadata)


def check_format(path: Path, format: Format) -> None:
    """Check that files of a format can be written to `path`, a file or a folder.

    Raises:
        UserError: pyarrow is missing.
    """
    if format == "parquet":
        _pyarrow(path)


def format_of(path: Path) -> Format:
    """Return the format that the suffix of a file names.

    Raises:
        UserError: it is another suffix.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise UserError(
            f"{printable(str(path))}: the suffix {printable(path.suffix)!r} names no format of features; "
            "expected .npz, .npy or .parquet"
        )
    return suffix


def save_features(path: Path, features: Features) -> None:
    """Write features to a file, in the format that its suffix names.

    A `.npz` file holds the arrays `values`, `start_seconds`, `end_seconds`, `first_frame`, `end_frame`,
    `video` and `videos`, and the JSON text `info`. A `.npy` file holds `values`, and the `.json` file beside
    it the rest. A Parquet file has one row for each row, and the JSON text in its metadata.

    Raises:
        UserError: the suffix is unknown, pyarrow is missing, or the file cannot be written.
    """
    suffix = format_of(path)
    if suffix == "parquet":
        return _save_parquet(path, features)
    if suffix == "npz":
        arrays = {name: getattr(features, name) for name in ("values", *SPANS, "video")}
        texts = {"videos": np.array(features.videos), "info": np.array(json.dumps(features.info))}
        return write_atomically(path, lambda file: np.savez(file, allow_pickle=False, **arrays, **texts))
    rows = {name: _json_numbers(getattr(features, name)) for name in (*SPANS, "video")}
    text = json.dumps({_KEY: features.info, "videos": list(features.videos), **rows}, indent=1)
    write_atomically(path.with_suffix(".json"), lambda file: file.write(text.encode()))
    write_atomically(path, lambda file: np.save(file, features.values))


def read_features(path: str | Path) -> Features:
    """Read a features file, or all features files in a folder at any depth.

    Raises:
        UserError: there is none, a file is damaged, or the files of a folder have different settings.
    """
    path = Path(path)
    with reading(printable(str(path)), advice="check the path and its permissions"):
        is_folder = path.is_dir()
        files = sorted(file for file in path.rglob("*") if _is_candidate(file)) if is_folder else [path]
    if not files:
        raise UserError(
            f"{printable(str(path))}: contains no features; expected .npz, .npy or .parquet files that "
            "`mmaction-lite features` wrote"
        )
    parts = [_read_file(file) for file in files]
    for file, part in zip(files, parts, strict=True):
        if part.info["fingerprint"] != parts[0].info["fingerprint"]:
            raise UserError(
                f"{printable(str(file))}: {difference(part.info, parts[0].info)} than "
                f"{printable(str(files[0]))}; keep features of different settings in different folders"
            )
    return join_features(parts)


def read_info(path: Path) -> dict[str, Any]:
    """Return the metadata of a features file.

    Raises:
        UserError: the file is not a features file, or is damaged.
    """
    suffix = format_of(path)
    with reading(printable(str(path)), advice="delete the file; it is then written again"):
        if suffix == "npz":
            with _opened(path) as stream, np.load(stream, allow_pickle=False) as file:
                return _checked(json.loads(str(file["info"])))
        if suffix == "npy":
            return _checked(json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))[_KEY])
        metadata = _pyarrow(path).read_schema(path).metadata
        return _checked(json.loads(metadata[_KEY.encode()]))


def is_features_file(path: Path) -> bool:
    """Whether `save_features` wrote a file."""
    return bool(read_info(path))


def difference(found: dict[str, Any], expected: dict[str, Any]) -> str:
    """Return what differs between the metadata of two files, such as "layer conv1 instead of head input"."""
    names = ("weights", "layer", "pool", "rows", "stride_seconds", "window_seconds", "dtype", "protocol")
    for name in names:
        if found.get(name) != expected.get(name):
            title = name.replace("_", " ")
            return f"other features ({title} {printable(str(found.get(name)))}, not {expected.get(name)})"
    return "other features"


def _checked(info: Any) -> dict[str, Any]:
    if not isinstance(info, dict) or not info.keys() >= {"fingerprint", "layer", "protocol"}:
        raise ValueError("no metadata of features")
    return info


def _is_candidate(path: Path) -> bool:
    return path.suffix in (".npz", ".npy", ".parquet") and path.name[0] != "." and path.is_file()


def _is_metadata(path: Path) -> bool:
    return _KEY in json.loads(path.read_text(encoding="utf-8"))


def _read_file(path: Path) -> Features:
    info, suffix = read_info(path), format_of(path)
    with reading(printable(str(path))):
        if suffix == "parquet":
            columns = _read_parquet(path, info)
        elif suffix == "npz":
            with _opened(path) as stream, np.load(stream, allow_pickle=False) as file:
                columns = {name: file[name] for name in ("values", *SPANS, "video", "videos")}
        else:
            columns = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            with _opened(path) as stream:
                columns["values"] = np.load(stream, allow_pickle=False)
        return _features(columns, info)


def _opened(path: Path) -> BinaryIO:
    # `np.load` leaves a damaged file open if it receives a path.
    return io.BufferedReader(open_regular(path, UserError(f"{printable(str(path))}: is not a regular file")))


def _features(columns: dict[str, Any], info: dict[str, Any]) -> Features:
    values = np.asarray(columns["values"])
    seconds = {name: np.array(columns[name], np.float64) for name in SPANS[:2]}
    frames = {name: np.array(columns[name], np.int64) for name in (*SPANS[2:], "video")}
    videos = tuple(map(str, columns["videos"]))
    if values.dtype.kind != "f" or {len(values)} != {len(c) for c in (*seconds.values(), *frames.values())}:
        raise ValueError("the numbers of rows differ")
    if len(values) and not 0 <= frames["video"].min() <= frames["video"].max() < len(videos):
        raise ValueError("a row names no video")
    columns = {"values": values, **seconds, **frames, "videos": videos, "info": info}
    return Features(**columns)


def _json_numbers(values: np.ndarray) -> list[float | None]:
    return [None if value != value else value for value in values.tolist()]


def _pyarrow(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{printable(str(path))}: Parquet needs pyarrow: pip install 'mmaction-lite[parquet]'"
        ) from None
    return parquet


def _save_parquet(path: Path, features: Features) -> None:
    parquet = _pyarrow(path)
    import pyarrow

    flat = features.values.reshape(len(features), -1)
    values = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(flat.reshape(-1)), flat.shape[1])
    # Parquet stores UTF-8; bytes of other file names become escape sequences.
    names = [name.encode("utf-8", "backslashreplace").decode() for name in features.videos]
    columns = {"video": pyarrow.array([names[i] for i in features.video], pyarrow.string())}
    columns |= {name: pyarrow.array(getattr(features, name)) for name in SPANS}
    metadata = {_KEY: json.dumps(features.info)}
    table = pyarrow.table(columns | {"values": values}).replace_schema_metadata(metadata)
    write_atomically(path, lambda file: parquet.write_table(table, file))


def _read_parquet(path: Path, info: dict[str, Any]) -> dict[str, Any]:
    table = _pyarrow(path).read_table(path)
    names = table["video"].to_pylist()
    videos = list(dict.fromkeys(names))
    numbers = {name: number for number, name in enumerate(videos)}
    flat = table["values"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return {
        "values": flat.reshape(len(names), *info["shape"]),
        "video": [numbers[name] for name in names],
        "videos": videos,
        **{name: table[name].to_numpy() for name in SPANS},
    }
