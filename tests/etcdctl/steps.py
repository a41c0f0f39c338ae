"""The commands that are played to etcd and to covey.

Owns: what is asked, in which order, and every departure from etcd that we chose, with its reason. Must never:
run anything or know how answers are compared. Read by compare.py.

Both servers start empty and get the same steps, so revisions are equal. Arguments are `str` or `bytes`.
"""

import re
import shlex
from dataclasses import dataclass

KIB = 1024
QUOTA_BYTES = 4 * KIB * KIB
FILL_VALUE = b"f" * (200 * KIB)
FILL_PUTS_MAX = 200


@dataclass(frozen=True)
class Departure:
    """An answer that is ours on purpose, once it is normalised.

    Of standard error only a part is given: the rest is in the words of etcdctl's own version. Where standard output is
    None, it is etcd's. Where something is `without`, patterns, the answer is etcd's but for what they match; a table's
    cells are lines then.
    """

    why: str
    stdout: str = ""
    stderr_part: str = ""
    code: int = 0
    without: tuple = ()
    by_luck: bool = False  # whether there is a difference changes from run to run

    def bare(self, text):
        for pattern in self.without:
            text = re.sub(pattern, "", text, flags=re.MULTILINE)
        return text


@dataclass(frozen=True)
class Step:
    args: tuple
    stdin: bytes = b""
    repeat: int = 1  # run again until it fails, at most so often; only the last answer is compared
    interrupt: int = 0  # ended after so many lines: by the end of standard input where there is some, else by SIGINT
    departure: Departure = None  # of the server
    by_client: Departure = None  # of covey's own client
    at: str = ""  # the names of the members that are asked, a letter each, where there are several
    patience: str = ""  # asked again for a while as long as this is in standard error
    anyhow: bool = False  # in whatever order it lists members

    def __str__(self):
        words = [os_text(arg) for arg in self.args]
        return shlex.join(word if len(word) < 60 else word[:57] + "..." for word in words)


def os_text(arg):
    return arg if isinstance(arg, str) else arg.decode("ascii", errors="backslashreplace")


def run(*args, **more):
    """One step; a single argument is split like a shell line."""
    if len(args) == 1 and isinstance(args[0], str):
        args = tuple(shlex.split(args[0]))
    return Step(args, **more)


def txn(*lines, form="simple"):
    """Compares, then and else, with an empty line between them."""
    return run("txn", "-w", form, stdin="\n".join(lines).encode() + b"\n\n")


LATER = "covey's client prints what etcdctl 3.6 does"
STATUS = Departure(LATER, without=(
    r',"storageVersion":"[\d.]+","dbSizeQuota":\d+,"downgradeInfo":{}',
    r'^"(?:StorageVersion|DBSizeInUse|DBSizeQuota|DowngradeTargetVersion|DowngradeEnabled)" : .*\n',
    r"^(?:STORAGE VERSION|IN USE|PERCENTAGE NOT IN USE|QUOTA|DOWNGRADE TARGET VERSION|DOWNGRADE ENABLED) = .*\n",
    r"(?<=, \d\.\d\.\d\d), [\d.]+(?=, \d)|(?<=B), [\d.]+ [kMG]?B, \d+%, [\d.]+ [kMG]?B(?=, )|, , false$",
))
HASHES = Departure(LATER, without=(r',"hash_revision":\d+',))


# Once the lines that were waited for have come, this is all that differs.
INTERRUPTED = Departure("a command that is told to end has ended well; etcdctl dies of the signal", stdout=None)
NO_ALARM = "where there was no alarm etcdctl prints no header, and as fields it panics"
DISARMED = Departure(NO_ALARM, without=(r'"header":{[^}]*}',))

FORMS = ("simple", "json", "fields")


def ours(why, stdout="", stderr_part="Error: ", code=128):
    return Departure(why, stdout, stderr_part, code)


def in_forms(line, *more, **of_each):
    return [run(f"{line} -w {form}", **of_each) for form in (*FORMS, *more)]


