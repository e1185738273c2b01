"""What agents say about themselves, and what of a configuration they would not understand."""

from __future__ import annotations

import pytest
from fence_lab import AGENTS

from remediator.actions.fence.agent_metadata import MetadataError, faults, parse
from remediator.actions.fence.agent_process import run_agent

# A shell script for a person at the keyboard: it prints a manual page instead.
WITHOUT_METADATA = {"fence_ack_manual"}
# These cannot fence by the contract: no way to verify, or no "off" at all.
UNFIT = {"fence_heuristics_ping", "fence_ovh", "fence_rcd_serial"}


async def metadata(agent: str):
    answer = await run_agent(AGENTS / agent, {"action": "metadata"}, deadline_s=30.0)
    return parse(answer.stdout)


@pytest.mark.usefixtures("fence_tools")
async def test_the_metadata_of_every_agent_in_debians_package_loads():
    agents = sorted(path.name for path in AGENTS.glob("fence_*"))
    assert len(agents) > 70
    for agent in agents:
        if agent in WITHOUT_METADATA:
            with pytest.raises(MetadataError):
                await metadata(agent)
            continue
        found = await metadata(agent)
        assert found.parameters, agent
        assert bool(list(faults(found, {}))) == (agent in UNFIT), agent


@pytest.mark.usefixtures("fence_tools")
async def test_parameters_are_held_to_the_metadata():
    found = await metadata("fence_ipmilan")
    assert not list(faults(found, {"ip": "10.0.0.1", "lanplus": "1", "cipher": "17"}))
    told = dict(
        faults(
            found,
            {
                "ipp": "10.0.0.1",
                "ipport": "six",
                "lanplus": "perhaps",
                "auth": "sha1",
                "password": "s3cret",
                "action": "on",
            },
        )
    )
    assert told["ipp"] == "fence_ipmilan has no such parameter; did you mean 'ip'?"
    assert told["ipport"] == "'six' is not a whole number"
    assert told["lanplus"] == "'perhaps' is neither true nor false"
    assert told["auth"] == "'sha1' is not one of md5, password, none"
    assert "under credentials" in told["password"]
    assert "set by remediator" in told["action"]


@pytest.mark.parametrize("text", ["", "<resource-agent", "<resource-agent/>", "usage: fence_x"])
def test_what_is_no_metadata_is_said_so(text):
    with pytest.raises(MetadataError):
        parse(text)
