"""Which Node a Machine became.

The Node says it by an annotation, the Machine by ``status.nodeRef``. A management cluster of
Cluster API holds Machines of other clusters whose nodes may have the names of ours, so a name alone
links nothing: our Node must name the Machine, or the Machine our Node's UID. Machines of OpenShift
are always of this cluster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

from remediator.kube.machine_api import CLUSTER_API, OPENSHIFT, Machine, NodeRef
from remediator.kube.objects import Node

_OPENSHIFT_MACHINE: Final = "machine.openshift.io/machine"  # "namespace/name"
_CAPI_MACHINE: Final = "cluster.x-k8s.io/machine"  # the name
_CAPI_NAMESPACE: Final = "cluster.x-k8s.io/cluster-namespace"


class MachineKey(NamedTuple):
    """A Machine, or an infrastructure object that stands for one (its kind as ``family``)."""

    family: str
    namespace: str
    name: str


class _NodeEnd(NamedTuple):
    uid: str
    machines: tuple[MachineKey, ...]


class _MachineEnd(NamedTuple):
    node: NodeRef
    infrastructure: MachineKey | None


class MachineLinks:
    """Knows both ends of every link, and tells its listeners which Machines' links changed."""

    def __init__(self) -> None:
        self._nodes: dict[str, _NodeEnd] = {}
        self._naming: dict[MachineKey, str] = {}  # Machine -> the Node whose annotation names it
        self._machines: dict[MachineKey, _MachineEnd] = {}
        self._behind: dict[MachineKey, MachineKey] = {}  # infrastructure object -> Machine
        # Node -> Machines that name it; dicts as sets that keep their order
        self._meant: dict[str, dict[MachineKey, None]] = defaultdict(dict)
        self._links: dict[MachineKey, str] = {}
        self._listeners: list[Callable[[MachineKey], None]] = []

    def listen(self, listener: Callable[[MachineKey], None]) -> None:
        """Call ``listener`` with each Machine (or infrastructure object) whose Node changed."""
        self._listeners.append(listener)

    def node_of(self, key: MachineKey) -> str:
        """Return the Node of a Machine or infrastructure object, "" while none is known."""
        return self._links.get(self._behind.get(key, key), "")

    def named_by(self, key: MachineKey) -> str:
        """Return the Node whose annotation names this Machine, be the Machine there or not."""
        return self._naming.get(key, "")

    def node_uid(self, node: str) -> str:
        """Return the UID of a Node that is there, "" otherwise."""
        end = self._nodes.get(node)
        return end.uid if end is not None else ""

    def node_seen(self, node: Node) -> None:
        """Take in a Node."""
        now = _NodeEnd(node.uid, tuple(machines_of(node)))
        before = self._nodes.get(node.name)
        if now == before:
            return
        self._nodes[node.name] = now
        self._rename(node.name, before.machines if before else (), now.machines)

    def node_gone(self, node: Node) -> None:
        """Take leave of a Node."""
        before = self._nodes.pop(node.name, None)
        if before is not None:
            self._rename(node.name, before.machines, ())

    def machine_seen(self, key: MachineKey, machine: Machine) -> None:
        """Take in a Machine."""
        infrastructure = machine.infrastructure
        stands_in = None
        if infrastructure.name:
            stands_in = MachineKey(infrastructure.kind, key.namespace, infrastructure.name)
        self._set_machine(key, _MachineEnd(machine.node_ref, stands_in))

    def machine_gone(self, key: MachineKey) -> None:
        """Take leave of a Machine. The Node may go on naming it."""
        self._set_machine(key, None)

    def _set_machine(self, key: MachineKey, now: _MachineEnd | None) -> None:
        before = self._machines.get(key)
        if now == before:
            return
        if before is not None:
            self._meant[before.node.name].pop(key, None)
            if before.infrastructure is not None:
                self._behind.pop(before.infrastructure, None)
        if now is None:
            del self._machines[key]
        else:
            self._machines[key] = now
            self._meant[now.node.name][key] = None
            if now.infrastructure is not None:
                self._behind[now.infrastructure] = key
        self._relink(key, told=before is None and now is not None and now.infrastructure)

    def _rename(
        self, node: str, before: tuple[MachineKey, ...], now: tuple[MachineKey, ...]
    ) -> None:
        for key in before:
            if key not in now and self._naming.get(key) == node:
                del self._naming[key]
        for key in now:
            self._naming[key] = node
        for key in dict.fromkeys((*before, *now, *self._meant.get(node, ()))):
            self._relink(key)

    def _relink(self, key: MachineKey, *, told: object = False) -> None:
        """Find a Machine's Node anew; ``told``: tell of it in any case."""
        now, before = self._find(key), self._links.get(key, "")
        if now:
            self._links[key] = now
        else:
            self._links.pop(key, None)
        if now == before and not told:
            return
        end = self._machines.get(key)
        for each in (key, end.infrastructure if end is not None else None):
            if each is not None:
                for listener in self._listeners:
                    listener(each)

    def _find(self, key: MachineKey) -> str:
        named = self._naming.get(key, "")
        end = self._machines.get(key)
        meant = end.node if end is not None else NodeRef()
        if named:
            # The Machine may not have heard of its Node yet; of another Node it may not speak.
            return named if meant.name in {"", named} else ""
        there = self._nodes.get(meant.name)
        if there is None:
            return ""
        if meant.uid:
            return meant.name if meant.uid == there.uid else ""
        others = any(each.family == key.family for each in there.machines)
        return meant.name if key.family == OPENSHIFT and not others else ""


def machines_of(node: Node) -> list[MachineKey]:
    """Return the Machines that a Node's annotations name."""
    annotations = node.annotations
    found = []
    namespace, _, name = annotations.get(_OPENSHIFT_MACHINE, "").partition("/")
    if namespace and name:
        found.append(MachineKey(OPENSHIFT, namespace, name))
    name, namespace = annotations.get(_CAPI_MACHINE, ""), annotations.get(_CAPI_NAMESPACE, "")
    if namespace and name:
        found.append(MachineKey(CLUSTER_API, namespace, name))
    return found
