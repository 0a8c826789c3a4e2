"""Several replicas of the server on a Ray cluster, behind one address.

pip install 'mmaction-lite[serve]' 'ray[serve]'
MMACTION_LITE_WEIGHTS=weights.safetensors serve run deploy.ray_serve:application

MMACTION_LITE_TOKEN is the secret of the clients. MMACTION_LITE_HOSTS lists the names under which clients
reach the replicas, separated by commas, beside localhost.
"""

import os

from fastapi import FastAPI
from ray import serve

from mmaction_lite.serve.app import create_app
from mmaction_lite.serve.models import Models
from mmaction_lite.serve.settings import ServeSettings


def build() -> FastAPI:
    """Create the application in each replica; reads its settings from the environment."""
    hosts = tuple(name for name in os.environ.get("MMACTION_LITE_HOSTS", "").split(",") if name)
    settings = ServeSettings(token=os.environ.get("MMACTION_LITE_TOKEN"), hosts=hosts)
    return create_app(settings, Models([os.environ["MMACTION_LITE_WEIGHTS"]], settings.memory_budget))


@serve.deployment(num_replicas=2, graceful_shutdown_timeout_s=60)
@serve.ingress(build)
class Server:
    """A replica. Jobs stay in the replica that accepted them."""


application = Server.bind()
