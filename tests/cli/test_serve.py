"""The command `serve`."""

import pytest

from mmaction_lite.cli import serve as command

pytest.importorskip("fastapi")


def test_the_command_has_a_summary_for_the_help():
    assert (command.serve.__doc__ or "").endswith(".")


def test_a_public_address_needs_a_token(run, tmp_path):
    code, _, error = run("serve", tmp_path, "--host", "0.0.0.0")
    assert code == 2
    assert "reachable from other machines" in error
