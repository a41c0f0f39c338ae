"""Runs the test suite that the crate etcd-client ships, against covey or a real etcd.

Owns: what each of its tests wants of servers. Must never: change the crate, or pass when a test was not run. The tests
expect the server on port 2379 of localhost, and another one that is called node4: `.ci/stages/clients` runs this in a
network namespace of its own, where that is a name of localhost's.

  python etcd_client_suite.py covey|etcd TEST_BINARY...
"""

import base64
import json
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

# What wants a cluster of three, of which the one on that port leads: it adds a member, which is to join then.
CLUSTERED = ("test_cluster",)
JOINING = "node4"
JOINING_PORT = 2380
EARLY_URL = "http://127.0.0.1:1"
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


def run_clustered(kind, binary, name, scratch):
    flags = ()
    if kind is servers.COVEY:
        # A name may be another machine's, where only a secret says who belongs to the cluster.
        secret = Path(scratch) / "secret"
        secret.write_bytes(base64.b64encode(os.urandom(32)))
        secret.chmod(0o600)
        flags = ("--cluster-secret-file", str(secret))
    cluster = servers.Cluster(kind, Path(scratch) / "cluster", ("node1", "node2", "node3"), flags, ports=(PORT, 0, 0))
    cluster.start()
    first = cluster.members["node1"]
    joining = cluster.add(JOINING, peer_host=JOINING, peer_port=JOINING_PORT)
    # Either client does for either server.
    client = first.binary if kind is servers.COVEY else os.environ["ETCDCTL_BIN"]

    def ask(*words):
        everybody = ",".join(member.endpoint for member in cluster.members.values() if member.process is not None)
        done = subprocess.run([client, "--endpoints", everybody, *words], capture_output=True, text=True, check=False,
                              env=servers.environment())
        return done.stdout if done.returncode == 0 else ""

    def leads():
        status = json.loads(ask("endpoint", "status", "-w", "json") or "[]")
        [(own, leader)] = [(one["Status"]["header"]["member_id"], one["Status"].get("leader"))
                           for one in status if one["Endpoint"] == first.endpoint] or [(None, 0)]
        if own != leader:
            ask("move-leader", f"{own or 0:x}")
        return own == leader

    servers.until("the first leads", leads, cluster.log_tails)
    await_changes(ask, cluster.log_tails)
    test = subprocess.Popen([*servers.DIE_WITH_US, binary, "--include-ignored", "--exact", name], stdout=subprocess.PIPE,
                            stderr=subprocess.STDOUT, text=True)
    try:
        servers.until("a member is added", lambda: joining.peer_url in ask("member", "list") or test.poll() is not None,
                      cluster.log_tails)
        joining.launch()
        printed, _ = test.communicate(timeout=SUITE_SECONDS_MAX)
    finally:
        if test.poll() is None:
            test.kill()
            print(test.communicate()[0])
    is_passed, ended = test.returncode == 0 and "test result: ok. 1 passed; 0 failed;" in printed, {}
    if is_passed:
        # It was removed in the end, and stops by itself.
        servers.until("the end of who was removed", lambda: joining.process.poll() is not None, cluster.log_tails)
        ended = {JOINING: joining.reap()}
    ended |= cluster.stop()
    if not is_passed or not all(servers.ended_well(kind, code) for code in ended.values()):
        print(printed, cluster.log_tails(), sep="\n")
        sys.exit(f"{name} was to pass; the members ended with {ended}")
    return 1


def await_changes(ask, logs):
    """Members are changed once all have been connected for a while. Whoever is told of a failure may have made the change."""
    def early(listed):
        return re.search(rf"^(\w+), .* {EARLY_URL},", listed, re.MULTILINE)

    def is_added():
        if early(ask("member", "list")):
            return True
        return ask("member", "add", "early", "--learner", "--peer-urls", EARLY_URL)

    def is_gone():
        listed = ask("member", "list")
        if found := early(listed):
            return ask("member", "remove", found[1])
        return listed

    servers.until("a healthy cluster", is_added, logs)
    servers.until("who was added goes", is_gone, logs)


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
    unknown = {*CLUSTERED, *special} - {name for names in every.values() for name in names}
    if unknown:
        sys.exit(f"the suite has no tests {sorted(unknown)}")
    left_out = LATER if kind is servers.ETCD else set()
    passed = 0
    for binary, names in every.items():
        taken = [name for name in names if name not in left_out]
        rounds = [((), [name for name in taken if name not in special and name not in CLUSTERED])]
        rounds += [(special[name], [name]) for name in taken if name in special]
        for flags, these in rounds:
            with tempfile.TemporaryDirectory(prefix="etcd-client-") as scratch:
                passed += run(kind, flags, binary, these, scratch)
            print(f"ok   {', '.join(these)}")
        for name in taken:
            if name in CLUSTERED:
                with tempfile.TemporaryDirectory(prefix="etcd-client-") as scratch:
                    passed += run_clustered(kind, binary, name, scratch)
                print(f"ok   {name}, by three members")
    print(f"{passed} passed, 0 failed, {len(left_out)} skipped")


if __name__ == "__main__":
    main()
