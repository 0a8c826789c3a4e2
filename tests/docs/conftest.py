"""Public weights of the pages: thin ones, from a mirror on this machine."""

import pytest

from tests.weights.public import public_weights


@pytest.fixture(scope="package", autouse=True)
def weights_by_name(tmp_path_factory):
    """Names of public weights in the pages are downloaded from this machine."""
    with public_weights(tmp_path_factory.mktemp("weights")):
        yield
