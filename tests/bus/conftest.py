from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from remediator.bus.connection import BusConnection, connect
from remediator.bus.embedded import EmbeddedServer
from remediator.bus.streams import ensure_all


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[EmbeddedServer]:
    """Give each test a real server of its own: a start takes 0.2 s, and tests kill it."""
    async with EmbeddedServer(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def connection(server: EmbeddedServer) -> AsyncIterator[BusConnection]:
    """Give a connection to ``server`` with the daemon's streams, ensured after each reconnect."""
    opened = await connect(server.settings, "test")

    async def ensure_again() -> None:
        await ensure_all(opened)

    await ensure_again()
    opened.on_reconnect.append(ensure_again)
    yield opened
    await opened.close()
