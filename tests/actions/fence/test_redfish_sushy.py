"""Our Redfish client and Debian's fence_redfish against an emulator that was not written here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from fence_lab import AGENTS, FixedLogins, order
from sushy import PASSWORD, USER, UUIDS, SushyEmulator

from remediator.actions.fence.agent import AgentDriver
from remediator.actions.fence.agent_metadata import parse
from remediator.actions.fence.agent_process import run_agent
from remediator.actions.fence.driver import Down, NotDown, Target
from remediator.actions.fence.redfish import RedfishDriver
from remediator.clock import Clock
from remediator.engine.model import Reading
from remediator.fence_config.document import AgentFence, Credentials, RedfishFence
from remediator.http_client import AiohttpClient

TLS = Path(__file__).parents[2] / "kube" / "tls"
# The emulator needs up to ten seconds to report a change, as hardware does.
PATIENCE_S = 30.0


@pytest.fixture
async def emulator(tmp_path):
    emulator = SushyEmulator(tmp_path, TLS)
    await emulator.start()
    yield emulator
    await emulator.stop()


def target(node: str = "n1", uuid: str | None = None) -> Target:
    return Target(
        node=node, uid="u", boot_id="b", system_uuid=UUIDS[node] if uuid is None else uuid
    )


@pytest.fixture
async def driver(emulator):
    driver = redfish(emulator)
    yield driver
    await driver.close()


def redfish(emulator: SushyEmulator, **changes) -> RedfishDriver:
    logins = changes.pop("logins", FixedLogins(USER, PASSWORD))
    settings = msgspec.structs.replace(
        RedfishFence(
            name="bmc",
            endpoint=emulator.url,
            credentials=Credentials(username=USER, password_file="/unused"),
            ca_file=str(TLS / "ca.crt"),
            already_off_for_s=1.0,
        ),
        **changes,
    )
    http = AiohttpClient(verify_tls=settings.verify_tls, ca_file=settings.ca_file or None)
    return RedfishDriver(settings, http, logins, Clock())


async def test_the_nodes_own_system_is_found_by_its_uuid_and_taken_down(driver):
    assert (await driver.check(target("n2"))).owner == "matches"
    down = await driver.take_down(target("n2"), order(Clock(), PATIENCE_S))
    assert isinstance(down, Down), down
    assert down.ordered
    assert UUIDS["n2"] in down.source
    assert (await driver.check(target("n1"))).power.reading is Reading.UP
    assert (await driver.check(target("n2"))).power.reading is Reading.DOWN


async def test_a_host_that_is_off_stays_off_and_can_be_switched_on(driver):
    await driver.take_down(target(), order(Clock(), PATIENCE_S))
    again = await driver.take_down(target(), order(Clock(), PATIENCE_S))
    assert isinstance(again, Down), again
    assert not again.ordered
    assert await driver.bring_up(target(), order(Clock(), PATIENCE_S)) == ""
    assert (await driver.check(target())).power.reading is Reading.UP


async def test_a_system_of_another_machine_is_never_ordered(driver, emulator):
    stranger = "99999999-0051-3510-8052-b4c04f4d3133"
    wrong = redfish(emulator, system=f"/redfish/v1/Systems/{UUIDS['n1']}")
    answer = await wrong.take_down(target("n1", stranger), order(Clock(), 5.0))
    await wrong.close()
    assert isinstance(answer, NotDown)
    assert answer.detail.startswith("WrongMachine")
    unnamed = await driver.take_down(target("n1", stranger), order(Clock(), 5.0))
    assert isinstance(unnamed, NotDown)
    assert "name it as 'system'" in unnamed.detail
    assert (await driver.check(target())).power.reading is Reading.UP


async def test_a_wrong_password_is_said_so(emulator):
    driver = redfish(emulator, logins=FixedLogins(USER, "wrong-canary"))
    answer = await driver.take_down(target(), order(Clock(), 5.0))
    await driver.close()
    assert isinstance(answer, NotDown)
    assert "refuses the credentials" in answer.detail
    assert "canary" not in answer.detail


async def test_a_certificate_that_nobody_signed_is_refused_unless_told_otherwise(emulator):
    strict = redfish(emulator, ca_file="")
    checked = await strict.check(target())
    await strict.close()
    assert checked.power.reading is Reading.UNKNOWN
    assert "certificate" in checked.fault.lower()
    lax = redfish(emulator, ca_file="", verify_tls=False)
    assert (await lax.check(target())).power.reading is Reading.UP
    await lax.close()


@pytest.mark.usefixtures("fence_tools")
async def test_debians_fence_redfish_takes_the_same_system_down(emulator):
    metadata = await run_agent(AGENTS / "fence_redfish", {"action": "metadata"}, deadline_s=20.0)
    settings = AgentFence(
        name="bmc",
        program="fence_redfish",
        parameters={
            "ip": "localhost",
            "ipport": str(emulator.port),
            "systems_uri": f"/redfish/v1/Systems/{UUIDS['n1']}",
            "ssl_insecure": "1",
        },
    )
    driver = AgentDriver(
        settings, FixedLogins(USER, PASSWORD), Clock(), metadata=parse(metadata.stdout)
    )
    assert (await driver.check(target())).power.reading is Reading.UP
    down = await driver.take_down(target(), order(Clock(), PATIENCE_S))
    assert isinstance(down, Down), down
    assert down.ordered


@pytest.mark.usefixtures("fence_tools")
async def test_a_plug_that_the_device_does_not_have_is_a_failure_and_switches_nothing(emulator):
    metadata = await run_agent(AGENTS / "fence_redfish", {"action": "metadata"}, deadline_s=20.0)
    settings = AgentFence(
        name="bmc",
        program="fence_redfish",
        parameters={
            "ip": "localhost",
            "ipport": str(emulator.port),
            "systems_uri": "/redfish/v1/Systems/no-such-system",
            "ssl_insecure": "1",
        },
    )
    driver = AgentDriver(
        settings, FixedLogins(USER, PASSWORD), Clock(), metadata=parse(metadata.stdout)
    )
    answer = await driver.take_down(target(), order(Clock(), 10.0))
    assert isinstance(answer, NotDown)
    ours = redfish(emulator)
    assert (await ours.check(target())).power.reading is Reading.UP
    await ours.close()
