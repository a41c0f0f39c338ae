#!/usr/bin/env python3
"""Plays the same etcdctl commands to a real etcd and to covey and compares every answer. Then plays commands to two
coveys, to one by etcdctl and to the other by covey's own client, and compares what the two print.

Owns: running steps.py on both, normalising what may differ, and the verdict. Must never: forgive a difference
that no rule in RULES and no departure in steps.py names. Compared are standard output, standard error and the
exit code. What RULES hides is hidden for both servers; a rule that never matched is an error (but for those on
etcdctl's own log, which changes with its version), as is a departure that is none any more.

  python compare.py [--subject covey|etcd] [--sections NAME,...] [--spoil] [--verbose]

`--subject etcd` compares etcd with a second etcd: nothing may differ, or a rule is missing. `--spoil` writes
one key to the subject first and plays the first steps alone: the comparison must then fail (and so must any run that
sees nothing).
Needs etcdctl, and etcd; see servers.py for how they are named.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))
sys.dont_write_bytecode = True

import servers  # noqa: E402
import steps  # noqa: E402

STEP_SECONDS_MAX = 60
SETTLE_SECONDS = 0.3  # what a command prints at once has come by then
SHOWN_LINES_MAX = 16
USAGE_CODE = 128  # etcdctl's, for arguments that it cannot take
ID_DIGITS_MIN = 6  # a shorter id could not be told from other numbers


# -- what may differ -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rule:
    """Each match of `pattern`, or its group if it has one, becomes `<name>`."""

    name: str
    pattern: str
    why: str

    def apply(self, text):
        return re.subn(self.pattern, self.replacement, text, flags=re.MULTILINE)

    def replacement(self, match):
        if match.re.groups == 0:
            return f"<{self.name}>"
        begin, end = (match.start(1) - match.start(), match.end(1) - match.start())
        return f"{match[0][:begin]}<{self.name}>{match[0][end:]}"


TOOK = "a duration"
TERM = "how many elections a server held"
INDEX = "covey's log has other entries beside the client's"
SIZE = "the stores have different formats"
CLIENT = "etcdctl's own logging: a time, an address in its memory, its socket"
LEASE = "a number that the server has chosen"
LEFT = "a time that passes"

RULES = (
    Rule("ts", r'"ts":"([^"]+)"', CLIENT),
    Rule("pointer", r"etcd-endpoints://(0x[0-9a-f]+)/", CLIENT),
    Rule("pointer", r"endpoint://client-([0-9a-f-]+)/", CLIENT),
    Rule("socket", r"LocalAddr: '(127\.0\.0\.1:\d+)'", CLIENT),
    Rule("took", r"took = (\S+)", TOOK),
    Rule("took", r'"took":"([^"]+)"', TOOK),
    Rule("took", r'"Took" : (\S+)', TOOK),
    Rule("took", r"^TOOK = (.+)", TOOK),
    Rule("term", r'"raft_term":(\d+)', TERM),
    Rule("term", r'"raftTerm":(\d+)', TERM),
    Rule("term", r'"RaftTerm" : (\d+)', TERM),
    Rule("term", r"^RAFT TERM = (\d+)", TERM),
    Rule("index", r'"raftIndex":(\d+)', INDEX),
    Rule("index", r'"raftAppliedIndex":(\d+)', INDEX),
    Rule("index", r'"RaftIndex" : (\d+)', INDEX),
    Rule("index", r'"RaftAppliedIndex" : (\d+)', INDEX),
    Rule("index", r"^RAFT INDEX = (\d+)", INDEX),
    Rule("index", r"^RAFT APPLIED INDEX = (\d+)", INDEX),
    Rule("size", r'"dbSize":(\d+)', SIZE),
    Rule("size", r'"size":"([^"]+)"', SIZE),
    Rule("size", r'"dbSizeInUse":(\d+)', SIZE),
    Rule("size", r'"DBSize" : (\d+)', SIZE),
    Rule("size", r"^DB SIZE = (\d[\d.]* [kMG]?B)", SIZE),
    Rule("lease", r"\b[le]/([0-9a-f]{14,16})\b", LEASE),
    Rule("key of a lease", r'"key":"((?:bC|ZS)[89][\w+/=]{21})"', LEASE),
    Rule("lease", r'"lease":(\d{6,})', LEASE),
    Rule("lease", r'"Lease" : (\d{6,})', LEASE),
    Rule("left", r"remaining\((\d+)s\)", LEFT),
    Rule("left", r'"ttl":(\d+),"granted-ttl"', LEFT),
    Rule("left", r'^"TTL" : (\d+)\n"GrantedTTL"', LEFT),
    Rule("size", r"<version>, (\d[\d.]* [kMG]?B), (?:true|false), ", SIZE),
    Rule("term, index, index", r", (?:true|false), (?:true|false), (\d+, \d+, \d+), ", INDEX),
)


@dataclass
class Identity:
    """What this one server is called: learnt by asking it, replaced wherever it appears."""

    words: dict
    # What steps may name: `{member}`, and `{lease}` once there is one.
    names: dict

    @classmethod
    def learn(cls, etcdctl, server):
        [status] = json.loads(etcdctl.must(server, "endpoint", "status", "-w", "json"))
        [member] = json.loads(etcdctl.must(server, "member", "list", "-w", "json"))["members"]
        cluster_id, member_id = (status["Status"]["header"][name] for name in ("cluster_id", "member_id"))
        words = {
            server.endpoint: "endpoint",
            str(cluster_id): "cluster id",
            str(member_id): "member id",
            f"{member_id:x}": "member id",
            status["Status"]["version"]: "version",
            member.get("name", ""): "member name",
            **{url: "peer url" for url in member.get("peerURLs", [])},
        }
        if member["ID"] != member_id or min(len(str(cluster_id)), len(f"{member_id:x}")) < ID_DIGITS_MIN:
            sys.exit(f"unusable identity of {server.kind.name}: {status} {member}")
        words.pop("", None)
        file = server.data.with_name(server.data.name + ".snapshot")
        words |= {str(file): "file", str(file.parent): "directory"}
        return cls(words, {"member": f"{member_id:x}", "file": str(file), "directory": str(file.parent)})

    def learn_lease(self, answer):
        for pattern, base in ((r"lease ([0-9a-f]{16}) granted", 16), (r'"ID":(\d+),"TTL"', 10), (r'"ID" : (\d+)\n"TTL"', 10)):
            if found := re.search(pattern, answer.stdout):
                lease = int(found[1], base)
                self.names["lease"] = f"{lease:016x}"
                self.words.update({f"{lease:016x}": "lease", str(lease): "lease"})

    def learn_added(self, step, answer):
        """The member that was added is known by the name that it was added by."""
        if step.args[:2] == ("member", "add") and answer.code == 0:
            by_form = ((r"^Member +([0-9a-f]+) added", 16), (r'"member":{"ID":(\d+)', 10))
            for pattern, base in by_form:
                if found := re.search(pattern, answer.stdout):
                    self.learn_member(step.args[2], int(found[1], base))

    def learn_member(self, name, member_id):
        self.names[name] = f"{member_id:x}"
        self.words |= {written: f"id of {name}" for written in spellings(member_id)}

    def apply(self, text):
        longest_first = sorted(self.words, key=len, reverse=True)
        anyone = "|".join(re.escape(word) for word in longest_first)
        return re.sub(rf"(?<![\w.])(?:{anyone})(?![\w])", lambda match: f"<{self.words[match[0]]}>", text)


def spellings(identity):
    """An id as etcdctl writes it, in decimal or hexadecimal digits."""
    return (str(identity), f"{identity:x}", f"{identity:016x}")


@dataclass
class Normaliser:
    identity: Identity
    used: set
    rules: tuple = RULES

    def __call__(self, text):
        # Ids are drawn, and stand in a column that is as wide as the longest.
        text = re.sub(r"\b(Member|cluster|from|to) +(?=[0-9a-f]{6,16}\b)", r"\1 ", table_to_lines(text))
        text = self.identity.apply(text)
        for rule in self.rules:
            text, count = rule.apply(text)
            if count:
                self.used.add(rule)
        return text


def table_to_lines(text):
    """A table's column widths follow its longest cell, so each cell becomes a line `HEADER = cell`."""
    rows = [[cell.strip() for cell in re.split(r"[|\u2502]", line)[1:-1]]
            for line in text.splitlines() if re.match(r"\s*[|\u2502]", line)]
    if not rows:
        return text
    header, *body = rows
    return "".join(f"{name} = {cell}\n" for row in body for name, cell in zip(header, row, strict=True))