def puts_and_gets():
    yield run("get nothing")
    yield run("get nothing -w json")
    yield run("get '' --prefix -w json")
    yield run("put a 1")
    yield run("put a 1 -w json")  # the same value again is still a change
    yield run("put a 2 -w fields")
    yield run("put a 3 --prev-kv")
    yield run("put a 4 --prev-kv -w json")
    yield run("put a 5 --prev-kv -w fields")
    yield run("put new x --prev-kv -w json")
    yield run("put empty ''")
    yield from in_forms("get empty")
    yield run("put a --ignore-value -w json")
    yield run("put a 6 --ignore-lease -w json")
    yield run("put fromstdin", stdin=b"line one\nline two\n")
    yield from in_forms("get fromstdin")
    for key in ("p/a", "p/b", "p/c", "p/d", "p0", "q"):
        yield run("put", key, f"value of {key}")
    yield run("put p/b again")
    yield run("put p/b 'and again'")
    yield run("put p/a again")
    yield from in_forms("get a")
    yield from in_forms("get a --prefix")
    yield from in_forms("get p/ --prefix")
    yield from in_forms("get p/ --prefix --limit 2")
    yield from in_forms("get p/ --prefix --limit 4")  # exactly as many as there are: no more
    yield from in_forms("get p/ --prefix --keys-only")
    yield from in_forms("get p/ --prefix --count-only")
    yield run("get p/ --prefix --limit 1 --count-only -w json")
    yield run("get p/ --prefix --print-value-only")
    yield run("get p/b p0 -w json")
    yield run("get q p -w json")  # reversed: empty
    yield run("get p p -w json")
    yield run("get --from-key p/c -w json")
    yield run("get --from-key '' --keys-only")
    yield run("get --from-key '' --limit 3 -w json")
    yield run("get '' --prefix --keys-only --limit 3 -w json")
    yield run("get a --hex")
    yield run("get a --consistency s -w json")
    yield run("get a --consistency l -w json")


def orders():
    for target in ("CREATE", "KEY", "MODIFY", "VALUE", "VERSION"):
        for order in ("ASCEND", "DESCEND"):
            yield run(f"get --from-key '' --sort-by {target} --order {order} -w json")
            yield run(f"get --from-key '' --sort-by {target} --order {order} --limit 3 -w json")
        # Without a limit: with one, etcd sorts only the first keys in key order.
        yield run(f"get p/ --prefix --sort-by {target} -w json")
    yield run("get p/ --prefix --sort-by VALUE --order DESCEND --keys-only -w json")
    yield run("get p/ --prefix --order DESCEND --limit 1")
    yield run("get p/ --prefix --sort-by NONSENSE")
    yield run("get p/ --prefix --order SIDEWAYS")


def old_revisions():
    for revision in (1, 2, 3, 4, 7, 15, 21):
        yield run(f"get a --rev {revision} -w json")
        yield run(f"get --from-key '' --rev {revision} -w json")
    yield run("get p/ --prefix --rev 20 --count-only -w json")
    yield run("get p/ --prefix --rev 20 --sort-by MODIFY --order DESCEND --limit 2 -w json")
    yield run("get a --rev 9999")
    yield run("get a --rev -5 -w json")


def binary_keys():
    keys = (b"\x01", b"\x7f", b"\x80\x81", b"\xff", b"\xff\x01", b"\xff\xff", "k\u00e9y\u4e2d", " ", "with space\ttab")
    for number, key in enumerate(keys):
        yield run("put", key, f"binary {number}")
        yield run("get", key, "-w", "json")
        yield run("get", key, "--hex")
    yield run("put", "binary value", stdin=bytes(range(256)))
    yield run("get", "binary value", "-w", "json")
    yield run("get", "binary value", "--hex")
    yield run("get", b"\xff", "--prefix", "-w", "json")  # no byte follows 0xff: to the end
    yield run("get", b"\xff\xff", "--prefix", "--count-only", "-w", "fields")
    yield run("get", b"\x80", "--prefix", "-w", "json")
    yield run("get", b"\x00\x01"[1:], b"\xff", "--keys-only", "-w", "json")
    yield run("get", "--from-key", b"\x7f", "-w", "json")
    yield run("del", b"\xff", "--prefix", "--prev-kv", "-w", "json")
    yield run("get", "--from-key", b"\x7f", "-w", "json")


