"""Start of the fork server, from which the decoding workers fork.

The server imports this module when it starts, and so PyTorch and the datasets once for all workers. No other
process imports the module.
"""

import os
import pickle
import signal
import sys
from types import TracebackType

from mmaction_lite.data.loading.lifetime import set_death_signal


def preload() -> None:
    """Import the modules of the workers, and print no traceback of errors that the main process reports."""
    # The server cannot notice the end of its clients during the import. Afterwards it can, and the thread
    # that started it, to which this request belongs, may end before the process.
    set_death_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
    import mmaction_lite.data.loading.loader  # noqa: F401

    set_death_signal(0)
    server, show = os.getpid(), sys.excepthook

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        """Print errors of a worker that starts, unless its parent has ended in the middle of a message."""
        # The server itself ends if it cannot fork.
        is_known = os.getpid() == server or isinstance(error, EOFError | pickle.UnpicklingError)
        if not is_known:
            show(kind, error, trace)

    sys.excepthook = report


preload()
