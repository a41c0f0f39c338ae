"""Makes random sequences of operations.

Owns: what is tried, and how often. Must never: depend on anything but the seed, or know a server. Few keys, few lease ids
and revisions near the present, so that operations meet; among them the values at the edges of what a field can hold.

Left out is what ends the reference, or whose outcome depends on time: known.py names the first, and forces it in each run
to see that it is still so; the second are leases that end on their own beside other operations (("expire", ...) does
nothing else meanwhile).
"""

import random

from operations import INT64_MAX, INT64_MIN, OWN

KEYS = [b"a", b"b", b"c", b"d", b"e", b"f", b"a\x00", b"ab", b"b/1", b"b/2", b"\x00", b"\x00\x00", b"\xfe", b"\xff", b"\xff\xff"]
ENDS = [b"", b"\x00", b"b", b"c", b"d", b"g", b"a", b"a\x00", b"b0", b"\xff", b"\xff\xff\xff", b"\x00\x00"]
VALUES = [b"", b"0", b"1", b"2", b"10", b"\x00", b"\xff\xff", b"a longer value, of the size that settings have"]
LEASES = [1, 2, 3, -7, 0x5eed, INT64_MAX, INT64_MIN, ("auto", "x"), ("auto", "y")]
TTLS = [300, 1000, 5000, 1_000_000, 9_000_000_000]  # apart by more than a sequence takes: see `by_length`
TTLS_REFUSED = [9_000_000_001, INT64_MAX]
TTLS_SHORT = [1, 0, -1, INT64_MIN, 2]
EDGES = [0, 1, -1, 2, INT64_MAX, INT64_MIN, 2**31, -(2**31) - 1]
# Of contenders: each has a name of its own, for nothing is to wait for anything else.
OWNERS = {b"o%d" % place: lease for place, lease in enumerate(number for number in LEASES if isinstance(number, int))}
STREAMS = 3
AFTER_ALL_KEYS = b"\xff\xff\xff\xff"
DEPTH = 3
OPS_MAX = 128
WIDE_KEYS = 60
BIG_BYTES = 200_000

WEIGHTS = {
    "range": 26, "put": 24, "delete": 8, "txn": 20, "compact": 1.5, "grant": 3, "revoke": 1.5, "time_to_live": 2, "leases": 1,
    "keep_alive": 1.5, "watch": 3, "cancel": 1.2, "progress": 1, "close": 0.3, "hash_kv": 1.5, "status": 0.3, "alarm": 0.2,
    "lock": 0.5, "unlock": 0.3, "campaign": 0.6, "proclaim": 0.4, "leader": 0.3, "resign": 0.3, "observe": 0.2, "watch_json": 0.2, "keep_alive_json": 0.2, "member_update": 0.1, "settle": 0.5, "restart": 0.1, "expire": 0.02, "defragment": 0.05,
}
# What a sequence is about: weights that differ from the above.
THEMES = {
    "mixed": {},
    "transactions": {"txn": 60, "range": 10},
    "watches": {"watch": 8, "cancel": 3, "progress": 3, "compact": 2, "txn": 12},
    "leases": {"grant": 10, "revoke": 6, "time_to_live": 6, "leases": 4, "keep_alive": 5, "put": 30},
    "history": {"compact": 5, "hash_kv": 6, "delete": 14, "restart": 0.5},
    "recipes": {"lock": 10, "unlock": 6, "campaign": 12, "proclaim": 8, "leader": 5, "resign": 5, "observe": 3, "grant": 8, "revoke": 4},
    "wide": {"range": 45, "put": 30},
    "big": {"put": 30, "txn": 8},
}


