"""``http_get``: reading from hosts that the operator allowed. What comes back was written by strangers.

Every address is resolved here, checked here, and connected to as checked, so a name cannot point somewhere else
between the check and the use. Redirects go through the same door. Proxies from the environment are not used.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec

from logact import env as environment
from logact.errors import UsageError
from logact.tools.answers import ImageResult, ToolError
from logact.tools.base import Tool, tool
from logact.tools.confine import refused

if TYPE_CHECKING:
    import http.client

REDIRECTS_MAX = 5
URL_CHARACTERS_MAX = 4_000
_PORTS = {"http": 80, "https": 443}
_IMAGES = ("image/png", "image/jpeg", "image/gif", "image/webp")


class _Page(msgspec.Struct):
    url: str
    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool


class Web:
    """The web tool. ``hosts`` are patterns of allowed hosts: ``"docs.python.org"``, ``"*.python.org"``, ``"*"``.

    A pattern without a port means the usual ports only (80, 443); ``"localhost:8080"`` and ``"localhost:*"`` name
    others. Private, loopback, link-local and other special addresses are refused, whatever the name, unless
    ``allow_private``. ``headers`` are sent along to every host.
    """

    def __init__(
        self,
        hosts: Iterable[str],
        *,
        allow_private: bool = False,
        bytes_max: int = 512 * 1024,
        timeout_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if isinstance(hosts, str):
            raise UsageError("hosts is one text", received=repr(hosts), expected="a list of patterns")
        self.hosts = tuple(pattern.lower() for pattern in hosts)
        self.allow_private = allow_private
        self.bytes_max = bytes_max
        self.timeout_s = timeout_s
        self.headers = {"User-Agent": "logact", "Accept-Encoding": "identity"} | dict(headers or {})

    @cached_property
    def tools(self) -> list[Tool]:
        """The tool, for an agent's list of tools."""
        # also a GET tells the other side something: the address is where data goes
        return [
            tool(effect="read", untrusted=True, timeout_s=self.timeout_s + 5, destinations=("url",))(self.http_get)
        ]

    async def http_get(self, url: str) -> Any:
        """Get a web page or file over HTTP or HTTPS. Long ones are cut.

        Args:
            url: The full address, beginning with https:// or http://.
        """
        sockets: list[socket.socket] = []
        try:
            async with asyncio.timeout(self.timeout_s):
                page = await environment.current().in_thread(self._get, url, sockets)
        except TimeoutError as error:
            raise ToolError(f"{url} took more than {self.timeout_s:g} s", kind="timeout", definite=True) from error
        finally:
            # a thread cannot be stopped, but its socket can: timeouts of a socket don't add up to a total limit
            for open_socket in sockets:
                try:
                    open_socket.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
        return _shown(page)

    def _get(self, url: str, sockets: list[socket.socket]) -> _Page:
        from urllib.parse import urljoin

        for _ in range(REDIRECTS_MAX + 1):
            page = self._get_once(url, sockets)
            if page.status not in (301, 302, 303, 307, 308) or "location" not in page.headers:
                return page
            url = urljoin(url, page.headers["location"])
        raise refused(f"{url} redirects more than {REDIRECTS_MAX} times")

    def _get_once(self, url: str, sockets: list[socket.socket]) -> _Page:
        import http.client

        scheme, host, port, target = self._checked(url)
        connection: http.client.HTTPConnection
        if scheme == "https":
            import ssl

            connection = http.client.HTTPSConnection(
                host, port, timeout=self.timeout_s, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self.timeout_s)

        def connect(*_: Any, **__: Any) -> socket.socket:
            opened = self._connect(host, port)
            sockets.append(opened)
            return opened

        # the one hook that http.client has between name and socket; TLS is put on top of what it gives
        setattr(connection, "_create_connection", connect)  # noqa: B010 - typeshed does not list it
        try:
            connection.request("GET", target, headers=self.headers)
            response = connection.getresponse()
            body = response.read(self.bytes_max + 1)
        except ToolError:
            raise
        except TimeoutError as error:
            raise ToolError(f"{url} did not answer in time", kind="timeout", definite=True) from error
        except (OSError, http.client.HTTPException) as error:
            text = str(error) or type(error).__name__
            raise ToolError(f"{url} cannot be read: {text}", kind="transient", definite=True) from error
        finally:
            connection.close()
        headers = {name.lower(): value for name, value in response.getheaders()}
        return _Page(url, response.status, headers, body[: self.bytes_max], len(body) > self.bytes_max)

    def _checked(self, url: str) -> tuple[str, str, int, str]:
        """Scheme, host, port and request target of an allowed address."""
        from urllib.parse import quote, urlsplit

        if len(url) > URL_CHARACTERS_MAX or any(ord(character) <= 32 or ord(character) == 127 for character in url):
            raise refused(f"{url[:200]!r} is no address: too long, or with blanks or control characters")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port or _PORTS.get(parts.scheme, 0)
            if not host.isascii():
                host = host.encode("idna").decode()
        except (ValueError, UnicodeError) as error:
            raise refused(f"{url!r} is no address: {error}") from error
        if parts.scheme not in _PORTS or not host:
            raise refused(f"{url!r}: expected an address that begins with https:// or http://")
        if parts.username is not None or parts.password is not None:
            raise refused(f"{host}: addresses with user names or passwords are refused")
        if not any(self._matches(pattern, parts.scheme, host, port) for pattern in self.hosts):
            raise refused(f"The host {host} (port {port}) is not among the allowed ones: {', '.join(self.hosts)}")
        target = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
        if parts.query:
            target += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?")
        return parts.scheme, host, port, target

    def _matches(self, pattern: str, scheme: str, host: str, port: int) -> bool:
        name, colon, ports = pattern.rpartition(":")
        if not colon or "]" in ports or not (ports == "*" or ports.isdigit()):
            return port == _PORTS[scheme] and fnmatchcase(host, pattern.strip("[]"))
        return fnmatchcase(host, name.strip("[]")) and (ports in ("*", str(port)))

    def _connect(self, host: str, port: int) -> socket.socket:
        from ipaddress import ip_address

        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise ToolError(f"{host} cannot be resolved: {error}", kind="transient", definite=True) from error
        problem: OSError | None = None
        for family, kind, protocol, _, address in found:
            ip = ip_address(str(address[0]).partition("%")[0])
            ip = getattr(ip, "ipv4_mapped", None) or ip
            if not self.allow_private and (not ip.is_global or ip.is_multicast):
                raise refused(f"{host} is at {ip}, which is not a public address")
            connected = socket.socket(family, kind, protocol)
            connected.settimeout(self.timeout_s)
            try:
                connected.connect(address)
            except OSError as error:
                connected.close()
                problem = error
                continue
            return connected
        raise ToolError(f"{host} cannot be reached: {problem}", kind="transient", definite=True) from problem


