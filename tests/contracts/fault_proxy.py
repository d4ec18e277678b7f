"""A bad wire before a real S3 server: an HTTP proxy on loopback that spoils some of the requests it passes on.

busy     503 SlowDown, and the server never hears of it
cut      half the answer's body, then the connection ends
flip     one byte of an object's body is another one on its way down
spoil    one byte of what is sent is another one on its way up
drop     the connection ends when half of what is sent has come
lose     the server does what was asked, and the answer is lost
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import urlsplit

FAULTS = ("busy", "cut", "flip", "spoil", "drop", "lose")
BUSY = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate</Message></Error>"


class Asked(NamedTuple):
    method: str
    path: str
    """With the query, which names the part of an upload."""
    size: int
    """Bytes that are sent."""

    @property
    def is_object(self) -> bool:
        return self.path.partition("?")[0].count("/") > 1


@dataclass
class Weather:
    """What happens to each request: `choose` says which fault, or "". `done` counts those that met something to spoil."""

    choose: Callable[[Asked], str]
    done: Counter[str] = field(default_factory=Counter)
    seen: list[Asked] = field(default_factory=list)


def storm(seed: int, every: int = 5) -> Callable[[Asked], str]:
    """Every few requests a fault, of each kind in turn."""
    dice = random.Random(seed)

    def choose(asked: Asked) -> str:
        return dice.choice(FAULTS) if dice.randrange(every) == 0 else ""

    return choose


def first(count: int, fault: str, wanted: Callable[[Asked], bool] = lambda _: True) -> Callable[[Asked], str]:
    """The first `count` requests that are wanted."""
    left = [count]

    def choose(asked: Asked) -> str:
        if not left[0] or not wanted(asked):
            return ""
        left[0] -= 1
        return fault

    return choose


@contextmanager
def bad_wire(endpoint: str, weather: Weather) -> Iterator[str]:
    """The address that leads to `endpoint` through the weather."""
    with serving(_handler(urlsplit(endpoint).netloc, weather)) as address:
        yield address


@contextmanager
def serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address of a server of this on loopback, while inside."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(upstream: str, weather: Weather) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def _pass_on(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            asked = Asked(self.command, self.path, size)
            weather.seen.append(asked)
            fault = weather.choose(asked)
            if fault == "drop" and size:
                self.rfile.read(size // 2)
                self._hang_up(fault)
                return
            body = self.rfile.read(size)
            if fault == "busy":
                weather.done[fault] += 1
                self._answer(503, [("Content-Type", "application/xml")], BUSY)
                return
            if fault == "spoil" and size:
                weather.done[fault] += 1
                body = _flipped(body)
            status, headers, answer = self._asked_upstream(body)
            if fault == "lose":
                self._hang_up(fault)
                return
            if fault == "flip" and self.command == "GET" and asked.is_object and status < 300 and answer:
                weather.done[fault] += 1
                answer = _flipped(answer)
            self._answer(status, headers, answer, cut=fault == "cut" and len(answer) > 1)

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _pass_on

        def _asked_upstream(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            """The signature covers the Host header, which stays as it came."""
            connection = http.client.HTTPConnection(upstream, timeout=30)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in {"expect", "connection"}:
                        connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOPS]
                if self.command == "HEAD":
                    kept += [("Content-Length", answer.getheader("Content-Length", "0"))]
                return answer.status, kept, answer.read()
            finally:
                connection.close()

        def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes, cut: bool = False) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if self.command != "HEAD":
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if cut else body)
            if cut:
                self._hang_up("cut")

        def _hang_up(self, fault: str) -> None:
            weather.done[fault] += 1
            self.close_connection = True
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    return Handler


_HOPS = {"content-length", "transfer-encoding", "connection", "date", "server"}


def _flipped(body: bytes) -> bytes:
    """Somewhere else each time, as on a real wire."""
    at = random.randrange(len(body))
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
