"""A small etcd client on Google's gRPC library, with stubs made from our own .proto files.

Owns: connections and requests. Must never: retry, or hide an error. Used by rounds.py and damage.py; needs
requirements.txt beside this file.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "harness"))

from stubs import make_stubs  # noqa: E402  (before grpc: it sets how grpc behaves at a fork)

import grpc  # noqa: E402

DEADLINE_SECONDS = 10
PAGE_KEYS = 400
ALL = b"\x00"  # as key and as range_end: the whole store

[(kv, kv_grpc)] = make_stubs("kv")


@dataclass(frozen=True)
class State:
    """A key that exists: all that etcd tells about it but its lease."""

    value: bytes
    create: int
    mod: int
    version: int

    @classmethod
    def of(cls, found):
        return cls(found.value, found.create_revision, found.mod_revision, found.version)

    def __str__(self):
        value = self.value if len(self.value) <= 60 else self.value[:60] + b"..."
        return f"{value!r} (create {self.create}, mod {self.mod}, version {self.version})"


class Client:
    """One connection of its own. Every call raises grpc.RpcError when it fails."""

    def __init__(self, endpoint):
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1),
                   ("grpc.enable_http_proxy", 0)]
        self.channel = grpc.insecure_channel(endpoint, options=options)
        self.stub = kv_grpc.KVStub(self.channel)

    def put(self, key, value):
        return self.stub.Put(kv.PutRequest(key=key, value=value), timeout=DEADLINE_SECONDS).header.revision

    def delete(self, key):
        answer = self.stub.DeleteRange(kv.DeleteRangeRequest(key=key), timeout=DEADLINE_SECONDS)
        return answer.deleted, answer.header.revision

    def change_if(self, key, mod, changes):
        """A txn: if `key` was last changed at `mod`, make all changes ({key: value or None}); (done, revision)."""
        compare = kv.Compare(key=key, target=kv.Compare.MOD, result=kv.Compare.EQUAL, mod_revision=mod)
        operations = [
            kv.RequestOp(request_delete_range=kv.DeleteRangeRequest(key=changed)) if value is None
            else kv.RequestOp(request_put=kv.PutRequest(key=changed, value=value))
            for changed, value in changes.items()
        ]
        answer = self.stub.Txn(kv.TxnRequest(compare=[compare], success=operations), timeout=DEADLINE_SECONDS)
        return answer.succeeded, answer.header.revision

    def get(self, key, revision=0):
        answer = self.stub.Range(kv.RangeRequest(key=key, revision=revision), timeout=DEADLINE_SECONDS)
        return State.of(answer.kvs[0]) if answer.kvs else None

    def compact(self, revision, physical=False):
        request = kv.CompactionRequest(revision=revision, physical=physical)
        self.stub.Compact(request, timeout=DEADLINE_SECONDS)

    def everything(self, revision=0):
        """({key: State}, the store's revision), read in pages at one revision."""
        found, start, pinned = {}, ALL, revision
        while True:
            request = kv.RangeRequest(key=start, range_end=ALL, limit=PAGE_KEYS, revision=pinned)
            answer = self.stub.Range(request, timeout=DEADLINE_SECONDS)
            pinned = pinned or answer.header.revision
            found.update((item.key, State.of(item)) for item in answer.kvs)
            if not answer.more:
                return found, pinned
            start = answer.kvs[-1].key + b"\x00"

    def close(self):
        self.channel.close()


def compacted(error):
    return error.code() == grpc.StatusCode.OUT_OF_RANGE and "has been compacted" in error.details()
