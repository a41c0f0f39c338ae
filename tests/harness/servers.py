"""Starts, kills and stops the real servers that the tests outside of cargo talk to.

Owns: server processes, their ports on loopback, their data directories and their logs. Must never: touch a
process that it did not start, or listen on anything but 127.0.0.1. Used by tests/etcdctl, tests/jetcd,
tests/crash, tests/differential, tests/clients and `.ci/stages`.

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
from dataclasses import dataclass, field
from pathlib import Path

HOST = "127.0.0.1"
READY_SECONDS_MAX = 30
STOP_SECONDS_MAX = 15
LOG_TAIL_LINES = 20

# Linux kills the server when the test goes away, by kill -9 too. Not by code between fork and exec: gRPC's
# threads make that hang.
DIE_WITH_US = ["setpriv", "--pdeathsig", "SIGKILL"]

# Below Linux's range for outgoing connections: a port stays free between a kill and the restart.
PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class Kind:
    """How one sort of server is started. In `command`, {binary} {data} {url} {peer_url} are filled in."""

    name: str
    binary_variable: str
    ready_line: bytes
    command: tuple

    def binary(self):
        named = os.environ.get(self.binary_variable) or self.name
        found = shutil.which(named)
        if found is None:
            sys.exit(f"no {self.name} to run: {named} is not there; set {self.binary_variable}")
        return str(Path(found).resolve())


COVEY = Kind("covey", "COVEY_BIN", b"ready to serve client requests", (
    "{binary}", "serve", "--solo", "--data-dir", "{data}", "--listen-client-urls", "{url}",
))
ETCD = Kind("etcd", "ETCD_BIN", b"serving client traffic", (
    "{binary}", "--data-dir", "{data}", "--listen-client-urls", "{url}", "--advertise-client-urls", "{url}",
    "--listen-peer-urls", "{peer_url}", "--logger", "zap", "--log-level", "info",
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

    def launch(self):
        """Starts the process and returns at once."""
        assert self.process is None, "one process at a time"
        words = {"binary": self.binary, "data": str(self.data), "url": self.url,
                 "peer_url": f"http://{HOST}:{self.peer_port}"}
        command = DIE_WITH_US + [part.format(**words) for part in self.kind.command] + list(self.flags)
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


STARTED = set()
LENT = set()  # ports that were given out and may not be listened on yet


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
    while True:
        port = random.choice(PORTS)
        if port in LENT:
            continue
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if len(LENT) > len(PORTS) // 2:
            LENT.clear()
        LENT.add(port)
        return port


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
