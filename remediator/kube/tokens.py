"""Bearer tokens that change while we run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Protocol

# kubelet rewrites a projected token when 80 % of its life is over (an hour by default), and
# client-go reads the file once a minute.
_REREAD_S = 60.0


class TokenError(Exception):
    """There is no token to send; the text says why."""


class TokenSource(Protocol):
    """Gives the value of the Authorization header."""

    async def header(self, *, fresh: bool = False) -> str:
        """Return ``Bearer …``; ``fresh`` asks the source again, since the server said 401.

        Raises TokenError.
        """
        ...


class TokenFile:
    """A token in a file that somebody rewrites (kubelet, for a service account)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._header = ""
        self._read_at = 0.0

    async def header(self, *, fresh: bool = False) -> str:
        """Return the header, from the file if it was read more than a minute ago or ``fresh``.

        A file that cannot be read now leaves the token that we have: it may still be good.
        Raises TokenError when there is none.
        """
        now = asyncio.get_running_loop().time()
        if fresh or not self._header or now - self._read_at > _REREAD_S:
            try:
                # A small file on tmpfs: a thread would take longer than the read.
                token = self._path.read_text(encoding="ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                if not self._header:
                    raise TokenError(f"{self._path}: {error}") from error
            else:
                self._read_at = now
                if token:
                    self._header = f"Bearer {token}"
        if not self._header:
            raise TokenError(f"{self._path}: the token file is empty")
        return self._header


class ExecCredential:
    """A token that a kubeconfig's ``exec`` plugin prints; for people's laptops."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._asked_at = asyncio.get_running_loop().time()
        self._lock = asyncio.Lock()

    async def header(self, *, fresh: bool = False) -> str:
        """Return the header; the plugin runs again when its token expired. Raises TokenError."""
        async with self._lock:
            now = asyncio.get_running_loop().time()
            if fresh or now - self._asked_at > _REREAD_S:
                self._asked_at = now
                if fresh and hasattr(self._loader, "exec_plugin_expiry"):
                    del self._loader.exec_plugin_expiry  # else it trusts the expiry, not the 401
                try:
                    await self._loader.load_from_exec_plugin()
                except Exception as error:  # the library and the plugin raise anything
                    raise TokenError(f"the credential plugin failed: {error}") from error
        return str(getattr(self._loader, "token", ""))
