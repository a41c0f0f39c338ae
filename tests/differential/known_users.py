"""The differences between covey and the reference that are meant, and are about who asks.

Owns: the list, and why each is there. Must never: forgive more than what it names. What is said in known.py holds here, too;
these are forced in runs with users.
"""

from known import Known, contenders

DENIED = {"error": "PERMISSION_DENIED", "details": "etcdserver: permission denied"}
NO_USER = {"error": "INVALID_ARGUMENT", "details": "etcdserver: user name is empty"}
NO_TOKEN = {"error": "UNAUTHENTICATED", "details": "etcdserver: invalid auth token"}


def with_users(*operations):
    """What it takes for users to count: root with its role, ann with the role some, which may read b, write w and both x."""
    permissions = ((0, b"b", b"c"), (1, b"w", b"x"), (2, b"x", b"y"))
    return (
        ("user_add", {"name": "root", "password": "p"}), ("grant_role", {"user": "root", "role": "root"}),
        ("role_add", {"name": "some"}),
        *(("grant_permission", {"name": "some", "perm": {"permType": kind, "key": key, "range_end": end}})
          for kind, key, end in permissions),
        ("user_add", {"name": "ann", "password": "p"}), ("grant_role", {"user": "ann", "role": "some"}),
        ("auth_enable", {}), ("login", {"name": "root", "password": "p"}), ("login", {"name": "ann", "password": "p"}),
        *operations,
    )


WATCHED_NO_MORE = Known(
    "a watcher ends with the right to what it watches",
    "[D] 6.2: etcd looks when a watcher is created and never again. covey looks before it tells anything, so that who was "
    "refused from now on hears nothing more. The player closes streams before rights are taken away.",
    with_users(("watch", {"stream": "ann/0", "key": b"b"}), ("revoke_role", {"name": "ann", "role": "some", "by": "root"}),
               ("put", {"key": b"b", "by": "root"})),
)

WITHOUT_CODES = {"auth: permission denied": DENIED, "auth: user name is empty": NO_USER, "auth: invalid auth token": NO_TOKEN,
                 "auth: user not found": DENIED}


def with_codes(operation, theirs, ours, _pair):
    if operation[0] in ("hash", "hash_kv", "snapshot", "defragment") and theirs.get("error") == "UNKNOWN":
        return WITHOUT_CODES.get(theirs["details"], theirs), ours
    return theirs, ours


LATER_CODES = Known(
    "refusals of Hash, HashKV, Snapshot and Defragment have codes",
    "6.3: up to 3.5 they are Unknown, with the error's inner text; later versions tell these as all others.",
    with_users(("hash", {"by": "ann"})),
    forgive=with_codes,
)

REFUSALS = (DENIED, NO_USER, NO_TOKEN)


def status_to_users(operation, theirs, ours, _pair):
    if operation[0] == "status" and theirs == DENIED and "version" in ours.get("ok", {}):
        return ours, ours
    return theirs, ours


LATER_STATUS_TO_USERS = Known(
    "Status is for every user",
    "5.1: since 3.5.32; 3.5.30 wants the role root.",
    with_users(("status", {"by": "ann"})),
    forgive=status_to_users,
)


def status_to_anybody(operation, theirs, ours, _pair):
    if operation[0] == "auth_status" and theirs in REFUSALS and ours.get("ok", {}).get("authRevision", 0) > 0:
        return ours, ours
    return theirs, ours


LATER_AUTH_STATUS = Known(
    "AuthStatus is for everybody",
    "6.3: since 3.7, so that clients can ask whether they need to log in; before, it wants the role root.",
    with_users(("auth_status", {})),
    forgive=status_to_anybody,
)

EVERYTHING = [{"permType": 2, "range_end": b"\x00"}]
NO_ROLE = {"error": "FAILED_PRECONDITION", "details": "etcdserver: role name not found"}


def role_root(operation, theirs, ours, _pair):
    name, fields = operation
    if name == "role_get" and fields.get("role") == "root" and ours.get("ok", {}).get("perm") == EVERYTHING:
        if theirs == NO_ROLE or "ok" in theirs and "perm" not in theirs["ok"]:
            return ours, ours
    return theirs, ours


LATER_ROLE_ROOT = Known(
    "the role root may do everything, and says so",
    "6.1: since 3.6; before, it is not there until somebody adds it, and shows no permission then.",
    with_users(("role_get", {"role": "root", "by": "root"})),
    forgive=role_root,
)

