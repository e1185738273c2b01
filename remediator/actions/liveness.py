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
    ahead of the watch, the renewal counts as having happened now: doubt spares. ``anchor`` is the
    renewTime noted when the node was released, right after the proof. It decides where the watch
    did not see the renewal happen, and for proofs of an earlier leader, whose times are of another
    clock; a renewal that was on its way while our own device was asked is judged by the watch.
    """
    if fresh is None:
        return None
    known = world.last_beat(node)
    changed_at = 0.0
    if known is not None:
        renew_time, changed_at = known
        if fresh != renew_time:
            return "it renewed its lease just now"
    trusts_anchor = anchor and (not changed_at or not world.own(proof))
    if trusts_anchor:
        renewed = fresh != anchor
        return "it has renewed its lease since its volumes were released" if renewed else None
    if changed_at > world.void_after(proof):
        return f"it renewed its lease {world.clock.now() - changed_at:.1f} s ago"
    return None
