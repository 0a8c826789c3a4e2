"""The module that the fork server imports."""

import pickle
import sys


def test_errors_that_the_main_process_reports_print_no_traceback(monkeypatch, capsys):
    """A server that cannot fork, a worker whose parent ends, and an error in a module of the user."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # restored after the test
    from mmaction_lite.data.loading import fork_server

    fork_server.preload()
    assert "mmaction_lite.data.loading.loader" in sys.modules
    sys.excepthook(OSError, OSError(11, "Resource temporarily unavailable"), None)
    monkeypatch.setattr(fork_server.os, "getpid", lambda: 0)
    for error in (EOFError(), pickle.UnpicklingError("pickle data was truncated")):
        sys.excepthook(type(error), error, None)
    assert capsys.readouterr().err == ""
    sys.excepthook(ZeroDivisionError, ZeroDivisionError("in my module"), None)
    assert "in my module" in capsys.readouterr().err
