"""Files of the Hugging Face Hub, through its own client, which is the extra `hub`."""

import importlib
from pathlib import Path
from typing import Any

from mmaction_lite.errors import UserError, describe
from mmaction_lite.weights.cache import is_offline


def download_from_hub(url: str) -> Path:
    """Return the path of a file of the Hub in the cache of its client, which downloads it if necessary.

    Args:
        url: `hf://OWNER/NAME/FILE`, or `hf://OWNER/NAME@REVISION/FILE` for a branch, tag or commit.

    Raises:
        UserError: the client is not installed, the address is wrong, or the file cannot be downloaded.
    """
    owner, _, rest = url.removeprefix("hf://").partition("/")
    name, _, file = rest.partition("/")
    name, _, revision = name.partition("@")
    if not (owner and name and file):
        raise UserError(f"{url}: not a file of the Hub; expected hf://OWNER/NAME/FILE")
    try:
        client: Any = importlib.import_module("huggingface_hub")
    except ImportError:
        raise UserError(
            f"{url}: files of the Hub need huggingface_hub; install it with pip install 'mmaction-lite[hub]'"
        ) from None
    try:
        path = client.hf_hub_download(
            f"{owner}/{name}", file, revision=revision or None, local_files_only=is_offline()
        )
    except Exception as error:  # the client has many types of errors
        raise UserError(
            f"{url}: cannot be downloaded ({describe(error)}). Check the name, the network and HF_TOKEN; "
            "HF_ENDPOINT names a mirror of the Hub"
        ) from None
    return Path(path)
