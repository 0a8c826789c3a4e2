"""Command `serve`."""

from typing import Annotated

import typer

from mmaction_lite.cli.options import Device, HangSeconds, Offline, Workers, start, warn
from mmaction_lite.errors import UserError


def serve(
    weights: Annotated[
        list[str] | None,
        typer.Argument(
            help="Weights files, run folders, addresses, or names from `mmaction-lite weights list`; the "
            "first one is the default model [default: the last run in runs/]."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; every other than loopback needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 8000,
    device: Device = "auto",
    workers: Workers = None,
    hang_seconds: HangSeconds = 30.0,
    offline: Offline = False,
) -> None:
    """Open a web page and a REST interface that classify videos."""
    try:
        import uvicorn

        from mmaction_lite.serve.app import create_app
    except ImportError:
        raise UserError("serve needs further packages: pip install 'mmaction-lite[serve]'") from None
    from mmaction_lite.data.loading.worker_settings import WorkerSettings
    from mmaction_lite.serve.models import Models
    from mmaction_lite.serve.settings import ServeSettings

    settings = ServeSettings(
        host=host, port=port, workers=WorkerSettings(num_workers=workers, hang_seconds=hang_seconds)
    )
    start(device)
    models = Models(weights or [], settings.memory_budget, device)
    warn(f"serving {', '.join(models.known)} at http://{host}:{port}")
    uvicorn.run(create_app(settings, models), host=host, port=port, log_level="warning")
