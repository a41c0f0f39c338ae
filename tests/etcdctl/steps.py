"""The commands that are played to etcd and to covey.

Owns: what is asked, in which order, and every departure from etcd that we chose, with its reason. Must never:
run anything or know how answers are compared. Read by compare.py.

Both servers start empty and get the same steps, so revisions are equal. Arguments are `str` or `bytes`.
"""

import shlex
from dataclasses import dataclass

KIB = 1024
QUOTA_BYTES = 4 * KIB * KIB
FILL_VALUE = b"f" * (200 * KIB)
FILL_PUTS_MAX = 200


@dataclass(frozen=True)
class Departure:
    """An answer that is ours on purpose, once it is normalised.

    Of standard error only a part is given: the rest is in the words of etcdctl's own version.
    """

    why: str
    stdout: str = ""
    stderr_part: str = ""
    code: int = 0


@dataclass(frozen=True)
class Step:
    args: tuple
    stdin: bytes = b""
    repeat: int = 1  # run again until it fails, at most so often; only the last answer is compared
    departure: Departure = None

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


FORMS = ("simple", "json", "fields")


def in_forms(line, *more):
    return [run(f"{line} -w {form}") for form in (*FORMS, *more)]


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


def cluster():
    yield run("alarm list")
    yield run("alarm list -w json")
    yield run("alarm disarm")
    yield run("alarm disarm -w json")
    yield from in_forms("endpoint status", "table")
    yield run("endpoint status --cluster -w table")
    yield from in_forms("endpoint health", "table")
    yield from in_forms("member list", "table")
    yield run("defrag")
    yield run("defrag --cluster")
    # Equal content: not only the answer but the number must be etcd's.
    yield from in_forms("endpoint hashkv", "table")
    yield run("move-leader 77")
    yield run("downgrade validate three")
    yield run("downgrade cancel")
    yield run("get a -w table")
    yield run("endpoint health --cluster -w table")


SCRIPT = (puts_and_gets, orders, old_revisions, binary_keys, deletes, transactions, refusals, compactions, cluster)

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
