"""Settings of the server: address, access, limits and resources. Imports no web framework."""

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated, Any

from mmaction_lite.data.loading.worker_settings import WorkerSettings
from mmaction_lite.errors import UserError
from mmaction_lite.settings import (
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    at_least,
    at_most,
    check_fields,
)

DEFAULT_WORKERS = WorkerSettings(hang_seconds=30.0)
MIN_TOKEN = 16  # characters
HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
ORIGIN = re.compile(r"https?://([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?")  # as browsers send it
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Everything that an operator of the server decides.

    Args:
        host: address to listen on. Every address except loopback needs a token.
        port: TCP port; 0 takes a free one.
        token: secret that clients send as `Authorization: Bearer TOKEN`; None: no token is necessary.
        hosts: further names of this server that the Host header may hold, without the port.
        origins: origins of other sites whose pages may call this server (CORS), as "https://example.org".
        proxies: addresses of proxies whose X-Forwarded-For header names the client.
        allowed_urls: hosts and addresses that clients may pass as `url`, see `addresses.parse_allowed`;
            empty: no address is fetched.
        max_bytes: largest upload, in bytes.
        max_seconds: longest video, in seconds.
        max_frames: largest number of frames of a video.
        max_side: longest side of a frame, in pixels.
        max_fields: largest number of fields of a form.
        max_header_bytes: largest size of the headers of a request, in bytes.
        upload_seconds: time limit of an upload, in seconds.
        stall_seconds: longest pause between two parts of an upload, in seconds.
        queue_size: number of requests that are accepted at the same time; the others are answered with 429.
        rate_per_minute: requests of one client in a minute, on average; 0: no limit.
        batch_size: largest number of videos in a forward pass.
        batch_window_ms: how long the first request of a batch waits for others, in milliseconds.
        memory_budget: memory of all loaded models, in bytes. The least recently used model is removed first.
        workers: decoding processes, and the time limit of reading one video.
        max_jobs: number of jobs that are queued or running; further ones are answered with 429.
        job_seconds: time limit of a job, in seconds.
        result_seconds: how long the results of a job are kept, in seconds.
        max_results: largest number of finished jobs that are kept.
        drain_seconds: how long accepted requests may run after SIGTERM, in seconds.

    Raises:
        UserError: a value of another type or out of range, a malformed name or origin, or a public address
            without a token.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, at_least(0), at_most(65535)] = 8000
    token: str | None = None
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    proxies: tuple[str, ...] = ()
    allowed_urls: tuple[str, ...] = ()
    max_bytes: PositiveInt = 512 << 20
    max_seconds: PositiveFloat = 3600.0
    max_frames: PositiveInt = 250_000
    max_side: PositiveInt = 4096
    max_fields: PositiveInt = 16
    max_header_bytes: PositiveInt = 16 << 10
    upload_seconds: PositiveFloat = 300.0
    stall_seconds: PositiveFloat = 20.0
    queue_size: PositiveInt = 64
    rate_per_minute: NonNegativeFloat = 600.0
    batch_size: PositiveInt = 8
    batch_window_ms: NonNegativeFloat = 5.0
    memory_budget: PositiveInt = 4 << 30
    workers: WorkerSettings = DEFAULT_WORKERS
    max_jobs: PositiveInt = 8
    job_seconds: PositiveFloat = 1800.0
    result_seconds: PositiveFloat = 900.0
    max_results: PositiveInt = 32
    drain_seconds: PositiveFloat = 60.0

    def __post_init__(self):
        check_fields(self)
        if self.token is not None and (len(self.token) < MIN_TOKEN or not self.token.isascii()):
            raise UserError(
                f"the token has {len(self.token)} characters; expected at least {MIN_TOKEN}, of ASCII. "
                "Create one with: openssl rand -hex 16"
            )
        if self.token is None and not is_loopback(self.host):
            raise UserError(
                f"host {self.host!r:.100} is reachable from other machines, and no token is set; expected "
                "127.0.0.1, or a token that every client must send. Set MMACTION_LITE_TOKEN, or pass "
                "--token-file FILE"
            )
        for name in self.hosts:
            if not HOST_NAME.fullmatch(name):
                raise UserError(
                    f"--host-name {name!r:.100}: is not the name of a host; expected a name without port and "
                    "path, such as videos.example.org"
                )
        for origin in self.origins:
            if not ORIGIN.fullmatch(origin):
                raise UserError(
                    f"--allow-origin {origin!r:.100}: is not an origin; expected https://HOST or "
                    "https://HOST:PORT, in lower case and without a path"
                )

    @property
    def accepted_hosts(self) -> tuple[str, ...]:
        """Names that the Host header may hold, in lower case and without the port."""
        own = f"[{self.host}]" if ":" in self.host else self.host
        return tuple(name.lower() for name in (*LOOPBACK_NAMES, own, *self.hosts))

    def limits(self) -> dict[str, Any]:
        """Return the limits that clients have to keep, for `GET /v1/models` and the page."""
        return {
            "max_bytes": self.max_bytes,
            "max_seconds": self.max_seconds,
            "max_frames": self.max_frames,
            "max_side": self.max_side,
            "max_fields": self.max_fields,
            "max_header_bytes": self.max_header_bytes,
            "upload_seconds": self.upload_seconds,
            "stall_seconds": self.stall_seconds,
            "hang_seconds": self.workers.hang_seconds,
            "queue_size": self.queue_size,
            "rate_per_minute": self.rate_per_minute,
            "max_jobs": self.max_jobs,
            "job_seconds": self.job_seconds,
            "result_seconds": self.result_seconds,
            "urls": bool(self.allowed_urls),
            "needs_token": self.token is not None,
        }


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
