"""What a fence device says about a node's power: the word that probes and actions share."""

from __future__ import annotations

import msgspec

from remediator.engine.model import Reading


class PowerReading(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One answer, or the reason why there is none.

    ``UP`` is on, ``DOWN`` is off and nothing else; every doubt is ``UNKNOWN`` with ``detail``.
    """

    reading: Reading
    source: str  # who says so: "redfish https://…/Systems/n3"
    detail: str = ""
