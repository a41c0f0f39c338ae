#!/usr/bin/env python3
"""Kills a server with kill -9 at random moments, over and over, and holds what it comes back with against what
it had acknowledged.

Owns: the load, the moments, the rounds. Must never: count an unanswered write as done or as not done (see
oracle.py). What it cannot show: a kill leaves the page cache alive, so a missing fsync goes unnoticed here; the
simulator and the planted bugs cover that.

A round: start (now and then killed while starting), read everything, read some old revisions, write from
several connections, kill. Every few rounds the end is SIGTERM instead, which must be answered with exit code 0.

  python rounds.py [--kind covey|etcd] [--rounds N] [--seed N] [--plant invented-ack|forgotten-ack]

A plant falsifies the harness's own record once: the run must then fail.
"""

import argparse
import random
import sys
import tempfile
import threading
import time
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))

import servers  # noqa: E402
from client import Client, State, compacted, grpc  # noqa: E402
from oracle import Operation, Oracle, Violation, Writer  # noqa: E402

WRITERS = 4
KEYS_PER_WRITER = 150
LOAD_SECONDS = (0.05, 1.0)
KILLED_WHILE_STARTING = 0.2
START_SECONDS_UNTIL_KILL = 0.2
SIGTERM_EVERY = 6
COMPACT_EVERY = 3
COMPACT_KEPT_REVISIONS = 300
OLD_READS = 25
PLANT_ROUND = 2

# What a call may end with when its server is killed under it.
UNANSWERED = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNKNOWN,
              grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED}


class Load(threading.Thread):
    """One writer on its own connection, until its server goes away."""

    def __init__(self, writer, endpoint, seed, ending):
        super().__init__(daemon=True)
        self.writer, self.endpoint, self.ending = writer, endpoint, ending
        self.random = random.Random(seed)
        self.problem = None

    def run(self):
        client = Client(self.endpoint)
        try:
            while self.step(client):
                pass
        except Exception as problem:  # noqa: BLE001  (carried to the main thread, whatever it is)
            self.problem = problem
        finally:
            client.close()

    def step(self, client):
        """One operation; False when the server is gone."""
        if self.random.random() < 0.1:
            key, known = self.any_key(), self.writer.states
            call = lambda: self.check_read(key, known.get(key), client.get(key))  # noqa: E731
            operation = None
        else:
            operation = self.any_operation()
            call = lambda: self.writer.acknowledge(operation, self.send(client, operation))  # noqa: E731
        try:
            call()
            return True
        except grpc.RpcError as error:
            if not self.ending.is_set() or error.code() not in UNANSWERED:
                raise Violation(f"{self.writer.name}: refused while the server ran: {error.code()} "
                                f"{error.details()}") from None
            self.writer.pending = operation
            return False

    def check_read(self, key, expected, found):
        if found != expected:
            raise Violation(f"{self.writer.name}: read {key!r}: acknowledged {expected}, found {found}")

    def send(self, client, operation):
        """Returns the revision that was acknowledged."""
        (key, value), *more = operation.changes.items()
        if more:
            before = self.writer.states.get(key)
            done, revision = client.change_if(key, before.mod if before else 0, operation.changes)
            if not done:
                raise Violation(f"{self.writer.name}: {key!r} was not last changed at {before}")
            return revision
        if value is not None:
            return client.put(key, value)
        deleted, revision = client.delete(key)
        if deleted != 1:
            raise Violation(f"{self.writer.name}: deleted {deleted} of {key!r}, acknowledged as there")
        return revision

    def any_operation(self):
        count = self.random.choice((1, 1, 1, 2, 3, 4))
        keys = {self.any_key() for _ in range(count)}
        return Operation({key: self.any_value(key) for key in sorted(keys)})

    def any_key(self):
        return f"{self.writer.name}/{self.random.randrange(KEYS_PER_WRITER):03}".encode()

    def any_value(self, key):
        """Mostly small, some large enough that the store folds and rotates its log; None deletes."""
        if key in self.writer.states and self.random.random() < 0.2:
            return None
        size = self.random.choice((0, 10, 100, 300)) if self.random.random() < 0.93 else self.random.randrange(60_000)
        return f"{key.decode()} {self.random.getrandbits(64):016x} ".encode() + bytes([self.random.randrange(256)]) * size


class Compaction(threading.Thread):
    """One compaction, whose answer may never come."""

    def __init__(self, oracle, target, endpoint, ending):
        super().__init__(daemon=True)
        self.oracle, self.target, self.endpoint, self.ending = oracle, target, endpoint, ending
        self.problem = None
        oracle.compacting = target

    def run(self):
        client = Client(self.endpoint)
        try:
            client.compact(self.target, physical=self.target % 2 == 0)
            self.oracle.compacted = self.target
        except grpc.RpcError as error:
            if not self.ending.is_set() or error.code() not in UNANSWERED:
                self.problem = Violation(f"compaction refused: {error.code()} {error.details()}")
        finally:
            client.close()


