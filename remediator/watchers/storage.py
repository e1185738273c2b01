"""The storage plane: whether the storage still hears a node.

``up`` is said only of what was seen to happen: a status that stood there when we came, or that
nobody wrote since, says nothing of now. It is repeated while signs of life go on, every ten seconds
at most. ``down`` stands until the node is heard again. Nothing here is derived from the Kubernetes
Node, or it would be the lease once more.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from remediator.clock import Clock
from remediator.engine.model import Plane, Reading, Signal, node_subject
from remediator.kube.storage_objects import CsiAddonsNode, StorageNode
from remediator.watchers.linked import QuietSink
from remediator.watchers.outlet import Outlet

REPEAT_S: Final = 10.0  # a node's repeated signs of life: at most one in this time


class _Voice:
    """What one storage system says of one node."""

    __slots__ = ("detail", "reading", "told_at")

    def __init__(self) -> None:
        self.reading = Reading.UNKNOWN
        self.detail = ""
        self.told_at = 0.0


class StorageVoices:
    """What one storage system says of all nodes; publishes changes, and life at its pace."""

    def __init__(self, source: str, outlet: Outlet, clock: Clock) -> None:
        self._source = source
        self._outlet = outlet
        self._clock = clock
        self._voices: dict[str, _Voice] = defaultdict(_Voice)

    def reading(self, node: str) -> Reading:
        """Return what was said of a node last."""
        voice = self._voices.get(node)
        return voice.reading if voice is not None else Reading.UNKNOWN

    def heard(self, node: str, detail: str) -> None:
        """Take a sign of life that happened just now."""
        if not node:
            return
        voice = self._voices[node]
        if voice.reading is not Reading.UP:
            self._say(node, voice, Reading.UP, detail)
        elif self._outlet.is_open and self._clock.now() - voice.told_at >= REPEAT_S:
            voice.detail = detail
            self._publish(node, voice, beat=True)

    def lost(self, node: str, detail: str, *, first: bool = False) -> None:
        """Take that the storage does not hear the node."""
        if node and self._voices[node].reading is not Reading.DOWN:
            self._say(node, self._voices[node], Reading.DOWN, detail, first=first)

    def unsure(self, node: str, detail: str) -> None:
        """Take back what was said of a node."""
        voice = self._voices.pop(node, None)
        if voice is not None and voice.reading is not Reading.UNKNOWN:
            self._say(node, voice, Reading.UNKNOWN, detail)

    def again(self, node: str) -> None:
        """Offer once more that a node is lost. That it was once heard is old by now."""
        voice = self._voices.get(node)
        if voice is not None and voice.reading is Reading.DOWN:
            self._publish(node, voice, first=True)

    def _say(
        self, node: str, voice: _Voice, reading: Reading, detail: str, *, first: bool = False
    ) -> None:
        voice.reading, voice.detail = reading, detail
        self._publish(node, voice, first=first)

    def _publish(
        self, node: str, voice: _Voice, *, first: bool = False, beat: bool = False
    ) -> None:
        if not self._outlet.is_open:
            return
        voice.told_at = self._clock.now()
        signal = Signal(
            plane=Plane.STORAGE,
            source=self._source,
            subject=node_subject(node),
            reading=voice.reading,
            at=voice.told_at,
            detail=voice.detail[:200],
            first=first,
        )
        if beat:
            self._outlet.beat(signal)
        else:
            self._outlet.signal(signal)


class StorageNodeSink(QuietSink[StorageNode]):
    """Portworx' nodes, by the condition that the Portworx cluster itself says (NodeState)."""

    _READINGS: Final = {
        "Online": Reading.UP,
        "Degraded": Reading.UP,  # it serves, a pool of it is being mended
        "Offline": Reading.DOWN,
    }

    def __init__(self, voices: StorageVoices) -> None:
        self._voices = voices

    def seen(self, obj: StorageNode, old: StorageNode | None, *, initial: bool) -> None:
        """Say what changed."""
        state = obj.node_state
        reading = self._READINGS.get(state.status, Reading.UNKNOWN)
        first = initial and old is None
        if reading is Reading.DOWN:
            self._voices.lost(obj.name, f"Portworx says {state.status}", first=first)
        elif reading is Reading.UNKNOWN:
            self._voices.unsure(obj.name, f"Portworx says {state.status or 'nothing'}")
        elif old is None:
            return  # of unknown age
        elif old.node_state != state:
            self._voices.heard(obj.name, f"Portworx says {state.status}")
        elif old.used_size != obj.used_size:
            self._voices.heard(obj.name, "it told Portworx what its pools hold")

    def leave(self, obj: StorageNode) -> None:
        """Take back what was said of the node."""
        self._voices.unsure(obj.name, "Portworx has no such node any more")

    def again(self, obj: StorageNode) -> None:
        """Offer once more that it is lost."""
        self._voices.again(obj.name)


class CsiAddonsSink(QuietSink[CsiAddonsNode]):
    """csi-addons' sidecars, several to a node: whether their controller reached them.

    It connects when a sidecar registers or when it starts itself, not all the time. So a connection
    is a sign of life at its moment, and a node is lost when none of its sidecars can be reached.
    """

    def __init__(self, voices: StorageVoices) -> None:
        self._voices = voices
        self._states: dict[str, dict[tuple[str, str], str]] = defaultdict(dict)

    def seen(self, obj: CsiAddonsNode, old: CsiAddonsNode | None, *, initial: bool) -> None:
        """Say what changed."""
        if old is not None and old.node != obj.node:
            self._states[old.node].pop(_key(old), None)
        states = self._states[obj.node]
        states[_key(obj)] = obj.state
        fresh = old is None or (old.state, old.message) != (obj.state, obj.message)
        if all(state == "Failed" for state in states.values()):
            detail = f"no sidecar of {len(states)} can be reached: {obj.message}"
            self._voices.lost(obj.node, detail, first=initial and old is None)
        elif obj.state == "Connected" and fresh and not initial:
            self._voices.heard(obj.node, f"csi-addons connected to {obj.driver}")
        elif self._voices.reading(obj.node) is Reading.DOWN:
            self._voices.unsure(obj.node, "not all of its sidecars are beyond reach")

    def leave(self, obj: CsiAddonsNode) -> None:
        """Forget a sidecar; with the last one what was said of the node is taken back."""
        states = self._states[obj.node]
        states.pop(_key(obj), None)
        if not states:
            del self._states[obj.node]
            self._voices.unsure(obj.node, "csi-addons has no sidecar there any more")

    def again(self, obj: CsiAddonsNode) -> None:
        """Offer once more that its node is lost."""
        self._voices.again(obj.node)


def _key(obj: CsiAddonsNode) -> tuple[str, str]:
    return (obj.namespace, obj.name)
