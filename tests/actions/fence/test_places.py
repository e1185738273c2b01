"""Where a device is: what tells two devices apart, and what does not."""

from __future__ import annotations

import pytest

from remediator.actions.fence.places import place_of
from remediator.fence_config.document import (
    AgentFence,
    Credentials,
    MachineFence,
    Metal3Fence,
    OperatorFence,
    RedfishFence,
)

LOGIN = Credentials(username="u", password_file="/p")


def redfish(endpoint, system=""):
    return RedfishFence(name="d", endpoint=endpoint, system=system, credentials=LOGIN)


def agent(program="fence_ipmilan", nodes=None, **parameters):
    return AgentFence(name="d", program=program, parameters=parameters, node_parameters=nodes or {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (redfish("https://BMC1"), redfish("https://bmc1:443/")),
        (redfish("https://b", "/v1/Systems/1"), redfish("https://b", "/v1/Systems/1/")),
        (agent(ip="a"), agent(ip="a", lanplus="1", power_timeout="9", privlvl="operator")),
        (agent(ip="a", plug="3"), agent(ipaddr="a", port="3")),
        (Metal3Fence(name="d", host="h"), Metal3Fence(name="d", host="h")),
    ],
)  # fmt: skip
def test_these_are_one_place(one, other):
    assert place_of(one, "n1") == place_of(other, "n2") != ""


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (redfish("https://b-{node}"), redfish("https://b-{node}")),
        (redfish("https://b", "/redfish/v1/Systems/{node}"),) * 2,
        (redfish("https://b:8443"), redfish("https://b")),
        (agent(ip="pdu", nodes={"n1": {"plug": "1"}, "n2": {"plug": "2"}}),) * 2,
        (agent(ip="a", ipport="6230"), agent(ip="a", ipport="6231")),
        (agent(ip="a"), agent("fence_apc", ip="a")),
        (Metal3Fence(name="d", host="{node}"), Metal3Fence(name="d", host="{node}")),
    ],
)
def test_these_are_two(one, other):
    assert place_of(one, "n1") != place_of(other, "n2")


@pytest.mark.parametrize(
    "device",
    [
        agent("fence_kdump", ipport="7410"),
        Metal3Fence(name="d"),
        MachineFence(name="d"),
        OperatorFence(name="d"),
    ],
)
def test_these_have_no_place_of_their_own(device):
    assert place_of(device, "n1") == ""


def test_an_address_that_a_nodes_name_breaks_is_a_place_all_the_same():
    assert place_of(redfish("https://{node}"), "a]b:c") != place_of(redfish("https://b"), "n1")


def test_a_place_names_no_login():
    assert "ops" not in place_of(agent(ip="a", username="ops"), "n1")
