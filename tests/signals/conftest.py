"""Makes ``signal_door`` importable, quiets the daemon's log."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
import structlog

sys.path.insert(0, str(Path(__file__).parent))

from signal_door import Door


@pytest.fixture(autouse=True)
def quiet():
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def door() -> Door:
    return Door()
