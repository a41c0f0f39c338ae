#!/usr/bin/env python3
"""What etcdctl does for long: `check perf`, `check datascale` and `make-mirror`, of etcd and of covey side by side.

Owns: their servers, and what of their answers can be compared. Must never: judge by a measured time, which is the machine's.
`check perf` takes a minute and cannot be told to take less, so that this runs beside compare.py.

  python lasting.py

Needs what compare.py needs.
"""

import re
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.dont_write_bytecode = True

import compare  # noqa: E402  (it knows where servers is)
import servers  # noqa: E402

CHECK_SECONDS_MAX = 300
MIRROR_SECONDS_MAX = 60
MEASURED = (
    (r"(?m)^.*\r", ""),  # a bar that goes on,
    (r"(?m)^ *\d+ / \d+ (?:Bo*!?)?[^A-Z\n]*(?:\n|(?=[A-Z]))", ""),  # and its end, on whose line the next ones may follow
    (r"(?m)^(?:(?:PASS|FAIL): )?(Throughput|Slowest request|Stddev|Approximate system memory used) .*", r"\1: <measured>"),
    (r"(?m)^(?:PASS|FAIL)$", "<verdict>"),
    (r"(?<=revision )\d+", "<revision>"),
)
PERF = "Throughput: <measured>\nSlowest request: <measured>\nStddev: <measured>\n<verdict>\n"
DATASCALE = "Approximate system memory used: <measured>\n"
CHECKS = set()  # those that run


def checked(etcdctl, server, which):
    """What a check prints but for what it measures, and what it leaves behind."""
    command = [etcdctl.binary, "--endpoints", server.endpoint, "check", which, "--auto-compact", "--auto-defrag"]
    with subprocess.Popen(command, env=etcdctl.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as check:
        CHECKS.add(check)
        printed = output(check, CHECK_SECONDS_MAX).decode().replace(server.endpoint, "<endpoint>")
        CHECKS.discard(check)
    for pattern, hidden in MEASURED:
        printed = re.sub(pattern, hidden, printed)
    return printed + "left: " + etcdctl.must(server, "get", "", "--prefix", "--keys-only")


def output(process, seconds):
    """What it prints until it ends; it is killed if that takes longer."""
    try:
        return process.communicate(timeout=seconds)[0]
    except BaseException:
        process.kill()
        raise


def both_checks(etcdctl, server):
    return checked(etcdctl, server, "perf"), checked(etcdctl, server, "datascale")


def mirrored(etcdctl, source, target):
    """Mirrors a prefix under another one, what is there and what comes; what the target has in the end, and how it ended."""
    etcdctl.must(source, "put", "elsewhere", "not mirrored")
    for number in range(20):
        etcdctl.must(source, "put", f"from/{number:02}", f"before {number}")
    command = [etcdctl.binary, "--endpoints", source.endpoint, "make-mirror", "--prefix", "from/", "--dest-prefix", "to/",
               target.endpoint]
    with subprocess.Popen(command, env=etcdctl.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT) as mirror:
        try:
            await_key(etcdctl, target, mirror, "to/19", "before 19")
            etcdctl.must(source, "put", "from/03", "changed")
            etcdctl.must(source, "del", "from/04")
            etcdctl(source, compare.steps.txn("", "put from/new 1", "del from/05", "put from/zz 2", "", ""))
            etcdctl.must(source, "put", "from/last", "one")
            await_key(etcdctl, target, mirror, "to/last", "one")
        finally:
            mirror.send_signal(signal.SIGINT)
            printed = output(mirror, MIRROR_SECONDS_MAX)
    return etcdctl.must(target, "get", "", "--prefix"), printed, mirror.returncode


def await_key(etcdctl, server, mirror, key, value):
    def has_come():
        if mirror.poll() is not None:
            sys.exit(f"FAIL make-mirror to {server.kind.name}: it ended with {mirror.returncode}, before {key} came")
        return etcdctl.must(server, "get", key, "--print-value-only").strip() == value

    servers.until(f"make-mirror to {server.kind.name}: {key}", has_come, server.log_tail)


def compared(etcdctl, pool, scratch):
    started, wrong = {}, []
    for kind in servers.KINDS.values():
        started[kind] = [servers.Server(kind, scratch / f"{kind.name}-{role}") for role in ("checked", "source", "target")]
        for server in started[kind]:
            server.start()
    checks = {kind: pool.submit(both_checks, etcdctl, started[kind][0]) for kind in started}
    mirrors = {kind: mirrored(etcdctl, *started[kind][1:]) for kind in started}
    if mirrors[servers.COVEY] != mirrors[servers.ETCD] or "to/zz\n2\n" not in mirrors[servers.ETCD][0]:
        wrong.append(f"make-mirror: {mirrors}")
    perf, datascale = zip(*(checks[kind].result() for kind in (servers.ETCD, servers.COVEY)))
    for answers, end in ((perf, PERF), (datascale, DATASCALE)):
        if answers[0] != answers[1] or f"{end}left: " != answers[0][answers[0].index(end):]:
            wrong.append(f"check: etcd {answers[0]!r}\n      ours {answers[1]!r}")
    for server in [server for kind in started for server in started[kind]]:
        compare.stopped_well(server, wrong)
    return wrong


def main():
    servers.exit_on_signals()
    etcdctl = compare.etcdctl_of_environment()
    with tempfile.TemporaryDirectory(prefix="etcdctl-lasting-") as scratch, ThreadPoolExecutor() as pool:
        try:
            wrong = compared(etcdctl, pool, Path(scratch))
        except BaseException:
            # Without its server a check ends late or never, and the pool waits for it.
            servers.kill_what_we_started()
            for check in list(CHECKS):
                check.kill()
            raise
    for line in wrong:
        print(f"FAIL {line}")
    print(f"{3 - len(wrong)} passed, {len(wrong)} failed, of what takes long")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
