"""The watches of what speaks of guests besides VMs, VMIs and their pods: narrow, and of their own.

Chance is drawn from a source of its own, so that these watches do not change what a seeded
simulation of nodes and leases does.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec

from remediator.clock import Clock
from remediator.engine.model import FactKind
from remediator.kube.metadata import KubeObject
from remediator.kube.objects import (
    ATTACH_FAILURES,
    GUEST_WARNINGS,
    HANDLER_PODS,
    MIGRATIONS,
    MOUNT_FAILURES,
    PROBE_FAILURES,
    Pod,
    Resource,
)
from remediator.kube.reflector import Reflector, ReflectorSettings
from remediator.kube.transport import Transport
from remediator.watchers.customs import Speaker
from remediator.watchers.events import EventSink
from remediator.watchers.facts import FactsSink
from remediator.watchers.handlers import HandlerPodSink
from remediator.watchers.narrow import migration_facts
from remediator.watchers.outlet import Outlet

T = TypeVar("T", bound=KubeObject)

# Of Events no bookmarks come. Their watches are so short that one which is half open is noticed,
# and that a quiet one shows progress twice in three minutes.
_OF_EVENTS = {
    "bookmarks": False,
    "watch_list": False,
    "watch_timeout_min_s": 50.0,
    "watch_timeout_max_s": 60.0,
    "inactivity_timeout_s": 75.0,
}


class GuestWatches:
    """Migrations in flight, virt-handler's pods, and four kinds of Events, by name.

    ``pod`` finds a launcher pod by namespace and name; ``node_exists`` asks for a Node.
    """

    def __init__(
        self,
        transport: Transport,
        outlet: Outlet,
        clock: Clock,
        *,
        identity: str,
        reflector: ReflectorSettings,
        pod: Callable[[str, str], Pod | None],
        node_exists: Callable[[str], bool],
    ) -> None:
        self.watches: dict[str, tuple[Reflector[Any], Speaker[Any]]] = {}
        self._transport = transport
        self._clock = clock
        self._rng = random.Random(f"guests/{identity}")  # noqa: S311 - jitter is no secret
        of_events = msgspec.structs.replace(reflector, **_OF_EVENTS)
        migrations = FactsSink(FactKind.MIGRATION, migration_facts, outlet)
        self._watch("migrations", MIGRATIONS, migrations, reflector)
        handlers = HandlerPodSink(outlet, clock, node_exists)
        self._watch("handler-pods", HANDLER_PODS, handlers, reflector)
        # One sink: its bound is for all that is said of a VM.
        events = EventSink(outlet, clock, pod)
        self._watch("probe-failures", PROBE_FAILURES, events, of_events)
        self._watch("attach-failures", ATTACH_FAILURES, events, of_events)
        self._watch("mount-failures", MOUNT_FAILURES, events, of_events)
        self._watch("guest-warnings", GUEST_WARNINGS, events, of_events)

    def _watch(
        self, name: str, resource: Resource[T], sink: Speaker[T], settings: ReflectorSettings
    ) -> None:
        reflector = Reflector(
            self._transport, resource, sink, clock=self._clock, rng=self._rng, settings=settings
        )
        self.watches[name] = (reflector, sink)
