"""Plays operations to two servers and compares what they answer.

Owns: the meaning of the operations that are more than one request, and the comparison. Must never:
forgive a difference that known.py does not name. One operation is played at a time, to both servers at once, so that
what each of them answers is determined.

Beside the requests of operations.py:

  ("watch", {"stream": 0, **create request})   ("cancel", {"stream": 0, "watch_id": 1})   ("progress", {"stream": 0})
  ("close", {"stream": 0})                     the client resets the stream
  ("keep_alive", {"ids": [1, 2]})              one stream, these requests in order, half-close
  ("keep_alive_json", {"ids": [1, 2]})         the same through the gateway
  ("watch_json", {"puts": 2, **create request}) a watcher through the gateway, and what it is told of so many puts
  ("observe", {"name": b"o", "values": [b"x"]}) an observer, what it is told of these words of the leader's, and of the next leader
  ("expire", {"id": 1, "TTL": 1, "key": b"k"}) a short lease with a key, until both servers have ended it
  ("restart", {})                              covey is killed with -9; etcd is stopped, so that both forget the same
  ("settle", {})                               all watchers have caught up; what they saw is compared
  ("snapshot", {})                             whether the first part of one comes

Where users count, a stream is named "user/number", and whoever that is opens it; "/number" is nobody's. The player asks
what it has to know as a user of its own, who is added before authentication is enabled.
"""

import re
import time
from dataclasses import dataclass

import grpc
import known
import known_users
import servers
from operations import BY, HEADER, NO_LEASE_IDS, REQUESTS, fill, lease, maintenance, plain
from side import KEEPER, KEEPERS_PASSWORD, REQUEST_SECONDS_MAX
from streaming import Streaming
from watching import ENDED, first_difference

WATCH_SECONDS_MAX = 8
SILENCE_SECONDS = 0.02  # how long an answer that must not come is waited for
ENDING_SECONDS = 0.2
EXPIRY_SECONDS_MAX = 20
POLL_SECONDS = 0.002
TTL_SECONDS_APART = 2
RESTART_SECONDS_APART = 60
NEVER_COMPACTED = -1
NO_ANSWER = {"error": "DEADLINE_EXCEEDED", "details": "Deadline Exceeded"}
AT_THE_END = (("settle", {}), ("hash_kv", {"revision": ("now", 0), BY: KEEPER}))
BARRIER_KEY = b"\xff\xff\xff~barrier"
BARRIER_WATCH = 1 << 40
BARRIER_ROLE = "~barrier"  # by which everybody may watch that key
# What may end a watcher, or the token by which it is there: covey looks again, etcd does not (known_users.WATCHED_NO_MORE).
TAKES_AWAY = {"auth_enable", "user_delete", "change_password", "revoke_role", "role_delete", "grant_permission",
              "revoke_permission"}


class Difference(Exception):
    """The servers differ; the text says how."""


class Broken(Exception):
    """No verdict: the reference ended, or did not do what the comparison rests upon."""


def last(log):
    return log[-1] if log else {}


@dataclass
class Watcher:
    start: int