class Generator:
    def __init__(self, seed, rpcs=None):
        """`rpcs`: only operations of these names, if given."""
        self.random = random.Random(seed)
        self.theme = self.random.choice(list(THEMES))
        self.weights = {name: weight for name, weight in {**WEIGHTS, **THEMES[self.theme]}.items()
                        if rpcs is None or name in rpcs}
        self.keys = list(KEYS)
        if self.theme == "wide":
            self.keys += [b"k/%02d" % number for number in range(WIDE_KEYS)]

    def sequence(self, length):
        names = self.random.choices(list(self.weights), list(self.weights.values()), k=length)
        return [(name, getattr(self, name)()) for name in names]

    # -- parts -------------------------------------------------------------------------------------

    def one_in(self, count):
        return self.random.randrange(count) == 0

    def some(self, fields):
        """Fields without those that have no value."""
        return {name: value for name, value in fields.items() if value not in (0, b"", False, None)}

    def key(self):
        return b"" if self.one_in(60) else self.random.choice(self.keys)

    def interval(self, single=2):
        """Half of them one key; the rest intervals, open or reversed ones too."""
        key = self.key()
        if self.one_in(single):
            return {"key": key}
        if self.one_in(4):
            return {"key": b"\x00", "range_end": b"\x00"}
        return self.some({"key": key, "range_end": self.random.choice(ENDS + [key, key + b"\x00"])})

    def revision(self):
        choice = self.random.random()
        if choice < 0.7:
            return ("now", -self.random.choice([0, 0, 1, 1, 2, 3, 5, 8, 13, 30, 60]))
        if choice < 0.8:
            return ("now", self.random.choice([1, 2, 5]))
        if choice < 0.93:
            return ("compacted", self.random.choice([-1, 0, 0, 1, 2]))
        return self.random.choice(EDGES)

    def value(self):
        if self.theme == "big" and self.one_in(3):
            return ("bytes", self.random.randrange(256), self.random.randrange(1, BIG_BYTES))
        return self.random.choice(VALUES)

    def lease(self):
        return self.random.choice(LEASES) if not self.one_in(20) else self.random.choice([77, -1])

    # -- KV ----------------------------------------------------------------------------------------

    def range(self, orders=(0, 1, 1, 1, 2, 2, 2, 3, -1)):
        rng = self.random
        fields = {**self.interval(4)}
        if self.one_in(3):
            fields["limit"] = rng.choice([1, 1, 2, 3, 5, 10, 100, -1, INT64_MAX, INT64_MIN])
        if self.one_in(4):
            fields["revision"] = self.revision()
        if self.one_in(3):
            fields["sort_order"] = rng.choice(orders)
            fields["sort_target"] = rng.choice([0, 1, 2, 3, 4])
        elif self.one_in(12):
            fields["sort_target"] = rng.choice([1, 2, 3, 4])
        for name in ("min_mod_revision", "max_mod_revision", "min_create_revision", "max_create_revision"):
            if self.one_in(12):
                fields[name] = self.revision()
        for name, count in (("serializable", 4), ("keys_only", 6), ("count_only", 8)):
            fields[name] = self.one_in(count)
        return self.some(fields)

    def put(self):
        fields = {"key": self.key(), "value": self.value(), "prev_kv": self.one_in(3)}
        if self.one_in(4):
            fields["lease"] = self.lease()
        if self.one_in(12):
            fields["ignore_value"] = True
            fields["value"] = b"" if not self.one_in(6) else fields["value"]
        if self.one_in(12):
            fields["ignore_lease"] = True
            fields["lease"] = 0 if not self.one_in(6) else self.lease()
        return self.some(fields)

    def delete(self):
        return self.some({**self.interval(), "prev_kv": self.one_in(2)})

    def compare(self):
        rng = self.random
        target = rng.choice([0, 1, 2, 3, 4])
        fields = {"key": self.key(), "target": target, "result": rng.choice([0, 0, 0, 1, 2, 3])}
        union = ["version", "create_revision", "mod_revision", "value", "lease"][target]
        if self.one_in(15):
            union = rng.choice(["version", "create_revision", "mod_revision", "value", "lease", None])
        if self.one_in(30):
            fields["target"] = rng.choice([5, 9, -1])
        if self.one_in(30):
            fields["result"] = rng.choice([4, 7, -1])
        match union:
            case "value":
                fields["value"] = self.value()
            case "lease":
                fields["lease"] = rng.choice([self.lease(), 0, 0])
            case "version":
                fields["version"] = rng.choice([0, 0, 1, 1, 2, 3, *EDGES])
            case "create_revision" | "mod_revision":
                fields[union] = rng.choice([0, ("mod", fields["key"], 0), ("mod", fields["key"], 0), self.revision()])
        if self.one_in(5):
            fields["range_end"] = rng.choice(ENDS)
        return fields if union else self.some(fields)

    def operation(self, depth):
        choice = self.random.random()
        if choice < 0.03:
            return {}
        if choice < 0.35:
            return {"request_range": self.range(orders=(0, 1, 2))}
        if choice < 0.75:
            return {"request_put": self.put()}
        if choice < 0.9 or depth == 0:
            return {"request_delete_range": self.bounded(self.delete())}
        return {"request_txn": self.txn(depth - 1)}

    @staticmethod
    def bounded(fields):
        """No open end: see known.OPEN_END_OVERLAPS."""
        return {**fields, "range_end": AFTER_ALL_KEYS} if fields.get("range_end") == b"\x00" else fields

    def txn(self, depth=DEPTH):
        rng = self.random
        fields = {"compare": [self.compare() for _ in range(rng.choice([0, 0, 1, 1, 1, 2, 3]))]}
        for branch in ("success", "failure"):
            fields[branch] = self.branch(depth)
        if self.one_in(80):
            branch, count = rng.choice(["success", "failure", "compare"]), OPS_MAX + rng.choice([-1, 0, 1])
            fields[branch] = [{"key": b"a"}] * count if branch == "compare" else [{"request_range": {"key": b"a"}}] * count
        return {name: value for name, value in fields.items() if value}

    def branch(self, depth):
        if depth == DEPTH and self.one_in(20):
            return [{"request_delete_range": self.delete()}]
        operations = [self.operation(depth) for _ in range(self.random.choice([0, 1, 1, 2, 2, 3, 4]))]
        if self.one_in(4):
            return operations
        # Else most transactions would be refused: mostly no key is put twice.
        seen, kept = set(), []
        for operation in operations:
            key = operation.get("request_put", {}).get("key")
            if key is None or key not in seen:
                kept.append(operation)
            seen.add(key)
        return kept

    def compact(self):
        return self.some({"revision": self.revision(), "physical": self.one_in(2)})

    # -- leases ------------------------------------------------------------------------------------

    def grant(self):
        ttls = TTLS if not self.one_in(15) else TTLS_REFUSED
        return {"ID": self.lease(), "TTL": self.random.choice(ttls)}

    def revoke(self):
        return {"ID": self.lease()}

    def time_to_live(self):
        return self.some({"ID": self.lease(), "keys": self.one_in(2)})

    def leases(self):
        return {}

    def keep_alive(self):
        return {"ids": [self.lease() for _ in range(self.random.choice([0, 1, 1, 2, 4]))]}

    def expire(self):
        return {"id": 100_000 + self.random.randrange(1000), "TTL": self.random.choice(TTLS_SHORT), "key": b"of a lease"}

    # -- locks and elections -----------------------------------------------------------------------

    def owner(self):
        """A name, its contender's lease, and the key of that one."""
        name, lease = self.random.choice(list(OWNERS.items()))
        return name, lease, b"%s/%s" % (name, format(lease, "x").encode())

    def lock(self):
        name, lease, _ = self.owner()
        return {"name": name, "lease": lease}

    def unlock(self):
        return self.some({"key": self.owner()[2] if not self.one_in(20) else self.key()})

    def campaign(self):
        return self.some({**self.lock(), "value": self.random.choice(VALUES)})

    def leader_key(self):
        """Mostly that of the present leader, as long as it has said one thing only."""
        name, lease, key = self.owner()
        rev = ("mod", key, 0) if not self.one_in(6) else self.revision()
        return {"name": name, "key": key, "rev": rev, "lease": lease if not self.one_in(10) else self.owner()[1]}

    def proclaim(self):
        leader = {} if self.one_in(15) else {"leader": self.leader_key()}
        return {**leader, **self.some({"value": self.random.choice(VALUES)})}

    def leader(self):
        return {"name": self.owner()[0]}

    def resign(self):
        return {} if self.one_in(15) else {"leader": self.leader_key()}

    def observe(self):
        return {"name": self.owner()[0], "values": self.random.choices(VALUES, k=self.random.randrange(3))}

    # -- watches -----------------------------------------------------------------------------------

    def stream(self):
        return self.random.randrange(STREAMS)

    def watch(self):
        rng = self.random
        fields = {**self.interval(3), "prev_kv": self.one_in(2), "fragment": self.one_in(3)}
        if self.one_in(2):
            fields["start_revision"] = self.revision()
        if self.one_in(4):
            fields["filters"] = rng.choice([[0], [1], [0, 1], [1, 1], [7], [-1, 0]])
        if self.one_in(3):
            fields["watch_id"] = rng.choice([1, 2, 3, 5, -5, INT64_MAX])  # -1 is what refusals are for
        if self.one_in(6):
            fields["progress_notify"] = True
        return {"stream": self.stream(), **self.some(fields)}

    def cancel(self):
        return {"stream": self.stream(), "watch_id": self.random.choice([0, 1, 2, 3, 4, 5, -1, -5, 99])}

    def progress(self):
        return {"stream": self.stream()}

    def close(self):
        return {"stream": self.stream()}

    def watch_json(self):
        """Whatever it watches, the key that is put is the first of it."""
        fields = {"key": self.random.choice(self.keys), "prev_kv": self.one_in(2)}
        if self.one_in(2):
            fields["range_end"] = AFTER_ALL_KEYS
        if self.one_in(4):
            fields["watch_id"] = self.random.choice([1, 7, INT64_MAX])
        return {"puts": self.random.randrange(3), **self.some(fields)}

    def keep_alive_json(self):
        return self.keep_alive()

    # -- the rest ----------------------------------------------------------------------------------

    def hash_kv(self):
        return self.some({"revision": 0 if self.one_in(2) else self.revision()})

    def status(self):
        return {}

    def alarm(self):
        return {}

    def member_update(self):
        urls = self.random.choice([["http://127.0.0.1:1"], ["http://127.0.0.1:2", "http://127.0.0.1:1"], ["not a URL"], [],
                                   ["http://127.0.0.1:1", "http://127.0.0.1:1"], ["http://127.0.0.1:1/path"], ["127.0.0.1:1"]])
        return self.some({"ID": OWN if not self.one_in(4) else 99, "peerURLs": urls})

    def defragment(self):
        return {}

    def settle(self):
        return {}

    def restart(self):
        return {}
