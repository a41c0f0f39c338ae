"""Makes random sequences of operations that somebody asks for.

Owns: the users and roles that there are, what they are granted, and who asks. Must never: know who may do what: that is
what the servers are compared in. Each sequence begins with users, roles and authentication; then everything that
generator.py makes is asked for by root, by users with few rights, by nobody and with a token that is none, and users and
roles change meanwhile.

Left out, since one server would go another way from there on and the other not: two permissions of a role for the same key
(known_users.py says why), and intervals that are empty: whether a user with few rights may have those depends in etcd on how
the tree of the rights lies; covey asks for the first key.
"""

from certificates import BY_CERTIFICATE
from generator import DEPTH, STREAMS, WEIGHTS, Generator

ROOT, NOBODY = "root", None
USERS = ["ann", "bob", "cid", "dan"]
CERTIFIED = "eve"  # has no password, and never a token
ROLES = ["reads", "writes", "both", "some", "none"]
READ, WRITE, READWRITE = 0, 1, 2
# Ends of intervals by their keys: single keys, intervals that touch and overlap, open ends, what locks and elections use.
PERMISSIONS = {b"a": b"b", b"b": b"b0", b"b0": b"e", b"ab": b"", b"c": b"d", b"d": b"", b"e": b"\x00", b"\x00": b"\x00",
               b"\xfe": b"\xff\xff\xff", b"o": b"p", b"o1/2": b"", b"o2": b"o3", b"o4/": b"o40", b"a\x00": b"ab"}
REFUSED_PERMISSIONS = [{"key": b"", "range_end": b"b"}, {"key": b"c", "range_end": b"a"}, {}]
ABSENT_MEMBER = 99

ABOUT_USERS = {
    "login": 3, "auth_status": 0.5, "auth_enable": 0.8, "auth_disable": 0.3, "user_add": 0.7, "user_get": 1, "user_list": 0.5,
    "user_delete": 0.4, "change_password": 0.7, "grant_role": 2, "revoke_role": 1.2, "role_add": 0.7, "role_get": 1,
    "role_list": 0.5, "role_delete": 0.4, "grant_permission": 2.5, "revoke_permission": 1.2,
}
ABOUT_MEMBERS = {"hash": 0.4, "snapshot": 0.3, "move_leader": 0.3, "member_list": 0.5, "member_add": 0.3, "member_remove": 0.3,
                 "member_promote": 0.3}
WITHOUT = {"expire", "hash_kv"}  # the one takes seconds; the other compares what is stored, which is done at the end
# What a sequence is about: weights that differ from the above.
THEMES = {
    "mixed": {},
    "transactions": {"txn": 60, "range": 12},
    "watches": {"watch": 12, "cancel": 3, "progress": 3, "put": 30, "txn": 10},
    "leases": {"grant": 10, "revoke": 8, "time_to_live": 8, "leases": 5, "keep_alive": 6, "put": 40},
    "recipes": {"lock": 10, "unlock": 6, "campaign": 10, "proclaim": 7, "leader": 6, "resign": 6, "grant": 8, "revoke": 3},
    "management": {name: weight * 4 for name, weight in {**ABOUT_USERS, **ABOUT_MEMBERS}.items()},
}
CERTIFICATES = [ROOT, *USERS, CERTIFIED]
# A certificate goes on naming who is deleted: etcd then says now this and now that, covey that it may not.
UNCERTIFIED = {"watch_json", "keep_alive_json", "user_delete"}
# Operations without one who asks: the stream has been opened by somebody, and servers are nobody's.
UNASKED = {"cancel", "progress", "close", "settle", "restart", "login"}


def forward(fields):
    """The same without an end that is not behind its start."""
    end = fields.get("range_end", b"\x00")
    if end != b"\x00" and end <= fields.get("key", b""):
        return {name: value for name, value in fields.items() if name != "range_end"}
    return fields


