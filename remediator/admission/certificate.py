"""The webhook's certificate, read from mounted files and read anew when they change.

The same TLS context serves on: new connections get the new certificate, open ones go on. A pair
that cannot be used while it is being replaced is not taken: the one before it serves until then.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import structlog
from cryptography import x509

from remediator.clock import Clock
from remediator.metrics import METRICS

log = structlog.get_logger(__name__)

WARN_S: Final = 7 * 24 * 3600.0  # cert-manager renews at two thirds of the lifetime


class CertificateError(Exception):
    """The certificate or its key cannot be used; the text is one line and names the file."""


class Certificate:
    """One pair of files. ``not_after``: when the certificate in use ends, in epoch seconds."""

    def __init__(self, cert_file: str, key_file: str, clock: Clock) -> None:
        self._cert_file = cert_file
        self._key_file = key_file
        self._clock = clock
        self._content: tuple[bytes, bytes] | None = None
        self._refused: tuple[bytes, bytes] | None = None
        self._warned = False
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.not_after = 0.0
        self.loaded = 0  # how often a pair was taken

    def load(self) -> bool:
        """Take the files as they are, if they are others than before. Raises CertificateError."""
        content = (_read(self._cert_file), _read(self._key_file))
        if content == self._content:
            return False
        not_after = _not_after(content[0], self._cert_file)
        _try(self._cert_file, self._key_file)
        if (_read(self._cert_file), _read(self._key_file)) != content:
            raise CertificateError(f"{self._cert_file}: it is being replaced; looked at again")
        self.context.load_cert_chain(self._cert_file, self._key_file)
        self._content, self.not_after = content, not_after
        self.loaded += 1
        METRICS.certificate_ends.set(not_after)
        self._warned = False
        log.info("webhook_certificate", file=self._cert_file, not_after=_day(not_after))
        return True

    async def follow(self, every_s: float) -> None:
        """Look at the files until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            self.look()

    def look(self) -> None:
        """Take the files anew where they have changed; tell once what is wrong with them."""
        try:
            self.load()
            self._refused = None
        except CertificateError as error:
            content = self._present()
            if content is None or content != self._refused:
                log.warning("webhook_certificate_refused", why=str(error))
            self._refused = content
        left_s = self.not_after - self._clock.now()
        if left_s < WARN_S and not self._warned:
            self._warned = True
            log.warning(
                "webhook_certificate_ends",
                not_after=_day(self.not_after),
                meaning="from then on no launcher pod is held back" if left_s > 0 else "it is over",
            )

    def _present(self) -> tuple[bytes, bytes] | None:
        try:
            return _read(self._cert_file), _read(self._key_file)
        except CertificateError:
            return None


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise CertificateError(f"{file}: {error.strerror or error}") from error


def _not_after(content: bytes, file: str) -> float:
    try:
        first = x509.load_pem_x509_certificate(content)
    except ValueError as error:
        raise CertificateError(f"{file}: no certificate in PEM form") from error
    return first.not_valid_after_utc.timestamp()


def _try(cert_file: str, key_file: str) -> None:
    """Load the pair where nobody is served by it."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(
            cert_file,
            key_file,
            password=lambda: "",  # never ask at a terminal
        )
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise CertificateError(f"{cert_file} and {key_file}: {reason}") from error


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
