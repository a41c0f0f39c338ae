"""Starts, kills and stops the real servers that the tests outside of cargo talk to.

Owns: server processes, their ports on loopback, their data directories and their logs. Must never: touch a
process that it did not start, or listen on anything but 127.0.0.1. Used by tests/etcdctl, tests/jetcd,
tests/crash, tests/differential, tests/clients and `.ci/stages`. Several servers that are one cluster are a `Cluster`.

As a program it lends a server to a command, with the server's URL for `{url}` and its address for `{endpoint}`:

  python servers.py covey|etcd COMMAND...

Binaries come from COVEY_BIN and ETCD_BIN; without them `covey` and `etcd` of PATH are taken.
"""

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15
PATIENCE_SECONDS = 60
LOOK_SECONDS = 0.2
LOG_TAIL_LINES = 20

# Linux kills the server when the test goes away, by kill -9 too. Not by code between fork and exec: gRPC's
# threads make that hang.
DIE_WITH_US = ["setpriv", "--pdeathsig", "SIGKILL"]

# Below Linux's range for outgoing connections: a port stays free between a kill and the restart.
PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class Kind:
    """How one sort of server is started. In the commands, {binary} {data} {url} {peer_url} {listen_peer_url} {name}
    are filled in."""

    name: str
    binary_variable: str
    ready_line: bytes
    command: tuple  # of one that is alone
    member_command: tuple  # of one of several; what the cluster is follows

    def binary(self):
        named = os.environ.get(self.binary_variable) or self.name
        found = shutil.which(named)
        if found is None:
            sys.exit(f"no {self.name} to run: {named} is not there; set {self.binary_variable}")
        return str(Path(found).resolve())


COVEY = Kind("covey", "COVEY_BIN", b"ready to serve client requests", (
    "{binary}", "serve", "--solo", "--data-dir", "{data}", "--listen-client-urls", "{url}",
), (
    "{binary}", "serve", "--name", "{name}", "--data-dir", "{data}", "--listen-client-urls", "{url}",
    "--advertise-client-urls", "{url}", "--listen-peer-urls", "{listen_peer_url}", "--initial-advertise-peer-urls", "{peer_url}",
))
ETCD = Kind("etcd", "ETCD_BIN", b"serving client traffic", (
    "{binary}", "--data-dir", "{data}", "--listen-client-urls", "{url}", "--advertise-client-urls", "{url}",
    "--listen-peer-urls", "{peer_url}", "--logger", "zap", "--log-level", "info",
), (
    "{binary}", "--name", "{name}", "--data-dir", "{data}", "--listen-client-urls", "{url}", "--advertise-client-urls", "{url}",
    "--listen-peer-urls", "{listen_peer_url}", "--initial-advertise-peer-urls", "{peer_url}", "--logger", "zap", "--log-level", "info",
))
KINDS = {kind.name: kind for kind in (COVEY, ETCD)}


class NotReady(Exception):
    """The server ended, or went on without getting ready."""