class UserGenerator(Generator):
    def __init__(self, seed, rpcs=None):
        super().__init__(seed)
        self.theme = self.random.choice(list(THEMES))
        weights = {**WEIGHTS, **ABOUT_USERS, **ABOUT_MEMBERS, **THEMES[self.theme]}
        self.weights = {name: weight for name, weight in weights.items()
                        if name not in WITHOUT and (rpcs is None or name in rpcs)}
        # Within what is granted more often than not.
        self.keys = [key for key in self.keys if key] + [b"o1/2", b"o2/3"]

    def sequence(self, length):
        operations = self.beginning()
        while len(operations) < length:
            [name] = self.random.choices(list(self.weights), list(self.weights.values()))
            operations += self.asked(name)
        return operations

    def beginning(self):
        """Some keys and leases, users, roles, and everybody logs in."""
        operations = [("put", self.put()) for _ in range(6)] + [("grant", self.grant()) for _ in range(6)]
        operations += [("role_add", {"name": role}) for role in ROLES]
        operations += [("grant_permission", self.grant_permission()) for _ in range(12)]
        for user in [ROOT, *USERS]:
            operations += [("user_add", {"name": user, "password": self.passwords(user)[0]})]
            operations += [("grant_role", {"user": user, "role": self.role()}) for _ in range(self.random.choice([0, 1, 2]))]
        operations += [("user_add", {"name": CERTIFIED, "options": {"no_password": True}})]
        operations += [("grant_role", {"user": ROOT, "role": ROOT}), ("auth_enable", {})]
        return operations + self.logins([ROOT, *USERS])

    def asked(self, name):
        fields = getattr(self, name)()
        if name not in UNASKED and name != "watch":
            who = self.who(name)
            fields = fields if who is NOBODY else {**fields, "by": who}
        operations = [(name, fields)]
        if name in ("auth_enable", "restart"):
            # Tokens from before are good for nothing.
            operations += self.logins([ROOT, *USERS])
        elif name in ("change_password", "user_add") and not self.one_in(3):
            operations += self.logins([fields.get("name", ROOT)])
        return operations

    def who(self, name):
        choice = self.random.random()
        roots = 0.6 if name in ABOUT_USERS else 0.2
        if choice < roots:
            return ROOT
        if choice < 0.88:
            return self.random.choice(USERS)
        return self.random.choice([NOBODY, NOBODY, "wrong", CERTIFIED])

    # -- parts -------------------------------------------------------------------------------------

    @staticmethod
    def passwords(user):
        return [f"{user}-1", f"{user}-2"]

    def logins(self, users):
        """By either password: one of them is right."""
        return [("login", {"name": user, "password": password}) for user in users for password in self.passwords(user)]

    def user(self):
        return self.random.choice([*USERS, *USERS, CERTIFIED, ROOT, "nobody", ""])

    def role(self):
        return self.random.choice([*ROLES, *ROLES, ROOT, "absent", ""]) if self.one_in(4) else self.random.choice(ROLES)

    # -- users and roles ---------------------------------------------------------------------------

    def login(self):
        user = self.user()
        return self.some({"name": user, "password": self.random.choice([*self.passwords(user), "wrong", ""])})

    def auth_status(self):
        return {}

    def auth_enable(self):
        return {}

    def auth_disable(self):
        return {}

    def user_add(self):
        user = self.user()
        if user == CERTIFIED:
            return {"name": user, "options": {"no_password": True}}
        return self.some({"name": user, "password": self.random.choice(self.passwords(user))})

    def user_get(self):
        return self.some({"name": self.user()})

    def user_list(self):
        return {}

    def user_delete(self):
        return self.some({"name": self.user()})

    def change_password(self):
        user = self.user()
        return self.some({"name": user, "password": self.random.choice(self.passwords(user))})

    def grant_role(self):
        return self.some({"user": self.user(), "role": self.role()})

    def revoke_role(self):
        return self.some({"name": self.user(), "role": self.role()})

    def role_add(self):
        return self.some({"name": self.role()})

    def role_get(self):
        return self.some({"role": self.role()})

    def role_list(self):
        return {}

    def role_delete(self):
        return self.some({"role": self.role()})

    def permission(self):
        owned = self.theme == "recipes" and self.one_in(2)
        key, range_end = self.random.choice([item for item in PERMISSIONS.items() if not owned or item[0].startswith(b"o")])
        return self.some({"key": key, "range_end": range_end, "permType": self.random.choice([READ, WRITE, READWRITE])})

    def grant_permission(self):
        permission = self.random.choice(REFUSED_PERMISSIONS) if self.one_in(20) else self.permission()
        return self.some({"name": self.role(), **({"perm": permission} if permission or self.one_in(2) else {})})

    def revoke_permission(self):
        permission = self.permission()
        permission.pop("permType", None)
        return self.some({"role": self.role(), **permission})

    # -- what users ask for ------------------------------------------------------------------------

    def stream(self):
        who = self.random.choice([ROOT, *USERS, *USERS, "", "wrong"])
        return f"{who}/{self.random.randrange(STREAMS - 1)}"

    def interval(self, single=2):
        return forward(super().interval(single))

    def compare(self):
        return forward(super().compare())

    def txn(self, depth=DEPTH):
        """Some want nothing at all."""
        if not self.one_in(25):
            return super().txn(depth)
        return self.random.choice([{}, {"success": [{"request_txn": {}}]}, {"failure": [{"request_txn": {"failure": []}}]}])

    def watch(self):
        fields = super().watch()
        is_roots = fields["stream"].startswith(f"{ROOT}/")
        return fields if is_roots else self.bounded(fields)

    def alarm(self):
        """Raised for a member that there is not: it does not count, but it is there."""
        return self.some({"action": self.random.choice([0, 0, 2]), "memberID": ABSENT_MEMBER, "alarm": self.random.choice([0, 1])})

    # -- members and their upkeep ------------------------------------------------------------------

    def hash(self):
        return {}

    def snapshot(self):
        return {}

    def move_leader(self):
        return {"targetID": ABSENT_MEMBER}

    def member_list(self):
        return {"linearizable": self.one_in(2)}

    def member_add(self):
        return {"peerURLs": ["not a URL"]}

    def member_remove(self):
        return {"ID": ABSENT_MEMBER}

    def member_promote(self):
        return {"ID": ABSENT_MEMBER}


class CertifiedGenerator(UserGenerator):
    """Some come by certificates that name them, the others by tokens: there everybody has a certificate, and nobody is nobody."""

    def __init__(self, seed, rpcs=None):
        super().__init__(seed, rpcs)
        self.weights = {name: weight for name, weight in self.weights.items() if name not in UNCERTIFIED}

    def who(self, name):
        who = super().who(name) or "wrong"
        return f"{BY_CERTIFICATE}{who}" if who in CERTIFICATES and self.one_in(2) else who

    def stream(self):
        who = self.random.choice([ROOT, *USERS, CERTIFIED, *(BY_CERTIFICATE + name for name in CERTIFICATES)])
        return f"{who}/{self.random.randrange(STREAMS - 1)}"
