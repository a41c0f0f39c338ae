#!/usr/bin/env python3
"""Plays random sequences of operations to a real etcd and to covey and compares every answer, field by field.

Owns: the servers of a run, its length, its verdict. Must never: pass when it has compared nothing. How operations are
played and compared is in player.py, what they are in generator.py, what may differ in known.py and known_users.py.

  python differential.py [--seeds N | --minutes M] [--first SEED] [--length N] [--subject covey|etcd]
                         [--mistake NAME] [--only OPERATION,...] [--replay FILE] [--users [--certificates]]

Each seed is one sequence, on fresh servers. When the servers differ, the sequence is cut down on fresh servers to one
from which nothing more can be taken; it is printed in the form that --replay takes. `--subject etcd` compares two etcds;
with `--mistake` the second is behind a proxy that makes a mistake (spoiled.py), and the run passes if that is found and
cut down to at most 3 operations. With `--users` each operation is somebody's (users.py), and it takes 3 more for that to count;
with `--certificates`, too, users come by tokens or by certificates that name them (certificates.py).
"""

import argparse
import ast
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))

import servers  # noqa: E402
from certificates import Certificates  # noqa: E402
from generator import Generator  # noqa: E402
from known import KNOWN  # noqa: E402
from known_users import KNOWN_OF_USERS  # noqa: E402
from operations import written  # noqa: E402
from player import WATCH_SECONDS_MAX, Broken, Difference, Pair  # noqa: E402
from shrink import shrink  # noqa: E402
from side import Side  # noqa: E402
from spoiled import MISTAKES, PARDONS, Proxy  # noqa: E402
from users import CERTIFICATES, CertifiedGenerator, UserGenerator  # noqa: E402

LENGTH = 500
STARTS_MAX = 3
SHRINK_TRIES_MAX = 250
SHRINKING_SECONDS_MAX = 2  # how long a watcher is waited for while a sequence is cut down: it mostly waits in vain
PLANTED_OPERATIONS_MAX = 3
USERS_COUNT_AFTER = 3  # root, its role, and enabling
ALL_KNOWN = KNOWN + KNOWN_OF_USERS
FLAGS = ("--bcrypt-cost", "4")  # the least that it can be: passwords are not guessed here
MEMORY = Path("/dev/shm")  # no waiting for a disk: that it survives is what tests/crash is for


class Fleet:
    """Fresh servers, two at a time; the next two start while the last two are played to."""

    def __init__(self, scratch, subject, mistake, certificates=None):
        self.scratch, self.subject, self.mistake = scratch, servers.KINDS[subject], mistake
        self.certificates = certificates
        self.made = 0
        self.next = self.launch()

    def launch(self):
        self.made += 1
        flags, scheme = FLAGS + (self.certificates.flags() if self.certificates else ()), "https" if self.certificates else "http"
        pair = [servers.Server(servers.ETCD, self.scratch / f"{self.made}-etcd", flags, scheme=scheme),
                servers.Server(self.subject, self.scratch / f"{self.made}-subject", flags, scheme=scheme)]
        for server in pair:
            server.launch()
        return pair

    def started(self):
        for _ in range(STARTS_MAX):
            try:
                for server in self.next:
                    server.wait_ready()
                return self.next
            except servers.NotReady as why:
                # Another process may have taken a port that was free a moment ago.
                print(f"{why}; its log ends:\n{server.log_tail()}", file=sys.stderr)
                for each in self.next:
                    each.kill()
                self.next = self.launch()
        sys.exit(f"no servers after {STARTS_MAX} attempts")

    def pair(self, knowns, patience=WATCH_SECONDS_MAX):
        """A connected pair and what ends it."""
        reference, subject = self.started()
        self.next = self.launch()
        proxy = Proxy(subject.endpoint, self.mistake) if self.mistake else None
        sides = [Side(reference, certificates=self.certificates),
                 Side(subject, f"{servers.HOST}:{proxy.port}" if proxy else None, self.certificates)]

        def end():
            for side in sides:
                side.disconnect()
                side.server.kill()
                shutil.rmtree(side.server.data)
                side.server.log.unlink()
            if proxy:
                proxy.close()
        return Pair(*sides, knowns, patience), end


@dataclass
class Run:
    fleet: Fleet
    operations: int = 0
    counts: Counter = field(default_factory=Counter)

    def difference(self, operations, knowns=ALL_KNOWN, patience=WATCH_SECONDS_MAX):
        """How the servers differ, and at which operation; None if they do not."""
        pair, end = self.fleet.pair(knowns, patience)
        try:
            pair.play_all(operations)
        except Difference as difference:
            return str(difference), pair.index
        finally:
            end()
            self.operations += pair.played
        self.counts.update(name for name, _ in operations)
        return None

    def differs(self, operations):
        try:
            return self.difference(operations, patience=SHRINKING_SECONDS_MAX) is not None
        except Broken:
            return False

    def minimal(self, operations, index):
        """The shortest sequence that still shows a difference, and the difference that it shows."""
        smallest = shrink(operations[:index + 1], self.differs, SHRINK_TRIES_MAX)
        again = self.difference(smallest)
        return smallest, again[0] if again else "(not there on the last try)"