# -- asking ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    stdout: str
    stderr: str
    code: int

    def map(self, function):
        return Answer(function(self.stdout), function(self.stderr), self.code)

    def is_usage(self):
        return self.code == USAGE_CODE and self.stdout == "" and re.fullmatch(r"Error: .*\n", self.stderr) is not None

    def is_late(self, step):
        """Two that hang are not two that agree."""
        return self.code == -signal.SIGKILL or (step.patience and step.patience in self.stderr)

    def sorted(self):
        return Answer(sorted_items(self.stdout), "".join(sorted(self.stderr.splitlines(keepends=True))), self.code)


class Client:
    def __init__(self, binary):
        self.binary = binary
        self.environment = {**servers.environment(), "ETCDCTL_API": "3"}
        # Debian 12's own names the server by all that it was told, and no server has such a name without a scheme.
        self.scheme = "http://" if " 3.4." in self.version() else ""

    def __call__(self, server, step, names=None):
        args = [named(arg, names or {}) for arg in step.args]
        asked = ",".join(self.scheme + each.endpoint for each in ([server.members[name] for name in step.at] or [server]))
        command = [self.binary, "--endpoints", asked, *args]
        if step.interrupt:
            return self.interrupted(command, step)
        begin = time.monotonic()
        for _ in range(step.repeat):
            answer = self.answer(command, step.stdin)
            while step.patience and step.patience in answer.stderr and time.monotonic() - begin < STEP_SECONDS_MAX:
                time.sleep(servers.LOOK_SECONDS)
                answer = self.answer(command, step.stdin)
            if answer.code != 0:
                break
        return answer

    def answer(self, command, stdin):
        done = subprocess.run(command, input=stdin, env=self.environment, capture_output=True,
                              timeout=STEP_SECONDS_MAX, check=False)
        return Answer(readable(done.stdout), readable(done.stderr), done.returncode)

    def interrupted(self, command, step):
        with subprocess.Popen(command, bufsize=0, env=self.environment, stdin=subprocess.PIPE if step.stdin else subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            late = threading.Timer(STEP_SECONDS_MAX, process.kill)
            late.start()
            if step.stdin:
                process.stdin.write(step.stdin)
            begin = b"".join(process.stdout.readline() for _ in range(step.interrupt))
            time.sleep(SETTLE_SECONDS)
            if not step.stdin:
                process.send_signal(signal.SIGINT)
            rest, stderr = process.communicate()
            late.cancel()
        return Answer(readable(begin + rest), readable(stderr), process.returncode)

    def must(self, server, *args):
        answer = self(server, steps.Step(args))
        if answer.code != 0:
            sys.exit(f"etcdctl {' '.join(args)} failed on {server.kind.name}: {answer.stderr}")
        return answer.stdout

    def version(self):
        return subprocess.run([self.binary, "version"], capture_output=True, text=True, env=self.environment,
                              check=True).stdout.splitlines()[0]


def named(arg, names):
    if isinstance(arg, bytes):
        return arg
    return re.sub(r"\{(\w+)\}", lambda match: names[match[1]], arg)


def readable(output):
    return output.decode(errors="backslashreplace")


# -- the comparison --------------------------------------------------------------------------------


@dataclass
class Comparison:
    etcdctl: Client
    client: Client  # the subject's
    reference: servers.Server
    subject: servers.Server
    used: set
    departures_hold: bool
    verbose: bool = False
    learn: Callable = Identity.learn
    rules: tuple = RULES
    passed: int = 0
    wrong: list = field(default_factory=list)
    words_compared: int = 0
    words_hidden: int = 0

    def __post_init__(self):
        self.of_reference, self.of_subject = (Normaliser(self.learn(self.etcdctl, server), self.used, self.rules)
                                              for server in (self.reference, self.subject))

    def play(self, name, script):
        for step in script:
            if step.departure is steps.BBOLT and not self.departures_hold:
                continue  # no two files of etcd's are the same
            try:
                raw = self.ask(self.etcdctl, self.reference, step, self.of_reference.identity)
                raw_found = self.ask(self.client, self.subject, step, self.of_subject.identity)
            except KeyError as name_missing:
                self.fail(name, step, [f"nothing has the name {name_missing}"])
                continue
            if any(answer.is_late(step) for answer in (raw, raw_found)):
                self.fail(name, step, ["not in time", *differing_lines(raw, raw_found)])
                continue
            expected, found = raw.map(self.of_reference), raw_found.map(self.of_subject)
            if self.client is not self.etcdctl:
                expected = Answer(expected.stdout, without_log(expected.stderr), expected.code)
                if expected.is_usage() and found.is_usage():
                    expected = found  # who is told how a command is used is told so in the client's own words
            if step.anyhow:
                expected, found = expected.sorted(), found.sorted()
            self.look_for_blindness(step, raw)
            departure = self.departure_of(step)
            if departure and not (departure.by_luck and found == expected):
                if found == expected:
                    self.fail(name, step, [f"departs no longer: {departure.why}"])
                    continue
                if departure.without:
                    found = raw_found.map(table_to_lines).map(departure.bare).map(self.of_subject)
                    found = found.sorted() if step.anyhow else found
                else:
                    expected = departed(departure, expected, found)
            differences = list(differing_lines(expected, found))
            if differences:
                self.fail(name, step, differences)
            else:
                self.passed += 1
                if self.verbose:
                    print(f"same  {name}: {step}\n{expected.stdout}{expected.stderr}({expected.code})")

    def departure_of(self, step):
        if self.client is not self.etcdctl:
            return step.by_client
        return step.departure if self.departures_hold else None

    @staticmethod
    def ask(client, server, step, identity):
        answer = client(server, step, identity.names)
        identity.learn_lease(answer)
        identity.learn_added(step, answer)
        return answer

    def fail(self, name, step, lines):
        shown = "".join(f"\n      {line}" for line in lines[:SHOWN_LINES_MAX])
        self.wrong.append(f"{name}: {step}{shown}")

    def look_for_blindness(self, step, raw):
        """Spoils each word of the answer in turn: a step is worth something only if some of it is noticed."""
        noticed = hidden = 0
        for stream in ("stdout", "stderr"):
            text = getattr(raw, stream)[:SPOILED_CHARACTERS_MAX]
            normal = self.of_reference(text)
            for match in re.finditer(r"\w+", text):
                spoiled = text[:match.start()] + another(match[0]) + text[match.end():]
                if self.of_reference(spoiled) == normal:
                    hidden += 1
                else:
                    noticed += 1
        self.words_compared += noticed
        self.words_hidden += hidden
        if hidden and not noticed:
            self.fail("blind", step, ["nothing of this answer is compared"])

    def report(self):
        for line in self.wrong:
            print(f"FAIL {line}")
        share = 100 * self.words_hidden / max(1, self.words_hidden + self.words_compared)
        print(f"{share:.0f} % of the words in etcd's answers are hidden by rules")


def sorted_items(text):
    """Of lists of members, which go by ids: lines, paragraphs of fields, rows of tables, or lists in JSON."""
    if text.startswith(("{", "[")):
        value = json.loads(re.sub(r"(?<=:)<([^<>]+)>(?=[,}])", r'"<\1>"', text))
        for listed in (value, *(value.values() if isinstance(value, dict) else ())):
            if isinstance(listed, list):
                listed.sort(key=json.dumps)
        return json.dumps(value)
    # Of members the fields have a header before all of them, as has what else is listed before each.
    first = '"ID" : ' if '\n"ID" : ' in text else re.match(r"(?:[A-Z ]+ = )?", text)[0]
    if first:
        items = re.split(rf"(?m)^(?={re.escape(first)})", text)
    else:
        items = text.split("\n\n") if "\n\n" in text else text.splitlines(keepends=True)
    return "\n".join(sorted(items))


def without_log(stderr):
    """etcdctl logs why it will not ask again, in JSON; covey's client has no log."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith('{"level":'))


SPOILED_CHARACTERS_MAX = 1000


def another(word):
    """A different word of the same make, so that a rule's pattern still fits."""
    digits = word.translate(str.maketrans("0123456789", "1234567890"))
    return digits if digits != word else word[:-1] + ("x" if word[-1] != "x" else "y")


def departed(departure, expected, found):
    """The answer that the departure promises, as far as it says anything."""
    stderr = found.stderr if departure.stderr_part and departure.stderr_part in found.stderr else departure.stderr_part
    stdout = expected.stdout if departure.stdout is None else departure.stdout
    return Answer(stdout, stderr, departure.code)


def differing_lines(expected, found):
    if expected.code != found.code:
        yield f"exit code: etcd {expected.code}, ours {found.code}"
    for stream in ("stdout", "stderr"):
        theirs, ours = (getattr(answer, stream) for answer in (expected, found))
        if theirs != ours:
            yield from (f"{stream}: etcd {line[:400]!r}" for line in theirs.splitlines() or [""])
            yield from (f"{stream}: ours {line[:400]!r}" for line in ours.splitlines() or [""])


def free_space(etcdctl, server, wrong):
    """As an operator would: compact, and defragment what needs it."""
    [status] = json.loads(etcdctl.must(server, "endpoint", "status", "-w", "json"))
    todo = [steps.run("compaction", "--physical", str(status["Status"]["header"]["revision"]))]
    if server.kind is servers.ETCD:
        todo.append(steps.run("defrag"))
    for step in todo:
        answer = etcdctl(server, step)
        if answer.code != 0:
            wrong.append(f"free_space: {step} on {server.kind.name}\n      {answer.stderr}")


def stopped_well(server, wrong):
    if not servers.ended_well(server.kind, code := server.stop()):
        wrong.append(f"{server.kind.name} ended with {code} on SIGTERM:\n{server.log_tail()}")


def compare(options, scratch):
    etcdctl = etcdctl_of_environment()
    used, wrong, passed = set(), [], 0

    def pair(name, flags=(), reference_kind=servers.ETCD, client=etcdctl):
        subject_kind = servers.KINDS[options.subject]
        both = [servers.Server(reference_kind, scratch / f"{name}-reference", flags),
                servers.Server(subject_kind, scratch / f"{name}-subject", flags)]
        for server in both:
            try:
                server.start()
            except servers.NotReady as why:
                sys.exit(f"{why}; its log ends:\n{server.log_tail()}")
        if options.spoil:
            etcdctl.must(both[1], "put", "spoiled", "by one write")
        return Comparison(etcdctl, client, *both, used, subject_kind is servers.COVEY, options.verbose)

    plain = pair("plain")
    if options.spoil:
        plain.play(steps.SCRIPT[0].__name__, steps.SCRIPT[0]())
        plain.report()
        return plain.passed, len(plain.wrong)
    for section in [section for section in steps.SCRIPT if not options.sections or section.__name__ in options.sections]:
        if section is steps.access and not has_users(etcdctl, plain.subject):
            print(f"not played: {section.__name__}: the subject has no Auth service")
            continue
        plain.play(section.__name__, section())
    if options.sections:
        plain.report()
        return plain.passed, len(plain.wrong)
    small = pair("quota", (f"--quota-backend-bytes={steps.QUOTA_BYTES}",))
    small.play("no_space", steps.no_space())
    for server in (small.reference, small.subject):
        free_space(etcdctl, server, small.wrong)
    small.play("space_again", steps.space_again())

    comparisons = [plain, small]
    if options.subject == servers.COVEY.name:
        clients = pair("clients", reference_kind=servers.COVEY, client=Client(servers.COVEY.binary()))
        for section in steps.BY_BOTH:
            clients.play(section.__name__, section())
        comparisons.append(clients)
    for comparison in comparisons:
        comparison.report()
        wrong += comparison.wrong
        passed += comparison.passed
        for server in (comparison.reference, comparison.subject):
            stopped_well(server, wrong)
    unused = [f"rule never needed: {rule.name} {rule.pattern}" for rule in RULES
              if rule not in used and rule.why != CLIENT]
    for line in unused:
        print(f"FAIL {line}")
    return passed, len(wrong) + len(unused)


def has_users(etcdctl, server):
    return etcdctl(server, steps.run("auth status")).code == 0


def etcdctl_of_environment():
    named = os.environ.get("ETCDCTL_BIN") or "etcdctl"
    return Client(shutil.which(named) or sys.exit(f"no etcdctl to run: {named} is not there; set ETCDCTL_BIN"))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", choices=servers.KINDS, default=servers.COVEY.name)
    parser.add_argument("--sections", type=lambda text: text.split(","), help="of steps.py, separated by commas; else all that there is")
    parser.add_argument("--spoil", action="store_true")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    if unknown := {*(options.sections or ())} - {section.__name__ for section in steps.SCRIPT}:
        sys.exit(f"no sections {sorted(unknown)}")
    servers.exit_on_signals()
    print(f"{etcdctl_of_environment().version()}; etcd: {first_line_of_version(servers.ETCD)}")
    with tempfile.TemporaryDirectory(prefix="etcdctl-") as scratch:
        passed, failed = compare(options, Path(scratch))
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


def first_line_of_version(kind):
    done = subprocess.run([kind.binary(), "--version"], capture_output=True, text=True, check=True,
                          env=servers.environment())
    return done.stdout.splitlines()[0]


if __name__ == "__main__":
    sys.exit(main())
