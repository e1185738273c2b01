"""Settings of the admission gate's webhook. A leaf."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]

# Said at start, for whoever wonders later why all VMs booted together.
WITHOUT_WEBHOOK: Final = (
    "only the restarts that this daemon makes are paced: VMs that somebody else restarts start "
    "together, and so do those of a dead node that are left when Kubernetes removes its pods by "
    "itself (43 to 53 s after the loss, and 20 s more)"
)


class AdmissionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the webhook listens, and with which certificate. Off until both files are named."""

    cert_file: str = ""  # PEM: the certificate and its chain (a Secret's tls.crt)
    key_file: str = ""  # PEM: its key (tls.key)
    host: str = "0.0.0.0"  # noqa: S104 - the API server comes to the pod's address
    port: Port = 9443  # 0 picks a free one (the log line ``webhook_listening`` names it)
    # cert-manager and the kubelet change mounted files in place; they are looked at this often.
    reload_s: Positive = 10.0
    # What a leader said longer ago than this is no state any more: nothing is held back then. It
    # speaks every second; three that are lost, and the time to notice a dead leader on the way.
    fresh_s: Positive = 4.0

    @property
    def enabled(self) -> bool:
        """Whether a webhook is served at all."""
        return bool(self.cert_file or self.key_file)


class AdmissionSettingsError(ValueError):
    """A setting of the admission gate that cannot work; ``path`` leads to it."""

    def __init__(self, text: str, *path: str) -> None:
        super().__init__(text)
        self.path = path


def check_settings(settings: AdmissionSettings) -> None:
    """Refuse what types cannot. Raises AdmissionSettingsError."""
    for name, other in (("cert_file", "key_file"), ("key_file", "cert_file")):
        if getattr(settings, other) and not getattr(settings, name):
            raise AdmissionSettingsError(f"missing: {other} is of no use without it", name)
