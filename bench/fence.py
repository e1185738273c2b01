"""From the decision to verified off, by real agents and emulated devices; and the loop meanwhile.

The whole action runs: node and Lease are read, the node lease is taken, the device is asked who it
is and whether it is on, the last look, the order, the state read back. The device's part is what
its programs and answers took, and the wait between readings: until it obeys, and one second more,
because off must be read for so long (``verify.OFF_FOR_S``). What is left is the daemon's.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from statistics import quantiles
from typing import Any, NamedTuple

from table import Row

from remediator.actions.fence import agent, ipmi, verify
from remediator.actions.fence.agent_metadata import Metadata, parse
from remediator.actions.fence.agent_process import run_agent
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.drivers import DriverFactory
from remediator.actions.runner import ActionRunner
from remediator.clock import Clock
from remediator.engine.model import Action, Fence, Outcome, OutcomeStatus, node_subject
from remediator.fence_config.document import (
    AgentFence,
    AnyDevice,
    Credentials,
    Level,
    NodeSelector,
    RedfishFence,
    Spec,
)
from remediator.fence_config.loader import FenceConfig
from remediator.http_client import AiohttpClient, HttpResponse
from remediator.kube.client import KubeClient
from remediator.sim.apiserver import ApiServer
from remediator.sim.bmc import Bmc, BmcService
from remediator.sim.bmc_server import BmcServer
from remediator.sim.memory_transport import MemoryTransport
from remediator.sim.resources import LEASES, NAMESPACES, NODES, Registry
from remediator.sim.store import Store

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS / "actions" / "fence"))

AIM_S = 0.2
FEW = 4  # a device's concurrency, unless it is configured
LAG_EVERY_S = 0.01
_RENEWED = "2026-11-20T08:00:00.000000Z"

# Of the fence whose task this is: seconds in answers, and between readings.
_spent: ContextVar[list[float]] = ContextVar("spent")
_slept: ContextVar[list[float]] = ContextVar("slept")


class Took(NamedTuple):
    """One fence, in seconds."""

    total: float
    device: float
    waited: float

    @property
    def ours(self) -> float:
        """What the daemon added."""
        return self.total - self.device - self.waited


class Load(NamedTuple):
    """How many nodes of each kind, and how many at once."""

    nodes: int
    at_once: int
    emulated: int  # by sushy-tools, which needs up to ten seconds for each


async def measure(directory: Path, load: Load) -> list[Row]:
    """Return the rows of every kind of device that is installed here."""
    verify.asyncio = _CountedSleep  # type: ignore[assignment]
    rows: list[Row] = []
    kinds: list[tuple[str, int, Callable[[Path, int], Any]]] = [
        ("our Redfish client, fast BMC", load.nodes, _fast_redfish)
    ]
    if shutil.which("ipmi_sim") and shutil.which("fence_ipmilan", path="/usr/sbin"):
        kinds.append(("fence_ipmilan, ipmi_sim", load.nodes, _ipmi))
    if shutil.which("sushy-emulator", path=str(Path(sys.executable).parent)):
        kinds.append(("our Redfish client, sushy-tools", load.emulated, _sushy))
    for number, (name, nodes, opened) in enumerate(kinds):
        place = directory / str(number)
        place.mkdir()
        async with opened(place, nodes) as (device, uuids, metadata):
            few, _ = await _fence(device, uuids, metadata, FEW)
        place = directory / f"{number}-at-once"
        place.mkdir()
        async with opened(place, nodes) as (device, uuids, metadata):
            together, lags = await _fence(device, uuids, metadata, load.at_once)
        rows += _rows(f"fence, {name}, {nodes} nodes", few, f"{FEW} at once")
        rows += _rows(f"fence, {name}, {nodes} nodes", together, f"{load.at_once} at once")
        rows += [
            Row(f"fence, {name}, {nodes} nodes", f"lag of the loop, {what}", lag * 1000, "ms")
            for what, lag in (("p99", _quantile(lags, 99)), ("longest", max(lags)))
        ]
    return rows


def _rows(group: str, took: list[Took], how: str) -> list[Row]:
    parts = {
        "decision to verified off": [one.total for one in took],
        "of it the device's answers": [one.device for one in took],
        "of it waited between readings": [one.waited for one in took],
        "of it the daemon's": [one.ours for one in took],
    }
    rows: list[Row] = []
    for what, times in parts.items():
        for mark, value in (
            ("min", min(times)),
            ("p50", _quantile(times, 50)),
            ("p95", _quantile(times, 95)),
            ("max", max(times)),
        ):
            judged = what.endswith("daemon's") and mark == "p95" and how == f"{FEW} at once"
            rows.append(
                Row(
                    group,
                    f"{how}: {what}, {mark}",
                    value * 1000,
                    "ms",
                    aim=f"< {AIM_S * 1000:.0f} ms" if judged else "",
                    met=value < AIM_S if judged else None,
                )
            )
    return rows


def _quantile(values: list[float], percent: int) -> float:
    return (
        quantiles(values, n=100, method="inclusive")[percent - 1] if len(values) > 1 else values[0]
    )


# --- the fences -----------------------------------------------------------------------------------


async def _fence(
    device: AnyDevice, uuids: Mapping[str, str], metadata: Mapping[str, Metadata], at_once: int
) -> tuple[list[Took], list[float]]:
    clock = Clock()
    client, uids = _cluster(clock, uuids)
    config = FenceConfig(
        name="bench",
        source="bench",
        content_hash="",
        spec=Spec(
            nodes=NodeSelector(names=("*",)),
            devices=(device,),
            levels=(Level(devices=(device.name,)),),
        ),
    )
    factory = DriverFactory(
        clock, client=client, namespace="remediator", metadata=metadata, http=_timed_http
    )
    devices = FenceDevices([config], clock, factory)
    ended: dict[str, asyncio.Future[Outcome]] = {}
    runner = ActionRunner(
        client,
        devices,
        clock,
        last_beat=lambda _node: (_RENEWED, 0.0),
        rng=random.Random(1),
        on_finished=lambda outcome: ended[outcome.action_id].set_result(outcome),
    )
    gate = asyncio.Semaphore(at_once)
    lags: list[float] = []
    watching = asyncio.create_task(_watch_loop(lags))

    async def one(node: str) -> Took:
        async with gate:
            spent: list[float] = []
            slept: list[float] = []
            _spent.set(spent)  # the action's task inherits both
            _slept.set(slept)
            action = Action(
                id=f"bench/{node}/1",
                incident="bench",
                subject=node_subject(node),
                attempt=1,
                deadline_s=120.0,
                work=Fence(
                    node=node,
                    node_uid=uids[node],
                    boot_id="boot-1",
                    method="bench",
                    policy="bench",
                ),
            )
            ended[action.id] = asyncio.get_running_loop().create_future()
            began = time.perf_counter()
            runner.start(action)
            outcome = await ended[action.id]
            total = time.perf_counter() - began
            if outcome.status is not OutcomeStatus.SUCCEEDED:
                raise RuntimeError(f"{node}: {outcome.detail}")
            return Took(total, sum(spent), sum(slept))

    try:
        took = await asyncio.gather(*map(one, uuids))
    finally:
        watching.cancel()
        await runner.stop()
        await devices.close()
    return took, lags


async def _watch_loop(lags: list[float]) -> None:
    while True:
        began = time.perf_counter()
        await asyncio.sleep(LAG_EVERY_S)
        lags.append(max(0.0, time.perf_counter() - began - LAG_EVERY_S))


def _cluster(clock: Clock, uuids: Mapping[str, str]) -> tuple[KubeClient, dict[str, str]]:
    store = Store(now=clock.now, rng=random.Random(1))
    server = ApiServer(store, Registry())
    namespace = {"metadata": {"name": "medik8s-leases"}}
    store.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", **namespace})
    uids = {}
    for node, uuid in uuids.items():
        status = {
            "nodeInfo": {"bootID": "boot-1", "systemUUID": uuid},
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        made = store.create(NODES, {"metadata": {"name": node}, "spec": {}, "status": status})
        uids[node] = made["metadata"]["uid"]
        where = {"name": node, "namespace": "kube-node-lease"}
        store.create(LEASES, {"metadata": where, "spec": {"renewTime": _RENEWED}})
    return KubeClient(MemoryTransport(server, client_name="bench")), uids


# --- what the devices take ------------------------------------------------------------------------


class _CountedSleep:
    """Stands in for asyncio in ``verify``: what was meant to be slept is counted, no lateness."""

    @staticmethod
    async def sleep(delay_s: float) -> None:
        _slept.get([]).append(delay_s)
        await asyncio.sleep(delay_s)


class _TimedHttp(AiohttpClient):
    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        timeout_s: float,
    ) -> HttpResponse:
        began = time.perf_counter()
        try:
            return await super().request(
                method, url, headers=headers, body=body, timeout_s=timeout_s
            )
        finally:
            _spent.get([]).append(time.perf_counter() - began)


def _timed_http(device: RedfishFence) -> AiohttpClient:
    return _TimedHttp(verify_tls=device.verify_tls, ca_file=device.ca_file or None)


def _timed(run: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def timed(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return await run(*arguments, **options)
        finally:
            _spent.get([]).append(time.perf_counter() - began)

    return timed


Opened = tuple[AnyDevice, dict[str, str], dict[str, Metadata]]


class _Host:
    mains = network = powered = True
    serial = ""

    def __init__(self, name: str, uuid: str) -> None:
        self.name, self.system_uuid = name, uuid

    def power_on(self, *, boot_s: float | None = None) -> None:
        del boot_s
        self.powered = True

    def power_off(self, why: str) -> None:
        del why
        self.powered = False

    def press_power_button(self) -> None:
        pass


def _uuid(number: int) -> str:
    return f"4c4c4544-0051-3510-8052-{number:012x}"


def _nodes(count: int) -> dict[str, str]:
    return {f"n{number:03d}": _uuid(number) for number in range(1, count + 1)}


def _login(directory: Path, user: str, password: str) -> Credentials:
    path = directory / "login"
    path.write_text(password, encoding="utf-8")
    return Credentials(username=user, password_file=str(path))


@asynccontextmanager
async def _fast_redfish(directory: Path, nodes: int) -> AsyncIterator[Opened]:
    uuids = _nodes(nodes)
    bmcs = {
        name: Bmc(_Host(name, uuid), latency_s=0.0, change_s=0.0) for name, uuid in uuids.items()
    }
    server = BmcServer(BmcService(bmcs))
    url = await server.start()
    device = RedfishFence(
        name="bmc",
        endpoint=url,
        system="/redfish/v1/Systems/{node}",
        credentials=_login(directory, "admin", "sim"),
        concurrency=1000,
    )
    try:
        yield device, uuids, {}
    finally:
        await server.stop()


@asynccontextmanager
async def _ipmi(directory: Path, nodes: int) -> AsyncIterator[Opened]:
    from ipmi_sim import PASSWORD, USER, IpmiSim  # noqa: PLC0415 - needs Debian's OpenIPMI

    uuids = _nodes(nodes)
    said = await run_agent(Path("/usr/sbin/fence_ipmilan"), {"action": "metadata"}, deadline_s=30.0)
    sims: dict[str, Any] = {}
    for name, uuid in uuids.items():
        place = directory / name
        place.mkdir()
        sims[name] = IpmiSim(place, guid=_guid(uuid))
    kept = agent.run_agent, ipmi.run_program
    agent.run_agent, ipmi.run_program = _timed(kept[0]), _timed(kept[1])
    try:
        await asyncio.gather(*(sim.start() for sim in sims.values()))
        device = AgentFence(
            name="ipmi",
            program="fence_ipmilan",
            parameters={"ip": "127.0.0.1", "lanplus": "1", "cipher": "3"},
            node_parameters={name: {"ipport": str(sim.port)} for name, sim in sims.items()},
            credentials=_login(directory, USER, PASSWORD),
            concurrency=1000,
            timeout_s=100.0,
        )
        yield device, uuids, {"fence_ipmilan": parse(said.stdout)}
    finally:
        agent.run_agent, ipmi.run_program = kept
        for sim in sims.values():
            await sim.stop()


def _guid(uuid: str) -> str:
    """Return the bytes as a BMC stores them: the first three fields the other way round."""
    fields = uuid.split("-")
    swapped = [bytes.fromhex(field)[::-1].hex() for field in fields[:3]]
    return "".join(swapped + fields[3:])


@asynccontextmanager
async def _sushy(directory: Path, nodes: int) -> AsyncIterator[Opened]:
    import sushy  # noqa: PLC0415 - needs sushy-tools

    uuids = _nodes(nodes)
    before, tls = dict(sushy.UUIDS), TESTS / "kube" / "tls"
    sushy.UUIDS.clear()
    sushy.UUIDS.update(uuids)
    emulator = sushy.SushyEmulator(directory, tls)
    try:
        await emulator.start()
        device = RedfishFence(
            name="bmc",
            endpoint=emulator.url,  # whose systems are found by their UUIDs
            credentials=_login(directory, sushy.USER, sushy.PASSWORD),
            ca_file=str(tls / "ca.crt"),
            concurrency=1000,
            request_timeout_s=60.0,
            timeout_s=100.0,
        )
        yield device, uuids, {}
    finally:
        sushy.UUIDS.clear()
        sushy.UUIDS.update(before)
        await emulator.stop()