def deletes():
    yield run("put d/1 one")
    yield run("put d/2 two")
    yield run("put d/3 three")
    yield run("put d/4 four")
    yield run("put d/5 five")
    yield run("put d/6 six")
    yield run("del d/1")
    yield run("del d/1 -w json")  # nothing there: no revision
    yield run("del d/2 --prev-kv")
    yield run("del d/3 --prev-kv -w json")
    yield run("del d/4 --prev-kv -w fields")
    yield run("get d/4 -w json")
    yield run("put d/4 reborn -w json")
    yield run("get d/4 -w json")  # created anew: version 1
    yield run("del d/5 d/6 -w json")
    yield run("del d/6 d/5 -w json")
    yield run("del d/ --prefix --prev-kv -w json")
    yield run("del d/ --prefix")
    yield run("put e/1 x")
    yield run("put e/2 x")
    yield run("del --from-key e/1 --prev-kv -w fields")
    yield run("del nothing --prev-kv -w fields")


def transactions():
    yield txn("", "put t1 one", "put t2 two", "", "")
    yield txn('value("t1") = "one"', "", "put t1 won", "get t1", "", "put t1 lost", "")
    yield txn('value("t1") = "one"', "", "put t1 won", "", "get t1", "del t2", "", form="json")
    for compare in ('mod("t1") > "0"', 'create("t1") < "3"', 'version("t1") = "2"', 'version("none") = "0"',
                    'value("none") = ""', 'value("t1") > "a"', 'value("t1") < "a"', 'mod("t1") = "0"',
                    'create("none") = "0"'):
        for form in FORMS:
            yield txn(compare, "", "get t1", "", "get t --prefix", "", form=form)
    yield txn('version("t1") = "2"', 'value("t1") = "won"', "", "get t1", "", "", form="json")
    yield txn("", "put t3 a", "get t3", "del t3", "get t3", "put t4 b", "get t --prefix", "", "", form="json")
    yield txn("", "get t1", "get t --prefix", "", "", form="json")
    yield txn("", "del nothing", "", "", form="json")
    yield txn("", "del t --prefix --prev-kv", "", "", form="json")
    yield txn("", "", "", form="json")
    yield txn("", "put twice 1", "put twice 2", "", "")
    yield txn("", "put twice 1", "del twi --prefix", "", "")
    yield txn("", "put twice 1", "", "put twice 2", "", form="json")  # one in each branch is fine
    yield txn("", "put '' x", "", "")
    yield txn('value("") = "x"', "", "get a", "", "")
    yield txn("", "get a --rev 9999", "put after x", "", "")
    yield run("get after")
    yield txn("", "put unleased x --lease 77", "", "")
    yield txn("", *[f"put many/{number} x" for number in range(128)], "", "", form="json")
    yield txn("", *[f"put many/{number} x" for number in range(129)], "", "")
    yield run("get many/ --prefix --count-only -w json")
    yield txn("nonsense", "", "", "")


def refusals():
    yield run("get ''")
    yield run("put '' x")
    yield run("del ''")
    yield run("put")
    yield run("put a 1 2")
    yield run("put a x --ignore-value")
    yield run("put absent --ignore-value")
    yield run("put absent x --ignore-lease")
    yield run("put a x --lease 77")
    yield run("get a b c")
    yield run("get a --prefix --from-key")
    yield run("get a --nonsense")
    yield run("put big", stdin=b"b" * (1536 * KIB))  # with its key above etcd's request limit
    yield run("get big --count-only -w json")
    yield run("put big", stdin=b"b" * (1535 * KIB))
    yield run("get big --keys-only -w json")
    yield run("del big")
    yield run("compaction")
    yield run("compaction x")


