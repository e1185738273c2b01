"""Makes this directory's modules and the simulation's harness importable, quiets the daemon."""

from __future__ import annotations

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
