"""Deliberate mistakes: each is one line on standard error with a way to fix it, and exit code 2."""

from types import SimpleNamespace

import pytest

from mmaction_lite.cli.mistakes import describe_usage_error
from tests.cli.conftest import SMALL

pytestmark = pytest.mark.usefixtures("one_thread")
TRAIN = ["train", "RECIPE", "--data", "DATA", "--out", "OUT", *SMALL]
PREDICT = ["predict", "RUN", "DATA/val/up/12.mp4"]
TEST = ["test", "RUN", "--data", "DATA"]


class Error(Exception):
    """A usage error of typer."""

    def __init__(self, command, option):
        self.option_name = option
        parameters = SimpleNamespace(params=[])
        self.ctx = SimpleNamespace(command_path=f"mmaction-lite {command}", command=parameters, args=[])

    def format_message(self):
        return "No such option."


Error.__name__ = "NoSuchOption"

MISTAKES = [
    # options and commands of other programs
    ([*TRAIN, "--epochs", "3"], "No such option: --epochs; use --set epochs=..."),
    ([*TRAIN, "--lr", "0.1"], "use --set optimizer.lr=..."),
    ([*TRAIN, "--batch-size", "4"], "use --set batch_size=..."),
    ([*TRAIN, "--batch_size", "4"], "use --set batch_size=..."),
    ([*TRAIN, "--gpu", "0"], "use --device cuda:0"),
    ([*TRAIN, "--pretrained", "x.pth"], "use --init-from FILE"),
    ([*TRAIN, "--init_from", "x.pth"], "use --init-from"),
    ([*TRAIN, "--num-workers", "2"], "use --workers"),
    ([*TEST, "--split", "val"], "use --protocol val"),
    ([*PREDICT, "--topk", "2"], "use --top"),
    (["onnx", "RUN"], "use mmaction-lite export"),
    (["eval", "RUN"], "use mmaction-lite test"),
    (["infer", "RUN"], "use mmaction-lite predict"),
    (["val", "RUN"], "use mmaction-lite test --protocol val"),
    (["prepare", "DATA"], "use mmaction-lite data prepare"),
    (["data", "validat", "DATA"], "nearest: validate"),
    (["tran"], "No such command 'tran'; nearest: train"),
    (["a\nb"], "No such command"),
    # recipes and settings
    (
        ["train", "tsm_r50", "--data", "DATA", "--out", "OUT"],
        "no recipe is named 'tsm_r50'; nearest: tsm_r50_",
    ),
    (["train", "", "--data", "DATA", "--out", "OUT"], "the argument after 'train' is empty"),
    (["train", "x.py:f", "--data", "DATA", "--out", "OUT"], "x.py: no such file"),
    ([*TRAIN, "--set", "epochs"], "expected FIELD=VALUE"),
    ([*TRAIN, "--set", "=3"], "has no field ''"),
    ([*TRAIN, "--set", "epochs=0"], "epochs is 0; expected an integer, at least 1"),
    ([*TRAIN, "--set", "epochs=-1"], "epochs is -1"),
    ([*TRAIN, "--set", "epochs=2.5"], "epochs is 2.5"),
    ([*TRAIN, "--set", "epochs=1e3"], "epochs is 1000.0"),
    ([*TRAIN, "--set", "epochs="], "epochs is ''"),
    ([*TRAIN, "--set", "epochs=99999999999999999999"], "epochs is 99999999999999999999"),
    ([*TRAIN, "--set", "optimizer.lr=nan"], "lr is 'nan'"),
    ([*TRAIN, "--set", "optimizer.lr=1e999"], "lr is inf"),
    ([*TRAIN, "--set", "optimizer.lr=-1"], "lr is -1"),
    ([*TRAIN, "--set", "optimizer=sgd"], "optimizer is a group"),
    ([*TRAIN, "--set", "optimiser.lr=1"], "nearest: optimizer"),
    ([*TRAIN, "--set", "train.flip=yes"], "flip is 'yes'"),
    ([*TRAIN, "--set", "precision=fp16"], "precision is 'fp16'; expected one of"),
    ([*TRAIN, "--set", "precision=float16"], "float16 needs a GPU"),
    ([*TRAIN, "--set", "task=regression"], "regression"),
    ([*TRAIN, "--set", "mixing.alpha=1"], "mixing is None in this recipe"),
    ([*TRAIN, "--set", "model.num_classes=4"], "has no field 'num_classes'"),
    ([*TRAIN, "--set", "batch_size=100"], "12 clips are fewer than one batch of 100"),
    ([*TRAIN, "--set", "freeze=('head',)"], "the network has nothing named"),
    # data and folders
    (["train", "RECIPE", "--data", "DATA/train.txt", "--out", "OUT"], "no such file or folder"),
    (["train", "RECIPE", "--data", "DATA/val/up/12.mp4", "--out", "OUT"], "12.mp4"),
    (["train", "RECIPE", "--data", "", "--out", "OUT"], "the value of --data is empty"),
    (["train", "RECIPE", "--data", "DATA\n\x1b[31m", "--out", "OUT"], "\\n\\x1b[31m"),
    (
        ["train", "RECIPE", "--data", "DATA", "--out", "DATA", *SMALL],
        "not by a run: it contains train; pass another",
    ),
    (["train", "RECIPE", "--data", "DATA", "--out", "DATA/val/up/12.mp4", *SMALL], "is a file"),
    (["train", "RECIPE", "--data", "DATA", "--out", "RUN", "--set", "epochs=x"], "epochs is 'x'"),
    ([*TRAIN, "--resume"], "last.pt: no such file"),
    ([*TRAIN, "--finetune"], "pass them as --init-from"),
    ([*TRAIN, "--init-from", "DATA"], "has no best.pt"),
    (["train", "RECIPE", "--data", "DATA", "--out", "RUN", *SMALL, "--init-from", "gone.pth"], "gone.pth"),
    # numbers and choices
    ([*TRAIN, "--seed", "1e3"], "got '1e3'"),
    ([*TRAIN, "--seed", "-1"], "'--seed'"),
    ([*TRAIN, "--workers", "-1"], "'--workers'"),
    ([*TRAIN, "--workers", "two"], "'--workers'"),
    ([*TRAIN, "--hang-seconds", "0"], "'--hang-seconds'"),
    ([*TRAIN, "--device", "cuda:9"], "--device cuda:9: not usable here"),
    ([*TRAIN, "--device", ""], "the value of --device is empty"),
    ([*TEST, "--device", "cuda:0", "--int8"], "cuda:0"),
    ([*TEST, "--protocol", "train"], "'--protocol'"),
    ([*TEST, "--recipe", "no_such"], "no recipe is named 'no_such'"),
    ([*PREDICT, "--top", "0"], "'--top'"),
    (["predict", "RUN", "DATA/*.avi"], "no clip matches this pattern"),
    (["predict", "RUN"], "Missing argument"),
    (["predict", "DATA/val/up/12.mp4", "RUN"], "12.mp4"),
    (["report", "DATA"], "DATA"),
    (["report", "DATA/nothing"], "nothing"),
    (["data", "prepare", "DATA", "OUT", "--crf", "60"], "'--crf'"),
    (["data", "prepare", "DATA", "OUT", "--short-side", "0"], "'--short-side'"),
    (["data", "browse", "--data", "DATA", "--recipe", "RECIPE", "--out", "x.jpg"], "a PNG file"),
    (["data", "index", "DATA/gone.tar", "--out", "OUT.csv"], "gone.tar: no such file"),
    (["data", "index", "DATA/val/up/12.mp4", "--out", "OUT.csv"], "is not an uncompressed tar file"),
    (["benchmark", "--recipes", "TSN"], "TSN"),
    (["list", "people"], "'people' is not one of"),
]


def test_what_a_wrong_option_means_depends_on_the_command():
    for line in ("train --lr", "test --lr"):
        command, option = line.split()
        error = Error(command, option)
        hint = "; use --set optimizer.lr=..." if command == "train" else ""
        assert (
            describe_usage_error(error) == f"error: No such option{hint} (see mmaction-lite {command} --help)"
        )


@pytest.mark.parametrize(
    ("arguments", "phrase"), MISTAKES, ids=lambda value: value[:40] if isinstance(value, str) else ""
)
def test_a_mistake_is_one_line_and_exit_code_2(
    run, trained, tiny, tmp_path, motions_recipe, arguments, phrase
):
    names = {"RECIPE": motions_recipe, "DATA": str(tiny), "OUT": str(tmp_path / "out"), "RUN": str(trained)}

    def place(word):
        for name, value in names.items():
            word = word.replace(name, value)
        return word

    before = sorted(trained.iterdir())
    code, output, error = run(*map(place, arguments))
    assert (code, output) == (2, ""), error
    assert len(error.splitlines()) == 1, error
    assert "Traceback" not in error
    assert place(phrase) in error
    assert not (tmp_path / "out").exists()
    assert sorted(trained.iterdir()) == before
