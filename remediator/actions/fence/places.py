"""Where a device is: two nodes whose devices are in one place would fence each other.

Told from the configuration alone, before anything is asked. Devices that another program finds
(``medik8s``, ``machine``, ``networkFence``) go by the node, and a crash listener has no place.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from remediator.actions.fence.agent_metadata import SPEAKS_FOR_ITSELF
from remediator.fence_config.document import AgentFence, AnyDevice, Metal3Fence, RedfishFence

_OLD_NAMES: Final = {"ipaddr": "ip", "port": "plug", "login": "username", "udpport": "ipport"}
# What an agent is told about how to ask, which is no part of where.
_MANNERS: Final = re.compile(
    r"auth|cipher|lanplus|privlvl|method|hexadecimal_kg|ssl.*|notls|tls.*|username|"
    r"inet4_only|inet6_only|secure|ssh_options|identity_file|cmd_prompt|separator|retry_on|"
    r".*(timeout|wait|delay|_path|version)|quiet|verbose.*|debug.*|disable_.*|snmp_.*|community"
)


def place_of(device: AnyDevice, node: str) -> str:
    """Return a name of the place that this device is in for a node; "" where there is none."""
    match device:
        case RedfishFence():
            where = _where(device.endpoint.replace("{node}", node))
            system = device.system.replace("{node}", node).rstrip("/")
            return f"redfish {where} {system}".rstrip()
        case AgentFence() if device.program not in SPEAKS_FOR_ITSELF:
            given = {**device.parameters, **device.node_parameters.get(node, {})}
            told = {
                _OLD_NAMES.get(name, name): value.replace("{node}", node)
                for name, value in given.items()
            }
            parts = [
                f"{name}={value}"
                for name, value in sorted(told.items())
                if not _MANNERS.fullmatch(name)
            ]
            return " ".join((device.program, *parts))
        case Metal3Fence() if device.host:
            return f"metal3 {device.namespace}/{device.host.replace('{node}', node)}"
        case _:
            return ""


def _where(endpoint: str) -> str:
    """Return host, port and path, however they are written."""
    try:
        url = urlsplit(endpoint)
        port = url.port or {"https": 443, "http": 80}.get(url.scheme, 0)
    except ValueError:  # a node's name may have made it no URL
        return endpoint
    return f"{url.hostname}:{port}{url.path.rstrip('/')}"
