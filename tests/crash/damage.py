#!/usr/bin/env python3
"""Damages the files of a data directory, one place at a time, and starts a server on what is left.

Owns: the damage and the verdict. Must never: accept a wrong answer. For each place there are two good ends:

  refused   the process ends with an exit code other than 0 and its log names the damaged log file and the byte, or
            the table and the key; or it stays and answers a read with DATA_LOSS, naming the table and the key
  right     everything that was ever acknowledged is answered as before, also after one more write and restart

Damage: one byte flipped, a file cut in half, a file gone. The directory is one that kill -9 left behind: some of
the data is in the store, the rest in the log alone.

  python damage.py [--kind covey|etcd] [--flips N] [--seed N]

etcd has no checksums in its store and does serve wrong answers: run on it, this shows that the test can fail.
"""

import argparse
import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))

import servers  # noqa: E402
from client import Client, compacted, grpc  # noqa: E402

KEYS = 400
ROUNDS_OF_PUTS = 6  # with LARGE_VALUE_BYTES more than one fold of the overlay
LARGE_VALUE_BYTES = 12_000
COMPACTED_SHARE = 0.3
OLD_REVISIONS_READ = 6
HEADER_BYTES = 64
LARGE_BYTES = 64 * 1024  # such files get more of the flips
START_SECONDS_MAX = 20
ENDING_SECONDS_MAX = 5
LOG_SHOWN_CHARACTERS_MAX = 1500
LOG_SUFFIX = ".wal"
STORE_SUFFIX = ".redb"
STORE_PANIC = "the store is damaged"  # redb gave up on its own pages: it says no more
ROW = re.compile(r"table \S+, key ")


@dataclass(frozen=True)
class Truth:
    """All that a reader of the undamaged directory is told."""

    revision: int
    compacted: int
    dumps: dict  # revision -> {key: State}


