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
    """`forgive(operation, etcd's answer, ours, pair)` returns both as they are compared; `forgive_log` a watcher's log."""

    name: str
    why: str
    force: tuple
    forgive: Callable = as_it_is
    forgive_log: Callable = list


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

KNOWN = (CANCELLED_TWICE,)
