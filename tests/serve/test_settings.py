"""Settings refuse what is not safe."""

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.serve.settings import ServeSettings, is_loopback


def test_a_public_address_needs_a_token():
    with pytest.raises(UserError, match="reachable from other machines, and no token is set"):
        ServeSettings(host="0.0.0.0")
    assert ServeSettings(host="0.0.0.0", token="x" * 16).token
    with pytest.raises(UserError, match="the token has 3 characters"):
        ServeSettings(token="abc")
    assert [is_loopback(host) for host in ("::1", "127.0.0.2", "localhost", "10.0.0.1", "example.org")] == [
        True,
        True,
        True,
        False,
        False,
    ]


def test_names_and_origins_have_the_form_of_the_headers():
    assert ServeSettings(hosts=("my.example", "[::1]"), origins=("https://a.example:8443",)).hosts
    for name in ("my.example:8000", "https://my.example", ""):
        with pytest.raises(UserError, match="is not the name of a host"):
            ServeSettings(hosts=(name,))
    for origin in ("https://a.example/", "a.example", "*", "https://A.example"):
        with pytest.raises(UserError, match="is not an origin"):
            ServeSettings(origins=(origin,))
