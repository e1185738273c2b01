"""The machine plane: Machines, their health checks, and bare metal hosts.

Only what does not repeat the Node's own conditions is evidence: what the machine controllers and
the provider know. NodeHealthy, NodeReady, Ready and Available are the lease and the kubelet again.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from remediator.engine.model import HandsOffFacts, Reading
from remediator.kube.machine_api import (
    CLUSTER_API,
    EXTERNAL_REMEDIATION,
    OPENSHIFT,
    BareMetalHost,
    Machine,
    MachineHealthCheck,
)
from remediator.watchers.hands_off import HandsOffBoard
from remediator.watchers.linked import LinkedSink
from remediator.watchers.machine_links import MachineKey, MachineLinks
from remediator.watchers.statements import Aspect, Statements, Word

INSTANCE_GONE: Final = "instance-gone"

# Conditions of a Machine that its controllers have from the provider, or from their own count.
_CONDITIONS: Final = ("InstanceExists", "InfrastructureReady", "HealthCheckSucceeded")
# False: whoever owns the Machine, or a remediation template, is asked to mend it (Cluster API).
_ASKED_FOR_REMEDIATION: Final = ("OwnerRemediated", "ExternallyRemediated")
_PHASES: Final = {
    "Running": Reading.UP,
    "Updating": Reading.UP,
    "Failed": Reading.DOWN,
    "Deleting": Reading.DOWN,
    "Deleted": Reading.DOWN,
}
_READINGS: Final = {"True": Reading.UP, "False": Reading.DOWN}


class _Grave(NamedTuple):
    """A Machine whose deletion its controller had completed, and the Node that still names it."""

    source: str
    node: str
    uid: str


class MachineSink(LinkedSink[Machine]):
    """Machines of one family.

    An instance counts as gone (aspect ``instance-gone``) when its provider says so, or when its
    Machine went after its controller had been deleting it, which ends with the instance. A Machine
    that merely is not there proves nothing: it may live in another cluster.
    """

    def __init__(
        self, family: str, links: MachineLinks, statements: Statements, board: HandsOffBoard
    ) -> None:
        self._family = family
        self._statements = statements
        self._board = board
        self._graves: dict[MachineKey, _Grave] = {}
        self._closing = False
        super().__init__(links)

    def anchors(self, obj: Machine) -> tuple[MachineKey, ...]:
        """Return the Machine itself."""
        return (self._key(obj),)

    def matching(self, check: MachineHealthCheck) -> tuple[MachineKey, ...]:
        """Return the Machines that a health check looks at."""
        if check.targets or self._family == CLUSTER_API:
            return tuple(MachineKey(self._family, check.namespace, name) for name in check.targets)
        return tuple(
            self._key(machine)
            for (namespace, _), machine in self._objects.items()
            if namespace == check.namespace and check.selector.matches(machine.labels)
        )

    def seen(self, obj: Machine, old: Machine | None, *, initial: bool) -> None:
        """Link it, and judge it."""
        self._closing = False
        key = self._key(obj)
        self._graves.pop(key, None)
        self._objects[obj.namespace, obj.name] = obj  # before others hear of the link, and we again
        self.links.machine_seen(key, obj)
        super().seen(obj, old, initial=initial)

    def gone(self, obj: Machine) -> None:
        """Take its words back, or say that its instance is gone with it."""
        key = self._key(obj)
        node = self.links.named_by(key)
        if obj.on_its_way_out and node and not self._closing:
            self._graves[key] = _Grave(_source(obj), node, self.links.node_uid(node))
        super().gone(obj)
        self.links.machine_gone(key)

    def resource_gone(self) -> None:
        """Learn that the resource itself is gone: the ends of its objects prove nothing."""
        self._closing = True
        for key, grave in list(self._graves.items()):
            del self._graves[key]
            self._statements.say(_speaker(key), grave.source, {})

    def synced(self) -> None:
        """Offer what no object says any more: instances that went with their Machines."""
        for key in self._graves:
            self._statements.again(_speaker(key))

    def judge(self, obj: Machine, *, first: bool) -> None:
        """Say what a Machine says of its node, and whether somebody is at work on it."""
        key = self._key(obj)
        node = self.links.node_of(key)
        words = _words(obj, node) if node else {}
        self._statements.say(_speaker(key), _source(obj), words, first=first)
        why = _under_remediation(obj)
        held = [_hands_off("Machine", obj, node, f"Machine {obj.name} {why}")] if why else []
        self._board.hold(_speaker(key), held if node else ())

    def leave(self, obj: Machine) -> None:
        """Say what is left of it."""
        key = self._key(obj)
        grave = self._graves.get(key)
        words = {}
        if grave is not None:
            gone = Word(Reading.DOWN, f"Machine {obj.name} was deleted, its instance with it")
            words = {Aspect(grave.node, INSTANCE_GONE): gone}
        self._statements.say(_speaker(key), _source(obj), words)
        self._board.hold(_speaker(key), ())

    def again(self, obj: Machine) -> None:
        """Offer a known Machine once more."""
        self._statements.again(_speaker(self._key(obj)))
        self._board.again(_speaker(self._key(obj)))

    def _relinked(self, machine: MachineKey) -> None:
        super()._relinked(machine)
        grave = self._graves.get(machine)
        if grave is None:
            return
        node = self.links.named_by(machine)
        if node != grave.node or self.links.node_uid(node) != grave.uid:
            del self._graves[machine]
            self._statements.say(_speaker(machine), grave.source, {})

    def _key(self, obj: Machine) -> MachineKey:
        return MachineKey(self._family, obj.namespace, obj.name)


class MachineHealthCheckSink(LinkedSink[MachineHealthCheck]):
    """Health checks of one family of Machines.

    A health check counts and names nobody, so it speaks only when it counts none of its Machines
    as healthy: then each of their nodes is meant. That it exists is no reason to keep hands off.
    """

    def __init__(self, family: str, machines: MachineSink, statements: Statements) -> None:
        self._family = family
        self._machines = machines
        self._statements = statements
        super().__init__(machines.links)

    def anchors(self, obj: MachineHealthCheck) -> tuple[MachineKey, ...]:
        """Return its Machines, where it has something to say of them."""
        return self._machines.matching(obj) if obj.expected and obj.healthy == 0 else ()

    def judge(self, obj: MachineHealthCheck, *, first: bool) -> None:
        """Say that all of its nodes are down, or nothing."""
        word = Word(Reading.DOWN, f"none of {obj.expected} Machines is healthy")
        nodes = (self.links.node_of(key) for key in self.anchors(obj))
        words = {Aspect(node, "healthy"): word for node in nodes if node}
        self._statements.say(self._speaker(obj), self._source(obj), words, first=first)

    def leave(self, obj: MachineHealthCheck) -> None:
        """Take its words back."""
        self._statements.say(self._speaker(obj), self._source(obj), {})

    def again(self, obj: MachineHealthCheck) -> None:
        """Offer its words once more."""
        self._statements.again(self._speaker(obj))

    def _speaker(self, obj: MachineHealthCheck) -> str:
        return f"check/{self._family}/{obj.namespace}/{obj.name}"

    def _source(self, obj: MachineHealthCheck) -> str:
        return f"MachineHealthCheck {obj.namespace}/{obj.name}"


class BareMetalHostSink(LinkedSink[BareMetalHost]):
    """Metal3's hosts: their power and health as the bare metal operator polls it, a minute old.

    Old by design, so this is no word of the power plane. A host that somebody has asked to reboot
    is somebody else's business until the annotation is taken off.
    """

    def __init__(self, links: MachineLinks, statements: Statements, board: HandsOffBoard) -> None:
        self._statements = statements
        self._board = board
        super().__init__(links)

    def anchors(self, obj: BareMetalHost) -> tuple[MachineKey, ...]:
        """Return the Machine that uses it, or the Metal3Machine that stands for one."""
        consumer = obj.consumer
        if not consumer.name:
            return ()
        family = OPENSHIFT if consumer.kind == "Machine" else consumer.kind
        return (MachineKey(family, consumer.namespace or obj.namespace, consumer.name),)

    def judge(self, obj: BareMetalHost, *, first: bool) -> None:
        """Say how the host is, and whether somebody reboots it."""
        node = next((self.links.node_of(key) for key in self.anchors(obj)), "")
        words: dict[Aspect, Word] = {}
        if node and obj.in_use:
            if obj.powered_on is not None:
                power = Reading.UP if obj.powered_on else Reading.DOWN
                words[Aspect(node, "poweredOn")] = Word(power, f"poweredOn={obj.powered_on}")
            state = {"OK": Reading.UP, "error": Reading.DOWN}.get(obj.operational_status)
            if state is not None:
                detail = f"operationalStatus={obj.operational_status} {obj.error_type}".strip()
                words[Aspect(node, "operationalStatus")] = Word(state, detail)
        self._statements.say(_host(obj), f"BareMetalHost {_path(obj)}", words, first=first)
        asked = obj.reboot_asked_by
        why = f"BareMetalHost {obj.name}: {', '.join(asked)}"
        held = [_hands_off("BareMetalHost", obj, node, why)] if asked and node else []
        self._board.hold(_host(obj), held)

    def leave(self, obj: BareMetalHost) -> None:
        """Take its words back."""
        self._statements.say(_host(obj), f"BareMetalHost {_path(obj)}", {})
        self._board.hold(_host(obj), ())

    def again(self, obj: BareMetalHost) -> None:
        """Offer its words once more."""
        self._statements.again(_host(obj))
        self._board.again(_host(obj))


def _words(machine: Machine, node: str) -> dict[Aspect, Word]:
    words: dict[Aspect, Word] = {}
    if phase := machine.phase:
        reading = _PHASES.get(phase, Reading.UNKNOWN)
        words[Aspect(node, "phase")] = Word(reading, f"{phase} {machine.failure}".strip())
    for kind in _CONDITIONS:
        condition = machine.condition(kind)
        if condition is not None:
            reading = _READINGS.get(condition.status, Reading.UNKNOWN)
            detail = f"{kind}={condition.status} {condition.reason or ''}".strip()
            words[Aspect(node, kind)] = Word(reading, detail)
    if missing := machine.instance_missing:
        words[Aspect(node, INSTANCE_GONE)] = Word(Reading.DOWN, missing)
    return words


def _under_remediation(machine: Machine) -> str:
    """Return what somebody does with the Machine, "" when nobody is at it."""
    if machine.deleting:
        return "is being deleted"
    if EXTERNAL_REMEDIATION in machine.annotations:
        return f"is to be remediated ({EXTERNAL_REMEDIATION})"
    for kind in _ASKED_FOR_REMEDIATION:
        condition = machine.condition(kind)
        if condition is not None and condition.status == "False":
            return f"is to be remediated ({kind}=False {condition.reason or ''})".replace(" )", ")")
    return ""


def _hands_off(kind: str, obj: Machine | BareMetalHost, node: str, why: str) -> HandsOffFacts:
    return HandsOffFacts(
        namespace=obj.namespace, name=f"{kind}:{obj.name}", uid=obj.uid, node=node, why=why
    )


def _speaker(key: MachineKey) -> str:
    return "/".join(key)


def _source(machine: Machine) -> str:
    return f"Machine {_path(machine)}"


def _host(host: BareMetalHost) -> str:
    return f"host/{_path(host)}"


def _path(obj: Machine | BareMetalHost) -> str:
    return f"{obj.namespace}/{obj.name}"
