"""A small API server in memory whose objects, faults and time the tests hold in their hands."""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.driver import Order, Target
from remediator.actions.fence.drivers import DriverFactory
from remediator.actions.runner import ActionRunner
from remediator.clock import Clock
from remediator.engine.model import (
    Action,
    CancelMigration,
    Cordon,
    Fence,
    ForceStop,
    Migrate,
    Outcome,
    Proof,
    ProofKind,
    Release,
    StartVm,
    Uncordon,
    Ungate,
    node_subject,
    vm_subject,
)
from remediator.fence_config.shorthand import from_device
from remediator.fence_settings import RedfishDevice
from remediator.http_client import HttpError, HttpResponse
from remediator.kube.client import KubeClient
from remediator.kube.transport import Response, TransportError
from remediator.sim.virtual_time import VirtualTimeLoop

EPOCH = 1_700_000_000.0
NODE = "/api/v1/nodes/n1"
LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/n1"
POD = "/api/v1/namespaces/payments/pods/virt-launcher-db-x"
VM = "/apis/kubevirt.io/v1/namespaces/payments/virtualmachines/db"
VMI = "/apis/kubevirt.io/v1/namespaces/payments/virtualmachineinstances/db"
START = "/apis/subresources.kubevirt.io/v1/namespaces/payments/virtualmachines/db/start"
UUID = "4c4c4544-0051-3510-8052-b4c04f4d3132"


def pytest_asyncio_loop_factories(config, item):
    """Time is virtual, except where a test speaks over real sockets."""
    del config
    if "loopback" in item.nodeid:
        return {"real": asyncio.SelectorEventLoop}
    return {"virtual": VirtualTimeLoop}


def status(code: int, reason: str, retry_after_s: int | None = None) -> Response:
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    body = {"kind": "Status", "code": code, "reason": reason, "message": reason}
    return Response(status=code, headers=headers, body=msgspec.json.encode(body))


class FakeApi:
    """Objects by path. ``faults`` holds what the next requests of a method get instead.

    A fault is a Response, ``"hang"``, ``"reset"`` or a function that changes the objects first.
    ``after`` runs after a request was carried out.
    """

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.calls: list[tuple[str, str, Any]] = []
        self.faults: dict[str, list[Any]] = {}
        self.before: Callable[[str, str], None] = lambda _method, _path: None
        self.delay_s = 0.001
        self._version = 100

    @property
    def writes(self) -> list[tuple[str, str, Any]]:
        """What was written, claims of nodes aside (``test_claims`` looks at those)."""
        return [call for call in self.calls if call[0] != "GET" and "/medik8s-" not in call[1]]

    def put(self, path: str, obj: dict[str, Any]) -> None:
        self._version += 1
        obj = copy.deepcopy(obj)
        obj["metadata"]["resourceVersion"] = str(self._version)
        self.objects[path] = obj

    def change(self, path: str, **parts: Any) -> None:
        obj = copy.deepcopy(self.objects[path])
        merge(obj, parts)
        self.put(path, obj)

    async def request(
        self, method, path, *, query=(), body=None, content_type=None, timeout_s
    ) -> Response:
        content = msgspec.json.decode(body) if body else None
        self.calls.append((method, path, content))
        self.before(method, path)
        queue = self.faults.get(method) or []
        fault = queue.pop(0) if queue else None
        if callable(fault):
            fault = fault()
        if fault == "hang":
            await asyncio.sleep(timeout_s)
            raise TransportError(f"{method} {path}: timed out")
        if fault == "reset":
            raise TransportError(f"{method} {path}: connection reset")
        await asyncio.sleep(self.delay_s)
        if fault is not None:
            return fault
        return self._carry_out(method, path, dict(query), content, content_type)

    def _carry_out(self, method, path, query, content, content_type) -> Response:
        if method == "GET" and path.rsplit("/", 1)[-1] in COLLECTIONS:
            return self._list(path, query)
        if method == "PUT" and path == START:
            return self.start()
        found = self.objects.get(path)
        if found is None:
            return status(404, "NotFound")
        if method == "PATCH":
            assert content_type == "application/merge-patch+json"
            wanted = content.get("metadata", {}).get("resourceVersion")
            if wanted is not None and wanted != found["metadata"]["resourceVersion"]:
                return status(409, "Conflict")
            self.change(path, **content)
        elif method == "DELETE":
            uid = content.get("preconditions", {}).get("uid")
            if uid is not None and uid != found["metadata"]["uid"]:
                return status(409, "Conflict")
            if not found["metadata"].get("finalizers"):
                del self.objects[path]
            return ok(found)
        return ok(self.objects[path])

    def start(self) -> Response:
        self.change(VM, status={"stateChangeRequests": [{"action": "Start"}]})
        return Response(status=202, headers={}, body=b"")

    def _list(self, path: str, query: dict[str, str]) -> Response:
        plural = path.rsplit("/", 1)[-1]
        items = [o for p, o in self.objects.items() if p.rsplit("/", 2)[-2] == plural]
        key, _, value = query.get("labelSelector", "").partition("=")
        if key:
            items = [o for o in items if o["metadata"].get("labels", {}).get(key) == value]
        return ok({"metadata": {"resourceVersion": str(self._version)}, "items": items})

    async def close(self) -> None:
        pass