def compactions():
    yield run("compaction 9999")
    yield run("put c first")
    yield run("put c second")
    yield run("put gone x")
    yield run("del gone")
    yield run("put c third")
    yield run("compaction 5")
    yield run("compaction 5")
    yield run("compaction 4")
    yield run("get a --rev 4")
    yield run("get a --rev 5 -w json")
    yield run("get --from-key '' --rev 5 -w json")
    yield run("compaction --physical 10")
    yield run("get --from-key '' --rev 10 -w json")
    yield run("get --from-key '' --rev 9")
    yield run("compaction --physical 10")
    yield run("compaction --physical 9999")
    yield txn("", "get a --rev 3", "", "")
    yield run("compaction 0")
    yield run("compaction -1")
    yield run("get --from-key '' -w json")
    yield run("put c fourth -w json")
    yield run("get c -w json")


def leases():
    """`{lease}` is what the server called the lease that was granted last."""
    yield run("lease grant 0")  # the shortest there is, which must not end while others are listed
    yield run("lease revoke {lease}")
    yield run("lease grant x")
    yield run("lease grant")
    yield run("lease grant 900 -w json")
    yield run("lease revoke {lease}")
    yield run("lease grant 900 -w fields")
    yield run("lease revoke {lease} -w fields")
    yield run("lease grant 900")
    yield run("put leased/a x --lease {lease}")  # one: etcd lists several in any order
    yield from in_forms("lease timetolive {lease}")
    yield from in_forms("lease timetolive {lease} --keys")
    yield from in_forms("lease list")
    yield from in_forms("lease keep-alive --once {lease}")
    yield run("lease keep-alive {lease}", interrupt=1, by_client=INTERRUPTED)
    yield run("get leased/ --prefix -w json")
    yield run("lease revoke {lease} -w json")
    yield run("get leased/ --prefix -w json")
    yield run("lease revoke {lease}")
    yield run("lease timetolive {lease}")
    yield run("lease timetolive {lease} -w json")
    yield run("lease keep-alive --once {lease}")
    yield run("lease keep-alive {lease}")
    yield run("lease revoke zz")
    yield run("lease timetolive")
    yield run("lease list -w json")


def watches():
    for form in FORMS:
        yield run(f"watch a --rev 3 -w {form}", interrupt=1)
    yield run("watch p/ --prefix --rev 14 --prev-kv", interrupt=3)
    yield run("watch a --rev 3 -- sh -c 'echo $ETCD_WATCH_REVISION $ETCD_WATCH_KEY $ETCD_WATCH_EVENT_TYPE'", interrupt=3)
    yield run("watch")


def contests():
    yield run("lock l -- sh -c 'echo held by $ETCD_LOCK_KEY since $ETCD_LOCK_REV'")
    yield run("lock l -- sh -c 'exit 7'")
    yield run("lock l", interrupt=2)
    yield run("lock l -w json", interrupt=1)
    yield run("lock l --ttl 20 -w fields", interrupt=4)
    yield run("lock l nosuchcommand", by_client=ours("in the words of the system", code=1))
    yield run("lock")
    yield run("elect e proposal", interrupt=2)
    yield run("elect e proposal -w json", interrupt=1)
    yield run("elect")
    yield run("elect e")
    yield run("elect -l e proposal")
    yield run("get l/ --prefix -w json")
    yield run("get e/ --prefix -w json")


def members():
    """Of a cluster of one, whose only member has to stay. A learner changes nothing for it."""
    yield run("member remove 77")
    yield run("member remove zz")
    yield run("member remove")
    yield run("member promote 77")
    yield run("member promote {member}")
    yield run("member update 77 --peer-urls http://127.0.0.1:1")
    yield run("member update 77")
    yield run("member add")
    yield run("member add x")
    yield run("member add x --peer-urls nonsense", by_client=ours("the server says so", code=1))
    yield run("move-leader")
    yield run("move-leader zz")
    yield run("move-leader {member}")


