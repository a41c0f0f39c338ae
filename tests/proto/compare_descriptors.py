#!/usr/bin/env python3
"""Compares the .proto files we ship with what published client libraries were built from.

A client works against us only if every name and number is the one it was compiled with, and our files
are written by hand. So each fact in them (a message, a field, an enum value, an RPC) is held against:

  etcd-client             Rust; the newest .proto files, from the crate as published
  etcd3aio                Python; generated descriptors, one minor of etcd behind
  grpcio-health-checking  Python; gRPC's own health service

Both directions count: what they have and we lack, and what we have and they lack. ALLOWED lists the
only exceptions; one that no longer applies is an error. There is no exception for a fact that both
sides have and differ in. Each of our facts must be confirmed by at least one library.

A library that is missing is an error too. Needs requirements.txt beside this file, and cargo. Usage:

  python compare_descriptors.py
"""

import copy
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import etcd3aio  # noqa: F401  (imported for the descriptors that it registers)
import grpc_tools
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorSet
from grpc_health.v1 import health_pb2  # noqa: F401  (likewise)
from grpc_tools import protoc

HERE = Path(__file__).resolve().parent
OURS = HERE.parents[1] / "proto"
OUR_TREES = ("etcd", "grpc")
ETCD = {"etcdserverpb", "mvccpb", "authpb"}
RECIPES = {"v3lockpb", "v3electionpb"}
HEALTH = {"grpc.health.v1"}
PACKAGES = ETCD | RECIPES | HEALTH


@dataclass(frozen=True)
class Allowed:
    """A thing that only one side has; whatever is nested in it goes with it."""

    library: str
    side: str  # "ours" or "theirs": who has it
    fact: str
    why: str

    def covers(self, fact):
        kind, name = self.fact.split(" ")
        nested = kind in ("message", "service", "enum") and fact.split(" ")[1].startswith(name + ".")
        return fact == self.fact or nested


ALLOWED = [
    Allowed("etcd3aio", "ours", "rpc etcdserverpb.KV.RangeStream", "new in etcd 3.7"),
    Allowed("etcd3aio", "ours", "message etcdserverpb.RangeStreamResponse", "new in etcd 3.7"),
    *(
        Allowed(library, "theirs", "message etcdserverpb.DowngradeVersionTestRequest",
                "a test entry of etcd's own raft log; no RPC takes or returns it")
        for library in ("etcd-client", "etcd3aio")
    ),
    *(
        Allowed("grpcio-health-checking", "theirs", fact,
                "optional: where it is absent the answer is Unimplemented, which its callers expect")
        for fact in ("rpc grpc.health.v1.Health.List", "message grpc.health.v1.HealthListRequest",
                     "message grpc.health.v1.HealthListResponse")
    ),
]


# -- from descriptors to facts ---------------------------------------------------------------------


def facts_of(descriptors, packages):
    """Everything a client depends on, as {"kind full.name": "what it is"}."""
    facts = {}
    for file in descriptors.file:
        if file.package not in packages:
            continue
        for message in file.message_type:
            add_message(facts, file.package, message, file.syntax)
        for enum in file.enum_type:
            add_enum(facts, file.package, enum)
        for service in file.service:
            name = f"{file.package}.{service.name}"
            facts[f"service {name}"] = "service"
            for method in service.method:
                taken = "stream " * method.client_streaming + method.input_type
                given = "stream " * method.server_streaming + method.output_type
                facts[f"rpc {name}.{method.name}"] = f"{taken} -> {given}"
    return facts


def add_message(facts, scope, message, syntax):
    name = f"{scope}.{message.name}"
    facts[f"message {name}"] = syntax + " map entry" * message.options.map_entry
    for field in message.field:
        facts[f"field {name}.{field.name}"] = describe(field, message)
    for nested in message.nested_type:
        add_message(facts, name, nested, syntax)
    for enum in message.enum_type:
        add_enum(facts, name, enum)


def add_enum(facts, scope, enum):
    name = f"{scope}.{enum.name}"
    facts[f"enum {name}"] = "enum"
    for value in enum.value:
        facts[f"value {name}.{value.name}"] = str(value.number)


