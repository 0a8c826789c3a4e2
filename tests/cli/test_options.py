"""Output and options that all commands share."""

import json

import torch

from mmaction_lite.cli.options import console, print_json, start, track, warn


def test_results_and_messages_have_streams_of_their_own(capsys):
    print_json({"names": ["跑步"]})
    warn("note: one line")
    console().print("for people")
    output, error = capsys.readouterr()
    assert json.loads(output) == {"names": ["跑步"]}
    assert "跑步" in output
    assert error == "note: one line\nfor people\n"


def test_tracked_items_are_the_items(capsys):
    assert list(track(iter("abc"), 3, "reading")) == ["a", "b", "c"]
    assert capsys.readouterr().out == ""


def test_start_returns_the_device():
    assert start("cpu") == torch.device("cpu")
