"""Does the node live after all? Its Lease, read fresh, against what the lease watch remembers.

``renewTime`` is the node's own clock, so it is only ever compared with itself: another value than
before is a renewal, whatever it says. When it happened is known from our clock, by the watch.
"""

from __future__ import annotations

from remediator.actions.world import World


def renewed_since(
    world: World, node: str, fresh: str | None, since_at: float, *, anchor: str | None = None
) -> str | None:
    """Say in words that the node renewed its Lease after ``since_at``; None where it did not.

    ``fresh`` is the Lease's renewTime, read just now; None where there is no Lease. ``anchor`` is
    one noted earlier, which a restart of the daemon does not forget. Where the fresh Lease is ahead
    of the watch, the renewal counts as having happened now: doubt spares.
    """
    if fresh is None:
        return None
    known = world.last_beat(node)
    if known is not None:
        renew_time, changed_at = known
        if fresh != renew_time:
            return "it renewed its lease just now"
        if changed_at > since_at:
            return f"it renewed its lease {world.clock.now() - changed_at:.1f} s ago"
    if anchor and fresh != anchor:
        return "it has renewed its lease since its volumes were released"
    return None
