"""Operations that are a stream for a while: an observer of an election, and the streams of the JSON gateway.

Owns: what each of them asks for and waits for, one message at a time, so that what comes is determined. Must never: leave
one open. A part of player.py's `Pair`.
"""

import grpc
from generator import OWNERS
from operations import BY, fill, lease, plain, v3election, watch
from side import KEEPER, REQUEST_SECONDS_MAX

NEXT_LEADER = b"~next"


class Streaming:
    """What `Pair` plays by streams of its own."""

    def all_next(self, operation, streams):
        """The next message of each side, which must be the same; None at the end, and where there is none."""
        answers = []
        for side, following in zip(self.sides, streams):
            try:
                message = following()
                answers.append({"ended": True} if message is None else {"ok": side.clean(plain(message))})
            except grpc.RpcError as error:
                answers.append({"error": error.code().name, "details": error.details()})
        self.compare(operation, *answers)
        return answers[0].get("ok")

    def observe(self, name=b"", values=(), by=None):
        operation = ("observe", {"name": name, "values": list(values), BY: by})
        calls = [side.stubs_of(by)["election"].Observe(
            v3election.LeaderRequest(name=name), timeout=REQUEST_SECONDS_MAX, metadata=side.metadata(by)) for side in self.sides]
        try:
            self.observed(operation, [lambda call=call: next(call, None) for call in calls], name, values)
        finally:
            for call in calls:
                call.cancel()

    def observed(self, operation, streams, name, values):
        request = {"key": name + b"/", "range_end": name + b"0", "sort_order": 1, "sort_target": 2, "limit": 1}
        found = self.reference.call("range", request).result().kvs
        if found:
            if not self.all_next(operation, streams):
                return
            [leader] = found
            key = {"name": name, "key": leader.key, "rev": leader.create_revision, "lease": leader.lease}
            # With no lease each server would grant one with an id of its own, and one that a server chose the other has not.
            for value in values if leader.lease in OWNERS.values() else ():
                said, _ = self.play(("proclaim", {"leader": key, "value": value, BY: KEEPER}))
                if "ok" in said and not self.all_next(operation, streams):
                    return
            # Whoever contends after that one is the next leader.
            self.play(("delete", {"key": name + b"/", "range_end": name + b"0", BY: KEEPER}))
        self.play(("put", {"key": name + b"/" + NEXT_LEADER, BY: KEEPER}))
        self.all_next(operation, streams)
        # Also where that was refused: it has no lease, and contenders would wait for it for ever.
        self.play(("delete", {"key": name + b"/" + NEXT_LEADER, BY: KEEPER}))

    def keep_alive_json(self, ids=(), by=None):
        operation = ("keep_alive_json", {"ids": list(ids), BY: by})

        def requests(side):
            return [fill(lease.LeaseKeepAliveRequest(), {"ID": number}, self.resolver(side)) for number in ids]
        streams = [side.gateway.stream("keep_alive", requests(side), lease.LeaseKeepAliveResponse, side.token(by))
                   for side in self.sides]
        self.read_json(streams, lambda following: [None for _ in iter(lambda: self.all_next(operation, following), None)])

    def watch_json(self, puts=0, by=None, **fields):
        operation = ("watch_json", {"puts": puts, **fields, BY: by})

        def request(side):
            return [fill(watch.WatchRequest(), {"create_request": fields}, self.resolver(side))]
        streams = [side.gateway.stream("watch", request(side), watch.WatchResponse, side.token(by)) for side in self.sides]

        def told(following):
            created = self.all_next(operation, following)
            if not created or created.get("canceled"):
                return
            for number in range(puts):
                put, _ = self.play(("put", {"key": fields.get("key", b""), "value": b"%d" % number, BY: KEEPER}))
                if "ok" not in put or not self.all_next(operation, following):
                    return
        self.read_json(streams, told)

    @staticmethod
    def read_json(streams, work):
        try:
            work([stream.next for stream in streams])
        finally:
            for stream in streams:
                stream.close()
