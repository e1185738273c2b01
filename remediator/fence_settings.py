"""Settings of fence devices; a leaf, because the configuration sits below the actions."""

from __future__ import annotations

from typing import Annotated

import msgspec

# A BMC answers a GET in 0.1 to 2 s; one that needs more than 5 s is treated as not answering.
DEFAULT_TIMEOUT_S = 5.0
# Hardware needs up to about 10 s to report a forced power-off (sushy-tools' emulator does, too).
DEFAULT_OFF_DEADLINE_S = 20.0
# Some BMCs say Off for some seconds while they restart, and obey no order meanwhile. Longer is
# safer, shorter is faster: a host that really lost its power waits so long for its proof.
DEFAULT_ALREADY_OFF_FOR_S = 10.0


class RedfishDevice(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="redfish",
):
    """One kind of Redfish BMC and the nodes that it fences.

    ``endpoint`` and ``system`` may hold ``{node}``, which the node's name replaces. The first
    device whose ``nodes`` patterns (shell globs, case-sensitive) match a node is that node's.
    """

    name: str
    nodes: tuple[str, ...] = ("*",)
    endpoint: str  # "https://bmc-{node}.example"
    system: str = "/redfish/v1/Systems/{node}"  # path of the ComputerSystem resource
    username: str
    password_file: str  # read at every use, so that a rotated secret needs no restart
    verify_tls: bool = True
    ca_file: str | None = None
    timeout_s: Annotated[float, msgspec.Meta(gt=0)] = DEFAULT_TIMEOUT_S  # per request
    off_deadline_s: Annotated[float, msgspec.Meta(gt=0)] = DEFAULT_OFF_DEADLINE_S  # order to "off"
    # How long a BMC must say Off that said so before our order: it may be restarting itself.
    already_off_for_s: Annotated[float, msgspec.Meta(ge=0)] = DEFAULT_ALREADY_OFF_FOR_S