BAD_URLS = {"error": "INVALID_ARGUMENT", "details": "etcdserver: given member URLs are invalid"}

WHO_COMES_FIRST = Known(
    "who adds a member is looked at before the member's URLs",
    "4: etcd tells whoever asks that the URLs are wrong. In covey a method that takes root tells others nothing else.",
    with_users(("member_add", {"peerURLs": ["not a URL"]})),
    forgive=lambda operation, theirs, ours, _pair: (
        (ours, ours) if operation[0] == "member_add" and theirs == BAD_URLS and ours in REFUSALS else (theirs, ours)),
)


DENIED_ON = {"error": "UNKNOWN", "details": "etcdserver: permission denied"}
NO_LEASE_ON = {"error": "UNKNOWN", "details": "etcdserver: requested lease not found"}


def contender_left_behind(operation, _theirs, _ours, pair):
    """Puts into covey, too, what a refused campaign has put into etcd."""
    key, in_etcd, in_covey = contenders(operation, pair) or (None, None, None)
    if in_etcd and [kv.mod_revision for kv in in_etcd] != [kv.mod_revision for kv in in_covey]:
        left = {"key": key, "value": in_etcd[0].value, "lease": in_etcd[0].lease}
        pair.subject.call("put", left).result()


CONTENDER_LEFT_BEHIND = Known(
    "who may not see the others in an election does not come in",
    "[D] 7.3: etcd puts the contender's key, looks at the others after that, and says that this is denied, with the key in "
    "everybody's way until its lease ends. Its locks, and covey's locks and elections, ask for that right together with the put.",
    with_users(("grant", {"ID": 1, "TTL": 300, "by": "root"}),
               ("grant_permission", {"name": "some", "perm": {"permType": 2, "key": b"e/1"}, "by": "root"}),
               ("campaign", {"name": b"e", "lease": 1, "value": b"v", "by": "ann"}), ("range", {"key": b"e/1", "by": "root"})),
    forgive=lambda operation, theirs, ours, _pair: (
        (ours, ours) if operation[0] == "campaign" and (theirs, ours) == (NO_LEASE_ON, DENIED_ON) else (theirs, ours)),
    mend=contender_left_behind,
)

def once(operation, theirs, ours, _pair):
    if operation[0] == "role_get" and "perm" in theirs.get("ok", {}):
        last = {(found.get("key"), found.get("range_end")): found for found in theirs["ok"]["perm"]}
        return {"ok": {**theirs["ok"], "perm": list(last.values())}}, ours
    return theirs, ours


ONCE_PER_INTERVAL = Known(
    "a role has one permission for an interval, also where another one begins with the same key",
    "6.1: etcd compares with the first permission for the key alone, and adds a second one for an interval that is already "
    "there; revoking takes both. Such permissions are not generated.",
    with_users(*(("grant_permission", {"name": "some", "perm": {"permType": kind, "key": b"b", "range_end": b"d"}, "by": "root"})
                 for kind in (0, 1)),
               ("role_get", {"role": "some", "by": "root"})),
    forgive=once,
)

OPEN_END_TAKES_ALL = Known(
    "a watcher without an end takes the right to all keys behind its first",
    "17: 3.5.33 and later want it, too; 3.5.30 looks at the first key alone. The player has root alone create such watchers.",
    with_users(("watch", {"stream": "ann/0", "key": b"b", "range_end": b"\x00"})),
)

MAY_NOT_OBSERVE = [{"error": "UNKNOWN", "details": answer["details"]} for answer in (DENIED, NO_USER, NO_TOKEN)]

OBSERVER_TOLD = Known(
    "an observer that may not read the election is told so",
    "[D] 7.3: etcd ends its stream without a word, as if it were done.",
    with_users(("observe", {"name": b"o", "by": "ann"})),
    forgive=lambda operation, theirs, ours, _pair: (
        (ours, ours) if operation[0] == "observe" and theirs == {"ended": True} and ours in MAY_NOT_OBSERVE else (theirs, ours)),
)

KNOWN_OF_USERS = (OBSERVER_TOLD, WATCHED_NO_MORE, LATER_CODES, LATER_STATUS_TO_USERS, LATER_AUTH_STATUS, LATER_ROLE_ROOT, WHO_COMES_FIRST,
                  CONTENDER_LEFT_BEHIND, ONCE_PER_INTERVAL, OPEN_END_TAKES_ALL)
