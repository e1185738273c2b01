"""Checks in peace, on virtual time, of devices that are played here."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random

import msgspec
import pytest
import structlog
from prometheus_client import CollectorRegistry

from remediator.actions.fence import checks
from remediator.actions.fence.asking import AT_ONCE, DEADLINE_S
from remediator.actions.fence.check_rows import FaultKind
from remediator.actions.fence.checks import FenceChecks
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.driver import Checked, Down, NotDown, Order, Target
from remediator.actions.fence.drivers import DriverFactory
from remediator.clock import Clock
from remediator.engine.model import ProofKind, Reading
from remediator.fence_config.loader import load_text
from remediator.fence_metrics import FAULTS
from remediator.metrics import Metrics
from remediator.power import PowerReading

HEAD = "apiVersion: remediator.io/v1alpha1\nkind: FenceConfig\n"
SPEC = """spec:
  {nodes}checkPeriod: {period}
  devices:
    - {{name: bmc, method: agent, program: fence_ipmilan, parameters: {{ip: "{ip}"}}{more}}}
  levels: [{{devices: [bmc]}}]
"""


def config(name="racks", ip="bmc-{node}", period="5m", more="", nodes=""):
    text = SPEC.format(ip=ip, period=period, more=more, nodes=nodes and f"nodes: {nodes}\n  ")
    return load_text(f"{HEAD}metadata: {{name: {name}}}\n{text}", file="f.yaml")[0]


class Played:
    """A device that answers as it is told to."""

    proof = ProofKind.POWER_OFF_VERIFIED
    tells_power = True
    leaves_objects = False
    timeout_s = 20.0

    def __init__(self, lab, name):
        self.lab, self.name, self.closed, self.orders = lab, name, False, []

    def source(self, node):
        return f"fence_ipmilan bmc-{node}"

    async def check(self, target):
        self.lab.asked.append((self.lab.clock.now(), target.node))
        self.lab.at_once += 1
        self.lab.most_at_once = max(self.lab.most_at_once, self.lab.at_once)
        try:
            await asyncio.sleep(self.lab.takes_s)
        finally:
            self.lab.at_once -= 1
        said = self.lab.says.get(target.node, {})
        if isinstance(said, Exception):
            raise said
        reading = said.get("power", Reading.UP)
        power = PowerReading(reading=reading, source=self.source(target.node), detail="asked")
        given = {"identity": "", "owner": "unknown", "fault": "", **said}
        given.pop("power", None)
        return Checked(power=power, **given)

    async def take_down(self, target, order):
        self.orders.append(target.node)
        await asyncio.sleep(5.0)
        return Down(at=order.deadline_at, source="played", detail="off", ordered=True)

    async def close(self):
        self.closed = True


class Factory(DriverFactory):
    def __init__(self, lab):
        super().__init__(lab.clock)
        self.lab = lab

    def build(self, device):
        made = Played(self.lab, device.name)
        self.lab.drivers.append(made)
        return made


class Lab:
    def __init__(self, *configs, nodes=3):
        self.clock = Clock(epoch_at_start=1_700_000_000.0)
        self.begun_at = self.clock.now()
        self.drivers, self.says, self.asked = [], {}, []
        self.takes_s, self.at_once, self.most_at_once = 0.5, 0, 0
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.beats: dict[str, float] = {}  # node -> it renews this often
        self.metrics = Metrics(CollectorRegistry())
        self.devices = FenceDevices(configs, self.clock, Factory(self))
        self.checks = FenceChecks(
            self.devices,
            lambda: [(self.target(node), {}) for node in self.nodes],
            self.clock,
            rng=random.Random(7),
            last_beat=self.last_beat,
            metrics=self.metrics,
        )
        self.task: asyncio.Task[None] | None = None

    def last_beat(self, node):
        every = self.beats.get(node)
        if every is None:
            return None
        age = (self.clock.now() - self.begun_at) % every
        return ("renewed", self.clock.now() - age)

    def target(self, node):
        return Target(node=node, uid="u", boot_id="b")

    def order(self):
        async def look():
            pass

        return Order(action_id="a", deadline_at=self.clock.now() + 30.0, last_look=look)

    def row(self, node="n1"):
        (row,) = self.checks.rows([node])
        return row

    def fence(self, node="n1"):
        (one,) = (each for each in self.devices.configs if each.fits(node, {}))
        return self.devices.take_down(one, 0, self.target(node), self.order())

    def value(self, name, **labels):
        return self.metrics.registry.get_sample_value(name, labels)


@pytest.fixture
async def start():
    labs = []

    def make(*configs, **given):
        lab = Lab(*configs, **given)
        lab.task = asyncio.create_task(lab.checks.run())
        labs.append(lab)
        return lab

    yield make
    for lab in labs:
        lab.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await lab.task


async def test_each_device_is_asked_once_a_period_and_the_nodes_are_spread(start):
    lab = start(config(period="5m"), nodes=60)
    await asyncio.sleep(305.0)
    first = [at - lab.begun_at for at, _ in lab.asked]
    assert {node for _, node in lab.asked} == set(lab.nodes)
    per_minute = [sum(1 for at in first if at // 60 == minute) for minute in range(5)]
    assert all(4 <= count <= 24 for count in per_minute), per_minute
    await asyncio.sleep(1500.0)
    for node in lab.nodes:
        times = [at for at, asked in lab.asked if asked == node]
        gaps = [late - early for early, late in itertools.pairwise(times)]
        assert all(265.0 < gap < 335.0 for gap in gaps), (node, gaps)


async def test_few_are_asked_at_once_and_a_slow_device_is_not_asked_twice_at_a_time(start):
    lab = start(config(period="10s"), nodes=40)
    lab.takes_s = 25.0
    await asyncio.sleep(200.0)
    assert lab.most_at_once == AT_ONCE
    times = sorted(at for at, node in lab.asked if node == "n1")
    assert all(late - early >= 25.0 for early, late in itertools.pairwise(times))


async def test_a_device_that_hangs_is_a_fault_after_the_deadline_and_holds_up_no_other(start):
    lab = start(config(period="60s"), nodes=2)
    lab.takes_s = 1000.0
    rows = await lab.checks.check_now(["n1"])
    assert [row.fault for row in rows] == [f"no answer within {DEADLINE_S:g} s"]
    assert rows[0].kind is FaultKind.NO_ANSWER
    assert rows[0].took_s == pytest.approx(DEADLINE_S)


async def test_a_driver_that_breaks_is_a_row_and_not_the_end_of_the_checks(start):
    lab = start(config(period="60s"), nodes=2)
    lab.says["n1"] = RuntimeError("no such attribute")
    await asyncio.sleep(130.0)
    assert lab.row("n1").fault == "RuntimeError: no such attribute"
    assert lab.row("n2").kind is FaultKind.NONE
    assert not lab.task.done()


async def test_a_defect_of_the_checks_themselves_is_logged_and_they_begin_anew(start, monkeypatch):
    """They run beside the term: what breaks them must not end a recovery."""
    lab = start(config(period="20s"), nodes=1)
    with structlog.testing.capture_logs() as logs, monkeypatch.context() as broken:
        broken.setattr(checks, "place_of", lambda *_: 1 / 0)
        await asyncio.sleep(12.0)
    assert [each["event"] for each in logs].count("fence_checks_broken") == 3
    await asyncio.sleep(40.0)
    assert lab.row().asked_at > 0
    assert not lab.task.done()


async def test_the_last_good_time_stays_while_a_device_is_broken(start):
    lab = start(config(), nodes=1)
    await asyncio.sleep(0.1)
    assert lab.row().asked_at == 0.0
    (well,) = await lab.checks.check_now()
    assert well.good_at == pytest.approx(lab.clock.now())
    lab.says["n1"] = {"power": Reading.UNKNOWN, "fault": "connection refused"}
    await asyncio.sleep(100.0)
    (broken,) = await lab.checks.check_now()
    assert (broken.fault, broken.good_at) == ("connection refused", well.good_at)
    assert broken.asked_at > well.good_at


async def test_nodes_whose_devices_are_in_one_place_are_refused_before_anything_was_asked(start):
    lab = start(config(ip="10.0.0.1"), nodes=2)
    await asyncio.sleep(0.1)
    answer = await lab.fence("n2")
    assert isinstance(answer, NotDown)
    assert "n1, n2 name the same device" in answer.detail
    assert "nothing was sent" in answer.detail
    assert lab.drivers[0].orders == []
    rows = await lab.checks.check_now()
    assert {row.kind for row in rows} == {FaultKind.CLAIMED_TWICE}
    power = await lab.devices.power_state(lab.target("n1"), {})
    assert power.reading is Reading.UNKNOWN
    assert "configuration fault" in power.detail


async def test_two_configurations_that_name_one_device_claim_it_twice(start):
    lab = start(
        config("a", ip="10.0.0.1", nodes="{names: [n1]}"),
        config("b", ip="10.0.0.1", nodes="{names: [n2]}"),
        config("c", ip="10.0.0.3", nodes="{names: [n3]}"),
    )
    rows = await lab.checks.check_now()
    assert [row.kind for row in rows] == [
        FaultKind.CLAIMED_TWICE, FaultKind.CLAIMED_TWICE, FaultKind.NONE
    ]  # fmt: skip


async def test_one_pdu_with_a_plug_for_each_node_is_no_double_claim(start):
    own = ", nodeParameters: {n1: {plug: '1'}, n2: {plug: '2'}, n3: {plug: '3'}}"
    lab = start(config(ip="pdu", more=own))
    assert {row.kind for row in await lab.checks.check_now()} == {FaultKind.NONE}


async def test_a_crash_listener_of_all_nodes_is_no_double_claim(start):
    text = (
        f"{HEAD}metadata: {{name: kdump}}\nspec: {{devices: [{{name: kdump, method: agent,"
        " program: fence_kdump}, {name: hand, method: operator}],"
        " levels: [{devices: [kdump]}, {devices: [hand]}]}\n"
    )
    lab = start(load_text(text, file="f.yaml")[0])
    assert {row.kind for row in await lab.checks.check_now()} == {FaultKind.NONE}


async def test_devices_that_say_they_are_one_machine_are_refused_until_they_say_otherwise(start):
    lab = start(config(), nodes=3)
    one = "33221100-5544-7766-8899-aabbccddeeff"
    swapped = "00112233-4455-6677-8899-aabbccddeeff"  # the same machine in the other byte order
    lab.says = {"n1": {"identity": one}, "n2": {"identity": f"{swapped} (Dell)"}}
    rows = await lab.checks.check_now()
    assert [row.kind for row in rows] == [
        FaultKind.CLAIMED_TWICE, FaultKind.CLAIMED_TWICE, FaultKind.NONE
    ]  # fmt: skip
    assert isinstance(await lab.fence("n1"), NotDown)
    assert isinstance(await lab.fence("n3"), Down)
    # Silence is no correction.
    lab.says["n2"] = {"power": Reading.UNKNOWN, "fault": "timeout"}
    rows = await lab.checks.check_now(["n2"])
    assert [row.kind for row in rows] == [FaultKind.CLAIMED_TWICE]
    lab.says["n2"] = {"identity": "4c4c4544-0051-3510-8052-b4c04f4d3132"}
    await lab.checks.check_now(["n2"])
    assert lab.row("n1").kind is lab.row("n2").kind is FaultKind.NONE
    assert isinstance(await lab.fence("n1"), Down)


async def test_another_machines_device_is_never_used(start):
    lab = start(config(), nodes=1)
    lab.says["n1"] = {"owner": "differs", "fault": "it belongs to n7, not to n1"}
    (row,) = await lab.checks.check_now()
    assert row.kind is FaultKind.WRONG_MACHINE
    # By the time of the fence it may say nothing of itself at all.
    lab.says["n1"] = {"power": Reading.UNKNOWN, "fault": "timeout"}
    await lab.checks.check_now()
    answer = await lab.fence()
    assert isinstance(answer, NotDown)
    assert "it belongs to n7" in answer.detail
    assert lab.drivers[0].orders == []


async def test_a_device_that_says_off_of_a_living_node_is_a_loud_fault_and_no_proof(start):
    lab = start(config(), nodes=2)
    lab.says = {"n1": {"power": Reading.DOWN}, "n2": {"power": Reading.DOWN}}
    lab.beats = {"n1": 10.0}
    rows = await lab.checks.check_now()
    assert [row.kind for row in rows] == [FaultKind.CONTRADICTED, FaultKind.NONE]
    assert "says off while n1 renews its lease" in rows[0].fault
    assert isinstance(await lab.fence("n1"), NotDown)


async def test_a_node_that_was_switched_off_a_moment_ago_contradicts_nobody(start):
    lab = start(config(), nodes=1)
    lab.says["n1"] = {"power": Reading.DOWN}
    beat = ("renewed", lab.clock.now())
    lab.checks._asker._last_beat = lambda _node: beat
    (row,) = await lab.checks.check_now()
    assert (row.kind, row.power) == (FaultKind.NONE, "off")


async def test_a_new_configuration_is_checked_soon_and_rows_of_the_old_are_gone(start):
    lab = start(config("old"), nodes=2)
    await lab.checks.check_now()
    old = lab.drivers[0]
    assert await lab.devices.replace([config("new", ip="other-{node}", period="60s")])
    await asyncio.sleep(6.0)
    assert [row.config for row in lab.checks.rows()] == ["new", "new"]
    await asyncio.sleep(70.0)
    assert all(row.asked_at for row in lab.checks.rows())
    assert not old.closed  # a fence may be under way with it


async def test_what_did_not_change_keeps_its_driver_and_what_did_is_closed_in_time(start):
    lab = start(config("a", nodes="{names: [n1]}"), config("b", nodes="{names: [n2]}"))
    a, b = lab.drivers
    changed = [config("a", period="1m", nodes="{names: [n1]}"), config("b", nodes="{names: [n2]}")]
    assert await lab.devices.replace(changed)
    assert not await lab.devices.replace(changed)
    assert lab.devices.drivers(lab.devices.configs[0]) == [a]
    await asyncio.sleep(1000.0)
    assert await lab.devices.replace([config("c", ip="c-{node}")])
    assert (a.closed, b.closed) == (False, False)
    await asyncio.sleep(1000.0)
    await lab.devices.replace([config("d", ip="d-{node}")])
    assert (a.closed, b.closed) == (True, True)


async def test_a_fence_in_flight_ends_with_the_devices_that_it_began_with(start):
    lab = start(config("a"), nodes=1)
    (before,) = lab.devices.configs
    fencing = asyncio.create_task(lab.fence())
    await asyncio.sleep(1.0)
    await lab.devices.replace([config("a", ip="new-{node}")])
    assert isinstance(await fencing, Down)
    assert lab.devices.proof(before, 0) is ProofKind.POWER_OFF_VERIFIED
    assert [len(each.orders) for each in lab.drivers] == [1, 0]


async def test_two_configurations_of_one_name_change_nothing(start):
    lab = start(config("a"), nodes=1)
    with pytest.raises(ValueError, match="share a name"):
        await lab.devices.replace([config("b"), config("b")])
    assert [one.name for one in lab.devices.configs] == ["a"]


async def test_in_a_hurry_devices_are_asked_at_once_and_one_that_is_being_asked_soon_after(start):
    lab = start(config(period="1h"), nodes=3)
    await asyncio.sleep(1.0)
    lab.asked.clear()
    lab.checks.hurry(["n2", "nobody"])
    await asyncio.sleep(1.0)
    assert [node for _, node in lab.asked] == ["n2"]
    lab.takes_s = 10.0
    lab.checks.hurry()
    await asyncio.sleep(1.0)
    assert sorted(node for _, node in lab.asked) == ["n1", "n2", "n2", "n3"]
    hurried_at = lab.clock.now()
    lab.checks.hurry(["n3"])
    await asyncio.sleep(25.0)
    (again,) = [at for at, node in lab.asked if node == "n3" and at > hurried_at]
    assert 8.0 < again - hurried_at < 10.0
    assert lab.row("n3").asked_at == again


async def test_metrics_show_the_table_of_the_leader_and_nothing_afterwards(start):
    lab = start(config(period="10s"), nodes=2)
    lab.says["n2"] = {"owner": "differs", "fault": "it belongs to n7"}
    await asyncio.sleep(30.0)
    labels = {"config": "racks", "device": "bmc", "method": "agent"}
    healthy = "remediator_fence_device_healthy"
    assert lab.value(healthy, node="n1", **labels) == 1.0
    assert lab.value(healthy, node="n2", **labels) == 0.0
    fault = "remediator_fence_device_fault"
    assert lab.value(fault, node="n2", kind="wrong-machine", **labels) == 1.0
    good = "remediator_fence_device_last_good_timestamp_seconds"
    assert lab.value(good, node="n1", **labels) > lab.begun_at
    assert lab.value(good, node="n2", **labels) == 0.0
    took = "remediator_fence_check_seconds_count"
    assert lab.value(took, method="agent", answer="failed") >= 1
    lab.nodes.remove("n1")
    await asyncio.sleep(6.0)
    assert lab.value(healthy, node="n1", **labels) is None
    lab.task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await lab.task
    assert lab.value(healthy, node="n2", **labels) is None


def test_the_kinds_of_faults_are_those_of_the_metrics():
    assert tuple(kind.value for kind in FaultKind if kind) == FAULTS
    assert msgspec.json.encode(FaultKind.NO_ANSWER) == b'"no-answer"'
