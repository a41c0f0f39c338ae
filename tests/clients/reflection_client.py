"""Works with a server as a program does that knows nothing of its API and asks for it by gRPC's reflection.

Owns: what is asked, and what must come back. Must never: know a message of the API in any other way. The server, its users and its certificates
are those of secure.py. Needs requirements.txt.

  python reflection_client.py HOST:PORT CERTIFICATES
"""

import sys
from pathlib import Path

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from checks import expect, run_all

# The package only speaks the first; the messages of the second are the same.
VERSIONS = ("grpc.reflection.v1alpha", "grpc.reflection.v1")
SERVICES = {"covey.v1.Admin", "etcdserverpb.Auth", "etcdserverpb.Cluster", "etcdserverpb.KV", "etcdserverpb.Lease",
            "etcdserverpb.Maintenance", "etcdserverpb.Watch", "grpc.health.v1.Health", "v3electionpb.Election", "v3lockpb.Lock"}
CALL_SECONDS_MAX = 20


class Api:
    """All that can be called, by what the server tells of it."""

    def __init__(self, channel, version):
        self.channel = channel
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.database._stub.ServerReflectionInfo = channel.stream_stream(
            f"/{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString)
        self.pool = DescriptorPool(self.database)

    def call(self, service, method, token=None, **fields):
        described = self.pool.FindServiceByName(service).methods_by_name[method]
        asked, answered = GetMessageClass(described.input_type), GetMessageClass(described.output_type)
        call = self.channel.unary_unary(f"/{service}/{method}", request_serializer=asked.SerializeToString,
                                        response_deserializer=answered.FromString)
        metadata = (("token", token),) if token else ()
        return call(asked(**fields), metadata=metadata, timeout=CALL_SECONDS_MAX)


def check(channel, version):
    api = Api(channel, version)
    expect(set(api.database.get_services()), SERVICES)
    # Nobody has logged in yet: what there is to call is told to everybody.
    for service in SERVICES:
        for method in api.pool.FindServiceByName(service).methods:
            GetMessageClass(method.input_type), GetMessageClass(method.output_type)
    token = api.call("etcdserverpb.Auth", "Authenticate", name="root", password="root").token
    put = api.call("etcdserverpb.KV", "Put", token, key=b"reflected", value=version.encode())
    found = api.call("etcdserverpb.KV", "Range", token, key=b"reflected")
    expect([(kv.value, kv.mod_revision) for kv in found.kvs], [(version.encode(), put.header.revision)])
    for unknown in (api.pool.FindServiceByName, api.pool.FindMessageTypeByName, api.pool.FindFileByName):
        try:
            unknown("etcdserverpb.Nothing")
        except KeyError:
            continue
        raise AssertionError(f"{unknown} knows it")


def main():
    endpoint, certificates = sys.argv[1], Path(sys.argv[2])
    files = (certificates / name for name in ("ca.pem", "somebody.key", "somebody.pem"))
    credentials = grpc.ssl_channel_credentials(*(file.read_bytes() for file in files))

    def run(version):
        with grpc.secure_channel(endpoint, credentials) as channel:
            check(channel, version)

    return run_all([(version, version) for version in VERSIONS], run)


if __name__ == "__main__":
    sys.exit(main())
