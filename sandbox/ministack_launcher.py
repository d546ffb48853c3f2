"""MiniStack with its doors closed: it listens on loopback only, and its MQTT demands a client
certificate, as AWS's does.

By itself it offers MQTT on every interface, and a client without a certificate may do everything
there. It has no setting for either, so this program, which `sandbox.ministack` runs in its place,
changes what it is told by the standard library.
"""

from __future__ import annotations

import ssl
from asyncio import BaseEventLoop, Server
from typing import Any

from ministack.app import main

LOOPBACK, EVERYWHERE = "127.0.0.1", "0.0.0.0"
listen = BaseEventLoop.create_server


async def listen_on_loopback(
    loop: BaseEventLoop, protocol: Any, host: Any = None, *rest: Any, **options: Any
) -> Server:
    return await listen(loop, protocol, LOOPBACK if host == EVERYWHERE else host, *rest, **options)


if __name__ == "__main__":
    BaseEventLoop.create_server = listen_on_loopback  # type: ignore[assignment,method-assign]
    ssl.CERT_OPTIONAL = ssl.CERT_REQUIRED  # type: ignore[misc]
    main()
