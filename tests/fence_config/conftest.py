"""What needs a loop runs on virtual time."""

from __future__ import annotations

from remediator.sim.virtual_time import VirtualTimeLoop


def pytest_asyncio_loop_factories(config, item):
    del config, item
    return {"virtual": VirtualTimeLoop}
