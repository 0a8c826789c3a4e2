import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.recipes.probe_settings import ProbeSettings


def test_every_learning_rate_has_every_weight_decay():
    settings = ProbeSettings(learning_rates=(1e-3, 1e-2), weight_decays=(0.0, 0.1))
    assert settings.heads == [(1e-3, 0.0), (1e-3, 0.1), (1e-2, 0.0), (1e-2, 0.1)]


def test_a_probe_needs_a_learning_rate():
    with pytest.raises(UserError, match="learning_rates is"):
        ProbeSettings(learning_rates=(), weight_decays=(0.1,))
