"""Options of the H.264 encoder, which all written videos share."""

import torch


def x264_options(**options: str) -> dict[str, str]:
    """Return options of libx264 with which the same frames give the same bytes.

    Args:
        options: further options, such as `crf="20"`.
    """
    if torch.backends.cpu.get_cpu_capability() == "AVX512":
        # The AVX-512 code of x264 reads uninitialized memory, so that small frames differ between runs.
        return {**options, "x264-params": "asm=AVX2"}
    return options
