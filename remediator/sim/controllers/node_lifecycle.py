"""The node lifecycle controller: silent nodes become Ready=Unknown and get taints (k8s).

A node's silence is measured on this controller's own clock, from the moment it saw the lease or
the status change; the times that the kubelet wrote are not compared with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec

from remediator.sim.controllers.conditions import condition_is, find_condition, set_condition
from remediator.sim.controllers.environment import Environment, Ticker
from remediator.sim.controllers.metadata import Obj, key_of
from remediator.sim.controllers.node_taints import (
    READINESS_TAINTS,
    put_taints,
    readiness_taint,
)
from remediator.sim.controllers.node_zones import (
    ZoneEvictions,
    ZoneState,
    eviction_rate,
    zone_of,
    zone_state,
)
from remediator.sim.controllers.pod_index import PodIndex
from remediator.sim.controllers.taints import (
    NO_EXECUTE,
    has_taint,
    taints_of,
)
from remediator.sim.resources import LEASES, NODES, PODS

NODE_LEASES = "kube-node-lease"

_STATUS_TYPES = ("Ready", "MemoryPressure", "DiskPressure", "PIDPressure")


class _Health(msgspec.Struct):
    """When a node last showed life, on this controller's clock."""

    seen_at: float
    renew_time: str
    heartbeat: str


