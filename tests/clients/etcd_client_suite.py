"""Runs the test suite that the crate etcd-client ships, against covey or a real etcd.

Owns: which of its tests are left out, and why. Must never: change the crate, or pass when a test was not run. The tests
expect the server on port 2379 of localhost: `.ci/stages/clients` runs this in a network namespace of its own.

  python etcd_client_suite.py covey|etcd TEST_BINARY...
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))

import servers  # noqa: E402

PORT = 2379
SUITE_SECONDS_MAX = 300

LEFT_OUT = {
    "test_cluster": "wants a cluster of several nodes",
    "test_move_leader": "wants a cluster of several nodes",
}
# What wants a server with settings of its own: its flags.
SPECIAL = {"test_get_stream_chunked": ("--max-request-bytes=10240",)}
# What wants the user root to be there, and tokens that end soon: its tests enable authentication, so that each has a server of its own.
AUTH = {name: ("--auth-token-ttl=2",)
        for name in ("test_auth", "test_auth_refresh_token", "test_auth_refresh_token_once_for_concurrent_calls")}
ROOT = (["user", "add", "root:rootpwd"], ["user", "grant-role", "root", "root"])
# What only servers have that came after the etcd we compare with.
LATER = {"test_get_stream", "test_get_stream_chunked"}


def tests_of(binary):
    listed = subprocess.run([binary, "--list", "--include-ignored"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^(\w+): test$", listed, re.MULTILINE)


def run(kind, flags, binary, names, scratch):
    """The number of tests that passed; ends the program if one does not."""
    server = servers.Server(kind, Path(scratch) / "data", flags, port=PORT)
    server.start()
    if names[0] in AUTH:
        # Either client does for either server.
        client = server.binary if kind is servers.COVEY else os.environ["ETCDCTL_BIN"]
        for words in ROOT:
            subprocess.run([client, "--endpoints", server.endpoint, *words], check=True, capture_output=True,
                           env=servers.environment())
    done = subprocess.run([binary, "--include-ignored", "--exact", *names], capture_output=True, text=True, check=False,
                          timeout=SUITE_SECONDS_MAX)
    stopped = server.stop()
    counted = re.search(r"^test result: ok\. (\d+) passed; 0 failed;", done.stdout, re.MULTILINE)
    if done.returncode != 0 or not counted or int(counted[1]) != len(names):
        print(done.stdout, done.stderr, server.log_tail(), sep="\n")
        sys.exit(f"{len(names)} tests were to pass, and it ended with {done.returncode}")
    if kind is servers.COVEY and stopped != 0:
        sys.exit(f"covey ended with {stopped} on SIGTERM")
    return len(names)


def main():
    servers.exit_on_signals()
    if len(sys.argv) < 3 or sys.argv[1] not in servers.KINDS:
        sys.exit(__doc__)
    kind, binaries = servers.KINDS[sys.argv[1]], sys.argv[2:]
    every = {binary: tests_of(binary) for binary in binaries}
    special = SPECIAL | AUTH
    unknown = (LEFT_OUT.keys() | special.keys()) - {name for names in every.values() for name in names}
    if unknown:
        sys.exit(f"the suite has no tests {sorted(unknown)}")
    left_out = LEFT_OUT.keys() | (LATER if kind is servers.ETCD else set())
    passed = 0
    for binary, names in every.items():
        taken = [name for name in names if name not in left_out]
        rounds = [((), [name for name in taken if name not in special])]
        rounds += [(special[name], [name]) for name in taken if name in special]
        for flags, these in rounds:
            with tempfile.TemporaryDirectory(prefix="etcd-client-") as scratch:
                passed += run(kind, flags, binary, these, scratch)
            print(f"ok   {', '.join(these)}")
    for name, why in LEFT_OUT.items():
        print(f"left out: {name}: {why}")
    print(f"{passed} passed, 0 failed, {len(left_out)} skipped")


if __name__ == "__main__":
    main()
