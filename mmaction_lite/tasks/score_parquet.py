"""Score files in Parquet, which pandas, Polars, DuckDB and Spark read: one row for each video.

Columns: `video` (text), `label` (an integer, or a list of integers: the classes of a multi-label clip, or
verb and noun), `scores` (float32, one for each class), and `view_logits` if the views were stored. The
metadata of the schema hold class names, protocol, task, weights and views, as JSON under the key
`mmaction_lite`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmaction_lite.errors import UserError
from mmaction_lite.files import write_atomically

if TYPE_CHECKING:
    import pyarrow

Arrays = dict[str, np.ndarray]

KEY = b"mmaction_lite"
ROWS_PER_GROUP = 4096
LONGEST_PATH = 10_000  # characters


def require(file: Path) -> None:
    """Check that pyarrow is installed.

    Raises:
        UserError: it is not.
    """
    try:
        import pyarrow.parquet  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise UserError(
            f"{file}: Parquet needs pyarrow: pip install 'mmaction-lite[parquet]'. Or use a name that ends "
            "in .npz"
        ) from None


def write(file: Path, arrays: Arrays) -> None:
    """Write the arrays of a score file; see `write_scores`.

    Raises:
        UserError: a path is not UTF-8, or the file cannot be written.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    labels, scores = arrays["labels"], arrays["scores"]
    num_classes = scores.shape[1]
    try:
        videos = arrow.array(arrays["paths"].tolist(), arrow.string())
    except (UnicodeError, ValueError):
        raise UserError(
            f"{file}: Parquet stores UTF-8, and a path of a video is not UTF-8; expected a name that ends in "
            ".npz"
        ) from None
    columns = {"video": videos, "label": arrow.array(_label_rows(labels))}
    columns["scores"] = _lists(scores.astype(np.float32), num_classes)
    if "view_logits" in arrays:
        logits = arrays["view_logits"].astype(np.float32)
        columns["view_logits"] = _lists(logits.reshape(len(logits), -1), logits.shape[1] * num_classes)
    values = {name: arrays[name].tolist() for name in ("class_names", "protocol", "task")}
    values |= {name: arrays[name].tolist() for name in ("weights", "views") if name in arrays}
    table = arrow.table(columns).replace_schema_metadata({KEY: json.dumps(values)})
    write_atomically(
        file,
        lambda stream: parquet.write_table(
            table, stream, compression="zstd", use_dictionary=False, row_group_size=ROWS_PER_GROUP
        ),
    )


def _label_rows(labels: np.ndarray) -> list[Any]:
    """Return the label of every video: an index, or a list of indices."""
    if labels.dtype == bool:
        return [np.flatnonzero(row).tolist() for row in labels]
    return labels.tolist()


def _lists(values: np.ndarray, size: int) -> "pyarrow.Array":
    """Return rows (N, size) as an array of lists of a fixed size."""
    import pyarrow as arrow

    return arrow.FixedSizeListArray.from_arrays(arrow.array(values.ravel()), size)


def is_score_file(stream: Any) -> bool:
    """Whether a Parquet file has the metadata of a score file."""
    from pyarrow import parquet

    return KEY in (parquet.ParquetFile(stream).schema_arrow.metadata or {})


def read(stream: Any, room: int, most_videos: int) -> Arrays:
    """Read the arrays of a score file.

    Args:
        stream: the open file.
        room: size of the arrays at most, in bytes.
        most_videos: number of videos at most.

    Raises:
        Exception: of any type, if the file is damaged.
    """
    import pyarrow as arrow
    from pyarrow import parquet

    # A long text may be stored once and occur in every row: keep it once until its length is checked.
    file = parquet.ParquetFile(stream, read_dictionary=["video"])
    text = (file.schema_arrow.metadata or {}).get(KEY)
    if text is None:
        raise ValueError("no metadata of mmaction-lite, which name the classes")
    values = json.loads(text)
    if not isinstance(values, dict) or not all(
        isinstance(name, str) for name in [*values["class_names"], values["protocol"], values["task"]]
    ):
        raise ValueError("metadata of another form")
    num_classes, num_videos = len(values["class_names"]), file.metadata.num_rows
    names = set(file.schema_arrow.names)
    size = file.schema_arrow.field("view_logits").type.list_size if "view_logits" in names else 0
    views = size // max(1, num_classes)
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    stated = sum(max(group.total_byte_size, 8 * _num_values(group)) for group in groups)
    if num_videos > most_videos or max(stated, 4 * num_videos * num_classes * (1 + views)) > room:
        raise ValueError("arrays that are much larger than the file")
    for name, size in (("scores", num_classes), ("view_logits", views * num_classes)):
        if name in names and file.schema_arrow.field(name).type != arrow.list_(arrow.float32(), size):
            raise ValueError(f"column {name!r} of type {file.schema_arrow.field(name).type}")
    table = file.read(columns=[name for name in ("video", "label", "scores", "view_logits") if name in names])
    if any(table[name].null_count for name in table.column_names):
        raise ValueError("missing values")
    arrays = {
        "paths": _paths(table["video"]),
        "labels": _labels(table["label"], values["task"], num_classes),
        "scores": _rows(table["scores"], num_videos, num_classes),
        "class_names": np.array(values["class_names"], dtype=str),
    }
    if views:
        rows = _rows(table["view_logits"], num_videos, views * num_classes)
        arrays["view_logits"] = rows.reshape(num_videos, views, num_classes)
    optional = {name: values[name] for name in ("weights", "views") if values.get(name) is not None}
    return arrays | {
        name: np.array(value)
        for name, value in (optional | {"protocol": values["protocol"], "task": values["task"]}).items()
    }


def _num_values(group: Any) -> int:
    """Return the number of values of a row group, in all columns."""
    return sum(group.column(number).num_values for number in range(group.num_columns))


def _paths(column: "pyarrow.ChunkedArray") -> np.ndarray:
    """Return a column of texts as an array.

    Raises:
        ValueError: a text is too long for a path.
    """
    found: list[str] = []
    for chunk in column.chunks:
        texts = chunk.dictionary.to_pylist()
        if max(map(len, texts), default=0) > LONGEST_PATH:
            raise ValueError(f"a path of more than {LONGEST_PATH} characters")
        found += [texts[index] for index in chunk.indices.to_pylist()]
    return np.array(found, dtype=object)  # equal texts share their memory


def _rows(column: "pyarrow.ChunkedArray", num_videos: int, size: int) -> np.ndarray:
    """Return a column of lists as an array (N, size)."""
    parts = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    return (np.concatenate(parts) if parts else np.zeros(0, np.float32)).reshape(num_videos, size)


def _labels(column: "pyarrow.ChunkedArray", task: str, num_classes: int) -> np.ndarray:
    """Return the targets of a task from the column `label`."""
    rows = column.to_pylist()
    if json.loads(task).get("task") != "multi_label":
        return np.array(rows)
    targets = np.zeros((len(rows), num_classes), bool)
    for target, classes in zip(targets, rows, strict=True):
        if any(not 0 <= index < num_classes for index in classes):
            raise ValueError(f"classes {classes[:5]}; expected indices from 0 to {num_classes - 1}")
        target[classes] = True
    return targets