def _shown(page: _Page) -> Any:
    """A page as a tool's result; an error status as a :class:`ToolError`. Nothing has changed in any case."""
    content_type = page.headers.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    text = _decoded(page.body, content_type)
    if not 200 <= page.status < 300:
        wait = page.headers.get("retry-after", "")
        transient = page.status >= 500 or page.status in (408, 425, 429)
        raise ToolError(
            f"{page.url} answered {page.status}: {(text or '')[:500]}",
            kind="transient" if transient else "permanent",
            definite=True,
            retry_after_s=float(wait) if wait.isdigit() and len(wait) < 7 else None,
        )
    if media_type in _IMAGES and not page.truncated:
        return ImageResult(page.body, media_type, page.url)
    result: dict[str, Any] = {"url": page.url, "status": page.status, "content_type": content_type}
    if text is None:
        return result | {"text": "", "note": f"not text: {len(page.body)} bytes, left out"}
    result["text"] = text
    if page.truncated:
        result["truncated"] = True
    return result


def _decoded(body: bytes, content_type: str) -> str | None:
    """The body as text; None if it is none."""
    if b"\0" in body[:4096]:
        return None
    charset = "utf-8"
    for part in content_type.lower().split(";")[1:]:
        name, _, value = part.strip().partition("=")
        if name == "charset":
            charset = value.strip("\"' ")
    try:
        return body.decode(charset, "replace")
    except LookupError:
        return body.decode("utf-8", "replace")
