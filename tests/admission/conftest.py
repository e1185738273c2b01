"""A webhook without sockets, and what it is asked."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # helpers that tests import by name

from admission_desk import Desk, Make


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def make() -> type[Make]:
    return Make
