"""Echo requests by unprivileged ping sockets: real ones, in a network namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from remediator.probes.ping import Pinger

SCRIPT = Path(__file__).with_name("ping_in_namespace.py")
PERMISSION = Path("/proc/sys/net/ipv4/ping_group_range")


@pytest.fixture(scope="module")
def found():
    """What the pings in the namespace came to."""
    ran = subprocess.run(
        [sys.executable, str(SCRIPT)], capture_output=True, text=True, timeout=60, check=False
    )
    if ran.returncode and ran.stderr.startswith("unshare: "):
        pytest.skip(f"no network namespace for tests: {ran.stderr.strip()}")
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


def test_a_host_that_replies_answers(found):
    assert found["allowed"] == "answers"


def test_ipv6_works_the_same_way(found):
    assert found["allowed on IPv6"] == "answers"


def test_hundreds_at_once_each_get_their_reply(found):
    assert found["many"] == ["answers"]


def test_a_host_that_does_not_reply_is_silent(found):
    assert found["silent host"] == "TimeoutError"
    assert found["still waiting"] == 0


def test_a_kernel_that_does_not_permit_it_says_so(found):
    assert found["forbidden"] == "PermissionError"


def test_without_a_route_it_fails_at_once_and_not_as_a_timeout(found):
    assert found["no route"] == "OSError"


async def test_a_name_is_never_resolved():
    pinger = Pinger()
    with pytest.raises(OSError, match="is no IP address"):
        await pinger.ping("localhost", 1.0)
    pinger.close()
