"""Makes Python stubs from our own .proto files.

Owns: the compiler's invocation. Must never: take descriptors from anywhere else. Used by tests/crash and
tests/differential; needs grpcio-tools (their requirements.txt).
"""

import importlib
import os
import sys
import tempfile
from pathlib import Path

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"  # its fork handlers can hang a process that starts servers

import grpc_tools  # noqa: E402
from grpc_tools import protoc  # noqa: E402

PROTOS = Path(__file__).resolve().parents[2] / "proto"


def make_stubs(*services):
    """For each file of proto/etcd that is named (`kv`), a pair: (messages, service stubs)."""
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    files = [f"etcd/{path.name}" for path in sorted((PROTOS / "etcd").glob("*.proto"))]
    with tempfile.TemporaryDirectory(prefix="stubs-") as out:
        options = [f"-I{PROTOS}", f"-I{builtin}", f"--python_out={out}", f"--grpc_python_out={out}"]
        if protoc.main(["protoc", *options, *files]) != 0:
            sys.exit("the .proto files do not compile")
        sys.path.insert(0, out)
        try:
            return [(importlib.import_module(f"etcd.{name}_pb2"), importlib.import_module(f"etcd.{name}_pb2_grpc"))
                    for name in services]
        finally:
            sys.path.remove(out)
