"""One of the two servers that are compared.

Owns: the connection to it, and taking out of its answers what two servers need not have in common. Must never: know the
other one. Driven by player.py.
"""

import re
import urllib.request
import zlib

import grpc
from certificates import is_by_certificate, named
from gateway import Gateway
from operations import BY, HEADER, REQUESTS, RESPONSES, STUBS, fill, plain
from watching import Stream

REQUEST_SECONDS_MAX = 30
ONE_BY_JSON_OF = 4
CHANNEL = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1),
           ("grpc.max_send_message_length", -1), ("grpc.enable_http_proxy", 0)]
# Who the player itself is where users count: it may do everything, and no sequence knows of it.
KEEPER, KEEPERS_PASSWORD = "~keeper", "~keeper"
NO_TOKEN = "none.1"
PROXY_FREE = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Side:
    """One of the two servers, with the connection to it."""

    def __init__(self, server, endpoint=None, certificates=None):
        self.server, self.endpoint, self.certificates = server, endpoint or server.endpoint, certificates
        self.aliases, self.alias_of = {}, {}
        self.tokens = {}  # user: the token of the last login
        self.connect()

    def connect(self):
        self.channels, self.stubs = {}, {}
        self.gateway = Gateway(self.server, REQUEST_SECONDS_MAX)
        self.streams = {}
        self.own = {}
        if KEEPER in self.tokens:
            self.log_in_keeper()
        header = self.call("status", {}).result().header
        self.own = {"cluster_id": header.cluster_id, "member_id": header.member_id}

    def disconnect(self):
        for stream in self.streams.values():
            stream.close()
        self.streams = {}
        for channel in self.channels.values():
            channel.close()
        self.gateway.close()

    def log_in_keeper(self):
        """None while nobody can log in, and then nobody has to."""
        answer = self.answer(self.call("login", {"name": KEEPER, "password": KEEPERS_PASSWORD}))
        self.tokens[KEEPER] = answer.get("ok", {}).get("token")

    def stubs_of(self, by):
        """On the connection of whoever asks: all have the same where there are no certificates."""
        name = named(by)
        if self.certificates is None:
            name = None
        if name not in self.stubs:
            self.channels[name] = (grpc.insecure_channel(self.endpoint, options=CHANNEL) if name is None
                                   else self.certificates.channel(self.endpoint, name, CHANNEL))
            self.stubs[name] = {service: stub(self.channels[name]) for service, stub in STUBS.items()}
        return self.stubs[name]

    def token(self, by):
        """Whoever has not logged in shows a token that is none."""
        return None if by is None or is_by_certificate(by) else self.tokens.get(by, None if by == KEEPER else NO_TOKEN)

    def metadata(self, by):
        token = self.token(by)
        return None if token is None else (("token", token),)

    def call(self, name, fields, resolve=None):
        """What the player itself wants to know, or to be so."""
        return self.send(name, fill(REQUESTS[name][2](), fields, resolve), KEEPER)

    def send(self, name, request, by):
        service, method, _ = REQUESTS[name]
        call = getattr(self.stubs_of(by)[service], method)
        return call.future(request, timeout=REQUEST_SECONDS_MAX, metadata=self.metadata(by))

    def send_any_way(self, operation, request):
        """Through the JSON gateway, or by gRPC: which of them follows from the operation, so that both servers are asked alike."""
        name, fields = operation
        # A gateway makes nothing of certificates.
        if self.certificates is None and zlib.crc32(repr(operation).encode()) % ONE_BY_JSON_OF == 0:
            return self.gateway.send(name, request, RESPONSES[name], self.token(fields.get(BY)))
        return self.send(name, request, fields.get(BY))

    def answer(self, call):
        try:
            return {"ok": self.clean(plain(call.result()))}
        except grpc.RpcError as error:
            return {"error": error.code().name, "details": error.details()}

    def clean(self, found):
        """Takes out what two servers need not have in common: their ids, their terms, the lease ids they chose."""
        for name, value in found.items():
            if name == HEADER:
                for which, mine in self.own.items():
                    if value.get(which) == mine:
                        value[which] = "its own"
                if value.get("raft_term", 0) > 0:
                    value["raft_term"] = "some"
            elif name in ("lease", "ID"):
                found[name] = self.alias_of.get(value, value)
            elif isinstance(value, dict):
                self.clean(value)
            elif isinstance(value, list):
                for item in value:
                    if isinstance(item, dict):
                        self.clean(item)
        return found

    def metric(self, name):
        opener = PROXY_FREE
        if self.certificates is not None:
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}),
                                                 urllib.request.HTTPSHandler(context=self.certificates.context()))
        with opener.open(f"{self.server.url}/metrics", timeout=REQUEST_SECONDS_MAX) as page:
            text = page.read().decode()
        return float(re.search(rf"^etcd_debugging_{name} (\S+)$", text, re.MULTILINE)[1])

    def stream(self, number):
        if number not in self.streams:
            by = number.split("/")[0] if isinstance(number, str) else None
            self.streams[number] = Stream(self.stubs_of(by or None)["watch"], self.clean, self.metadata(by or None))
        return self.streams[number]