def forced(run, knowns):
    """Each known difference is shown to be one, and to be forgiven; yields what is wrong."""
    for known in knowns:
        others = tuple(other for other in ALL_KNOWN if other is not known)
        try:
            unforgiven, left = run.difference(known.force, others), run.difference(known.force)
        except Broken as why:
            if not known.ends_reference:
                yield f"known difference {known.name}: no verdict: {why}"
            continue
        if known.ends_reference:
            yield f"known difference {known.name}: the reference lived through it"
        if unforgiven is None:
            yield f"known difference {known.name}: the servers do not differ any more; take it from the list"
        if left is not None:
            yield f"known difference {known.name}: not forgiven where it is forced: {left[0]}"


def report(run, seed, operations, found):
    text, index = found
    print(f"FAIL seed {seed}, operation {index} of {len(operations)}: {text}", flush=True)
    smallest, shown = run.minimal(operations, index)
    print(f"{len(smallest)} operations show it (--replay takes them from a file):\n{written(smallest)}\n{shown}", flush=True)
    return smallest


def play_seeds(run, options):
    """Yields (seed, smallest sequence) for each seed that shows a difference."""
    deadline = time.monotonic() + options.minutes * 60 if options.minutes else None
    seed = options.first
    while time.monotonic() < deadline if deadline else seed < options.first + options.seeds:
        kind = CertifiedGenerator if options.certificates else UserGenerator if options.users else Generator
        generator = kind(seed, options.only.split(",") if options.only else None)
        operations = generator.sequence(options.length)
        try:
            found = run.difference(operations)
        except Broken as why:
            print(f"FAIL seed {seed}: no verdict: {why}", flush=True)
            yield seed, None
        else:
            if found:
                yield seed, report(run, seed, operations, found)
            elif options.verbose:
                print(f"same  seed {seed}, {generator.theme}", flush=True)
        seed += 1


def play(run, options):
    """The number of things that passed and that failed."""
    if options.replay:
        try:
            found = run.difference(ast.literal_eval(Path(options.replay).read_text()))
        except Broken as why:
            print(f"FAIL no verdict: {why}")
            return 0, 1
        print(f"FAIL operation {found[1]}: {found[0]}" if found else "same")
        return (0, 1) if found else (1, 0)
    knowns = KNOWN_OF_USERS if options.users else KNOWN
    # What differs among users does with any proof of who they are: it is forced where that is a token.
    wrong = list(forced(run, knowns)) if options.subject == servers.COVEY.name and not options.certificates else []
    for line in wrong:
        print(f"FAIL {line}")
    begin, before, failed = time.monotonic(), run.operations, len(wrong)
    for _, smallest in play_seeds(run, options):
        failed += 1
        if options.mistake:
            allowed = PLANTED_OPERATIONS_MAX + (USERS_COUNT_AFTER if options.users else 0)
            return (0, 1) if smallest is None or len(smallest) > allowed else (1, 0)
        if failed >= options.failures:
            break
    seconds, played = time.monotonic() - begin, run.operations - before
    print(f"{played} operations in {seconds:.0f} s: {', '.join(f'{n} {c}' for n, c in run.counts.most_common())}")
    if options.mistake or played == 0:
        print("FAIL the mistake was not noticed" if options.mistake else "FAIL nothing was played")
        return 0, 1
    return played, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--first", type=int, default=1)
    parser.add_argument("--length", type=int, default=LENGTH)
    parser.add_argument("--failures", type=int, default=3, help="stop after so many differences")
    parser.add_argument("--subject", choices=servers.KINDS, default=servers.COVEY.name)
    parser.add_argument("--mistake", choices=[*MISTAKES, *PARDONS])
    parser.add_argument("--only", default="")
    parser.add_argument("--replay")
    parser.add_argument("--users", action="store_true", help="who asks is drawn, too")
    parser.add_argument("--certificates", action="store_true", help="some of them show certificates: goes with --users")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    if options.mistake and options.subject != servers.ETCD.name:
        parser.error("--mistake goes with --subject etcd")
    if options.certificates and not options.users:
        parser.error("--certificates goes with --users")
    servers.exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="differential-", dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        certificates = Certificates(Path(scratch) / "certificates", CERTIFICATES) if options.certificates else None
        fleet = Fleet(Path(scratch), options.subject, options.mistake, certificates)
        passed, failed = play(Run(fleet), options)
        servers.kill_what_we_started()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