@dataclass(frozen=True)
class Damage:
    file: str  # below the data directory
    what: str  # "flip", "cut" or "remove"
    offset: int = 0
    mask: int = 0

    def __str__(self):
        return f"{self.what} {self.file}" + (f" at {self.offset} ^ {self.mask:#04x}" if self.what == "flip" else "")

    def inflict(self, directory):
        path = directory / self.file
        if self.what == "remove":
            path.unlink()
            return
        content = bytearray(path.read_bytes())
        if self.what == "cut":
            del content[len(content) // 2:]
        else:
            content[self.offset] ^= self.mask
        path.write_bytes(content)


class WrongAnswer(Exception):
    pass


class Refused(Exception):
    pass


def fill(server, chance):
    """Puts, overwrites, deletions, txns and a compaction; the server is killed at the end."""
    server.start()
    client = Client(server.endpoint)
    for number in range(ROUNDS_OF_PUTS * KEYS):
        key = f"key/{chance.randrange(KEYS):04}".encode()
        size = LARGE_VALUE_BYTES if chance.random() < 0.3 else 40
        value = f"{number} ".encode() + chance.randbytes(size)
        action = chance.random()
        if action < 0.1:
            client.delete(key)
        elif action < 0.2:
            state = client.get(key)
            client.change_if(key, state.mod if state else 0, {key: value, key + b"/twin": value[:30]})
        else:
            client.put(key, value)
        if number == int(ROUNDS_OF_PUTS * KEYS * COMPACTED_SHARE):
            client.compact(number // 2, physical=True)
            compacted_at = number // 2
    for number in range(20):  # in the log alone, if the store was folded before
        client.put(f"last/{number:02}".encode(), b"tail %d" % number)
    _, revision = client.everything()
    old = sorted(chance.sample(range(compacted_at, revision), OLD_REVISIONS_READ - 2))
    revisions = [compacted_at, *old, revision]
    truth = Truth(revision, compacted_at, {at: client.everything(at)[0] for at in revisions})
    client.close()
    server.kill()
    return truth


def read_all(client, truth, extra=0):
    """Compares everything: whole ranges at several revisions, and each key by itself."""
    _, revision = client.everything()
    if revision != truth.revision + extra:
        raise WrongAnswer(f"revision {revision}, was {truth.revision + extra}")
    for at, expected in truth.dumps.items():
        found, _ = client.everything(at)
        if found != expected:
            wrong = [key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)]
            raise WrongAnswer(f"{len(wrong)} keys differ at revision {at}, such as {min(wrong)!r}")
    for key, state in truth.dumps[truth.revision].items():
        if client.get(key) != state:
            raise WrongAnswer(f"{key!r} alone: {client.get(key)}, was {state}")
    try:
        client.get(b"any", truth.compacted - 1)
    except grpc.RpcError as error:
        if not compacted(error):
            raise
    else:
        raise WrongAnswer(f"revision {truth.compacted - 1} is readable again")


def attempt(server, action):
    """Starts, acts and stops; Refused if the process ends on its own with a code other than 0."""
    try:
        server.start(START_SECONDS_MAX)
        client = Client(server.endpoint)
        action(client)
        client.close()
        code = server.stop()
        if code != 0 and server.kind is servers.COVEY:
            raise WrongAnswer(f"exit code {code} on SIGTERM")
    except (servers.NotReady, grpc.RpcError) as problem:
        if names_row(problem):
            raise Refused from None
        code = ended(server)
        if code is None:
            raise WrongAnswer(f"neither an answer nor an end: {problem}") from None
        if code == 0:
            raise WrongAnswer(f"ended as if all were well: {problem}") from None
        raise Refused from None
    finally:
        server.kill()


def ended(server):
    """The exit code, if the process is ending; None if it stays."""
    if server.process is None:
        return None
    try:
        return server.process.wait(ENDING_SECONDS_MAX)
    except servers.subprocess.TimeoutExpired:
        return None


def names_row(problem):
    """Is this the answer to a read that met a damaged row?"""
    return (isinstance(problem, grpc.RpcError) and problem.code() == grpc.StatusCode.DATA_LOSS
            and ROW.search(problem.details()) is not None)


def names_place(log, damage):
    """Does the log say where the damage is? A file that is gone is missed by the next one in its directory."""
    file = Path(damage.file)
    if ROW.search(log) or (file.suffix == STORE_SUFFIX and STORE_PANIC in log):
        return True
    if file.suffix == LOG_SUFFIX:
        name = r"\w+" + re.escape(file.suffix) if damage.what == "remove" else re.escape(file.name)
        return re.search(rf"{name}.*\bbyte \d+", log) is not None
    return file.name in log


def verdict(server, truth, damage):
    """"right" or "refused"; raises WrongAnswer."""

    def read_and_write(client):
        read_all(client, truth)
        client.put(b"one more", b"write")

    def read_again(client):
        if client.get(b"one more") is None:
            raise WrongAnswer("the write after the damage is gone")
        client.delete(b"one more")
        read_all(client, truth, extra=2)

    try:
        attempt(server, read_and_write)
        attempt(server, read_again)
        return "right"
    except Refused:
        log = server.read_log().decode(errors="replace")
        if not names_place(log, damage):
            raise WrongAnswer("refused, but the log does not say where the damage is") from None
        return "refused"


def places(directory, flips, chance):
    """Each file cut and gone; flips a quarter in the first bytes of files, else where there is data."""
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)
    names = [str(path.relative_to(directory)) for path in files]
    for name in names:
        yield Damage(name, "cut")
        yield Damage(name, "remove")
    contents = [path.read_bytes() for path in files]
    turns = [index for index, content in enumerate(contents) for _ in range(3 if len(content) > LARGE_BYTES else 1)]
    for number in range(flips):
        index = turns[number % len(turns)]
        content = contents[index]
        if chance.random() < 0.25:
            offset = chance.randrange(min(HEADER_BYTES, len(content)))
        else:
            offset = used_byte(content, chance)
        yield Damage(names[index], "flip", offset, chance.randrange(1, 256))


def used_byte(content, chance):
    """Any byte that is not zero; files are prefilled with zeros."""
    for _ in range(10_000):
        offset = chance.randrange(len(content))
        if content[offset]:
            return offset
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kind", choices=servers.KINDS, default=servers.COVEY.name)
    parser.add_argument("--flips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    options = parser.parse_args()
    servers.exit_on_signals()
    chance = random.Random(options.seed)
    print(f"{options.flips} flips in {options.kind}'s files, --seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="damage-") as scratch:
        scratch = Path(scratch)
        server = servers.Server(servers.KINDS[options.kind], scratch / "data")
        truth = fill(server, chance)
        pristine = scratch / "pristine"
        server.data.rename(pristine)

        ends, failed = Counter(), 0
        undamaged = Damage("nothing", "none")
        for damage in (undamaged, *places(pristine, options.flips, chance)):
            shutil.copytree(pristine, server.data)
            if damage is not undamaged:
                damage.inflict(server.data)
            try:
                end = verdict(server, truth, damage)
                if damage is undamaged and end != "right":
                    raise WrongAnswer("an undamaged directory was refused")
                ends[end] += 1
                print(f"{end:8} {damage}", flush=True)
            except WrongAnswer as wrong:
                failed += 1
                print(f"FAIL {damage}: {wrong}\n{server.log_tail()[-LOG_SHOWN_CHARACTERS_MAX:]}", flush=True)
            shutil.rmtree(server.data)
    print(", ".join(f"{count} {end}" for end, count in sorted(ends.items())))
    if not ends["refused"]:
        failed += 1
        print("FAIL no damage was ever noticed")
    print(f"{sum(ends.values())} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
