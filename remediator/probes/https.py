"""Ask a health page over HTTPS; whoever answers lives, whatever the certificate says.

One connection per probe, never a pooled one: a kept connection shows that an old path still
works, fails by itself whenever the server closes it between two probes, and hides that no new
connection can be made. The price is a TLS handshake, about a millisecond of CPU, and it is paid
only where somebody asks or another probe has failed.
"""

from __future__ import annotations

import ssl

import aiohttp


class HttpsAsker:
    """GETs pages. Use it on one event loop."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def status(self, url: str, timeout_s: float) -> int:
        """Return the status of the answer; redirects are an answer and are not followed.

        Raises TimeoutError, ConnectionRefusedError, ConnectionResetError where something answers
        that does not speak HTTPS, and OSError for everything else.
        """
        session = self._session or self._open()
        try:
            async with session.get(
                url, allow_redirects=False, timeout=aiohttp.ClientTimeout(total=timeout_s)
            ) as answer:
                return answer.status
        except TimeoutError:
            raise
        except (aiohttp.ClientSSLError, ssl.SSLError) as error:
            raise ConnectionResetError(f"no TLS: {error}") from error
        except aiohttp.ClientOSError as error:
            if error.errno is None:
                raise ConnectionResetError(str(error)) from error
            raise OSError(error.errno, error.strerror) from error
        except aiohttp.ClientError as error:
            raise ConnectionResetError(f"no HTTP: {error}") from error

    async def close(self) -> None:
        """End what is under way."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        tls = ssl.create_default_context()
        tls.check_hostname = False
        tls.verify_mode = ssl.CERT_NONE
        self._session = aiohttp.ClientSession(
            # No limit here: the vantage point bounds what is in flight.
            connector=aiohttp.TCPConnector(ssl=tls, force_close=True, limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self._session
