"""The differences between covey and the reference that are meant.

Owns: the list, and why each is there. Must never: forgive more than what it names. A difference is forgiven only where
`forgive` or `forgive_log` finds it just as it is described; and at the start of each run every one of them is forced by
`force`: without forgiving it the servers must differ there, or it is none any more and has to go from this list.

Sections are those of the API reference; [D] marks a place where a server may diverge, [Q] a quirk of etcd.
"""

from dataclasses import dataclass
from typing import Callable


def as_it_is(_operation, theirs, ours, _pair):
    return theirs, ours


@dataclass(frozen=True)
class Known:
    """`forgive(operation, etcd's answer, ours, pair)` returns both as they are compared; `forgive_log` a watcher's log.

    With `ends_reference` the reference does not live to tell: the generator leaves out what is forced here.
    """

    name: str
    why: str
    force: tuple
    forgive: Callable = as_it_is
    forgive_log: Callable = list
    ends_reference: bool = False


def twice_cancelled(log):
    """Whether the last of a watcher is: overtaken by a compaction, and cancelled by the client after that."""
    if len(log) < 2:
        return False
    overtaken, cancelled = log[-2:]
    return "compact_revision" in overtaken and "canceled" in cancelled and "compact_revision" not in cancelled


def cancelled_once(log):
    kept = []
    for item in log:
        kept.append(item)
        if twice_cancelled(kept):
            kept.pop()
    return kept


CANCELLED_TWICE = Known(
    "a watcher that a compaction has overtaken is gone",
    "[Q] 2.5, 2.6: etcd says that it is cancelled, but keeps it until the client cancels it too: until then the id is not "
    "free, and progress requests on that stream are never answered. In covey it is gone when it is said to be.",
    (("put", {"key": b"a"}), ("put", {"key": b"a"}), ("compact", {"revision": ("now", 0)}),
     ("watch", {"stream": 0, "key": b"b"}), ("watch", {"stream": 0, "key": b"a", "start_revision": 1}), ("settle", {}),
     ("progress", {"stream": 0})),
    forgive_log=cancelled_once,
)

INVALID_SORT = {"error": "INVALID_ARGUMENT", "details": "etcdserver: invalid sort option"}


def unknown_order(operation, theirs, ours, _pair):
    name, fields = operation
    if name == "range" and fields.get("sort_order") not in (None, 0, 1, 2) and ours == INVALID_SORT:
        return ours, ours
    return theirs, ours


UNKNOWN_ORDER = Known(
    "an unknown sort order is refused",
    "1.2: it is checked by later versions; 3.5.30 takes it for no order at all. In transactions covey refuses it too: those "
    "are not generated, since one server would make the change and the other not.",
    (("range", {"key": b"a", "sort_order": 3}),),
    forgive=unknown_order,
)

UNKNOWN_TARGET = Known(
    "an unknown sort target is refused",
    "1.2: it is checked by later versions; 3.5.30 ends with a panic.",
    (("range", {"key": b"a", "range_end": b"\x00", "sort_order": 1, "sort_target": 9}),),
    ends_reference=True,
)

DUPLICATE_KEY = {"error": "INVALID_ARGUMENT", "details": "etcdserver: duplicate key given in txn request"}

OPEN_END_OVERLAPS = Known(
    "a put and a delete with an open end overlap",
    "[D] 1.6: etcd does not see that a delete whose range_end is one zero byte takes in a key that the same transaction "
    "puts, and makes both changes; covey refuses it as it does every other overlap. Such transactions are not generated.",
    (("txn", {"success": [{"request_delete_range": {"key": b"\x00", "range_end": b"\x00"}},
                          {"request_put": {"key": b"a"}}]}),),
    forgive=lambda operation, theirs, ours, _pair: (
        (ours, ours) if operation == OPEN_END_OVERLAPS.force[0] and ours == DUPLICATE_KEY else (theirs, ours)),
)

LATER_STATUS = {"storageVersion": "3.6.0", "dbSizeQuota": 2**31, "downgradeInfo": {}}


def later_status(operation, theirs, ours, _pair):
    if operation[0] == "status" and "ok" in ours and LATER_STATUS.items() <= ours["ok"].items():
        return theirs, {"ok": {name: value for name, value in ours["ok"].items() if name not in LATER_STATUS}}
    return theirs, ours


LATER_FIELDS = Known(
    "fields that later versions added to Status",
    "5.1: storageVersion, dbSizeQuota and downgradeInfo came with 3.6, which is what covey says it is.",
    (("status", {}),),
    forgive=later_status,
)

def later_hash_field(operation, theirs, ours, _pair):
    if operation[0] != "hash_kv" or "ok" not in ours:
        return theirs, ours
    answered = ours["ok"]
    asked = operation[1].get("revision", 0) or answered.get("header", {}).get("revision")
    if answered.get("hash_revision") == asked or isinstance(asked, tuple):
        strip = lambda answer: {"ok": {name: value for name, value in answer["ok"].items() if name != "hash_revision"}}  # noqa: E731
        return (strip(theirs) if "ok" in theirs else theirs), strip(ours)
    return theirs, ours


