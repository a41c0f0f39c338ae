"""Requests that go through a server's JSON gateway.

Owns: the connections to it, one for each request, and that what it says is proto3 JSON as etcd writes it. Must never:
know what an operation means. Driven by side.py: a call here looks like one of gRPC's.
"""

import http.client
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import grpc
from google.protobuf import json_format

# name of the operation: path behind /v3/
PATHS = {
    "range": "kv/range", "put": "kv/put", "delete": "kv/deleterange", "txn": "kv/txn", "compact": "kv/compaction",
    "grant": "lease/grant", "revoke": "kv/lease/revoke", "time_to_live": "lease/timetolive", "leases": "lease/leases",
    "hash_kv": "maintenance/hashkv", "status": "maintenance/status", "alarm": "maintenance/alarm", "lock": "lock/lock",
    "unlock": "lock/unlock", "campaign": "election/campaign", "proclaim": "election/proclaim",
    "leader": "election/leader", "resign": "election/resign", "defragment": "maintenance/defragment",
    "hash": "maintenance/hash", "move_leader": "maintenance/transfer-leadership", "member_list": "cluster/member/list",
    "member_add": "cluster/member/add", "member_remove": "cluster/member/remove", "member_promote": "cluster/member/promote",
    "member_update": "cluster/member/update",
    "auth_enable": "auth/enable", "auth_disable": "auth/disable", "auth_status": "auth/status", "login": "auth/authenticate",
    "user_add": "auth/user/add", "user_get": "auth/user/get", "user_list": "auth/user/list", "user_delete": "auth/user/delete",
    "change_password": "auth/user/changepw", "grant_role": "auth/user/grant", "revoke_role": "auth/user/revoke",
    "role_add": "auth/role/add", "role_get": "auth/role/get", "role_list": "auth/role/list", "role_delete": "auth/role/delete",
    "grant_permission": "auth/role/grant", "revoke_permission": "auth/role/revoke",
}
# The same for those that stream.
STREAMS = {"watch": "watch", "keep_alive": "lease/keepalive", "observe": "election/observe"}
CODES = {code.value[0]: code for code in grpc.StatusCode}
# As gRPC's gateway maps them (API reference, section 10).
HTTP = {"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "NOT_FOUND": 404, "UNKNOWN": 500,
        "PERMISSION_DENIED": 403, "UNAUTHENTICATED": 401, "RESOURCE_EXHAUSTED": 429, "UNAVAILABLE": 503, "UNIMPLEMENTED": 501, "DEADLINE_EXCEEDED": 504}
# What an answer counts as that is no gateway's.
WRONG = grpc.StatusCode.DATA_LOSS
SILENT = (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


class Refused(grpc.RpcError):
    """An error, as gRPC's callers see it."""

    def __init__(self, code, details):
        super().__init__(details)
        self._code, self._details = code, details

    def code(self):
        return self._code

    def details(self):
        return self._details


@contextmanager
def as_by_grpc():
    """No answer, and a connection that ends, are what gRPC calls them."""
    try:
        yield
    except TimeoutError:
        raise Refused(*SILENT) from None
    except (OSError, http.client.HTTPException) as error:
        raise Refused(grpc.StatusCode.UNAVAILABLE, repr(error)) from error


class JsonStream:
    """What a call of a streaming method brings, line by line. It is made when the first of them is asked for."""

    def __init__(self, gateway, name, body, response, token):
        self.gateway, self.name, self.response = gateway, name, response
        self.body, self.headers = body, {} if token is None else {"Authorization": token}
        self.connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=gateway.seconds_max)
        self.answer = None

    def line(self):
        if self.answer is None:
            self.connection.request("POST", f"/v3/{STREAMS[self.name]}", self.body, self.headers)
            self.answer = self.connection.getresponse()
        return self.answer.readline()

    def next(self):
        """The next message; None at the end. An error is raised, wherever it comes."""
        with as_by_grpc():
            line = self.line()
        if not line:
            return None
        found = json.loads(line)
        if "result" in found:
            return self.gateway.read(self.name, found["result"], self.response)
        # Before the first message it is the whole answer, after that a line of its own.
        error = found.get("error", {}) if isinstance(found.get("error"), dict) else found
        code = CODES[error.get("code", error.get("grpc_code"))]
        raise Refused(code, error["message"])

    def close(self):
        self.connection.close()


class Gateway:
    """A thread that asks one server and waits for its answers."""

    def __init__(self, server, seconds_max):
        self.url, self.seconds_max = server.url, seconds_max
        self.thread = ThreadPoolExecutor(1)

    def close(self):
        self.thread.shutdown()

    def send(self, name, request, response, token):
        return self.thread.submit(self.ask, name, request, response, token)

    def ask(self, name, request, response, token):
        body = json_format.MessageToJson(request, preserving_proto_field_name=True, indent=None)
        connection = http.client.HTTPConnection(self.url.removeprefix("http://"), timeout=self.seconds_max)
        with closing(connection), as_by_grpc():
            connection.request("POST", f"/v3/{PATHS[name]}", body, {} if token is None else {"Authorization": token})
            answer = connection.getresponse()
            kind, text = answer.headers["Content-Type"], answer.read()
        if kind != "application/json":
            raise self.wrong(name, f"{kind!r}: {text!r}")
        found = json.loads(text)
        if answer.status != 200:
            code, details = CODES[found["code"]], found["message"]
            if HTTP.get(code.name) != answer.status or found.get("error", details) != details:
                raise self.wrong(name, f"{answer.status} with {found!r}")
            raise Refused(code, details)
        return self.read(name, found, response)

    def read(self, name, found, response):
        """The message that JSON is of, if it is written as it has to be."""
        try:
            message = json_format.ParseDict(found, response())
        except json_format.Error as error:
            raise self.wrong(name, f"{found!r}: {error}") from error
        canonical = json_format.MessageToDict(message, preserving_proto_field_name=True)
        if found != canonical:
            raise self.wrong(name, f"{found!r} is not written as {canonical!r}")
        return message

    def stream(self, name, requests, response, token):
        """A call whose messages come one by one: each as JSON, without a break between them."""
        body = "".join(json_format.MessageToJson(request, preserving_proto_field_name=True, indent=None) for request in requests)
        return JsonStream(self, name, body, response, token)

    def wrong(self, name, what):
        return Refused(WRONG, f"{self.url}: {name}: {what}")
