"""Decoding processes start without PyTorch."""

import subprocess
import sys

from mmaction_lite.data.loading.decoder_process import name_reason

LIGHT = """
import sys
import mmaction_lite.data.loading.decoders, mmaction_lite.weights.card_views
print("torch" in sys.modules)
"""


def test_decoding_processes_import_no_pytorch():
    assert subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True).stdout == "False\n"


def test_a_reason_names_its_video_once():
    assert name_reason("a.mp4", "is empty") == "a.mp4: is empty"
    assert name_reason("a.mp4", "a.mp4: is empty") == "a.mp4: is empty"