class Rounds:
    def __init__(self, options, scratch):
        self.options = options
        self.random = random.Random(options.seed)
        self.server = servers.Server(servers.KINDS[options.kind], scratch / "data")
        self.oracle = Oracle([Writer(f"writer{number}") for number in range(WRITERS)])
        self.start_seconds = []

    def run(self):
        for number in range(1, self.options.rounds + 1):
            self.start()
            self.verify()
            load_seconds = self.random.uniform(*LOAD_SECONDS)
            end = "SIGTERM" if number % SIGTERM_EVERY == 0 else "kill -9"
            self.load(number, load_seconds, end)
            acknowledged = sum(writer.acknowledged for writer in self.oracle.writers)
            unknown = sum(writer.pending is not None for writer in self.oracle.writers)
            print(f"round {number}: {end} after {load_seconds:.2f} s; {acknowledged} acknowledged so far, "
                  f"{unknown} unknown; started in {self.start_seconds[-1]:.2f} s", flush=True)
            if number == PLANT_ROUND:
                self.plant()
        self.start()
        self.verify()
        self.stop()

    def start(self):
        # etcd, killed in its very first start, may come back without a voter and wait for ever.
        may_kill = self.server.kind is servers.COVEY or self.start_seconds
        if may_kill and self.random.random() < KILLED_WHILE_STARTING:
            self.server.launch()
            time.sleep(self.random.uniform(0, START_SECONDS_UNTIL_KILL))
            self.server.kill()
        self.start_seconds.append(self.server.start())

    def verify(self):
        client = Client(self.server.endpoint)
        found, revision = client.everything()
        self.oracle.check(found, revision)
        self.settle_compaction(client)
        past = self.oracle.readable_history()
        for revision, key, expected in self.random.sample(past, min(OLD_READS, len(past))):
            seen = client.get(key, revision)
            if seen != expected:
                raise Violation(f"{key!r} at revision {revision}: acknowledged {expected}, found {seen}")
        client.close()

    def settle_compaction(self, client):
        """Below an acknowledged compaction nothing is readable, at it and above everything is."""
        oracle = self.oracle
        if oracle.compacting and not self.readable(client, oracle.compacting - 1):
            oracle.compacted = oracle.compacting
        oracle.compacting = 0
        if oracle.compacted:
            if self.readable(client, oracle.compacted - 1):
                raise Violation(f"revision {oracle.compacted - 1} is readable after compaction to {oracle.compacted}")
            if not self.readable(client, oracle.compacted):
                raise Violation(f"revision {oracle.compacted} is gone after compaction to that revision")

    @staticmethod
    def readable(client, revision):
        try:
            client.get(b"any", revision)
        except grpc.RpcError as error:
            if compacted(error):
                return False
            raise
        return True

    def load(self, number, seconds, end):
        ending = threading.Event()
        threads = [Load(writer, self.server.endpoint, self.random.getrandbits(64), ending)
                   for writer in self.oracle.writers]
        for thread in threads:
            thread.start()
        if number % COMPACT_EVERY == 0:
            time.sleep(seconds * 0.8)
            seconds *= 0.2
            target = self.oracle.highest_acknowledged() - COMPACT_KEPT_REVISIONS
            if target > self.oracle.compacted:
                threads.append(Compaction(self.oracle, target, self.server.endpoint, ending))
                threads[-1].start()
        time.sleep(seconds)
        ending.set()
        if end == "SIGTERM":
            self.stop()
        else:
            self.server.kill()
        for thread in threads:
            thread.join()
        for thread in threads:
            if thread.problem is not None:
                raise thread.problem

    def stop(self):
        code = self.server.stop()
        if self.server.kind is servers.COVEY and code != 0:
            raise Violation(f"exit code {code} on SIGTERM")

    def plant(self):
        """Falsifies a key that no unanswered operation touches: what is found decides about those."""
        writer = self.random.choice(self.oracle.writers)
        unanswered = writer.pending.changes if writer.pending else {}
        key, state = self.random.choice(sorted(item for item in writer.states.items() if item[0] not in unanswered))
        if self.options.plant == "invented-ack":
            writer.acknowledge(Operation({key: b"never sent"}), writer.last_revision + 1)
        elif self.options.plant == "forgotten-ack":
            writer.states[key] = State(b"an older value", state.create, state.mod - 1, state.version - 1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=servers.KINDS, default=servers.COVEY.name)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--plant", choices=("invented-ack", "forgotten-ack"))
    options = parser.parse_args()
    servers.exit_on_signals()
    print(f"{options.rounds} rounds of {options.kind}, --seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="rounds-") as scratch:
        rounds = Rounds(options, Path(scratch))
        try:
            rounds.run()
        except (Violation, servers.NotReady, grpc.RpcError) as problem:
            print(f"FAIL {problem}\nthe log ends:\n{rounds.server.log_tail()}")
            print(f"{max(0, len(rounds.start_seconds) - 1)} passed, 1 failed")
            return 1
    print(f"{options.rounds} passed, 0 failed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
