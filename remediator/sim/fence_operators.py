"""The programs on the other side of a fence's objects: medik8s, csi-addons, Metal3, Machines.

Each does to a simulated host what its original does to a real one, by the same fields of the same
objects, or misbehaves as it is told to.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Final, Protocol

from remediator.sim.fence_kinds import METAL3_HOST, NETWORK_FENCE, OPENSHIFT_MACHINE, SNR
from remediator.sim.resources import ResourceType
from remediator.sim.store import Store

Tree = dict[str, Any]

LOOKS_EVERY_S: Final = 0.5
SNR_FINALIZER: Final = "self-node-remediation.medik8s.io/snr-finalizer"
NETWORK_FENCE_FINALIZER: Final = "csiaddons.openshift.io/network-fence"
MACHINE_FINALIZER: Final = "machine.machine.openshift.io"
# controllers/csiaddons/networkfence_controller.go
_FENCED: Final = "fencing operation successful"
_UNFENCED: Final = "unfencing operation successful"
_TIMED_OUT: Final = "remediation.medik8s.io/nhc-timed-out"
_REBOOT: Final = "reboot.metal3.io"


class OperatorMode(StrEnum):
    """How such a program behaves about one host."""

    OK = "ok"
    HANGS = "hangs"  # takes the order and says nothing more
    FAILS = "fails"  # says that it failed, and changes nothing
    SLOW = "slow"  # needs four times as long
    LIES = "lies"  # says that it succeeded, and changes nothing


class OperatedHost(Protocol):
    """What these programs can do to a host."""

    name: str
    mains: bool

    @property
    def powered(self) -> bool:
        """Whether it is on."""
        ...

    def power_on(self, *, boot_s: float | None = None) -> None:
        """Switch on and boot."""
        ...

    def power_off(self, why: str) -> None:
        """Cut the power at once."""
        ...

    def fence_storage(self) -> None:
        """Have the storage refuse its writes."""
        ...

    def unfence_storage(self) -> None:
        """Have the storage take its writes again."""
        ...


class FenceOperators:
    """All four, over one store. ``mode`` holds the hosts that they misbehave about."""

    def __init__(
        self,
        store: Store,
        hosts: Mapping[str, OperatedHost],
        now: Callable[[], float],
        *,
        takes_s: float = 4.0,
    ) -> None:
        self._store = store
        self._hosts = hosts
        self._now = now
        self._takes_s = takes_s
        self.mode: dict[str, OperatorMode] = {}
        self.fenced: set[str] = set()  # hosts whose writes the storage refuses now
        self.cuts: dict[str, int] = {}  # by host, how often the power of a running one was cut
        self._since: dict[tuple[str, str], float] = {}  # (uid, what is wanted) -> since when
        self._done: set[tuple[str, str]] = set()

    async def run(self) -> None:
        """Look at every object again and again, until cancelled."""
        acts = (
            (SNR, self._remediate),
            (NETWORK_FENCE, self._fence_network),
            (METAL3_HOST, self._operate_host),
            (OPENSHIFT_MACHINE, self._operate_machine),
        )
        while True:
            for kind, act in acts:
                for tree in list(self._store.list(kind)):
                    act(tree)
            await asyncio.sleep(LOOKS_EVERY_S)

    # --- medik8s ----------------------------------------------------------------------------------

    def _remediate(self, tree: Tree) -> None:
        """Self Node Remediation: the host reboots, and then the remediation says Succeeded."""
        metadata = tree["metadata"]
        node = (metadata.get("annotations") or {}).get("remediation.medik8s.io/node-name", "")
        host = self._hosts.get(node)
        if host is None:
            return
        if "deletionTimestamp" in metadata:
            if self._passed(metadata["uid"], "end", 1.0):
                self._finalize(SNR, tree, SNR_FINALIZER)
            return
        self._hold(SNR, tree, SNR_FINALIZER)
        mode = self._of(node)
        if _TIMED_OUT in metadata["annotations"]:
            self._say(SNR, tree, processing="False", succeeded="False", reason="TimedOut")
        elif mode is OperatorMode.HANGS:
            self._say(SNR, tree, processing="True", succeeded="Unknown", reason="Started")
        elif mode is OperatorMode.FAILS:
            self._say(SNR, tree, processing="False", succeeded="False", reason="Failed")
        elif self._passed(metadata["uid"], "remediate", self._span(mode)):
            if (metadata["uid"], "rebooted") not in self._done:
                self._done.add((metadata["uid"], "rebooted"))
                if mode is not OperatorMode.LIES:
                    self._cut(host, "self-node-remediation")
                    host.power_on()
            self._say(SNR, tree, processing="False", succeeded="True", reason="Done")
        else:
            self._say(SNR, tree, processing="True", succeeded="Unknown", reason="Started")

    def _say(
        self, kind: ResourceType, tree: Tree, *, processing: str, succeeded: str, reason: str
    ) -> None:
        conditions = [
            {"type": "Processing", "status": processing, "reason": reason, "message": ""},
            {"type": "Succeeded", "status": succeeded, "reason": reason, "message": ""},
        ]
        self._status(kind, tree, {"conditions": conditions})

    # --- csi-addons -------------------------------------------------------------------------------

    def _fence_network(self, tree: Tree) -> None:
        metadata, spec = tree["metadata"], tree["spec"]
        node = (metadata.get("labels") or {}).get("remediator.io/node", "")
        host = self._hosts.get(node)
        if host is None:
            return
        if "deletionTimestamp" in metadata:
            self._finalize(NETWORK_FENCE, tree, NETWORK_FENCE_FINALIZER)
            return  # and does not unfence, as the original
        self._hold(NETWORK_FENCE, tree, NETWORK_FENCE_FINALIZER)
        mode, wanted = self._of(node), str(spec.get("fenceState", "Fenced"))
        if mode is OperatorMode.HANGS or not self._passed(
            metadata["uid"], wanted, self._span(mode) / 2
        ):
            return
        if mode is OperatorMode.FAILS:
            self._status(NETWORK_FENCE, tree, {"result": "Failed", "message": "driver says no"})
            return
        fence = wanted == "Fenced"
        if mode is not OperatorMode.LIES and fence != (node in self.fenced):
            (self.fenced.add if fence else self.fenced.discard)(node)
            (host.fence_storage if fence else host.unfence_storage)()
        message = _FENCED if fence else _UNFENCED
        self._status(NETWORK_FENCE, tree, {"result": "Succeeded", "message": message})

    # --- Metal3 -----------------------------------------------------------------------------------

    def _operate_host(self, tree: Tree) -> None:
        """Power a host off while a reboot annotation stands, and on again when none does."""
        metadata = tree["metadata"]
        host = self._hosts.get(metadata["name"])
        if host is None:
            return
        held = any(key.startswith(_REBOOT) for key in metadata.get("annotations") or {})
        mode = self._of(host.name)
        if mode in (OperatorMode.HANGS, OperatorMode.FAILS):
            if mode is OperatorMode.FAILS and held:
                self._status(METAL3_HOST, tree, {"errorMessage": "the BMC does not answer"})
            return
        wanted = "off" if held else "on"
        if not self._passed(metadata["uid"], wanted, self._span(mode)):
            return
        if mode is OperatorMode.LIES and held:
            self._status(METAL3_HOST, tree, {"poweredOn": False})
            return
        if held:
            self._cut(host, "baremetal-operator")
        elif (metadata["uid"], "held") in self._done and not host.powered:
            host.power_on()
        if held:
            self._done.add((metadata["uid"], "held"))
        else:
            self._done.discard((metadata["uid"], "held"))
        self._status(METAL3_HOST, tree, {"poweredOn": host.powered, "errorMessage": ""})

    # --- Machine API ------------------------------------------------------------------------------

    def _operate_machine(self, tree: Tree) -> None:
        """End the instance of a Machine that is being deleted; then the Machine goes."""
        metadata = tree["metadata"]
        host = self._hosts.get(metadata["name"].removesuffix("-machine"))
        if host is None:
            return
        self._hold(OPENSHIFT_MACHINE, tree, MACHINE_FINALIZER)
        mode = self._of(host.name)
        if "deletionTimestamp" not in metadata or mode in (
            OperatorMode.HANGS,
            OperatorMode.FAILS,
        ):
            return
        if self._passed(metadata["uid"], "delete", self._span(mode)):
            if mode is not OperatorMode.LIES:
                self._cut(host, "instance deleted")
            self._finalize(OPENSHIFT_MACHINE, tree, MACHINE_FINALIZER)

    # --- inside -----------------------------------------------------------------------------------

    def _of(self, node: str) -> OperatorMode:
        return self.mode.get(node, OperatorMode.OK)

    def _span(self, mode: OperatorMode) -> float:
        return self._takes_s * (4.0 if mode is OperatorMode.SLOW else 1.0)

    def _passed(self, uid: str, wanted: str, seconds: float) -> bool:
        """Whether the same has been wanted of this object for so long."""
        for other in [each for each in self._since if each[0] == uid and each[1] != wanted]:
            del self._since[other]
        since = self._since.setdefault((uid, wanted), self._now())
        return self._now() - since >= seconds

    def _cut(self, host: OperatedHost, why: str) -> None:
        if host.powered:
            self.cuts[host.name] = self.cuts.get(host.name, 0) + 1
            host.power_off(why)

    def _status(self, kind: ResourceType, tree: Tree, status: Tree) -> None:
        there = tree.get("status") or {}
        if status.items() <= there.items():
            return

        def change(each: Tree) -> None:
            each.setdefault("status", {}).update(status)

        self._store.mutate(kind, *_place(kind, tree), change, subresource="status")

    def _hold(self, kind: ResourceType, tree: Tree, finalizer: str) -> None:
        metadata = tree["metadata"]
        if finalizer in (metadata.get("finalizers") or ()) or "deletionTimestamp" in metadata:
            return

        def change(each: Tree) -> None:
            each["metadata"].setdefault("finalizers", []).append(finalizer)

        self._store.mutate(kind, *_place(kind, tree), change)

    def _finalize(self, kind: ResourceType, tree: Tree, finalizer: str) -> None:
        if finalizer not in (tree["metadata"].get("finalizers") or ()):
            return

        def change(each: Tree) -> None:
            each["metadata"]["finalizers"].remove(finalizer)

        self._store.mutate(kind, *_place(kind, tree), change)


def _place(kind: ResourceType, tree: Tree) -> tuple[str, str]:
    metadata = tree["metadata"]
    return (metadata.get("namespace", "") if kind.namespaced else "", metadata["name"])
