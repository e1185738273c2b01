"""Does the node live after all? Its Lease, read fresh, against what the lease watch remembers.

``renewTime`` is the node's own clock, so it is only ever compared with itself: another value than
before is a renewal, whatever it says. When it happened is known from our clock, by the watch.
"""

from __future__ import annotations

from remediator.actions.world import World
from remediator.engine.model import Proof


def renewed_since(
    world: World, node: str, fresh: str | None, proof: Proof, *, anchor: str | None = None
) -> str | None:
    """Say in words that the node renewed its Lease after ``proof``; None where it did not.

    ``fresh`` is the Lease's renewTime, read just now; None where there is no Lease. Where it is
    ahead of the watch, the renewal counts as having happened now: doubt spares. ``anchor`` is a
    renewTime noted earlier, which a restart of the daemon does not forget; it decides where the
    watch found the renewal and did not see it happen.
    """
    if fresh is None:
        return None
    known = world.last_beat(node)
    changed_at = 0.0
    if known is not None:
        renew_time, changed_at = known
        if fresh != renew_time:
            return "it renewed its lease just now"
        if changed_at > world.void_after(proof):
            return f"it renewed its lease {world.clock.now() - changed_at:.1f} s ago"
    if not changed_at and anchor and fresh != anchor:
        return "it has renewed its lease since its volumes were released"
    return None