class NodeLifecycle:
    """Watches leases and node status; writes Ready=Unknown and its NoExecute taints."""

    def __init__(self, env: Environment, pods: PodIndex) -> None:
        self._env = env
        self._pods = pods
        self._nodes: dict[str, Obj] = {}
        self._renewals: dict[str, str] = {}
        self._health: dict[str, _Health] = {}
        self._zones: dict[str, ZoneEvictions] = {}
        self._all_disrupted = False
        self._monitor = Ticker(env, env.settings.node_monitor_period_s, self._monitor_nodes)
        self._release_timer: asyncio.TimerHandle | None = None
        self._ends: list[Callable[[], None]] = []

    def start(self) -> None:
        """Subscribe to nodes and leases and begin the monitor's period."""
        store = self._env.store
        self._ends.append(store.subscribe(NODES, self._node_changed))
        self._ends.append(store.subscribe(LEASES, self._lease_changed))
        for node in store.list(NODES):
            self._node_changed("ADDED", node, None)
        for lease in store.list(LEASES, namespace=NODE_LEASES):
            self._lease_changed("ADDED", lease, None)
        self._monitor.start()

    def forget(self) -> None:
        """Start every node's grace again, as a controller that has just been elected."""
        self._health.clear()
        self._zones.clear()
        self._all_disrupted = False

    def stop(self) -> None:
        """End subscriptions and timers."""
        for end in self._ends:
            end()
        self._monitor.stop()
        if self._release_timer is not None:
            self._release_timer.cancel()

    def _node_changed(self, kind: str, node: Obj, _old: Obj | None) -> None:
        name = key_of(node)[1]
        if kind == "DELETED":
            self._nodes.pop(name, None)
            self._health.pop(name, None)
            for zone in self._zones.values():
                zone.waiting.pop(name, None)
            return
        self._nodes[name] = node

    def _lease_changed(self, kind: str, lease: Obj, _old: Obj | None) -> None:
        namespace, name = key_of(lease)
        if namespace == NODE_LEASES and kind != "DELETED":
            self._renewals[name] = lease["spec"].get("renewTime") or ""

    def _monitor_nodes(self) -> None:
        """Do one pass of the monitor: conditions, then zones, then taints."""
        now = self._env.loop.time()
        zones: dict[str, list[bool]] = {}
        for name in list(self._nodes):
            self._note_life(name, now)
            self._mark_silent(name, now)
            node = self._nodes[name]
            zone = zone_of(node)
            zones.setdefault(zone, []).append(condition_is(node, "Ready", "True"))
            self._sync_no_execute(node, zone)
        self._brake(zones, now)
        self._release()

    def _note_life(self, name: str, now: float) -> None:
        node = self._nodes[name]
        renewal = self._renewals.get(name, "")
        ready = find_condition(node, "Ready") or {}
        # Our own write of Unknown keeps lastHeartbeatTime, so only the kubelet moves it.
        heartbeat = ready.get("lastHeartbeatTime") or ""
        health = self._health.get(name)
        if health is None or (renewal, heartbeat) != (health.renew_time, health.heartbeat):
            self._health[name] = _Health(now, renewal, heartbeat)

    def _mark_silent(self, name: str, now: float) -> None:
        node = self._nodes[name]
        settings = self._env.settings
        ready = find_condition(node, "Ready")
        grace_s = settings.node_startup_grace_s if ready is None else settings.node_monitor_grace_s
        # Real passes drift by their own run time, so the tenth is always past the grace.
        if now - self._health[name].seen_at < grace_s - 1e-6:
            return
        if ready is not None and ready["status"] == "Unknown":
            return
        self._env.store.mutate(NODES, "", name, self._set_unknown, subresource="status")
        if ready is not None and ready["status"] == "True":
            self._mark_pods_not_ready(name)

    def _set_unknown(self, node: Obj) -> None:
        now = self._env.timestamp()
        for type_ in _STATUS_TYPES:
            if find_condition(node, type_) is None:
                reason, text = "NodeStatusNeverUpdated", "Kubelet never posted node status."
            else:
                reason, text = "NodeStatusUnknown", "Kubelet stopped posting node status."
            set_condition(node, type_, "Unknown", now=now, reason=reason, message=text)

    def _mark_pods_not_ready(self, node: str) -> None:
        now = self._env.timestamp()
        for pod in self._pods.on_node(node):
            if condition_is(pod, "Ready", "True"):
                namespace, name = key_of(pod)
                self._env.store.mutate(
                    PODS,
                    namespace,
                    name,
                    lambda pod: set_condition(pod, "Ready", "False", now=now),
                    subresource="status",
                )

    def _sync_no_execute(self, node: Obj, zone: str) -> None:
        name = key_of(node)[1]
        wanted = readiness_taint(node)
        held = [key for key in READINESS_TAINTS if has_taint(node, key, NO_EXECUTE)]
        if wanted is None:
            self._queue_of(zone).waiting.pop(name, None)
            if held:
                self._swap_no_execute(name, None)
        elif held and held != [wanted]:
            self._swap_no_execute(name, wanted)
        elif not held:
            self._queue_of(zone).waiting[name] = None

    def _queue_of(self, zone: str) -> ZoneEvictions:
        if zone not in self._zones:
            self._zones[zone] = ZoneEvictions(self._env.settings.eviction_rate_per_s)
        return self._zones[zone]

    def _brake(self, zones: dict[str, list[bool]], now: float) -> None:
        settings = self._env.settings
        threshold = settings.unhealthy_zone_threshold
        states = {zone: zone_state(flags, threshold) for zone, flags in zones.items()}
        all_disrupted = bool(states) and all(s is ZoneState.FULL for s, _ in states.values())
        if all_disrupted and not self._all_disrupted:
            for name, node in list(self._nodes.items()):
                if any(has_taint(node, key, NO_EXECUTE) for key in READINESS_TAINTS):
                    self._swap_no_execute(name, None)
        elif self._all_disrupted and not all_disrupted:
            # Nobody could be heard: every node gets its grace anew.
            for health in self._health.values():
                health.seen_at = now
        self._all_disrupted = all_disrupted
        for zone, (state, size) in states.items():
            rate = 0.0 if all_disrupted else eviction_rate(state, size, settings)
            self._queue_of(zone).rate_per_s = rate

    def _release(self) -> None:
        """Taint every node whose turn it is, and set a timer for the next one."""
        if self._release_timer is not None:
            self._release_timer.cancel()
            self._release_timer = None
        if self._env.gate.blocks("node-noexecute", self._release):
            return
        now = self._env.loop.time()
        waits: list[float] = []
        for zone in self._zones.values():
            while (name := zone.take(now)) is not None:
                node = self._nodes.get(name)
                if node is not None and (taint := readiness_taint(node)) is not None:
                    self._swap_no_execute(name, taint)
            wait_s = zone.next_in_s(now)
            if wait_s is not None:
                waits.append(wait_s)
        # The monitor's next pass calls again in any case; a timer is for what comes before it.
        if waits and min(waits) < self._env.settings.node_monitor_period_s:
            self._release_timer = self._env.loop.call_later(max(0.1, min(waits)), self._release)

    def _swap_no_execute(self, name: str, wanted: str | None) -> None:
        now = self._env.timestamp()

        def change(node: Obj) -> None:
            kept = [
                taint
                for taint in taints_of(node)
                if not (taint["key"] in READINESS_TAINTS and taint["effect"] == NO_EXECUTE)
            ]
            if wanted is not None:
                kept.append({"key": wanted, "effect": NO_EXECUTE, "timeAdded": now})
            put_taints(node, kept)

        self._env.store.mutate(NODES, "", name, change)
