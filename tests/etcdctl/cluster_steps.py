"""The commands that are played to clusters of three, of etcd and of covey.

Owns: what is asked, of which member, and what has to be so before. Must never: run anything. Read by cluster.py.

The members are `a`, `b` and `c`, and `a` leads at first; `{a}` is its id, and `{a_url}` where the others find it. Only
what no other step of `steps` asks is here: members, leaders, and what each endpoint is asked.
"""

from dataclasses import dataclass

from steps import FILL_PUTS_MAX, FILL_VALUE, HASHES, LATER, STATUS, Departure, run

# etcd, and covey, change members once all have been connected for five seconds.
UNHEALTHY = "etcdserver: unhealthy cluster"
# etcd makes ids of URLs and the time in seconds, so that one that is added again at once is the same.
SAME_SECOND = "etcdserver: member ID already exist"
BEHIND = "etcdserver: can only promote a learner member which is in sync with leader"


def learner(stdout):
    return Departure("a learner serves whatever a voter does; etcd's refuses all but serializable reads and Status", stdout)


LEARNER_ADDED = Departure(LATER, without=(" as learner",))


@dataclass(frozen=True)
class LedBy:
    """Waited for: all that run know this one to lead, or anyone where there is no name."""

    name: str = ""


@dataclass(frozen=True)
class Starts:
    """Done: this one is started, to join."""

    name: str


@dataclass(frozen=True)
class Ends:
    """Waited for: this one's process ends by itself."""

    name: str


def listed(line, at, *, forms=("simple", "json", "fields", "table"), **more):
    for form in forms:
        by_client = STATUS if "status" in line else HASHES if "hashkv" in line and form == "json" else None
        yield run(f"{line} -w {form}", at=at, anyhow=True, by_client=by_client, **more)


def endpoints():
    yield run("put a 1", at="b")
    yield run("put a 2", at="c")
    yield run("put b 3", at="a")
    yield run("del b", at="b")
    for at in "ab":
        yield from listed("member list", at)
    yield from listed("endpoint status --cluster", "b")
    yield from listed("endpoint status", "abc")
    yield from listed("endpoint health --cluster", "c")
    yield from listed("endpoint hashkv --cluster", "b")
    yield from listed("endpoint hashkv --cluster --rev 3", "c", forms=("simple", "json"))
    yield run("endpoint hashkv --rev 2", at="cb")
    yield run("endpoint hashkv --rev 99", at="b")
    yield run("compaction 3", at="c")
    yield run("endpoint hashkv --rev 2", at="b")
    yield from listed("endpoint hashkv --cluster --rev 4", "b", forms=("simple", "json"))
    yield run("defrag --cluster", at="b", anyhow=True)
    yield run("defrag", at="cb")
    yield run("alarm list", at="c")
    yield run("alarm disarm", at="c")


def leaders():
    yield run("move-leader {b}", at="c")
    yield run("move-leader {b}", at="abc")
    yield LedBy("b")
    yield from listed("endpoint status --cluster", "c", forms=("simple", "table"))
    yield run("move-leader {b}", at="abc")  # which leads already
    yield run("move-leader 77", at="abc")
    yield run("move-leader {c}", at="a")
    yield run("move-leader {a}", at="b")
    yield LedBy("a")
    yield from listed("endpoint status --cluster", "b", forms=("json", "fields"))


def contests():
    """Through a member that does not lead."""
    yield run("lock l -- sh -c 'echo held by $ETCD_LOCK_KEY since $ETCD_LOCK_REV'", at="b")
    yield run("lock l -- sh -c 'exit 7'", at="c")
    yield run("lock l", interrupt=2, at="b")
    yield run("elect e proposal", interrupt=2, at="c")
    yield run("get l/ --prefix -w json", at="b")


def members():
    """Who is added is known by the name that was given, from then on."""
    yield run("member add d --peer-urls {d_url} --learner", at="b", patience=UNHEALTHY, by_client=LEARNER_ADDED)
    yield run("member promote {d}", at="b")
    yield run("member promote {a}", at="b")
    yield from listed("member list", "c")
    yield run("member add again --peer-urls {d_url}", at="b", patience=SAME_SECOND)
    yield run("member add two --peer-urls http://127.0.0.1:1 --learner", at="b", patience=UNHEALTHY)
    yield Starts("d")
    yield from listed("member list", "b", forms=("simple", "json"))
    yield from listed("endpoint status", "d")
    yield run("get a --consistency s -w json", at="d")
    yield run("endpoint health", at="d", departure=learner(
        "<endpoint of d> is healthy: successfully committed proposal: took = <took>\n"))
    yield run("put a 4", at="d", departure=learner("OK\n"))
    yield run("move-leader {d}", at="abc")
    yield run("member promote {d} -w json", at="c", anyhow=True, patience=BEHIND)
    yield run("member promote {d}", at="c")
    yield run("put a 5", at="d")
    yield from listed("member list", "d")
    yield run("member update {d} --peer-urls {d_url}", at="b")
    yield run("member add e --peer-urls http://127.0.0.1:3 -w json", at="c", anyhow=True, patience=UNHEALTHY)
    yield run("member update {e} --peer-urls http://127.0.0.1:4,http://127.0.0.1:5", at="b", patience=UNHEALTHY)
    yield run("member update {e} --peer-urls {a_url}", at="b")
    yield run("member update {e} --peer-urls http://127.0.0.1:6 -w json", at="b", anyhow=True)
    yield from listed("member list", "c", forms=("simple",))
    yield run("member remove {e}", at="b", patience=UNHEALTHY)
    yield run("member remove {e} -w json", at="b", anyhow=True)
    yield run("member update {e} --peer-urls http://127.0.0.1:7", at="b")
    yield run("member add f --peer-urls http://127.0.0.1:4,http://127.0.0.1:5", at="b", patience=UNHEALTHY)
    yield run("member remove {f} -w json", at="a", anyhow=True, patience=UNHEALTHY)
    yield from listed("member list", "a", forms=("simple", "table"))


RAISED = Departure("who refused raises the alarm; in etcd so does whoever finds its own file too large, several of them",
                   "memberID:<id of b> alarm:NOSPACE \n", by_luck=True)


def no_space():
    """The member that has no room says so to all."""
    yield run("put", "fill", stdin=FILL_VALUE, repeat=FILL_PUTS_MAX, at="b")
    yield run("alarm list", at="c", departure=RAISED)
    yield run("put small x", at="a")
    yield from listed("endpoint health --cluster", "a")
    yield run("alarm disarm", at="c", departure=RAISED)
    yield run("alarm list", at="a")


def removals():
    """Last: whoever leads goes, too."""
    yield run("member remove {a}", at="b", patience=UNHEALTHY)
    yield Ends("a")
    yield LedBy()
    yield run("member remove {a}", at="b")
    yield run("get a", at="c")
    yield from listed("member list", "c")
    yield run("alarm list", at="d")


SCRIPT = (endpoints, leaders, contests, members, no_space, removals)
