"""A reader that ends or blocks its process; imports little, because the process imports it."""

import os
import signal
import time
from dataclasses import dataclass

import numpy as np

from mmaction_lite.serve.readers import Described


@dataclass(frozen=True)
class Effect:
    """A reader that ends or blocks its process, or fails."""

    name: str

    def read_described(self, source):
        if self.name == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.name == "block":
            time.sleep(600)
        if self.name == "fail":
            raise ZeroDivisionError(source.path)
        return Described(np.arange(len(source), dtype=np.uint8), None, {"pid": os.getpid()})