COLLECTIONS = {"pods", "virtualmachineinstances", "volumeattachments"}


def ok(obj: Any) -> Response:
    return Response(status=200, headers={}, body=msgspec.json.encode(obj))


def merge(obj: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, value in patch.items():
        if value is None:
            obj.pop(key, None)
        elif isinstance(value, dict):
            merge(obj.setdefault(key, {}), value)
        else:
            obj[key] = value


class FakeBmc:
    """A BMC in memory: HttpClient whose state and faults the tests set."""

    def __init__(self) -> None:
        self.state: Any = "On"
        self.uuid: str | None = UUID
        self.calls: list[tuple[str, str, dict[str, str], Any]] = []
        self.faults: dict[str, list[Any]] = {}
        self.obeys = True
        self.off_after_s = 1.0
        self.on_request: Callable[[str], None] = lambda _method: None
        self.extra: dict[str, Any] = {}

    @property
    def posts(self) -> int:
        return sum(1 for call in self.calls if call[0] == "POST")

    async def request(self, method, url, *, headers, body, timeout_s) -> HttpResponse:
        self.calls.append((method, url, dict(headers), msgspec.json.decode(body) if body else None))
        self.on_request(method)
        queue = self.faults.get(method) or []
        fault = queue.pop(0) if queue else None
        if fault == "hang":
            await asyncio.sleep(timeout_s)
            raise HttpError(f"{method} {url}: no answer within {timeout_s:g} s")
        await asyncio.sleep(0.05)
        if isinstance(fault, HttpResponse):
            return fault
        if method == "POST":
            if self.obeys:
                asyncio.get_running_loop().call_later(self.off_after_s, self.turn_off)
            return HttpResponse(status=204, headers={}, body=b"")
        return http(200, {"PowerState": self.state, "UUID": self.uuid, **self.extra})

    def turn_off(self) -> None:
        self.state = "Off"

    async def close(self) -> None:
        pass


def http(code: int, content: Any, **headers: str) -> HttpResponse:
    body = content if isinstance(content, bytes) else msgspec.json.encode(content)
    return HttpResponse(status=code, headers=headers, body=body)


@pytest.fixture
def api() -> FakeApi:
    api = FakeApi()
    api.put(NODE, node_object())
    api.put(LEASE, lease_object("t0"))
    return api


def node_object(**metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "n1", "uid": "node-uid", **metadata},
        "spec": {},
        "status": {
            "nodeInfo": {"bootID": "boot-1", "systemUUID": UUID},
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def lease_object(renew_time: str) -> dict[str, Any]:
    return {"metadata": {"name": "n1", "uid": "lease-uid"}, "spec": {"renewTime": renew_time}}


def pod_object(uid: str = "pod-uid", node: str = "n1", **metadata: Any) -> dict[str, Any]:
    labels = {"kubevirt.io": "virt-launcher", "kubevirt.io/created-by": "vmi-uid"}
    return {
        "metadata": {
            "name": "virt-launcher-db-x",
            "namespace": "payments",
            "uid": uid,
            "labels": labels,
            **metadata,
        },
        "spec": {"nodeName": node},
        "status": {"phase": "Running"},
    }


@pytest.fixture
def bmc() -> FakeBmc:
    return FakeBmc()


@pytest.fixture
def password_file(tmp_path):
    path = tmp_path / "password"
    path.write_text("s3cret\n")
    return path


@pytest.fixture
def device(password_file) -> RedfishDevice:
    return RedfishDevice(
        name="lab",
        nodes=("n*",),
        endpoint="https://bmc.example",
        username="admin",
        password_file=str(password_file),
    )


class Asked:
    """The devices, asked and ordered about nodes of which only the UUID is known."""

    def __init__(self, devices: FenceDevices, clock: Clock) -> None:
        self.devices = devices
        self.clock = clock

    async def power_state(self, node: str, uuid: str):
        return await self.devices.power_state(_target(node, uuid), {})

    async def power_off(self, node: str, uuid: str, *, deadline_s: float = 20.0):
        config = self.devices.config_for(node, {})
        assert config is not None

        async def nothing() -> None:
            pass

        order = Order(
            action_id="inc-1/fence/1",
            deadline_at=self.clock.now() + deadline_s,
            last_look=nothing,
        )
        return await self.devices.take_down(config, 0, _target(node, uuid), order)

    async def close(self) -> None:
        await self.devices.close()


def _target(node: str, uuid: str) -> Target:
    return Target(node=node, uid="node-uid", boot_id="boot-1", system_uuid=uuid)


def fence_devices(devices, clock: Clock, bmc: Any) -> FenceDevices:
    """Every device's requests go to one BMC in memory."""
    factory = DriverFactory(clock, http=lambda _: bmc)
    return FenceDevices([from_device(device) for device in devices], clock, factory)


class Hands:
    """Runs actions to their outcome, with a lease watch that remembers what a test says."""

    def __init__(self, api: FakeApi, bmc: FakeBmc, device: RedfishDevice) -> None:
        self.api = api
        self.clock = Clock(epoch_at_start=EPOCH)
        self.beats: dict[str, tuple[str, float]] = {"n1": ("t0", EPOCH - 20)}
        self.devices = fence_devices([device], self.clock, bmc)
        self.outcomes: list[Outcome] = []
        self.runner = ActionRunner(
            KubeClient(api),
            self.devices,
            self.clock,
            last_beat=self.beats.get,
            rng=random.Random(1),
            on_finished=self.outcomes.append,
        )

    async def do(self, work: Any, *, deadline_s: float = 10.0) -> Outcome:
        before = len(self.outcomes)
        self.runner.start(action(work, deadline_s=deadline_s))
        limit_at = self.clock.now() + deadline_s + 5
        while len(self.outcomes) == before:
            assert self.clock.now() < limit_at, "the action reported no outcome"
            await asyncio.sleep(0.05)
        return self.outcomes[-1]


@pytest.fixture
async def hands(api, bmc, device):
    hands = Hands(api, bmc, device)
    yield hands
    await hands.runner.stop()


def action(work: Any, *, deadline_s: float = 10.0, action_id: str = "inc-1/x/1") -> Action:
    if isinstance(work, (ForceStop, Ungate, Migrate, CancelMigration)):
        subject = vm_subject(work.namespace, work.vmi)
    elif isinstance(work, StartVm):
        subject = vm_subject(work.namespace, work.vm)
    else:
        subject = node_subject(work.node)
    return Action(
        id=action_id,
        incident="inc-1",
        subject=subject,
        attempt=1,
        deadline_s=deadline_s,
        work=work,
    )


def proof(**changes: Any) -> Proof:
    known = {
        "kind": ProofKind.POWER_OFF_VERIFIED,
        "node": "n1",
        "boot_id": "boot-1",
        "at": EPOCH - 1,
        "source": "redfish",
    }
    return Proof(**{**known, **changes})


class Make:
    """Builds the works that most tests start."""

    proof = staticmethod(proof)
    action = staticmethod(action)
    status = staticmethod(status)
    http = staticmethod(http)
    node_object = staticmethod(node_object)
    lease_object = staticmethod(lease_object)
    pod_object = staticmethod(pod_object)
    cordon = Cordon(node="n1", node_uid="node-uid")
    fence = Fence(node="n1", node_uid="node-uid", boot_id="boot-1", method="lab")
    uncordon = Uncordon(node="n1", node_uid="node-uid", fenced_boot_id="boot-1")
    start = StartVm(namespace="payments", vm="db", vm_uid="vm-uid")

    @staticmethod
    def release(**changes: Any) -> Release:
        return Release(node="n1", node_uid="node-uid", proof=proof(**changes))

    @staticmethod
    def force_stop(**changes: Any) -> ForceStop:
        return ForceStop(
            node="n1",
            node_uid="node-uid",
            namespace="payments",
            vmi="db",
            pod="virt-launcher-db-x",
            pod_uid="pod-uid",
            proof=proof(**changes),
        )

    @staticmethod
    def asked(devices, bmc: Any = None, *, epoch_at_start: float | None = None) -> Asked:
        """Ask these devices, whose requests go to one BMC in memory, or out."""
        clock = Clock() if epoch_at_start is None else Clock(epoch_at_start=epoch_at_start)
        if bmc is not None:
            return Asked(fence_devices(devices, clock, bmc), clock)
        return Asked(FenceDevices([from_device(each) for each in devices], clock), clock)

    NODE, LEASE, POD, VM, VMI, UUID, EPOCH = NODE, LEASE, POD, VM, VMI, UUID, EPOCH


@pytest.fixture
def make() -> Make:
    return Make()
