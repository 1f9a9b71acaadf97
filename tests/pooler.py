"""Poolers of PostgreSQL by transaction: pgbouncer where it is installed, and a double of it, which
shares real sessions by turns."""

from __future__ import annotations

import os
import pwd
import select
import socket
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL, make_url

ASKS = (80877103, 80877104)  # whether a connection may be encrypted
READY, IDLE = b"Z", b"I"


class Pooler:
    """Lends one session of the server to whoever has a transaction; by default to one at a time.

    drops_options: passes over what it does not know of a session, where pgbouncer refuses it unless
    it is told otherwise (`ignore_startup_parameters`).
    """

    def __init__(self, url: str, *, drops_options: bool) -> None:
        self.server = make_url(url)
        self.drops_options = drops_options
        self.turn = threading.Lock()
        self.door = socket.create_server(("127.0.0.1", 0))
        self.session, self.greeting = self._session()

    @property
    def url(self) -> str:
        """Of the same database, through the pooler."""
        port = self.door.getsockname()[1]
        made = URL.create(
            self.server.drivername, self.server.username, None, "127.0.0.1", port,
            self.server.database,
        )  # fmt: skip
        return made.render_as_string(hide_password=False)

    def serve(self) -> None:
        with suppress(OSError):  # the door is closed
            while True:
                client, _ = self.door.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _session(self) -> tuple[socket.socket, bytes]:
        """A session of the server, and all that it says until it is ready."""
        folder = str(self.server.query.get("host") or "")
        made = socket.socket(socket.AF_UNIX if folder else socket.AF_INET)
        port = self.server.port or 5432
        made.connect(f"{folder}/.s.PGSQL.{port}" if folder else (self.server.host, port))
        named = {"user": self.server.username or "postgres", "database": self.server.database or ""}
        told = b"".join(f"{k}\0{v}\0".encode() for k, v in named.items()) + b"\0"
        made.sendall(struct.pack("!ii", len(told) + 8, 196608) + told)
        said = b""
        while not said or not _is_ready(said):
            said += made.recv(65536)
        return made, said

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(OSError):
            told = _startup(client)
            if b"options\0" in told and not self.drops_options:
                client.sendall(_refusal("unsupported startup parameter: options"))
                return
            client.sendall(self.greeting)
            while asked := client.recv(65536):
                if asked[:1] == b"X":  # the client leaves; the session stays
                    return
                with self.turn:
                    self._transaction(client, asked)

    def _transaction(self, client: socket.socket, asked: bytes) -> None:
        """Hands on what both say, until the server is ready and in no transaction."""
        self.session.sendall(asked)
        said = b""
        while True:
            for speaker in select.select([self.session, client], [], [])[0]:
                heard = speaker.recv(65536)
                if speaker is client:
                    if not heard or heard[:1] == b"X":
                        return
                    self.session.sendall(heard)
                    said = b""
                    continue
                client.sendall(heard)
                said += heard
                if _is_ready(said):
                    return


def _is_ready(said: bytes) -> bool:
    """Whether whole messages end with the server's being ready, outside a transaction."""
    at, last = 0, b""
    while at + 5 <= len(said):
        last, length = said[at : at + 1], int.from_bytes(said[at + 1 : at + 5], "big")
        at += 1 + length
    return at == len(said) and last == READY and said[-1:] == IDLE


def _startup(client: socket.socket) -> bytes:
    while True:
        length, code = struct.unpack("!ii", client.recv(8))
        if code not in ASKS:
            return client.recv(length - 8)
        client.sendall(b"N")


def _refusal(text: str) -> bytes:
    fields = {"S": "FATAL", "V": "FATAL", "C": "08P01", "M": text}
    body = b"".join(f"{k}{v}\0".encode() for k, v in fields.items()) + b"\0"
    return b"E" + struct.pack("!i", len(body) + 4) + body


PGBOUNCER = """
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {door}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 1
ignore_startup_parameters = {dropped}
"""
STARTED = 10.0  # seconds in which it must listen


@contextmanager
def pgbouncer(url: str, *, drops_options: bool) -> Iterator[str]:
    """The URL of a database through pgbouncer."""
    server = make_url(url)
    with socket.create_server(("127.0.0.1", 0)) as free:
        door = free.getsockname()[1]
    host = str(server.query.get("host") or server.host)
    text = PGBOUNCER.format(
        host=host, port=server.port or 5432, user=server.username or "postgres", door=door,
        dropped="extra_float_digits" + ",options" * drops_options,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = Path(folder, "pgbouncer.ini")
        path.write_text(text)
        process = subprocess.Popen(
            ["pgbouncer", "--quiet", *_not_root(host), str(path)], stderr=subprocess.DEVNULL
        )
        try:
            _await(door)
            pooled = server.difference_update_query(["host"]).set(host="127.0.0.1", port=door)
            yield pooled.render_as_string(hide_password=False)
        finally:
            process.terminate()
            process.wait()


def _not_root(host: str) -> list[str]:
    """It refuses to run as root: the owner of the server's socket may, and reach that."""
    if os.geteuid() != 0:
        return []
    owner = pwd.getpwuid(Path(host).stat().st_uid).pw_name if host.startswith("/") else "nobody"
    return ["--user", owner]


def _await(port: int) -> None:
    until = time.monotonic() + STARTED
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.05)


@contextmanager
def pooling(url: str, **how: Any) -> Iterator[str]:
    """The URL of a database through a pooler."""
    pooler = Pooler(url, **how)
    threading.Thread(target=pooler.serve, daemon=True).start()
    try:
        yield pooler.url
    finally:
        pooler.door.close()
        pooler.session.close()
