"""Makes the simulation's harness and the attacks' tools importable, quiets the daemon's log."""

from __future__ import annotations

import importlib.util
import logging
import sys
from pathlib import Path

import pytest
import structlog

HERE = Path(__file__).parent
for place in (HERE, HERE.parent / "simulation"):
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))


@pytest.fixture(autouse=True)
def quiet():
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


def _load(name: str, path: Path):
    """Load another room's conftest under a name of its own: its fixtures' classes are reused."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def engine_room():
    return _load("breaking_engine_room", HERE.parent / "engine" / "conftest.py")


@pytest.fixture(scope="session")
def actions_room():
    return _load("breaking_actions_room", HERE.parent / "actions" / "conftest.py")