class Pair(Streaming):
    """The reference and the subject. `knowns` are the differences that are forgiven."""

    def __init__(self, reference, subject, knowns=(), patience=WATCH_SECONDS_MAX):
        self.patience = patience
        self.reference, self.subject, self.knowns = reference, subject, knowns
        self.sides = (reference, subject)
        self.now, self.compacted = 1, NEVER_COMPACTED
        self.restarted = False
        self.compactions = {}  # since the reference started: the revision, and the compacted one before it
        self.catching_up = self.doomed = False
        self.watchers = {}  # (stream, watch id): Watcher
        self.granted = {}
        self.users_count = False
        self.index = self.played = 0

    # -- one operation -----------------------------------------------------------------------------

    def play(self, operation):
        name, fields = operation
        try:
            if name in REQUESTS:
                self.prepare(name)
                answers = self.ask(name, fields)
                self.remember(name, fields, *answers)
                self.compare(operation, *answers)
                self.follow(operation, *answers)
            else:
                answers = getattr(self, name)(**fields)
        except Difference:
            self.reference_lives()
            raise
        self.played += 1
        return answers

    def play_all(self, operations):
        """Raises Difference or Broken; the last things are always a look at the watchers and at all that is stored."""
        for self.index, operation in enumerate([*operations, *AT_THE_END]):
            self.play(operation)

    def ask(self, name, fields):
        """Sends the request to both at once; what they answer, cleaned."""
        requests = [fill(REQUESTS[name][2](), fields, self.resolver(side)) for side in self.sides]
        calls = [side.send_any_way((name, fields), request) for side, request in zip(self.sides, requests)]
        for side, call in zip(self.sides, calls):
            if name == "grant" and isinstance(fields.get("ID"), tuple):
                self.learn_alias(side, fields["ID"], call)
        return [side.answer(call) for side, call in zip(self.sides, calls)]

    def compare(self, operation, theirs, ours):
        if theirs == ours == NO_ANSWER:
            raise Broken(f"{operation!r}: neither answers in time; what becomes of it there is no telling")
        if theirs == ours:
            return  # what is forgiven is put right on one side, which would make two that are the same differ
        for difference in self.knowns:
            theirs, ours = difference.forgive(operation, theirs, ours, self)
        if theirs != ours:
            raise Difference(f"{operation!r}\n  etcd: {theirs!r}\n  ours: {ours!r}")

    def prepare(self, name):
        """Waits where etcd does a thing later, and when matters: watchers before a compaction, removal before a hash."""
        if name == "compact" and self.catching_up:
            self.settle()
        if name in TAKES_AWAY and known_users.WATCHED_NO_MORE in self.knowns:
            for stream in sorted(self.reference.streams):
                self.close(stream)
        if name == "auth_enable" and not self.users_count:
            self.add_keeper()
        if name == "hash_kv":
            self.wait_for_etcd("mvcc_db_compaction_total_duration_milliseconds_count",
                                    lambda count: count >= len(self.compactions))

    def add_keeper(self):
        """Adds the player's own user, once, and lets all users see the barrier."""
        for side in self.sides:
            side.answer(side.call("user_add", {"name": KEEPER, "password": KEEPERS_PASSWORD}))
            side.answer(side.call("grant_role", {"user": KEEPER, "role": "root"}))
            side.answer(side.call("role_add", {"name": BARRIER_ROLE}))
            permission = {"permType": 0, "key": BARRIER_KEY}
            side.answer(side.call("grant_permission", {"name": BARRIER_ROLE, "perm": permission}))
            for user in side.call("user_list", {}).result().users:
                self.show_barrier(side, user)

    @staticmethod
    def show_barrier(side, user):
        side.answer(side.call("grant_role", {"user": user, "role": BARRIER_ROLE}))

    def follow(self, operation, theirs, ours):
        """What the player itself does after an operation, on both sides alike."""
        name, fields = operation
        for difference in self.knowns:
            difference.mend(operation, theirs, ours, self)
        if name == "campaign":
            # Its header is that of its entry, and an error has none.
            self.now = self.reference.call("range", {"key": BARRIER_KEY}).result().header.revision
        if "ok" not in theirs or "ok" not in ours:
            return
        if name in ("auth_enable", "auth_disable"):
            self.users_count = name == "auth_enable"
        for side in self.sides:
            if name == "auth_enable":
                side.log_in_keeper()
            elif name == "user_add" and self.users_count:
                self.show_barrier(side, fields["name"])

    def resolver(self, side):
        def resolve(reference):
            kind, *rest = reference
            match kind:
                case "now":
                    return self.now + rest[0]
                case "compacted":
                    return self.compacted + rest[0]
                case "mod":
                    return self.mod_revision(rest[0]) + rest[1]
                case "own":
                    return side.own["member_id"]
                case "auto":
                    return side.aliases.get(rest[0], NO_LEASE_IDS[rest[0]])
            raise ValueError(reference)
        return resolve

    def mod_revision(self, key):
        found = self.reference.call("range", {"key": key or b"-"}).result()
        return found.kvs[0].mod_revision if found.kvs else 1

    def learn_alias(self, side, alias, call):
        side.aliases.pop(alias[1], None)
        try:
            chosen = call.result().ID
        except grpc.RpcError:
            return
        if chosen <= 0:
            raise Difference(f"{side.server.kind.name} chose {chosen} as the id of a lease")
        side.aliases[alias[1]], side.alias_of[chosen] = chosen, alias

    def remember(self, name, fields, theirs, ours):
        """What the next operations refer to is the reference's view; and what depends on the time is rounded."""
        if name == "login":
            for side, answer in zip(self.sides, (theirs, ours)):
                if "ok" in answer:
                    side.tokens[fields["name"]], answer["ok"]["token"] = answer["ok"]["token"], "some"
        if name == "member_list":
            for answer in (theirs, ours):
                if "ok" in answer:
                    answer["ok"]["members"] = len(answer["ok"]["members"])
        if name == "member_update":
            for answer in (theirs, ours):
                if "ok" in answer:
                    answer["ok"]["members"] = [sorted(member.get("peerURLs", [])) for member in answer["ok"]["members"]]
        if name == "hash":
            for answer in (theirs, ours):
                answer.get("ok", {}).pop("hash", None)
        ok = theirs.get("ok")
        if ok is None:
            return
        self.now = max(self.now, ok.get(HEADER, {}).get("revision", 0))
        if name == "compact":
            before, self.compacted = self.compacted, self.number(fields.get("revision", 0))
            self.compactions[self.compacted] = before
        elif name == "grant":
            self.granted[ok["ID"]] = ok["TTL"]
        elif name == "time_to_live" and "ok" in ours:
            apart = RESTART_SECONDS_APART if self.restarted else TTL_SECONDS_APART
            if abs(ok.get("TTL", 0) - ours["ok"].get("TTL", 0)) <= apart and ours["ok"].get("TTL", 0) > 0:
                ours["ok"]["TTL"] = ok["TTL"]
            for answer in (ok, ours["ok"]):
                answer.get("keys", []).sort()
        elif name == "leases":
            for answer in (theirs, ours):
                if "ok" in answer:
                    answer["ok"]["leases"] = self.by_length(answer["ok"].get("leases", []))
        elif name == "status":
            for answer in (theirs, ours):
                answer["ok"] = self.rounded_status(answer.get("ok", {}))

    def number(self, value):
        return self.resolver(self.reference)(value) if isinstance(value, tuple) else value

    def by_length(self, leases):
        """Soonest first is the order; among leases of equal length it is by the microsecond, so they are one group."""
        groups = []
        for found in leases:
            ttl = self.granted.get(found["ID"])
            if not groups or groups[-1][0] != ttl:
                groups.append((ttl, []))
            groups[-1][1].append(found["ID"])
        return [(ttl, sorted(ids, key=str)) for ttl, ids in groups]

    @staticmethod
    def rounded_status(status):
        """Sizes, indices, terms and versions are each server's own; that they are sound can be said."""
        index, applied = status.pop("raftIndex", 0), status.pop("raftAppliedIndex", 0)
        size, in_use = status.pop("dbSize", 0), status.pop("dbSizeInUse", 0)
        return {**status, "leader": status.get("leader", 0) > 0, "raftTerm": status.get("raftTerm", 0) > 0,
                "indices": 0 < applied <= index, "version": bool(re.fullmatch(r"\d+\.\d+\.\d+", status["version"])),
                "sizes": size > 0 and in_use <= size}

    def reference_lives(self):
        """Called after a difference: a process that panics takes a moment to be gone."""
        time.sleep(ENDING_SECONDS)
        if self.reference.server.process.poll() is not None:
            raise Broken(f"the reference ended:\n{self.reference.server.log_tail()}")

    # -- watches -----------------------------------------------------------------------------------

    def watch(self, stream, **fields):
        no_end = fields.get("range_end") == b"\x00" and isinstance(stream, str) and not stream.startswith("root/")
        if no_end and known_users.OPEN_END_TAKES_ALL in self.knowns:
            return
        if self.doomed:
            self.settle()
        before = [len(side.stream(stream).created) for side in self.sides]
        for side in self.sides:
            side.stream(stream).send("create_request", fields, self.resolver(side))
        for side, count in zip(self.sides, before):
            of = side.stream(stream)
            if not of.wait(lambda of=of, count=count: len(of.created) > count or of.logs[ENDED], self.patience):
                raise Difference(f"watch {fields!r}: {side.server.kind.name} does not answer")
        start = self.number(fields.get("start_revision", 0))
        [watch_id] = self.reference.stream(stream).created[before[0]:] or [None]
        if watch_id is not None:
            self.watchers[stream, watch_id] = Watcher(start)
        self.catching_up = self.catching_up or 0 < start <= self.now
        self.doomed = self.doomed or 0 < start < self.compacted

    def cancelled(self, stream, watch_id):
        flags = [item for item in self.reference.stream(stream).copy().get(watch_id, [])
                 if "created" in item or "canceled" in item]
        return bool(flags) and "canceled" in flags[-1]

    def cancel(self, stream, watch_id=0):
        self.settle()
        known = self.watchers.pop((stream, watch_id), None)
        for side in self.sides:
            side.stream(stream).send("cancel_request", {"watch_id": watch_id}, None)
        if known is None:
            time.sleep(SILENCE_SECONDS)
        else:
            self.wait_for(stream, f"cancel of {watch_id}", lambda of: "canceled" in last(of.logs[watch_id]))

    def wait_for(self, stream, what, holds):
        for side in self.sides:
            of = side.stream(stream)
            if not of.wait(lambda of=of: holds(of), self.patience):
                raise Difference(f"stream {stream}, {what}: {side.server.kind.name} does not answer")

    def release_overtaken(self):
        """What a compaction has overtaken is cancelled by the server; etcd keeps it until the client cancels it too."""
        for stream, watch_id in list(self.watchers):
            if not self.cancelled(stream, watch_id):
                continue
            del self.watchers[stream, watch_id]
            if known.CANCELLED_TWICE in self.knowns:
                for side in self.sides:
                    side.stream(stream).send("cancel_request", {"watch_id": watch_id}, None)
                of = self.reference.stream(stream)
                if not of.wait(lambda: known.twice_cancelled(of.logs[watch_id]), self.patience):
                    raise Broken("etcd does not confirm that a watcher is cancelled which it has cancelled itself")

    def progress(self, stream):
        """Answered if there are watchers and none has yet to catch up, or waits for a revision that is to come."""
        self.settle()
        starts = [watcher.start for (of, _), watcher in self.watchers.items() if of == stream]
        if max(starts, default=0) == self.now + 1 and known.NEXT_IS_NOW in self.knowns:
            return
        seen = self.reference.stream(stream).progressed
        for side in self.sides:
            side.stream(stream).send("progress_request", {}, None)
        if not starts or max(starts) > self.now:
            time.sleep(SILENCE_SECONDS)
        else:
            self.wait_for(stream, "progress", lambda of: of.progressed > seen)

    def close(self, stream):
        self.settle()
        for side in self.sides:
            if stream in side.streams:
                side.streams.pop(stream).close()
        self.watchers = {key: watcher for key, watcher in self.watchers.items() if key[0] != stream}

    def settle(self):
        """A put that every stream watches comes after all before it; watchers that read the past are waited for."""
        if self.catching_up:
            self.wait_for_etcd("mvcc_slow_watcher_total", lambda count: count == 0)
            self.catching_up = self.doomed = False
        watched = sorted({stream for stream, watch_id in self.watchers})
        if watched:
            for stream in watched:
                if (stream, BARRIER_WATCH) not in self.watchers:
                    self.watch(stream, key=BARRIER_KEY, watch_id=BARRIER_WATCH)
            self.play(("put", {"key": BARRIER_KEY, BY: KEEPER}))
        for stream in sorted(self.reference.streams):
            self.compare_stream(stream)
        self.release_overtaken()

    def compare_stream(self, stream):
        deadline = time.monotonic() + self.patience
        barriers = self.now if (stream, BARRIER_WATCH) in self.watchers else 0
        while True:
            theirs, ours = (self.forgiven_log(side.stream(stream).copy()) for side in self.sides)
            difference = first_difference(theirs, ours)
            behind = barriers and theirs[BARRIER_WATCH][-1].get("kv", {}).get("mod_revision", 0) < barriers
            if not difference and not behind:
                return
            if time.monotonic() > deadline:
                break
            time.sleep(POLL_SECONDS)
        if not difference:
            raise Broken(f"stream {stream}: the reference does not report a put")
        watch_id, before, of_etcd, of_subject = difference
        raise Difference(f"watcher {watch_id} of stream {stream}, after {before!r}\n"
                         f"  etcd: {of_etcd!r}\n  ours: {of_subject!r}")

    def forgiven_log(self, logs):
        for difference in self.knowns:
            logs = {watch_id: difference.forgive_log(log) for watch_id, log in logs.items()}
        return logs

    # -- leases ------------------------------------------------------------------------------------

    def keep_alive(self, ids, by=None):
        answers = []
        for side in self.sides:
            resolve = self.resolver(side)
            requests = [fill(lease.LeaseKeepAliveRequest(), {"ID": number}, resolve) for number in ids]
            try:
                found = side.stubs_of(by)["lease"].LeaseKeepAlive(
                    iter(requests), timeout=REQUEST_SECONDS_MAX, metadata=side.metadata(by))
                answers.append({"ok": [side.clean(plain(response)) for response in found]})
            except grpc.RpcError as error:
                answers.append({"error": error.code().name, "details": error.details()})
        self.compare(("keep_alive", {"ids": ids, BY: by}), *answers)

    def expire(self, id, TTL, key):  # noqa: A002, N803  (as the request names them)
        begin = time.monotonic()
        if "ok" not in self.play(("grant", {"ID": id, "TTL": TTL, BY: KEEPER}))[0]:
            return
        for operation in (("put", {"key": key, "lease": id, BY: KEEPER}), ("time_to_live", {"ID": id, "keys": True, BY: KEEPER})):
            self.play(operation)
        length = self.granted[id]
        for side in self.sides:
            while True:
                # Read first: the answer is not younger than the time that it is held against.
                exists = side.call("range", {"key": key}).result().kvs
                past = time.monotonic() - begin
                if not exists and past < length and side is self.subject:
                    raise Difference(f"lease {id} of {length} s ended after {past:.3f} s")
                if not exists:
                    break
                if past > length + EXPIRY_SECONDS_MAX:
                    raise Difference(f"lease {id} of {length} s: {side.server.kind.name} has it after {past:.0f} s")
                time.sleep(POLL_SECONDS * 10)
        for operation in (("time_to_live", {"ID": id, "keys": True, BY: KEEPER}), ("range", {"key": key, BY: KEEPER})):
            self.play(operation)

    # -- the rest ----------------------------------------------------------------------------------

    def snapshot(self, by=None):
        answers = []
        for side in self.sides:
            call = side.stubs_of(by)["maintenance"].Snapshot(
                maintenance.SnapshotRequest(), timeout=REQUEST_SECONDS_MAX, metadata=side.metadata(by))
            try:
                answers.append({"ok": bool(next(call).blob)})
            except grpc.RpcError as error:
                answers.append({"error": error.code().name, "details": error.details()})
            call.cancel()
        self.compare(("snapshot", {BY: by}), *answers)

    # -- the servers -------------------------------------------------------------------------------

    def restart(self):
        self.settle()
        for side in self.sides:
            side.disconnect()
            if side.server.kind is servers.COVEY:
                side.server.kill()
            else:
                side.server.stop()
            side.server.launch()
        for side in self.sides:
            side.server.wait_ready()
            side.connect()
        self.watchers, self.restarted, self.compactions = {}, True, {}

    def wait_for_etcd(self, metric, holds):
        """What etcd does later, it counts in its metrics."""
        deadline = time.monotonic() + self.patience
        for side in self.sides:
            while side.server.kind is servers.ETCD and not holds(side.metric(metric)):
                if time.monotonic() > deadline:
                    raise Broken(f"etcd_debugging_{metric} does not become what it should")
                time.sleep(POLL_SECONDS)
