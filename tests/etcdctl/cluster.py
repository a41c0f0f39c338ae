#!/usr/bin/env python3
"""Plays the same etcdctl commands to three etcds that are a cluster and to three coveys, and compares every answer. Then
plays them to two clusters of covey's, to one by etcdctl and to the other by covey's own client.

Owns: starting the clusters, and waiting for what cluster_steps.py wants to be so. Must never: forgive a difference; what
may differ is in compare.py, and who leads is the same in both.

  python cluster.py [--subject covey|etcd] [--verbose]

Needs what compare.py needs.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

sys.dont_write_bytecode = True

import cluster_steps  # noqa: E402
import compare  # noqa: E402  (it knows where servers is)
import servers  # noqa: E402
import steps  # noqa: E402

# Nobody is elected because a machine is busy.
FLAGS = ("--heartbeat-interval", "300", "--election-timeout", "3000", "--quota-backend-bytes", str(steps.QUOTA_BYTES))
RULES = (
    *compare.RULES,
    compare.Rule("alarms", r"Active Alarm\(s\): (NOSPACE(?: NOSPACE)* ?)", cluster_steps.RAISED.why),
    compare.Rule("order", r'ETCD_INITIAL_CLUSTER="(.*)"', "in the order of ids, which are drawn"),
)


class Trio(servers.Cluster):
    """Three of a kind, of which `a` leads, and a fourth that may join."""

    def __init__(self, kind, directory):
        super().__init__(kind, directory, "abc", FLAGS)
        try:
            self.start()
        except servers.NotReady as why:
            sys.exit(f"{why}; the logs end:\n{self.log_tails()}")
        self.add("d")

    @property
    def endpoint(self):
        return self.members["a"].endpoint

    def until(self, what, look):
        return servers.until(f"{self.kind.name}: {what}", look, self.log_tails)

    def leader(self, etcdctl):
        """The one of those that run that all of them know to lead, by id."""
        running = "".join(name for name, server in self.members.items() if server.process is not None)
        answer = etcdctl(self, steps.run("endpoint status -w json", at=running))
        if answer.code != 0:
            return None
        known = [one["Status"] for one in json.loads(answer.stdout)]
        leaders = {one.get("leader") for one in known}
        return leaders.pop() if len(leaders) == 1 and leaders < {one["header"]["member_id"] for one in known} else None

    def lead_by(self, etcdctl, name, ids):
        self.until(f"{name or 'one'} leads", lambda: self.leader(etcdctl) == int(ids[name], 16) if name else self.leader(etcdctl))

    def starts(self, name):
        try:
            self.members[name].start()
        except servers.NotReady as why:
            sys.exit(f"{why}; its log ends:\n{self.members[name].log_tail()}")

    def ends(self, name):
        self.until(f"the end of {name}", lambda: self.members[name].process.poll() is not None)
        if (code := self.members[name].reap()) != 0:
            sys.exit(f"{self.kind.name}: {name} was removed and ended with {code}; the logs end:\n{self.log_tails()}")


def learn(etcdctl, trio):
    """As Identity.learn, of all; `a` leads then."""
    listed = json.loads(etcdctl.must(trio, "member", "list", "-w", "json"))
    [status] = json.loads(etcdctl.must(trio, "endpoint", "status", "-w", "json"))
    cluster_id = listed["header"]["cluster_id"]
    words = {written: "cluster id" for written in compare.spellings(cluster_id)} | {status["Status"]["version"]: "version"}
    identity = compare.Identity(words, {})
    for name, server in trio.members.items():
        words |= {server.endpoint: f"endpoint of {name}", server.peer_url: f"peer url of {name}"}
        identity.names[f"{name}_url"] = server.peer_url
    ids = [member["ID"] for member in listed["members"]]
    if len(ids) != 3 or sorted(ids) != ids:
        sys.exit(f"{trio.kind.name} lists members in another order than that of their ids: {listed}")
    for member in listed["members"]:
        identity.learn_member(member["name"], member["ID"])
    if trio.leader(etcdctl) != int(identity.names["a"], 16):
        everybody = steps.run(f'move-leader {identity.names["a"]}', at="abc")
        trio.until("a leads", lambda: etcdctl(trio, everybody).code == 0)
    trio.lead_by(etcdctl, "a", identity.names)
    return identity


def play(comparison):
    both = ((comparison.reference, comparison.of_reference), (comparison.subject, comparison.of_subject))
    for section in cluster_steps.SCRIPT:
        for step in section():
            if isinstance(step, steps.Step):
                comparison.play(section.__name__, [step])
                continue
            for trio, normaliser in both:
                match step:
                    case cluster_steps.LedBy(name):
                        trio.lead_by(comparison.etcdctl, name, normaliser.identity.names)
                    case cluster_steps.Starts(name):
                        trio.starts(name)
                    case cluster_steps.Ends(name):
                        trio.ends(name)


def compare_clusters(options, scratch):
    etcdctl, used, wrong, passed = compare.etcdctl_of_environment(), set(), [], 0

    def played(name, reference_kind, subject_kind, client):
        nonlocal passed
        trios = [Trio(kind, scratch / f"{name}-{role}")
                 for role, kind in (("reference", reference_kind), ("subject", subject_kind))]
        comparison = compare.Comparison(etcdctl, client, *trios, used, subject_kind is servers.COVEY, options.verbose,
                                        learn, RULES)
        try:
            play(comparison)
        finally:
            comparison.report()
        passed += comparison.passed
        wrong.extend(comparison.wrong)
        for trio in trios:
            wrong.extend(f"{trio.kind.name} {name} ended with {code}" for name, code in trio.stop().items()
                         if not servers.ended_well(trio.kind, code))

    subject = servers.KINDS[options.subject]
    played("servers", servers.ETCD, subject, etcdctl)
    if subject is servers.COVEY:
        played("clients", servers.COVEY, servers.COVEY, compare.Client(servers.COVEY.binary()))
    return passed, len(wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subject", choices=servers.KINDS, default=servers.COVEY.name)
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    servers.exit_on_signals()
    with tempfile.TemporaryDirectory(prefix="etcdctl-cluster-") as scratch:
        passed, failed = compare_clusters(options, Path(scratch))
    print(f"{passed} passed, {failed} failed, by three members")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
