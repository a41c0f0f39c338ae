"""The differences between covey and the reference that are meant.

Owns: the list, and why each is there. Must never: forgive more than what it names. A difference is forgiven only where
`forgive` or `forgive_log` finds it just as it is described; and at the start of each run every one of them is forced by
`force`: without forgiving it the servers must differ there, or it is none any more and has to go from this list.

Sections are those of the API reference; [D] marks a place where a server may diverge, [Q] a quirk of etcd.
"""

from dataclasses import dataclass
from typing import Callable

from operations import OWN


def as_it_is(_operation, theirs, ours, _pair):
    return theirs, ours


def nothing_to_mend(_operation, _theirs, _ours, _pair):
    pass


@dataclass(frozen=True)
class Known:
    """`forgive(operation, etcd's answer, ours, pair)` returns both as they are compared; `forgive_log` a watcher's log;
    `mend(operation, theirs, ours, pair)`, which gets the answers as they came, makes the states alike again where they
    would differ from there on.

    With `ends_reference` the reference does not live to tell: the generator leaves out what is forced here.
    """

    name: str
    why: str
    force: tuple
    forgive: Callable = as_it_is
    forgive_log: Callable = list
    mend: Callable = nothing_to_mend
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
    (("txn", {"failure": [{"request_delete_range": {"key": b"\x00", "range_end": b"\x00"}},
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

def also_in_txns(forgive_range):
    """What is forgiven in a range is forgiven in the same range inside a transaction."""
    def forgive(operation, theirs, ours, pair):
        name, fields = operation
        if name == "range":
            return forgive_range(fields, theirs, ours)
        if name == "txn" and "ok" in theirs and "ok" in ours:
            found = forgive_in_txn(fields, theirs["ok"], ours["ok"], forgive_range)
            return tuple({"ok": answer} for answer in found)
        return theirs, ours
    return forgive


def forgive_in_txn(fields, theirs, ours, forgive_range):
    branch = fields.get("success" if theirs.get("succeeded") else "failure", [])
    answers = [answer.get("responses", []) for answer in (theirs, ours)]
    if not branch or [len(responses) for responses in answers] != [len(branch)] * 2:
        return theirs, ours
    pairs = []
    for request, etcds, covey in zip(branch, *answers):
        if "request_range" in request and "response_range" in etcds and "response_range" in covey:
            found = forgive_range(request["request_range"], {"ok": etcds["response_range"]}, {"ok": covey["response_range"]})
            pairs.append([{"response_range": answer["ok"]} for answer in found])
        elif "request_txn" in request and "response_txn" in etcds and "response_txn" in covey:
            found = forgive_in_txn(request["request_txn"], etcds["response_txn"], covey["response_txn"], forgive_range)
            pairs.append([{"response_txn": answer} for answer in found])
        else:
            pairs.append((etcds, covey))
    return tuple({**answer, "responses": list(responses)} for answer, responses in zip((theirs, ours), zip(*pairs)))


def same_but_for_kvs(theirs, ours):
    strip = lambda answer: {name: value for name, value in answer["ok"].items() if name != "kvs"}  # noqa: E731
    return "ok" in theirs and "ok" in ours and strip(theirs) == strip(ours) and (
        len(theirs["ok"].get("kvs", [])) == len(ours["ok"].get("kvs", [])))


def sorted_whole(fields, theirs, ours):
    if (fields.get("limit", 0) > 0 and fields.get("sort_target") and not fields.get("sort_order")
            and same_but_for_kvs(theirs, ours) and ours["ok"].get("more")):
        return ours, ours
    return theirs, ours


SORTED_WHOLE = Known(
    "a limit without a sort order but with a target sorts the whole interval",
    "[D] [Q] 1.2: etcd takes the first keys up to the limit and one more, and sorts those; covey sorts all before the cut, as "
    "with an order. What is returned then differs; how much, and that there is more, does not.",
    (("put", {"key": b"b"}), ("put", {"key": b"a"}), ("put", {"key": b"ab"}),
     ("range", {"key": b"a", "range_end": b"c", "limit": 1, "sort_target": 3})),
    forgive=also_in_txns(sorted_whole),
)

TIES = {1: "version", 2: "create_revision", 3: "mod_revision", 4: "value"}
STABLE_MAX = 12  # as many as Go's sort orders by insertion, which keeps ties in their order


def ties_in_key_order(fields, theirs, ours):
    """Both as they are when ties are put in the order of keys; that covey has them in it already is required."""
    tie = TIES.get(fields.get("sort_target"))
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
    forgive=also_in_txns(ties_in_key_order),
)

def with_hash_revision(operation, theirs, ours, pair):
    name, fields = operation
    if name != "hash_kv" or "ok" not in ours:
        return theirs, ours
    asked = pair.number(fields.get("revision", 0)) or pair.now
    if ours["ok"].get("hash_revision") != asked:
        return theirs, ours
    return theirs, {"ok": {name: value for name, value in ours["ok"].items() if name != "hash_revision"}}


LATER_HASH_REVISION = Known(
    "hash_revision in HashKV",
    "5.4: the field came with 3.6.",
    (("put", {"key": b"a"}), ("hash_kv", {})),
    forgive=with_hash_revision,
)

COMPACTED = {"error": "OUT_OF_RANGE", "details": "etcdserver: mvcc: required revision has been compacted"}
HASHES_KEPT = 10


def not_from_a_compaction(operation, theirs, ours, pair):
    name, fields = operation
    if name != "hash_kv":
        return theirs, ours
    asked = pair.number(fields.get("revision", 0))
    kept = sorted(pair.compactions)[-HASHES_KEPT:]
    if asked not in kept or "ok" not in theirs or theirs["ok"].get("compact_revision", 0) != pair.compactions[asked]:
        return theirs, ours
    if 0 < asked < pair.compacted:
        return (ours, ours) if ours == COMPACTED else (theirs, ours)
    same = ours.get("ok", {}).get("compact_revision", 0) == pair.compacted
    return (ours, ours) if same else (theirs, ours)


HASHED_AT_COMPACTION = Known(
    "HashKV of a revision that was compacted to",
    "[D] 5.4: etcd hashes while it compacts, with the compacted revision before, and answers with the last ten such results, "
    "after a compaction to 0 even to those who ask for 0, the present. covey hashes when it is "
    "asked (src/mvcc/hash.rs says why), and refuses what is compacted.",
    (("put", {"key": b"a"}), ("put", {"key": b"a"}), ("compact", {"revision": ("now", 0), "physical": True}),
     ("hash_kv", {"revision": ("compacted", 0)})),
    forgive=not_from_a_compaction,
)

NEXT_IS_NOW = Known(
    "a watcher that starts at the next revision has missed nothing",
    "[D] 2.6: that is where clients resume. etcd calls it one of the future and does not answer a progress request on its "
    "stream until that revision is there; covey does, as to one without a start revision. The player does not ask there.",
    (("watch", {"stream": 0, "key": b"a", "start_revision": ("now", 2)}), ("progress", {"stream": 0})),
)

def contenders(operation, pair):
    """After a campaign: its key, and what is there in etcd and in covey; None after anything else."""
    name, fields = operation
    if name != "campaign":
        return None
    key = b"%s/%s" % (fields["name"], format(fields["lease"], "x").encode())
    return (key, *(side.call("range", {"key": key}).result().kvs for side in pair.sides))


def word_not_said(operation, _theirs, _ours, pair):
    """Deletes in covey, too, what a campaign that has failed has deleted in etcd."""
    key, in_etcd, in_covey = contenders(operation, pair) or (None, None, None)
    if in_covey and not in_etcd:
        pair.subject.call("delete", {"key": key}).result()


WORD_NOT_SAID = Known(
    "a campaign that cannot say its word leaves the key that it has found",
    "[D] 7.3: in etcd it resigns then, also where another call has put the key in that may count on it. In covey the "
    "key stays as it was.",
    (("put", {"key": b"e/1", "value": b"x"}), ("campaign", {"name": b"e", "lease": 1, "value": b"v"}), ("range", {"key": b"e/1"})),
    mend=word_not_said,
)

INVALID_URLS = {"error": "INVALID_ARGUMENT", "details": "etcdserver: given member URLs are invalid"}

NO_MEMBER = {"error": "NOT_FOUND", "details": "etcdserver: member not found"}


def urls_that_are_none(operation, theirs, ours, _pair):
    is_so = operation[0] == "member_update" and ours == INVALID_URLS and ("ok" in theirs or theirs == NO_MEMBER)
    return (ours, ours) if is_so else (theirs, ours)


def valid_urls(operation, theirs, ours, pair):
    """Gives both members URLs that both take, where etcd took what covey did not."""
    if "ok" in theirs and urls_that_are_none(operation, theirs, ours, pair) != (theirs, ours):
        for side in pair.sides:
            side.call("member_update", {"ID": OWN, "peerURLs": ["http://127.0.0.1:1"]}, pair.resolver(side)).result()


URLS_CHECKED = Known(
    "a member is not given URLs that are none",
    "[D] 4: etcd looks at the URLs of members that are added and not at those that are changed: the member may not start again with "
    "them. covey asks the same of both, before it looks for the member.",
    (("member_update", {"ID": OWN, "peerURLs": ["http://127.0.0.1:1/path"]}),),
    forgive=urls_that_are_none, mend=valid_urls,
)

KNOWN = (URLS_CHECKED, WORD_NOT_SAID, CANCELLED_TWICE, NEXT_IS_NOW, UNKNOWN_ORDER, UNKNOWN_TARGET, OPEN_END_OVERLAPS, LATER_FIELDS, SORTED_WHOLE, UNSTABLE,
         LATER_HASH_REVISION, HASHED_AT_COMPACTION)