def access():
    """Played only where there is an Auth service."""
    yield from in_forms("auth status")
    yield run("user list")
    yield run("user add")
    yield run("user add one:secret")
    yield run("user add one:secret")
    yield run("user add two --interactive=false", stdin=b"other\n")
    yield run("user add three --new-user-password third -w json")
    yield run("user add four --no-password -w fields")
    yield run("user add :x")
    yield from in_forms("user list")
    yield run("role add r")
    yield run("role add r")
    yield run("role add s -w json")
    yield run("role grant-permission r read k")
    yield run("role grant-permission r write k1 k9")
    yield run("role grant-permission r readwrite p/ --prefix")
    yield run("role grant-permission r readwrite z --from-key -w json")
    yield run("role grant-permission s read '' --prefix")
    yield run("role grant-permission r nonsense x")
    yield run("role grant-permission r read x y --prefix")
    yield run("role grant-permission none read x")
    yield from in_forms("role get r")
    yield run("role get s")
    yield run("role get none")
    yield from in_forms("role list")
    yield run("role revoke-permission r k1 k9")
    yield run("role revoke-permission r z --from-key")
    yield run("role revoke-permission r nothing")
    yield run("user grant-role one r")
    yield run("user grant-role one r")
    yield run("user grant-role one none")
    yield from in_forms("user get one")
    yield from in_forms("user get one --detail")
    yield run("user get none")
    yield run("user passwd two --interactive=false", stdin=b"another\n")
    yield run("user revoke-role one none")
    yield run("user grant-role two s")
    yield run("user revoke-role two s")
    yield run("user delete three -w json")
    yield run("user delete three")
    yield run("role delete s")
    yield run("auth enable")
    yield run("user add root:root")
    yield run("auth enable")
    yield run("get a")
    yield run("put a x")
    yield run("auth enable")
    yield run("get k --user one:secret")
    yield run("put k x --user one:secret")
    yield run("get k --user one --password secret")
    yield run("get k --user one:wrong")
    yield run("get k --user none:x")
    yield run("put p/x value --user one:secret")
    yield run("get p/ --prefix --user one:secret")
    yield run("get '' --prefix --user one:secret")
    yield run("put p/x value --user two:another")
    yield run("user get one --user one:secret")
    yield run("user list --user one:secret")
    yield run("member list --user one:secret")
    yield run("compaction 3 --user one:secret")
    yield run("auth status --user root:root")
    yield run("user delete root --user root:root")
    yield run("user get root --user root:root")
    yield run("auth disable --user one:secret")
    yield run("auth disable --user root:root")
    yield run("get k")
    yield run("auth status")


def cluster():
    yield run("alarm list")
    yield run("alarm list -w json")
    yield run("alarm disarm")
    yield run("alarm disarm -w json", by_client=DISARMED)
    yield from in_forms("endpoint status", "table", by_client=STATUS)
    yield run("endpoint status --cluster -w table", by_client=STATUS)
    yield from in_forms("endpoint health", "table")
    yield from in_forms("member list", "table")
    yield run("defrag")
    yield run("defrag --cluster")
    # Equal content: not only the answer but the number must be etcd's.
    for form in (*FORMS, "table"):
        yield run(f"endpoint hashkv -w {form}", by_client=HASHES if form == "json" else None)
    yield run("move-leader 77")
    for what in ("validate 3.4", "enable 3.4", "cancel"):
        yield run(f"downgrade {what}", by_client=ours("neither has it", code=1))
    yield run("get a -w table")
    yield run("endpoint health --cluster -w table")


def interactive():
    yield run("txn -i", stdin=b'value("a") = "6"\n\nput a typed\nget a\n\nget a\n\n')
    yield run("txn -i", stdin=b'value("a") = "6"\n\nput a typed\n\nget a\n\n')
    yield run("txn -i x", stdin=b"\n\n\n")
    yield run("put typed one")
    yield run("put typed two")
    yield run("watch -i", stdin=b"watch typed --rev 2\n", interrupt=6)
    yield run("watch -i", stdin=b"watch typed --prefix --rev 2 --prev-kv\n", interrupt=8)
    yield run("watch -i", stdin=b"nonsense\n")


