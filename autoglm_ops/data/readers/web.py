"""One file over HTTP: from an allowed host, at the address that was checked, in bounded time and size (threat F09).

No redirects, no proxies, no cookies, no keys: what is at another address is named by that address.
"""

from __future__ import annotations

import http.client
import io
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from autoglm_ops.data.readers.addresses import Resolver, Target, address_of, parse
from autoglm_ops.data.readers.blocks import BLOCK, Stream
from autoglm_ops.data.readers.limits import Limits
from autoglm_ops.data.readers.shards import Blob, Part
from autoglm_ops.errors import Refused, Tampered, TryAgain

CONNECT_SECONDS, WAIT_SECONDS = 10.0, 30.0
_HEADERS = {"Accept-Encoding": "identity", "User-Agent": "autoglm"}


def resolve(host: str, port: int) -> list[str]:
    """Every A and AAAA address of `host`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class Page:
    """`https://host/path`. Its file is called `host/path`, so that two URLs never share a name."""

    def __init__(self, location: str, limits: Limits, resolver: Resolver = resolve) -> None:
        self._target, self._limits, self._resolve = parse(location, limits.hosts), limits, resolver

    def blobs(self) -> Iterator[Blob]:
        """One. `version` is the ETag, or when it was changed. Raises Refused unless the server says how long it is."""
        with self._asked("HEAD", {}) as answer:
            size = answer.headers.get("Content-Length") or ""
            if answer.status != 200 or not size.isdecimal():
                raise self._refused(answer, "says no length")
            if int(size) > self._limits.unpacked:
                raise Refused(
                    f"{self._target.name} has {size} bytes; at most {self._limits.unpacked} are fetched", ("too-large",)
                )
            yield Blob(self._target.name, int(size), _version(answer))

    def identified(self, blob: Blob) -> Blob:
        return blob

    @contextmanager
    def opened(self, part: Part) -> Iterator[Stream]:
        """From where the part begins; what comes before it is read and dropped when the server knows no ranges."""
        start = max(part.start - 1, 0)
        with self._asked("GET", {"Range": f"bytes={start}-"} if start else {}) as answer:
            if answer.status not in ((200, 206) if start else (200,)):
                raise self._refused(answer, "does not give the file")
            first = start if answer.status == 206 else 0
            length = answer.headers.get("Content-Length")
            if length != str(part.blob.size - first) or _version(answer) != part.blob.version:
                raise Tampered(f"{part.blob.name} is another one than when it was listed; list the data again")
            body = _Body(answer, part.blob, first)
            body.skip(start - first)
            yield cast(Stream, io.BufferedReader(body, BLOCK))

    @contextmanager
    def _asked(self, method: str, headers: dict[str, str]) -> Iterator[http.client.HTTPResponse]:
        """The answer's head. The whole of it, and the body after it, must come within `Limits.seconds`, however slowly it trickles."""
        target = self._target
        connection = _Connection(target, address_of(target, self._resolve, self._limits.allow_private))
        watch = threading.Timer(self._limits.seconds, connection.cut_off)
        watch.daemon = True
        watch.start()
        try:
            with _explained(target.name):
                connection.request(method, target.path, headers={**_HEADERS, **headers})
                answer = connection.getresponse()
            yield answer
        finally:
            watch.cancel()
            connection.close()

    def _refused(self, answer: http.client.HTTPResponse, what: str) -> Exception:
        name = self._target.name
        if answer.status >= 500 or answer.status in (408, 425, 429):
            return TryAgain(f"{name}: the server answers {answer.status}; try again")
        if 300 <= answer.status < 400:
            return Refused(
                f"{name} is elsewhere ({answer.status}); redirects are not followed: give the final URL", ("redirect",)
            )
        return Refused(f"{name}: the server {what} (status {answer.status}); check the URL", ("no-such-file",))


class _Connection(http.client.HTTPConnection):
    """To one address, under the name that was asked for: in the Host header and, over TLS, in the certificate."""

    def __init__(self, target: Target, address: str) -> None:
        super().__init__(target.host, target.port, timeout=CONNECT_SECONDS)
        self.default_port = 443 if target.scheme == "https" else 80  # which the Host header leaves out
        self._target, self._address = target, address

    def connect(self) -> None:
        self.sock: Any = socket.create_connection((self._address, self._target.port), CONNECT_SECONDS)
        if self._target.scheme == "https":
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self._target.host)
        self.sock.settimeout(WAIT_SECONDS)

    def cut_off(self) -> None:
        """End what waits on this connection; called from another thread."""
        with suppress(OSError, AttributeError):  # it may be over, or not have begun
            self.sock.shutdown(socket.SHUT_RDWR)


class _Body(io.RawIOBase):
    """The answer's bytes: as many as were promised, or TryAgain."""

    def __init__(self, answer: http.client.HTTPResponse, blob: Blob, at: int) -> None:
        self._answer, self._blob, self._at = answer, blob, at

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._blob.size - self._at)
        if wanted == 0:
            return 0
        with _explained(self._blob.name):
            piece = self._answer.read1(wanted)
        if not piece:
            raise TryAgain(
                f"{self._blob.name} broke off after {self._at} of {self._blob.size} bytes, or took longer than allowed; try again"
            )
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def skip(self, count: int) -> None:
        room = memoryview(bytearray(min(count, BLOCK)))
        while count > 0:
            count -= self.readinto(room[:count])


@contextmanager
def _explained(name: str) -> Iterator[None]:
    """Faults of the network as errors of the house."""
    try:
        yield
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"{name}: the server cannot prove its name ({error.verify_message})", ("bad-certificate",)) from error
    except (OSError, http.client.HTTPException) as error:
        raise TryAgain(f"{name} could not be read ({type(error).__name__}: {error}); try again") from error


def _version(answer: http.client.HTTPResponse) -> str:
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
