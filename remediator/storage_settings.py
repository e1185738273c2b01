"""Where storage is asked for its replicas that tells nothing of them in the cluster."""

from __future__ import annotations

import msgspec


class StorageApiSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Addresses of APIs; empty: that storage is not asked."""

    portworx_url: str = ""  # http://portworx-service.portworx:9001
    portworx_token_file: str = ""  # where Portworx wants a token; read anew each time
    mayastor_url: str = ""  # http://mayastor-api-rest.mayastor:8081
    period_s: float = 60.0  # replicas move when somebody rebuilds them, which takes minutes