@dataclass
class Server:
    kind: Kind
    data: Path
    flags: tuple = ()
    port: int = 0
    peer_port: int = 0
    scheme: str = "http"
    name: str = ""  # where it is one of several
    peer_host: str = HOST  # what the others call this machine
    process: subprocess.Popen = field(default=None, repr=False)
    log_start: int = 0  # where this run's part of the log begins

    def __post_init__(self):
        self.data = Path(self.data)
        self.port = self.port or free_port()
        self.peer_port = self.peer_port or free_port()
        self.log = self.data.with_name(self.data.name + ".log")
        self.binary = self.kind.binary()

    @property
    def endpoint(self):
        return f"{HOST}:{self.port}"

    @property
    def url(self):
        return f"{self.scheme}://{self.endpoint}"

    @property
    def peer_url(self):
        return f"http://{self.peer_host}:{self.peer_port}"

    def launch(self):
        """Starts the process and returns at once."""
        assert self.process is None, "one process at a time"
        words = {"binary": self.binary, "data": str(self.data), "url": self.url, "name": self.name,
                 "peer_url": self.peer_url, "listen_peer_url": f"http://{HOST}:{self.peer_port}"}
        kind = self.kind.member_command if self.name else self.kind.command
        command = DIE_WITH_US + [part.format(**words) for part in kind] + list(self.flags)
        self.log_start = self.log.stat().st_size if self.log.exists() else 0
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=environment())
        STARTED.add(self)

    def wait_ready(self, seconds=READY_SECONDS_MAX):
        """Returns how long it took; raises NotReady when the process ends first or the time is over."""
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            if self.process.poll() is not None:
                raise NotReady(f"{self.kind.name} ended with {self.process.returncode} before it was ready")
            if self.kind.ready_line in self.read_log() and accepts(self.port):
                return time.monotonic() - begin
            time.sleep(0.005)
        raise NotReady(f"{self.kind.name} was not ready after {seconds} s")

    def start(self, seconds=READY_SECONDS_MAX):
        self.launch()
        return self.wait_ready(seconds)

    def kill(self):
        """kill -9, and the process is gone on return."""
        if self.process is not None:
            self.process.kill()
            self.reap()

    def stop(self, seconds=STOP_SECONDS_MAX):
        """SIGTERM; returns the exit code (negative: the signal that ended it)."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise NotReady(f"{self.kind.name} still ran {seconds} s after SIGTERM") from None
        return self.reap()

    def reap(self):
        code = self.process.wait()
        self.process = None
        STARTED.discard(self)
        return code

    def read_log(self):
        """What this run has logged."""
        with open(self.log, "rb") as log:
            log.seek(self.log_start)
            return log.read()

    def log_tail(self):
        return "\n".join(self.read_log().decode(errors="replace").splitlines()[-LOG_TAIL_LINES:])

    # A server is itself and nothing else: two with equal fields are still two processes.
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class Cluster:
    """Members on loopback, each with a name and a server."""

    def __init__(self, kind, directory, names, flags=(), ports=()):
        self.kind, self.directory, self.flags = kind, Path(directory), tuple(flags)
        self.directory.mkdir()
        self.members = {}
        for place, name in enumerate(names):
            self.members[name] = self.member(name, ports[place] if ports else 0)
        for server in self.members.values():
            server.flags += ("--initial-cluster", self.initial(), "--initial-cluster-state", "new")

    def member(self, name, port=0, **more):
        return Server(self.kind, self.directory / name, self.flags, port=port, name=name, **more)

    def initial(self):
        return ",".join(f"{name}={server.peer_url}" for name, server in self.members.items())

    def start(self):
        """Starts all, and waits until each serves."""
        for server in self.members.values():
            server.launch()
        for server in self.members.values():
            server.wait_ready()

    def add(self, name, **more):
        """A member that joins the others once it is started, if they have been told of it."""
        server = self.members[name] = self.member(name, **more)
        server.flags += ("--initial-cluster", self.initial(), "--initial-cluster-state", "existing")
        return server

    def stop(self):
        """Ends whoever runs; their exit codes by name."""
        running = {name: server for name, server in self.members.items() if server.process is not None}
        for server in running.values():
            server.process.send_signal(signal.SIGTERM)
        return {name: server.stop() for name, server in running.items()}

    def log_tails(self):
        return "\n".join(f"{name}: {server.log_tail()}" for name, server in self.members.items() if server.log.exists())


STARTED = set()
LENT = deque(maxlen=200)  # what says that a port was given out, and may not be listened on yet; the last of them


@atexit.register
def kill_what_we_started():
    for server in list(STARTED):
        server.kill()


def exit_on_signals():
    """Lets SIGTERM and SIGINT run the clean-up above."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: sys.exit(128 + number))


def environment():
    """The environment without what would steer etcd, etcdctl, covey or their connections."""
    steering = ("ETCD_", "ETCDCTL_", "COVEY_")
    return {name: value for name, value in os.environ.items()
            if not name.startswith(steering) and not name.lower().endswith("_proxy")}


def free_port():
    """One that no other program lends either that goes by this."""
    while True:
        port, claim = random.choice(PORTS), socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                claim.bind(f"\0port-lent-{port}")
                probe.bind((HOST, port))
            except OSError:
                claim.close()
                continue
        LENT.append(claim)
        return port


def until(what, look, logs=lambda: ""):
    """What `look` finds, once that is something; ends the program, with the ends of the logs, if it takes too long."""
    begin = time.monotonic()
    while not (found := look()):
        if time.monotonic() - begin > PATIENCE_SECONDS:
            sys.exit(f"FAIL {what}: not in time; the logs end:\n{logs()}")
        time.sleep(LOOK_SECONDS)
    return found


def ended_well(kind, code):
    """On SIGTERM: etcd ends itself with the signal that it got, covey answers it with success."""
    return code == 0 or (kind is ETCD and code == -signal.SIGTERM)


def accepts(port):
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0


def main():
    exit_on_signals()
    if len(sys.argv) < 3 or sys.argv[1] not in KINDS:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="lent-") as scratch:
        server = Server(KINDS[sys.argv[1]], Path(scratch) / "data")
        try:
            server.start()
        except NotReady as why:
            sys.exit(f"{why}; its log ends:\n{server.log_tail()}")
        command = [word.replace("{url}", server.url).replace("{endpoint}", server.endpoint) for word in sys.argv[2:]]
        code = subprocess.run(command, check=False).returncode
        stopped = server.stop()
        if server.kind is COVEY and stopped != 0:
            sys.exit(f"covey ended with {stopped} on SIGTERM; its log ends:\n{server.log_tail()}")
        return code


if __name__ == "__main__":
    sys.exit(main())