BBOLT = Departure("what is saved of covey is in its own format, which etcd's tools cannot read", "",
                  "Error: invalid database\n", 1)


def snapshots():
    """`{file}` is one on the disk, of each server its own."""
    yield run("snapshot save {file}")
    yield run("snapshot save {file} -w json")
    for form in (*FORMS, "table"):
        yield run(f"snapshot status {{file}} -w {form}", departure=BBOLT)
    yield run("snapshot status nosuchfile")
    yield run("snapshot save")
    yield run("snapshot save {directory}/nowhere/file")


# Those that take long, and measure, are in lasting.py.
# `compactions` takes what watches ask for. After `cluster`, which compares hashes of everything, keys may have leases, whose numbers servers choose.
SCRIPT = (puts_and_gets, orders, old_revisions, binary_keys, deletes, watches, interactive, transactions, members,
          refusals, compactions, cluster, snapshots, leases, contests, access)

HEADER_FIELDS = '"ClusterID" : <cluster id>\n"MemberID" : <member id>\n"Revision" : 13\n"RaftTerm" : <term>\n'


def both_clients():
    """Played by etcdctl to one covey, and by covey's own client to another: what is printed is etcdctl's, byte for byte."""
    for key in ("a", "b", "c/1", "c/2"):
        yield run("put", key, f"value of {key}")
    yield run("put a again --prev-kv")
    yield from in_forms("put a again --prev-kv")
    yield from in_forms("get c/ --prefix")
    yield run("get c/ --prefix --keys-only")
    yield run("get c/ --prefix --count-only -w fields")
    yield run("get c/ --prefix --print-value-only")
    yield run("get c/ --prefix --hex")
    yield run("get c/ --prefix --hex -w json")
    yield run("get a --rev 99")
    yield run("get ''")
    yield run("get")
    yield run("get a b c", by_client=ours("a third word is refused, where etcdctl passes over it"))
    yield run("put a x --lease 77")
    yield run("get a -w table")
    yield from in_forms("del b --prev-kv")
    for form in FORMS:
        yield txn('value("a") = "again"', "", "put t x", "get a", "", "del nothing", "", form=form)
    for form in FORMS:
        yield run(f"watch a --rev 3 -w {form}", interrupt=1, by_client=INTERRUPTED)
    yield run("alarm disarm -w fields", by_client=Departure(NO_ALARM, HEADER_FIELDS))
    yield run("alarm list -w table")
    yield run("alarm list x")
    yield run("lease grant 9000000001")
    yield run("compaction 3")
    yield run("compaction 3 -w json")
    yield run("get a --rev 2")


BY_BOTH = (both_clients, members, cluster, leases, contests, access)

SELF_CLEARED = Departure(
    "freed space is found and the alarm lifted without an operator: nothing is left to disarm")


def no_space():
    """Played with a small quota. etcd's file holds more than the data, so how many puts fit,
    and with it the revision, is not compared."""
    yield run("put keep me")
    yield run("put", "fill", stdin=FILL_VALUE, repeat=FILL_PUTS_MAX)
    yield run("alarm list")
    yield run("put small x")
    yield run("put keep --ignore-value")
    yield txn("", "put small x", "", "")
    yield txn("", "get keep", "del nothing", "", "")  # no put in it: allowed
    yield txn('version("keep") = "0"', "", "put small x", "", "get keep", "")  # either branch counts
    yield run("get keep")
    yield run("endpoint status -w table")
    yield run("endpoint status -w simple")
    yield run("endpoint health")
    yield run("del fill")
    yield run("alarm list")


def space_again():
    """Follows no_space() once all that is compacted and, in etcd's case, defragmented."""
    yield run("alarm disarm", departure=SELF_CLEARED)
    yield run("alarm list")
    yield run("put small x")
    yield run("get small")
    yield run("endpoint health")
