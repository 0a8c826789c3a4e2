"""Failures of workers that no restart can solve are one line."""

import pytest

from mmaction_lite.data.loading.lifetime import NO_GUARD
from mmaction_lite.data.loading.worker_faults import MAX_RESTARTS, check_restarts, check_start
from mmaction_lite.errors import UserError


def test_workers_that_end_while_they_start():
    check_start(-9)  # the system killed it: another may start
    with pytest.raises(UserError, match="this script starts decoding workers"):
        check_start(NO_GUARD)
    with pytest.raises(UserError, match="end while they start, with the error above"):
        check_start(1)


def test_restarts_without_a_result_are_limited():
    check_restarts(MAX_RESTARTS, "a decoding worker died")
    with pytest.raises(UserError, match="last failure: a decoding worker died"):
        check_restarts(MAX_RESTARTS + 1, "a decoding worker died")