def describe(field, message):
    label = FieldDescriptorProto.Label.Name(field.label)[len("LABEL_"):].lower()
    kind = FieldDescriptorProto.Type.Name(field.type)[len("TYPE_"):].lower()
    words = [f"= {field.number}", label, kind, field.type_name]
    if field.HasField("oneof_index"):
        words.append(f"in oneof {message.oneof_decl[field.oneof_index].name}")
    if field.proto3_optional:
        words.append("explicit presence")
    if field.options.HasField("packed"):
        words.append(f"packed {field.options.packed}")
    # Generated Python leaves the default JSON name out; .proto compilers write it.
    default = re.sub("_+(.?)", lambda match: match[1].upper(), field.name)
    words.append(f"json {field.json_name or default}")
    return " ".join(word for word in words if word)


# -- where the descriptors come from ---------------------------------------------------------------


def compile_protos(root, files):
    """Compiles with Google's compiler: not the one that builds covey."""
    builtin = Path(grpc_tools.__file__).parent / "_proto"
    with tempfile.NamedTemporaryFile(suffix=".bin") as out:
        options = [f"-I{root}", f"-I{builtin}", "--include_imports", f"--descriptor_set_out={out.name}"]
        if protoc.main(["protoc", *options, *map(str, files)]) != 0:
            sys.exit(f"the .proto files in {root} do not compile")
        return FileDescriptorSet.FromString(Path(out.name).read_bytes())


def from_tree(root, trees):
    return compile_protos(root, sorted(file for tree in trees for file in (root / tree).rglob("*.proto")))


def crate_root(name):
    """Lets Cargo fetch a crate, checked against the lock file, and says where it lies and its version."""
    manifest = HERE / "reference" / "Cargo.toml"
    command = ["cargo", "metadata", "--locked", "--format-version=1", f"--manifest-path={manifest}",
               "--filter-platform=x86_64-unknown-linux-gnu"]  # any one: spares the others' crates
    metadata = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    [package] = [package for package in metadata["packages"] if package["name"] == name]
    return Path(package["manifest_path"]).parent, package["version"]


def from_python(*symbols):
    """What an imported library has registered with the protobuf runtime."""
    pool = descriptor_pool.Default()
    descriptors = FileDescriptorSet()
    for symbol in symbols:
        file = descriptors.file.add()
        pool.FindFileContainingSymbol(symbol).CopyToProto(file)
        file.syntax = file.syntax or "proto2"
    return descriptors


def references():
    """(library, its version, its packages, its facts) for each one."""
    crate, crate_version = crate_root("etcd-client")
    etcd_client = from_tree(crate / "proto", ["etcd"])
    etcd3aio_set = from_python("etcdserverpb.KV", "mvccpb.KeyValue", "authpb.User")
    health = from_python("grpc.health.v1.Health")
    sources = [
        ("etcd-client", crate_version, ETCD | RECIPES, etcd_client),
        ("etcd3aio", version("etcd3aio"), ETCD, etcd3aio_set),
        ("grpcio-health-checking", version("grpcio-health-checking"), HEALTH, health),
    ]
    return [(name, ver, packages, facts_of(fds, packages)) for name, ver, packages, fds in sources]


# -- the comparison --------------------------------------------------------------------------------


def compare(descriptors, libraries, allowed=tuple(ALLOWED)):
    """All that is wrong, one line each."""
    wrong = []
    used, confirmed = set(), set()

    def one_sided(library, side, fact):
        entries = [entry for entry in allowed if (entry.library, entry.side) == (library, side)]
        covering = [entry for entry in entries if entry.covers(fact)]
        used.update(covering)
        if not covering:
            wrong.append(f"{library}: only {side}: {fact}")

    for library, _, packages, theirs in libraries:
        ours = facts_of(descriptors, packages)
        for fact in sorted(ours.keys() | theirs.keys()):
            if fact not in theirs:
                one_sided(library, "ours", fact)
            elif fact not in ours:
                one_sided(library, "theirs", fact)
            elif ours[fact] != theirs[fact]:
                wrong.append(f"{library}: {fact}: ours {ours[fact]!r}, theirs {theirs[fact]!r}")
            else:
                confirmed.add(fact)

    packages = {file.package for file in descriptors.file}
    if packages != PACKAGES:
        wrong.append(f"packages are {sorted(packages)}, expected {sorted(PACKAGES)}")
    unconfirmed = facts_of(descriptors, packages).keys() - confirmed
    wrong += [f"confirmed by no library: {fact}" for fact in sorted(unconfirmed)]
    wrong += [f"exception no longer needed: {entry}" for entry in allowed if entry not in used]
    return wrong


