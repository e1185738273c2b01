"""Where NATS is and how to prove who we are."""

from __future__ import annotations

import importlib.util
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

EMBEDDED = "embedded"


class NatsConfigError(Exception):
    """The settings cannot work; the text is one line and names the setting."""


class NatsSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach NATS. Secrets are named by file, so that they rotate and never show in a dump.

    ``url`` is ``embedded`` or one or several ``nats://`` or ``tls://`` URLs divided by commas.
    ``replicas`` is the number of copies of SIGNALS and DECISIONS (3 on a three-server cluster).
    """

    url: str = EMBEDDED
    user: str = ""
    password_file: str = ""
    token_file: str = ""
    creds_file: str = ""
    nkey_seed_file: str = ""
    tls_ca_file: str = ""
    tls_cert_file: str = ""
    tls_key_file: str = ""
    tls_server_name: str = ""
    connect_timeout_s: float = 5.0
    replicas: int = 1
    embedded_dir: str = ""

    @property
    def servers(self) -> list[str]:
        """Return the URLs one by one."""
        return [part.strip() for part in self.url.split(",") if part.strip()]

    @property
    def tls_required(self) -> bool:
        """Whether a plaintext connection must be refused."""
        return any(server.startswith("tls://") for server in self.servers)


def check_settings(settings: NatsSettings) -> None:
    """Refuse what cannot work, before any connection. Raises NatsConfigError."""
    if settings.connect_timeout_s <= 0:
        raise NatsConfigError("nats.connect_timeout_s must be greater than 0")
    if settings.replicas not in (1, 3, 5):
        raise NatsConfigError(f"nats.replicas must be 1, 3 or 5, not {settings.replicas}")
    if settings.url == EMBEDDED:
        if settings.replicas != 1:
            raise NatsConfigError(
                "nats.replicas must be 1 with nats.url embedded: it is one server"
            )
        return
    if not settings.servers:
        raise NatsConfigError("nats.url is empty: give 'embedded', nats://HOST:PORT or tls://…")
    schemes = {_check_url(server) for server in settings.servers}
    if len(schemes) > 1:
        raise NatsConfigError("nats.url mixes nats:// and tls://: TLS must hold for all or none")
    _check_credentials(settings)


def redacted(url: str) -> str:
    """Return the URLs without their passwords, for logs and errors."""
    return ",".join(_without_userinfo(part.strip()) for part in url.split(","))


def read_secret(path: str, setting: str) -> str:
    """Read a one-line secret file. Raises NatsConfigError."""
    try:
        secret = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise NatsConfigError(f"{setting}: cannot read {path}: {reason}") from error
    if not secret:
        raise NatsConfigError(f"{setting}: {path} is empty")
    return secret


def tls_context(settings: NatsSettings) -> ssl.SSLContext | None:
    """Return the TLS context that the settings ask for, None for the library's default.

    Raises NatsConfigError.
    """
    if not (settings.tls_ca_file or settings.tls_cert_file or settings.tls_required):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca_file or None)
    except (OSError, ssl.SSLError) as error:
        raise NatsConfigError(
            f"nats.tls_ca_file: cannot use {settings.tls_ca_file}: {error}"
        ) from error
    if settings.tls_cert_file:
        try:
            context.load_cert_chain(settings.tls_cert_file, settings.tls_key_file or None)
        except (OSError, ssl.SSLError) as error:
            raise NatsConfigError(
                f"nats.tls_cert_file: cannot use {settings.tls_cert_file}: {error}"
            ) from error
    return context


def _check_url(server: str) -> str:
    shown = redacted(server)
    try:
        parts = urlsplit(server)
        port = parts.port
    except ValueError as error:
        raise NatsConfigError(f"nats.url: {shown!r} is not a URL: {error}") from error
    if parts.scheme not in ("nats", "tls"):
        raise NatsConfigError(f"nats.url: {shown!r} must begin with nats:// or tls://")
    if not parts.hostname:
        raise NatsConfigError(f"nats.url: {shown!r} names no host")
    if port == 0:
        raise NatsConfigError(f"nats.url: {shown!r} has port 0")
    return parts.scheme


def _check_credentials(settings: NatsSettings) -> None:
    ways = {
        "user": settings.user,
        "token_file": settings.token_file,
        "creds_file": settings.creds_file,
        "nkey_seed_file": settings.nkey_seed_file,
    }
    given = [f"nats.{way}" for way, value in ways.items() if value]
    if len(given) > 1:
        raise NatsConfigError(f"give one way to log in, not {' and '.join(given)}")
    if bool(settings.user) != bool(settings.password_file):
        raise NatsConfigError("nats.user and nats.password_file belong together")
    if settings.tls_key_file and not settings.tls_cert_file:
        raise NatsConfigError("nats.tls_key_file needs nats.tls_cert_file")
    for setting in ("password_file", "token_file", "creds_file", "nkey_seed_file"):
        path: str = getattr(settings, setting)
        if path:
            read_secret(path, f"nats.{setting}")
    if (settings.creds_file or settings.nkey_seed_file) and not importlib.util.find_spec("nkeys"):
        raise NatsConfigError(
            "nats.creds_file and nats.nkey_seed_file need the Python package nkeys, which is not "
            "installed (pip install 'nats-py[nkeys]')"
        )
    tls_context(settings)


def _without_userinfo(url: str) -> str:
    scheme, divider, rest = url.partition("://")
    if not divider:
        return url
    authority, slash, path = rest.partition("/")
    return f"{scheme}://{authority.rpartition('@')[2]}{slash}{path}"
