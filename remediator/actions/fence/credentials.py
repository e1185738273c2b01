"""Who logs in to a fence device: read from files or a Secret, never logged, never kept for long."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Final, Protocol

import msgspec

from remediator.clock import Clock
from remediator.fence_config.document import Credentials, SecretKeys
from remediator.kube.client import KubeClient
from remediator.kube.errors import ApiError
from remediator.kube.transport import TransportError
from remediator.logs import register_secret

_LIMIT: Final = 4096  # bytes; a larger file or value is no password
# A Secret is read again after this: BMCs are asked every two seconds on suspicion.
_SECRET_KEPT_S: Final = 30.0
_TIMEOUT_S: Final = 3.0


class CredentialsError(Exception):
    """The credentials cannot be read; one line that names the file or Secret, never its content."""


class Login(msgspec.Struct, frozen=True, kw_only=True):
    """A user name and a password."""

    username: str
    password: str

    def __repr__(self) -> str:
        """Keep the password out of tracebacks."""
        return f"Login(username={self.username!r}, password=[redacted])"


class Logins(Protocol):
    """Where a driver gets its login from."""

    async def login(self) -> Login:
        """Read it. Raises CredentialsError."""
        ...


class _SecretBody(msgspec.Struct):
    data: dict[str, str] | None = None


class StoredLogins:
    """Logins as the configuration names them: plain user name, files, or a Secret."""

    def __init__(
        self, source: Credentials, client: KubeClient | None, clock: Clock, namespace: str
    ) -> None:
        self._source = source
        self._client = client
        self._clock = clock
        self._namespace = namespace  # the daemon's own
        self._kept: tuple[float, Login] | None = None

    async def login(self) -> Login:
        """Read the login anew, so that a rotated secret counts at once or within half a minute."""
        if self._source.secret is not None:
            return await self._from_secret(self._source.secret)
        return _from_files(self._source)

    async def _from_secret(self, keys: SecretKeys) -> Login:
        now = self._clock.now()
        if self._kept is not None and now - self._kept[0] < _SECRET_KEPT_S:
            return self._kept[1]
        namespace = keys.namespace or self._namespace
        where = f"Secret {namespace}/{keys.name}"
        if self._client is None:
            raise CredentialsError(f"{where}: no cluster to read it from")
        try:
            body = await self._client.get(
                f"/api/v1/namespaces/{namespace}/secrets/{keys.name}",
                _SecretBody,
                timeout_s=_TIMEOUT_S,
            )
        except (ApiError, TransportError) as error:
            raise CredentialsError(f"{where}: {error}") from error
        data = body.data or {}
        username = self._source.username or _value(data, keys.username_key, where)
        password = _value(data, keys.password_key, where)
        register_secret(password)
        login = Login(username=username, password=password)
        self._kept = (now, login)
        return login


def check_files(source: Credentials) -> None:
    """See that a login can be read now, where it stands in files. Raises CredentialsError."""
    if source.secret is None:
        _from_files(source)


def _from_files(source: Credentials) -> Login:
    username = source.username or _read(source.username_file)
    password = _read(source.password_file)
    register_secret(password)
    return Login(username=username, password=password)


def _read(file: str) -> str:
    path = Path(file)
    try:
        with path.open("rb") as opened:
            content = opened.read(_LIMIT + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise CredentialsError(f"file {path}: {reason}") from error
    return _checked(text, f"file {path}")


def _value(data: dict[str, str], key: str, where: str) -> str:
    if key not in data:
        raise CredentialsError(f"{where}: it has no key {key!r}")
    try:
        text = base64.b64decode(data[key], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise CredentialsError(f"{where}: key {key!r} is not UTF-8 text") from error
    return _checked(text, f"{where}, key {key!r}")


def _checked(text: str, where: str) -> str:
    if len(text) > _LIMIT:
        raise CredentialsError(f"{where}: larger than {_LIMIT} bytes")
    text = text.rstrip("\r\n")
    if not text:
        raise CredentialsError(f"{where}: it is empty")
    if any(mark in text for mark in "\n\r\0"):
        raise CredentialsError(f"{where}: it holds a line break")
    return text
