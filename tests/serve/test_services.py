"""The parts of a server start and end together."""

import asyncio

from mmaction_lite.serve.models import Models
from mmaction_lite.serve.services import Services
from mmaction_lite.serve.settings import ServeSettings
from tests.serve.conftest import ONE_WORKER


def test_the_private_folder_is_deleted_at_the_end(weights):
    settings = ServeSettings(workers=ONE_WORKER)
    services = Services(settings, Models([str(weights)], settings.memory_budget, "cpu"))
    assert services.uploads.path.is_dir()
    asyncio.run(services.close())
    assert not services.uploads.path.exists()
