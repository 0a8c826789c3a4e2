"""Every format returns what was saved, and damaged or foreign files are one error."""

from dataclasses import replace

import numpy as np
import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.inference.feature_files import (
    FORMATS,
    Features,
    check_features_out,
    is_features_file,
    join_features,
    read_features,
    read_info,
    save_features,
)


def features(name: str = "/clips/a b.mp4", rows: int = 3, shape: tuple[int, ...] = (4,), **info) -> Features:
    rng = np.random.default_rng(rows)
    start = np.arange(rows)
    facts = {"fingerprint": "f0", "layer": "conv", "protocol": "1 clip", "shape": list(shape)} | info
    return Features(
        values=rng.normal(size=(rows, *shape)).astype(np.float32),
        start_seconds=start / 2.0,
        end_seconds=np.where(start == 1, np.nan, start / 2 + 1.0),
        first_frame=start * 10,
        end_frame=start * 10 + 20,
        video=np.zeros(rows, np.int64),
        videos=(name,),
        info=facts,
    )


def assert_equal(found: Features, expected: Features) -> None:
    assert found.info == expected.info
    assert found.videos == expected.videos
    for name in ("values", "start_seconds", "end_seconds", "first_frame", "end_frame", "video"):
        one, other = getattr(found, name), getattr(expected, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_every_format_returns_the_same_rows(format, dtype, tmp_path):
    if format == "parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"rows.{format}"
    several = join_features([features(shape=(2, 3)), features("/clips/ü.mp4", 2, (2, 3))])
    several = replace(several, values=several.values.astype(dtype))
    save_features(path, several)
    assert_equal(read_features(path), several)
    assert read_info(path) == several.info
    assert is_features_file(path)
    check_features_out(path)  # an earlier features file is replaced


def test_a_folder_holds_the_rows_of_its_files(tmp_path):
    (tmp_path / "down").mkdir()
    save_features(tmp_path / "a.npz", features("a"))
    save_features(tmp_path / "down" / "b.npy", features("b", 2))
    (tmp_path / "notes.txt").write_text("mine")
    found = read_features(tmp_path)
    assert found.videos == ("a", "b")
    assert found.video.tolist() == [0, 0, 0, 1, 1]
    assert found.protocol_line == "1 clip"
    save_features(tmp_path / "c.npz", features("c", fingerprint="f1", layer="fc"))
    with pytest.raises(UserError, match=r"c\.npz: other features \(layer fc, not conv\) than .*a\.npz"):
        read_features(tmp_path)


def test_other_files_are_not_read_and_not_replaced(tmp_path):
    with pytest.raises(UserError, match="contains no features"):
        read_features(tmp_path)
    np.savez(tmp_path / "mine.npz", x=np.zeros(3))
    np.save(tmp_path / "mine.npy", np.zeros(3))
    (tmp_path / "text.npz").write_text("mine")
    for name in ("mine.npz", "mine.npy", "text.npz"):
        with pytest.raises(UserError, match=rf"{name}: cannot be read"):
            read_features(tmp_path / name)
        with pytest.raises(UserError, match="exists and is not a features file of mmaction-lite"):
            check_features_out(tmp_path / name)
    (tmp_path / "new.json").write_text("{}")
    with pytest.raises(UserError, match=r"new\.json: exists and is not the metadata of a features file"):
        check_features_out(tmp_path / "new.npy")
    with pytest.raises(UserError, match=r"the suffix '\.csv' names no format of features"):
        check_features_out(tmp_path / "x.csv")
    with pytest.raises(UserError, match=r"gone\.npz: cannot be read"):
        read_features(tmp_path / "gone.npz")


def test_damaged_files_are_one_error(tmp_path):
    path = tmp_path / "a.npz"
    save_features(path, features())
    content = path.read_bytes()
    for cut in range(0, len(content), 97):
        path.write_bytes(content[:cut])
        with pytest.raises(UserError, match=r"a\.npz: cannot be read"):
            read_features(path)
    wrong = features()
    save_features(path, replace(wrong, video=wrong.video + 1))
    with pytest.raises(UserError, match=r"a row names no video"):
        read_features(path)
    save_features(path, replace(wrong, first_frame=wrong.first_frame[:2]))
    with pytest.raises(UserError, match=r"the numbers of rows differ"):
        read_features(path)
