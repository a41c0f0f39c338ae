"""A server that is etcd but for one mistake: a proxy in front of a real one.

Owns: the mistakes. Must never: listen on anything but loopback. With it a run shows that it would notice such a mistake,
and cut what shows it down to a few operations.
"""

from concurrent.futures import ThreadPoolExecutor

import grpc
from operations import kv, watch
from servers import HOST
from side import CHANNEL

THREADS = 64  # each open stream holds one


def fewer_deleted(_request, answer):
    """One key less is said to be deleted."""
    found = kv.DeleteRangeResponse.FromString(answer)
    if found.deleted > 1:
        found.deleted -= 1
    return found.SerializeToString()


def later_prev_kv(_request, answer):
    """The previous value of an overwritten key is taken from the value's first byte on."""
    found = kv.PutResponse.FromString(answer)
    found.prev_kv.value = found.prev_kv.value[1:] if found.HasField("prev_kv") else b""
    return found.SerializeToString() if found.prev_kv.ListFields() else answer


def no_deletes(answer):
    """Deletions are not reported to watchers."""
    found = watch.WatchResponse.FromString(answer)
    kept = [event for event in found.events if event.type == event.PUT]
    if len(kept) == len(found.events):
        return answer
    del found.events[:]
    found.events.extend(kept)
    return found.SerializeToString() if kept else None


def nothing_there(details):
    """Whoever may not read is told that there is nothing to be read."""
    return kv.RangeResponse().SerializeToString() if details in NOT_FOR_THEM else None


NOT_FOR_THEM = {"etcdserver: permission denied", "etcdserver: user name is empty"}
# name: (method, what happens to its refusals)
PARDONS = {"pardoned-ranges": ("/etcdserverpb.KV/Range", nothing_there)}
# name: (method, what happens to its answers)
MISTAKES = {
    "fewer-deleted": ("/etcdserverpb.KV/DeleteRange", fewer_deleted),
    "later-prev-kv": ("/etcdserverpb.KV/Put", later_prev_kv),
    "no-deletes": ("/etcdserverpb.Watch/Watch", no_deletes),
}
STREAMS = {"/etcdserverpb.Watch/Watch", "/etcdserverpb.Lease/LeaseKeepAlive"}


def shown(context):
    """By what the client shows who it is."""
    return [(name, value) for name, value in context.invocation_metadata() if name == "token"]


class Proxy(grpc.GenericRpcHandler):
    def __init__(self, endpoint, mistake):
        self.endpoint = endpoint
        self.method, self.spoil = MISTAKES.get(mistake, (None, None))
        self.pardoned, self.pardon = PARDONS.get(mistake, (None, None))
        self.channel = grpc.insecure_channel(endpoint, options=CHANNEL)
        self.server = grpc.server(ThreadPoolExecutor(THREADS), handlers=(self,),
                                  options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)])
        self.port = self.server.add_insecure_port(f"{HOST}:0")
        self.server.start()

    def close(self):
        self.server.stop(None)
        self.channel.close()

    def service(self, details):
        method = details.method
        if method in STREAMS:
            return grpc.stream_stream_rpc_method_handler(self.stream(method))
        return grpc.unary_unary_rpc_method_handler(self.unary(method))

    def unary(self, method):
        forward = self.channel.unary_unary(method)

        def answer(request, context):
            try:
                found = forward(request, timeout=context.time_remaining(), metadata=shown(context))
            except grpc.RpcError as error:
                pardon = self.pardon(error.details()) if method == self.pardoned else None
                if pardon is not None:
                    return pardon
                context.abort(error.code(), error.details())
            return self.spoil(request, found) if method == self.method else found
        return answer

    def stream(self, method):
        forward = self.channel.stream_stream(method)

        def answers(requests, context):
            call = forward(requests, metadata=shown(context))
            context.add_callback(call.cancel)
            try:
                for found in call:
                    found = self.spoil(found) if method == self.method else found
                    if found is not None:
                        yield found
            except grpc.RpcError as error:
                if context.is_active():
                    context.abort(error.code(), error.details())
        return answers