# -- does the comparison see anything? -------------------------------------------------------------


def mutations(descriptors):
    """(what was changed, the changed descriptors): each must be noticed."""

    def changed(what, change):
        mutant = copy.deepcopy(descriptors)
        files = {f"{file.package}.{item.name}": item for file in mutant.file
                 for item in (*file.message_type, *file.enum_type, *file.service)}
        change(files)
        return what, mutant

    def field(files, message, name):
        [found] = [field for field in files[message].field if field.name == name]
        return found

    compare_ = "etcdserverpb.Compare"
    yield changed("a field number", lambda f: setattr(field(f, compare_, "range_end"), "number", 9))
    yield changed("a field name", lambda f: setattr(field(f, "etcdserverpb.Member", "ID"), "name", "id"))
    yield changed("a field type", lambda f: setattr(field(f, "mvccpb.KeyValue", "lease"), "type", 4))
    yield changed("a message type", lambda f: setattr(
        field(f, "v3lockpb.LockResponse", "header"), "type_name", ".mvccpb.KeyValue"))
    yield changed("a label", lambda f: setattr(field(f, "authpb.User", "roles"), "label", 1))
    yield changed("a field out of its oneof", lambda f: field(f, compare_, "lease").ClearField("oneof_index"))
    yield changed("a oneof's name", lambda f: setattr(f[compare_].oneof_decl[0], "name", "target"))
    yield changed("a field gone", lambda f: f["grpc.health.v1.HealthCheckRequest"].ClearField("field"))
    yield changed("an enum number", lambda f: setattr(f["etcdserverpb.AlarmType"].value[1], "number", 3))
    yield changed("an enum value's name", lambda f: setattr(
        f["mvccpb.Event"].enum_type[0].value[0], "name", "SET"))
    yield changed("a message renamed", lambda f: setattr(f["v3electionpb.LeaderKey"], "name", "Leader"))
    yield changed("a service gone", lambda f: setattr(f["etcdserverpb.Watch"], "name", "Watches"))
    yield changed("an RPC gone", lambda f: f["etcdserverpb.Auth"].method.pop())
    yield changed("a stream made unary", lambda f: setattr(
        f["etcdserverpb.KV"].method[1], "server_streaming", False))
    yield changed("another answer", lambda f: setattr(
        f["v3lockpb.Lock"].method[0], "output_type", ".v3lockpb.UnlockResponse"))


def main():
    descriptors = from_tree(OURS, OUR_TREES)
    libraries = references()
    wrong = compare(descriptors, libraries)
    for line in wrong:
        print(f"FAIL {line}")
    for library, ver, packages, theirs in libraries:
        print(f"{library} {ver}: {len(theirs)} facts in {', '.join(sorted(packages))}")
    print(f"ours: {len(facts_of(descriptors, PACKAGES))} facts; {len(ALLOWED)} exceptions")

    blind = [what for what, mutant in mutations(descriptors)
             if set(compare(mutant, libraries)) <= set(wrong)]
    stale = Allowed("etcd3aio", "ours", "rpc etcdserverpb.KV.Put", "a stale exception")
    if set(compare(descriptors, libraries, (*ALLOWED, stale))) <= set(wrong):
        blind.append(stale.why)
    for what in blind:
        print(f"FAIL the comparison does not notice {what}")

    failed = len(wrong) + len(blind)
    checked = len(facts_of(descriptors, PACKAGES))
    print(f"{checked} passed, {failed} failed" if not failed else f"0 passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
