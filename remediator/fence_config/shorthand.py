"""``fence.devices`` of the daemon's own settings, as the configurations that they stand for."""

from __future__ import annotations

import hashlib

import msgspec

from remediator.fence_config.document import (
    Credentials,
    Level,
    NodeSelector,
    RedfishFence,
    Spec,
)
from remediator.fence_config.loader import FenceConfig
from remediator.fence_settings import RedfishDevice

# As often as the engine tries each step (StepSettings.attempts): there is no other level.
ATTEMPTS = 3


def from_device(device: RedfishDevice) -> FenceConfig:
    """Return the configuration with this one device on its one level."""
    redfish = RedfishFence(
        name=device.name,
        timeout_s=device.off_deadline_s,
        endpoint=device.endpoint,
        system=device.system,
        credentials=Credentials(username=device.username, password_file=device.password_file),
        verify_tls=device.verify_tls,
        ca_file=device.ca_file or "",
        request_timeout_s=device.timeout_s,
        already_off_for_s=device.already_off_for_s,
    )
    return FenceConfig(
        name=device.name,
        source="fence.devices",
        content_hash=hashlib.sha256(msgspec.json.encode(device, order="sorted")).hexdigest(),
        spec=Spec(
            nodes=NodeSelector(names=device.nodes),
            devices=(redfish,),
            levels=(Level(devices=(device.name,), attempts=ATTEMPTS),),
        ),
    )
