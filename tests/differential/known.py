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

KNOWN = (CANCELLED_TWICE, UNKNOWN_ORDER, UNKNOWN_TARGET, OPEN_END_OVERLAPS)
