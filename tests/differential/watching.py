"""One watch stream of one server, and what came over it.

Owns: the stream and its log, a list of items for each watch id. Must never: decide what is right; player.py compares
the logs of two servers. What etcd may do one way or another is taken out here: how many revisions one response carries.
What no server may do becomes an item of its own, which the other server does not have: a revision split over two
responses (fragments of one response count as one), a header that is behind its events.
"""

import queue
import threading
import time
from collections import defaultdict

import grpc
from operations import fill, plain, watch

ENDED = "stream"  # the log of the stream itself, beside those of watch ids


class Stream:
    def __init__(self, stub, clean, metadata=None):
        self.clean = clean
        self.requests = queue.SimpleQueue()
        self.changed = threading.Condition()
        self.logs = defaultdict(list)
        self.created = []  # the ids of the watchers in the order of the answers, None for a refused one
        self.progressed = 0
        self.last_revision = {}  # of each watcher: the revision that its last response ended with
        self.fragment_open = set()
        self.closed = False
        self.call = stub.Watch(iter(self.requests.get, None), metadata=metadata)
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def send(self, kind, fields, resolve):
        self.requests.put(fill(watch.WatchRequest(), {kind: fields}, resolve))

    def close(self):
        """As a client that loses interest: the stream is reset."""
        self.closed = True
        self.call.cancel()
        self.requests.put(None)

    def read(self):
        try:
            for response in self.call:
                with self.changed:
                    self.take(response)
                    self.changed.notify_all()
        except grpc.RpcError as error:
            self.end((error.code().name, error.details()))
        else:
            self.end(("OK", ""))

    def end(self, how):
        if not self.closed:
            with self.changed:
                self.logs[ENDED].append(("ended", *how))
                self.changed.notify_all()

    def take(self, response):
        log = self.logs[response.watch_id]
        found = self.clean(plain(response))
        events = found.pop("events", [])
        if events:
            log.extend(self.oddities(response, found))
            log.extend(events)
            return
        if found.get("created"):
            self.created.append(None if found.get("canceled") else response.watch_id)
            self.last_revision.pop(response.watch_id, None)
        if response.watch_id == -1 and not found.get("created"):
            self.progressed += 1
            found = {"progress": found}
        log.append(found)

    def oddities(self, response, found):
        """What must not be, of a response with events."""
        watch_id = response.watch_id
        first, last = response.events[0].kv.mod_revision, response.events[-1].kv.mod_revision
        continued = watch_id in self.fragment_open
        if not continued and first <= self.last_revision.get(watch_id, 0):
            yield {"split or repeated revision": first}
        if response.header.revision < last:
            yield {"header behind its events": response.header.revision}
        if found.get("created") or found.get("canceled") or found.get("compact_revision"):
            yield {"flags with events": found}
        self.last_revision[watch_id] = last
        (self.fragment_open.add if response.fragment else self.fragment_open.discard)(watch_id)

    def wait(self, condition, seconds):
        """Until `condition()` holds; false when the time was not enough."""
        deadline = time.monotonic() + seconds
        with self.changed:
            return self.changed.wait_for(condition, max(0, deadline - time.monotonic()))

    def copy(self):
        with self.changed:
            return {watch_id: list(log) for watch_id, log in self.logs.items() if log}


def first_difference(theirs, ours):
    """Of two copies of logs: (watch id, what came before, etcd's next items, ours), or None."""
    for watch_id in sorted(theirs.keys() | ours.keys(), key=str):
        of_etcd, of_subject = theirs.get(watch_id, []), ours.get(watch_id, [])
        if of_etcd != of_subject:
            common = next((i for i, (a, b) in enumerate(zip(of_etcd, of_subject)) if a != b),
                          min(len(of_etcd), len(of_subject)))
            return watch_id, of_etcd[max(0, common - 1):common], of_etcd[common:common + 3], of_subject[common:common + 3]
    return None
