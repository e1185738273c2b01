"""A real control plane for each scenario, emulated hosts on it, and the daemon beside it.

Needs the programs that ``make cluster-assets`` provides. Without them these tests are skipped, and
say so; with ``CLUSTER_TESTS=required`` in the environment (as in CI) that is an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.cluster.assets import provide
from tests.cluster.control_plane import ControlPlane
from tests.cluster.stage import open_stage

REQUIRED = os.environ.get("CLUSTER_TESTS") == "required"
SCENARIO_TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SCENARIO_TIMEOUT_S))


@pytest.fixture(scope="session")
def assets() -> dict[str, Path]:
    """The control plane's programs."""
    lacking = provide.missing()
    if lacking:
        why = f"no real control plane: {', '.join(lacking)} missing; {provide.HOW}"
        if REQUIRED:
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    if sys.platform != "linux":
        pytest.skip("the control plane's programs are built for Linux")
    return provide.find()


@pytest.fixture
def control_plane(assets, tmp_path) -> Iterator[ControlPlane]:
    """A control plane of this test's own."""
    directory = tmp_path / "control-plane"
    directory.mkdir()
    with ControlPlane(directory, assets) as plane:
        yield plane


@pytest.fixture
def set_stage(control_plane, tmp_path) -> Callable:
    """A function that opens a stage: ``async with set_stage(spec, all_on="n01") as stage``."""
    return partial(open_stage, control_plane, tmp_path / "daemon")