LATER_HASH_FIELD = Known(
    "a field that later versions added to HashKV",
    "5.4: hash_revision came with 3.6, which is what covey says it is.",
    (("hash_kv", {}),),
    forgive=later_hash_field,
)


def remembered_hash(operation, theirs, ours, _pair):
    if operation[0] != "hash_kv" or "ok" not in theirs or "ok" not in ours:
        return theirs, ours
    remembered, computed = theirs["ok"], ours["ok"]
    if (
            computed.get("hash_revision") == computed.get("compact_revision")
            and remembered.get("compact_revision", 0) < computed.get("compact_revision", 0)
            and remembered.get("header") == computed.get("header")):
        return ours, ours
    return theirs, ours


REMEMBERED_HASH = Known(
    "a hash of the compacted revision is of what is there",
    "5.4: etcd hashes at each compaction, under the compacted revision before it, and answers for just that revision with the "
    "number that it remembers, until it restarts. That takes reading the whole state at every compaction, for members that "
    "may differ unnoticed; covey finds those by a digest of what they apply, and answers for the state as it is.",
    (("put", {"key": b"a"}), ("put", {"key": b"a"}), ("put", {"key": b"a"}), ("compact", {"revision": 2}),
     ("compact", {"revision": 3}), ("hash_kv", {"revision": 3})),
    forgive=remembered_hash,
)


def same_but_for_kvs(theirs, ours):
    strip = lambda answer: {name: value for name, value in answer["ok"].items() if name != "kvs"}  # noqa: E731
    return "ok" in theirs and "ok" in ours and strip(theirs) == strip(ours) and (
        len(theirs["ok"].get("kvs", [])) == len(ours["ok"].get("kvs", [])))


def sorted_whole(operation, theirs, ours, _pair):
    name, fields = operation
    if (name == "range" and fields.get("limit", 0) > 0 and fields.get("sort_target") and not fields.get("sort_order")
            and same_but_for_kvs(theirs, ours) and ours["ok"].get("more")):
        return ours, ours
    return theirs, ours


SORTED_WHOLE = Known(
    "a limit without a sort order but with a target sorts the whole interval",
    "[D] [Q] 1.2: etcd takes the first keys up to the limit and one more, and sorts those; covey sorts all before the cut, as "
    "with an order. What is returned then differs; how much, and that there is more, does not.",
    (("put", {"key": b"b"}), ("put", {"key": b"a"}), ("put", {"key": b"ab"}),
     ("range", {"key": b"a", "range_end": b"c", "limit": 1, "sort_target": 3})),
    forgive=sorted_whole,
)

TIES = {1: "version", 2: "create_revision", 3: "mod_revision", 4: "value"}
STABLE_MAX = 12  # as many as Go's sort orders by insertion, which keeps ties in their order


def ties_in_key_order(operation, theirs, ours, pair):
    """Both as they are when ties are put in the order of keys; that covey has them in it already is required."""
    name, fields = operation
    tie = TIES.get(fields.get("sort_target")) if name == "range" else None
    if tie is None or not same_but_for_kvs(theirs, ours) or theirs["ok"].get("count", 0) <= STABLE_MAX:
        return theirs, ours
    kvs, result = theirs["ok"].get("kvs", []), []
    if not kvs or [item.get(tie) for item in kvs] != [item.get(tie) for item in ours["ok"].get("kvs", [])]:
        return theirs, ours
    if theirs["ok"].get("more") or fields.get("keys_only") and tie == "value":
        return ours, ours  # which of those that tie are cut off, and which ones tie, cannot be told from the answer
    for item in kvs:
        start = len(result)
        while start > 0 and result[start - 1].get(tie) == item.get(tie) and result[start - 1]["key"] > item["key"]:
            start -= 1
        result.insert(start, item)
    return {"ok": {**theirs["ok"], "kvs": result}}, ours


UNSTABLE = Known(
    "keys that are equal in what they are sorted by stay in the order of keys",
    "1.2: etcd's sort is not stable: with more than a dozen keys those that tie come in any order. covey's are in key order.",
    (("txn", {"success": [{"request_put": {"key": b"%02d" % number, "value": b"%d" % (number * 7 % 3)}}
                          for number in range(60)]}),
     ("range", {"key": b"0", "range_end": b"9", "sort_order": 1, "sort_target": 4})),
    forgive=ties_in_key_order,
)

KNOWN = (CANCELLED_TWICE, UNKNOWN_ORDER, UNKNOWN_TARGET, OPEN_END_OVERLAPS, LATER_FIELDS, REMEMBERED_HASH,
         LATER_HASH_FIELD, SORTED_WHOLE, UNSTABLE)
