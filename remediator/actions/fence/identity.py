"""Is this BMC the node's own? Compare the UUID that each of them knows the machine by.

SMBIOS stores the first three fields of a UUID little-endian. Firmware and tools disagree on whether
to swap them when they print it, so one machine may be ``33221100-5544-7766-8899-…`` in its Node
object and ``00112233-4455-6677-8899-…`` in Redfish. Both orders are therefore the same machine.
"""

from __future__ import annotations

import uuid

# What boards print when nobody wrote a UUID into them: no identity at all.
_BLANK = frozenset({uuid.UUID(int=0), uuid.UUID(int=2**128 - 1)})


def parse(text: str) -> uuid.UUID | None:
    """Read a UUID; None where the text is no UUID, or the blank that an unset board prints."""
    try:
        found = uuid.UUID(text.strip())
    except ValueError:
        return None
    return None if found in _BLANK else found


def differ(one: str, other: str) -> bool:
    """Tell whether both are known and name two different machines, in either byte order."""
    left, right = parse(one), parse(other)
    if left is None or right is None:
        return False
    return right.bytes not in (left.bytes, left.bytes_le)
