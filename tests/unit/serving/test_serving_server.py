"""Bytes on the wire that no client library would send, and addresses that cannot be had."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from urllib.parse import urlparse

import pytest
from serving_parts import KEY, Shelf, made, running

from autoglm_ops.errors import UsageError
from autoglm_ops.serving import server
from autoglm_ops.serving.limits import Bounds

HEAD = f"POST /v1/classify HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\n"


def talk(url: str, *parts: bytes, wait: float = 0.0, patience: float = 5.0) -> bytes:
    """Send parts with a pause after each; everything that came back until the server closed or fell silent."""
    where = urlparse(url)
    got = b""
    with socket.create_connection((where.hostname, where.port), timeout=patience) as line:
        try:
            for part in parts:
                line.sendall(part)
                time.sleep(wait)
            while chunk := line.recv(65536):
                got += chunk
                if b"}" in chunk:
                    break
        except (ConnectionError, TimeoutError):
            pass
    return got


def test_a_body_is_counted_while_it_is_read(tmp_path: Path, shelf: Shelf) -> None:
    """Threat F34: with a length, without one, and with a false one."""
    with made(tmp_path, shelf, bounds=Bounds(body_bytes=1000)) as parts, running(parts) as url:
        declared = talk(url, HEAD.encode() + b"content-length: 999999999999\r\n\r\n")
        assert b" 413 " in declared and b"body_too_large" in declared
        chunk = b"200\r\n" + b"x" * 512 + b"\r\n"
        chunked = talk(url, HEAD.encode() + b"transfer-encoding: chunked\r\n\r\n", chunk, chunk)
        assert b" 413 " in chunked, "answered before the body's end ever came"
        fits = b'{"input": "ab"}'
        assert b" 200 " in talk(url, HEAD.encode() + f"content-length: {len(fits)}\r\n\r\n".encode() + fits)
        assert b" 401 " in talk(url, b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n\r\n")


def test_a_trickling_body_ends_at_the_deadline(tmp_path: Path, shelf: Shelf) -> None:
    with made(tmp_path, shelf, bounds=Bounds(seconds=0.3)) as parts, running(parts) as url:
        started = time.monotonic()
        got = talk(url, HEAD.encode() + b"content-length: 50\r\n\r\n", b'{"in')
        assert b" 408 " in got and b"body_too_slow" in got
        assert time.monotonic() - started < 2


def test_a_trickling_or_endless_head_is_cut_off(tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.3)
    with made(tmp_path, shelf) as parts, running(parts) as url:
        started = time.monotonic()
        assert talk(url, b"GET /healthz HT") == b""
        assert talk(url, b"") == b"", "a connection on which nothing is asked"
        assert time.monotonic() - started < 3
        assert talk(url, b"GET /healthz HTTP/1.1\r\n" + b"x: " + b"y" * 300_000) == b""
        many = [f"x{n}: {'y' * 1000}\r\n".encode() for n in range(300)]
        assert talk(url, b"GET /healthz HTTP/1.1\r\n", *many, wait=0.0005) == b""
        twice = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
        assert talk(url, twice, wait=0.1).endswith(b'{"status":"ok"}')


def test_an_idle_connection_that_was_used_before_is_left_to_keep_alive(
    tmp_path: Path, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    ask = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    with made(tmp_path, shelf) as parts, running(parts) as url:
        where = urlparse(url)
        with socket.create_connection((where.hostname, where.port), timeout=5) as line:
            for _ in range(3):
                line.sendall(ask)
                assert b" 200 " in line.recv(65536)
                time.sleep(0.4)


def test_a_request_too_many_is_refused_at_admission(tmp_path: Path, shelf: Shelf) -> None:
    with made(tmp_path, shelf, bounds=Bounds(requests=1)) as parts, running(parts) as url:
        where = urlparse(url)
        with socket.create_connection((where.hostname, where.port)) as holder:
            holder.sendall(HEAD.encode() + b"content-length: 50\r\n\r\n")
            time.sleep(0.2)
            second = talk(url, HEAD.encode() + b"content-length: 2\r\n\r\n{}")
        assert b" 503 " in second and b"retry-after: 1" in second


def test_a_port_in_use_and_a_foreign_address_are_one_clear_message() -> None:
    with server.bind("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert server.address(first) == f"http://127.0.0.1:{port}"
        with pytest.raises(UsageError, match=f"port {port} on 127.0.0.1 is in use"):
            server.bind("127.0.0.1", port)
    server.bind("127.0.0.1", port).close()
    for host in ("192.0.2.1", "no such host", "host.invalid"):
        with pytest.raises(UsageError):
            server.bind(host, 0)
