"""Fence configurations of a daemon's directory, held against Debian's own agents."""

from __future__ import annotations

import pytest

from remediator.actions.fence.agent_catalog import AgentCatalog
from remediator.actions.fence.credentials import CredentialsError
from remediator.actions.fence.loading import check_logins, lint, load
from remediator.documents import DocumentError
from remediator.fence_config.loader import load_text
from remediator.fence_config.shorthand import from_device
from remediator.fence_settings import RedfishDevice

HEAD = "apiVersion: remediator.io/v1alpha1\nkind: FenceConfig\n"


def written(directory, *devices, name="racks", file="racks.yaml"):
    names = [f"d{number}" for number in range(len(devices))]
    lines = [f"    - {{name: {name}, {one}}}\n" for name, one in zip(names, devices, strict=True)]
    levels = "".join(f"    - {{devices: [{one}]}}\n" for one in names)
    (directory / file).write_text(
        f"{HEAD}metadata: {{name: {name}}}\nspec:\n  devices:\n{''.join(lines)}  levels:\n{levels}"
    )
    return directory


IPMI = "method: agent, program: fence_ipmilan"


@pytest.mark.usefixtures("fence_tools")
async def test_parameters_that_an_agent_would_not_take_are_faults_with_their_place(tmp_path):
    written(
        tmp_path,
        f"{IPMI}, parameters: {{ipp: a, lanplus: maybe}}, nodeParameters: {{n1: {{plugg: '1'}}}}",
        "method: agent, program: fence_ovh",
    )
    with pytest.raises(DocumentError) as caught:
        await load(tmp_path, [], AgentCatalog())
    lines = (tmp_path / "racks.yaml").read_text().splitlines()

    def at(number, word):
        return f"{tmp_path}/racks.yaml:{number}:{lines[number - 1].index(word) + 1}: spec.devices"

    verify = "nobody can verify its 'off'"
    none = "fence_ipmilan has no such parameter; did you mean"
    assert [str(one) for one in caught.value.problems] == [
        f"{at(6, 'ipp')}[0].parameters.ipp: {none} 'ip'?",
        f"{at(6, 'lanplus')}[0].parameters.lanplus: 'maybe' is neither true nor false",
        f"{at(6, 'plugg')}[0].nodeParameters.n1.plugg: {none} 'plug'?",
        f"{at(7, 'program')}[1].program: fence_ovh has no action 'status': {verify}",
    ]


@pytest.mark.usefixtures("fence_tools")
async def test_sound_configurations_come_in_their_order_behind_the_shorthand(tmp_path):
    written(tmp_path, f"{IPMI}, parameters: {{ip: 'bmc-{{node}}'}}")
    catalog = AgentCatalog()
    short = RedfishDevice(name="bmc", endpoint="https://b", username="u", password_file="/p")
    found = await load(tmp_path, [from_device(short)], catalog)
    assert [one.name for one in found] == ["bmc", "racks"]
    assert "cipher" in catalog.metadata["fence_ipmilan"].parameters


async def test_an_agent_that_is_not_there_ends_a_start_and_is_only_said_by_lint(tmp_path):
    written(tmp_path, "method: agent, program: fence_of_mine")
    linted = await lint(tmp_path, AgentCatalog())
    assert linted.problems == ()
    assert [one.text for one in linted.unchecked] == ["fence_of_mine is not installed"]
    with pytest.raises(DocumentError, match="fence_of_mine is not installed"):
        await load(tmp_path, [], AgentCatalog())


async def test_an_agent_that_prints_no_metadata_cannot_be_used(tmp_path):
    agents, configs = tmp_path / "agents", tmp_path / "configs"
    agents.mkdir()
    configs.mkdir()
    program = agents / "fence_broken"
    program.write_text("#!/bin/sh\necho usage\n")
    program.chmod(0o755)
    written(configs, "method: agent, program: fence_broken")
    with pytest.raises(DocumentError, match="fence_broken cannot be used: it prints no metadata"):
        await load(configs, [], AgentCatalog([agents]))


async def test_an_agent_is_asked_once_and_one_that_was_absent_is_tried_again(tmp_path):
    catalog = AgentCatalog([tmp_path])
    program = tmp_path / "fence_mine"
    await catalog.read(["fence_mine"])
    assert catalog.absent == {"fence_mine": "fence_mine is not installed"}
    program.write_text(
        f"#!/bin/sh\necho asked >> {tmp_path}/asked\n"
        "echo '<resource-agent name=\"fence_mine\"><parameters><parameter name=\"ip\"/>"
        '</parameters><actions><action name="off"/><action name="status"/></actions>'
        "</resource-agent>'\n"
    )  # fmt: skip
    program.chmod(0o755)
    for _ in range(3):
        await catalog.read(["fence_mine"])
    assert not catalog.absent
    assert (tmp_path / "asked").read_text() == "asked\n"


async def test_a_name_that_stands_in_both_places_is_refused(tmp_path):
    written(tmp_path, "method: machine", name="bmc")
    short = RedfishDevice(name="bmc", endpoint="https://b", username="u", password_file="/p")
    with pytest.raises(DocumentError, match="'bmc' is in fence"):
        await load(tmp_path, [from_device(short)], AgentCatalog())


@pytest.mark.parametrize("content", [None, "no certificate"])
async def test_a_ca_file_that_cannot_be_used_ends_a_start(tmp_path, content):
    file = tmp_path / "ca.crt"
    if content is not None:
        file.write_text(content)
    login = "credentials: {username: u, passwordFile: /p}"
    written(tmp_path, f"method: redfish, endpoint: 'https://b', caFile: {file}, {login}")
    with pytest.raises(DocumentError) as caught:
        await load(tmp_path, [], AgentCatalog())
    assert f"racks.yaml: spec.devices[0].caFile: {file}: " in str(caught.value)


def test_a_login_that_cannot_be_read_says_whose_it_is_and_nothing_of_its_content(tmp_path):
    text = (
        f"{HEAD}metadata: {{name: racks}}\nspec: {{devices: [{{name: pdu, {IPMI}, credentials:"
        f" {{username: u, passwordFile: {tmp_path}/secret}}}}], levels: [{{devices: [pdu]}}]}}\n"
    )
    configs = load_text(text, file="racks.yaml")
    with pytest.raises(CredentialsError, match=r"racks.yaml: device 'pdu': file .*secret: No such"):
        check_logins(configs)
    (tmp_path / "secret").write_text("two-lines-of\nhunter2-secret\n")
    with pytest.raises(CredentialsError, match="holds a line break") as caught:
        check_logins(configs)
    assert "hunter2" not in str(caught.value)
    (tmp_path / "secret").write_text("hunter2-secret\n")
    check_logins(configs)


def test_logins_in_secrets_are_left_to_the_cluster():
    text = (
        f"{HEAD}metadata: {{name: racks}}\nspec: {{devices: [{{name: pdu, {IPMI}, credentials:"
        " {secret: {name: pdu}}}], levels: [{devices: [pdu]}]}\n"
    )
    check_logins(load_text(text, file="racks.yaml"))
