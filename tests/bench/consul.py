"""Consul beside the figures of the bench: the rows of README's first table, as far as a program can be asked.

Owns: Consul's processes, and the loop device of one of them. Must never: leave either behind, or compare what is not alike: Consul
has no TLS here, and elects as its makers recommend for production. Needs root, mkfs.ext4, and a Consul binary (Debian 11 has one).

  python tests/bench/consul.py CONSUL
"""

import http.client
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

HOST = "127.0.0.1"
CLIENTS = 100
LOAD_SECONDS = 10
SETTLE_SECONDS = 20
IDLE_SECONDS = 30
TRIALS = 7
PUT = "/v1/kv/key"
VALUE = os.urandom(256)
PATIENCE = 60


def free_ports(count):
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind((HOST, 0))
    ports = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return ports


def must(condition, what):
    if not condition:
        sys.exit(f"FAIL {what}")


class Agent:
    def __init__(self, binary, name, data):
        self.binary, self.name, self.data = binary, name, Path(data)
        self.http, self.serf, self.server = free_ports(3)
        self.process = None

    def start(self, expect, join=()):
        command = [self.binary, "agent", "-server", f"-bootstrap-expect={expect}", f"-node={self.name}", f"-data-dir={self.data}",
                   f"-bind={HOST}", f"-client={HOST}", f"-http-port={self.http}", f"-serf-lan-port={self.serf}", "-serf-wan-port=-1",
                   f"-server-port={self.server}", "-dns-port=-1", "-log-level=err", "-hcl=performance { raft_multiplier = 1 }"]
        command += [f"-retry-join={HOST}:{port}" for port in join] + ["-retry-interval=1s"]
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "SIGKILL", *command], stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, method, path, body=None, timeout=5.0):
        connection = http.client.HTTPConnection(HOST, self.http, timeout=timeout)
        try:
            connection.request(method, path, body)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    def writes(self, timeout=5.0):
        try:
            return self.ask("PUT", PUT, VALUE, timeout) == (200, b"true")
        except (OSError, http.client.HTTPException):
            return False

    def leads(self):
        try:
            stats = json.loads(self.ask("GET", "/v1/agent/self")[1])["Stats"]
        except (OSError, http.client.HTTPException, ValueError):
            return False
        return stats["consul"]["leader"] == "true"

    def cpu(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def status(self, name):
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in text.splitlines() if line.startswith(name + ":")).split()[1])

    def wakeups(self):
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            text = (task / "status").read_text()
            total += int(next(line for line in text.splitlines() if line.startswith("voluntary_ctxt_switches")).split()[1])
        return total


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not condition():
        must(time.monotonic() < end, f"not in time: {what}")
        time.sleep(0.05)


def load(agents):
    """Puts by all clients for a while; CPU of all nodes for each, in microseconds."""
    counts, over = [0] * CLIENTS, threading.Event()

    def client(number):
        connection = http.client.HTTPConnection(HOST, agents[number % len(agents)].http, timeout=PATIENCE)
        while not over.is_set():
            connection.request("PUT", f"{PUT}{number}", VALUE)
            must(connection.getresponse().read() == b"true", "a put")
            counts[number] += 1

    threads = [threading.Thread(target=client, args=(number,)) for number in range(CLIENTS)]
    for thread in threads:
        thread.start()
    time.sleep(1)
    done, used, began = sum(counts), sum(agent.cpu() for agent in agents), time.monotonic()
    time.sleep(LOAD_SECONDS)
    done, used, took = sum(counts) - done, sum(agent.cpu() for agent in agents) - used, time.monotonic() - began
    over.set()
    for thread in threads:
        thread.join()
    print(f"three nodes, 100 clients: {used / done * 1e6:.0f} µs of CPU for each put, over all nodes; {done / took:.0f} puts/s")


def failover(agents):
    """How long no write succeeds once the leader is killed."""
    gaps = []
    for _ in range(TRIALS):
        until("writes by all", lambda: all(agent.writes() for agent in agents))
        time.sleep(3)
        leader = next(agent for agent in agents if agent.leads())
        others = [agent for agent in agents if agent is not leader]
        last = time.monotonic()
        must(others[0].writes(), "a put before")
        leader.kill()
        while not any(agent.writes(timeout=0.1) for agent in others):
            must(time.monotonic() - last < PATIENCE, "no leader again")
        gaps.append(time.monotonic() - last)
        leader.start(3, [agent.serf for agent in others])
    print(f"no write after kill -9 of the leader: median {statistics.median(gaps):.2f} s, most {max(gaps):.2f} s, of {TRIALS}")


def three(binary, scratch):
    agents = [Agent(binary, f"m{n}", Path(scratch) / f"m{n}") for n in range(3)]
    try:
        for agent in agents:
            agent.start(3, [other.serf for other in agents if other is not agent])
        until("a cluster", lambda: all(agent.writes() for agent in agents))
        time.sleep(SETTLE_SECONDS)
        print(f"three nodes, idle: {max(agent.status('VmRSS') for agent in agents) / 1e3:.0f} MB of memory")
        load(agents)
        failover(agents)
    finally:
        for agent in agents:
            agent.kill()


def alone(binary, scratch):
    """On a disk of its own, whose writes are counted."""
    image, mount = Path(scratch) / "image", Path(scratch) / "disk"
    mount.mkdir()
    subprocess.run(["truncate", "-s", "1G", image], check=True)
    subprocess.run(["mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mount], check=True)
    agent = Agent(binary, "alone", mount / "data")
    try:
        device = subprocess.run(["findmnt", "-nro", "SOURCE", mount], check=True, capture_output=True, text=True).stdout.strip()
        written = lambda: int(Path(f"/sys/block/{Path(device).name}/stat").read_text().split()[6]) * 512
        agent.start(1)
        until("a put", agent.writes)
        used = subprocess.run(["du", "-sB1", agent.data], check=True, capture_output=True, text=True).stdout.split()[0]
        print(f"an empty data directory: {int(used) / 1e6:.1f} MB")
        time.sleep(SETTLE_SECONDS)
        before = agent.wakeups()
        time.sleep(IDLE_SECONDS)
        print(f"alone, idle: {(agent.wakeups() - before) / IDLE_SECONDS:.0f} wakeups/s, {agent.status('VmRSS') / 1e3:.0f} MB")
        os.sync()
        before, puts, began = written(), IDLE_SECONDS * 10, time.monotonic()
        for n in range(puts):
            must(agent.writes(), "a put")
            time.sleep(max(0.0, began + (n + 1) / 10 - time.monotonic()))
        os.sync()
        print(f"written to the disk for each put, ten a second: {(written() - before) / puts / 1e3:.1f} KB")
    finally:
        if agent.process:
            agent.kill()
        subprocess.run(["umount", mount], check=True)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    binary = sys.argv[1]
    version = subprocess.run([binary, "version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]
    print(f"{version}, {Path(binary).stat().st_size / 1e6:.0f} MB")
    with tempfile.TemporaryDirectory(prefix="consul-") as scratch:
        three(binary, scratch)
    with tempfile.TemporaryDirectory(prefix="consul-") as scratch:
        alone(binary, scratch)


if __name__ == "__main__":
    main()
