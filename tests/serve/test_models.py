"""Models are loaded at their first use, and removed under the budget unless they are in use."""

import asyncio

import pytest

from mmaction_lite.errors import UserError
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.problems import Problem


def test_the_least_recently_used_model_is_removed(weights):
    one = Models([str(weights)], 1 << 40).known["small"].num_bytes
    models = Models([str(weights)] * 3, 2 * one + one // 2)
    assert list(models.known) == ["small", "small-2", "small-3"]

    async def use_all():
        async with models.use("small"):
            async with models.use("small-2"):
                pass
            async with models.use("small-3"):  # `small` is in use, so `small-2` is removed
                return [models.is_loaded(name) for name in models.known]

    assert asyncio.run(use_all()) == [True, False, True]
    assert models.loaded_bytes <= 2 * one


def test_unknown_models_and_budgets_that_are_too_small(weights):
    with pytest.raises(Problem, match="no model is named"):
        Models([str(weights)], 1 << 40).find("other")
    with pytest.raises(UserError, match="Raise --memory-budget"):
        Models([str(weights)], 100)
    with pytest.raises(UserError, match="no model is given"):
        Models([], 100)
    with pytest.raises(Problem, match="this server has no model"):
        Models([], 100, may_be_empty=True).find(None)
