"""Works with a server that wants certificates and users the way a Python program does, through etcd3aio.

Owns: what is asked of that client, and what must come back. Must never: speak to the server any other way, or share keys between tests. The
server, its users and its certificates are those of secure.py. Needs requirements.txt.

  python etcd3aio_client.py HOST:PORT CERTIFICATES
"""

import asyncio
import sys
from pathlib import Path

import etcd3aio
import grpc
from etcd3aio.errors import EtcdConnectionError, EtcdPermissionDeniedError, EtcdUnauthenticatedError

from checks import expect, named, run_all

ENDS_SECONDS_MAX = 60  # each test
# As secure.py has it.
TOKEN_SECONDS = 2
SOMEBODY, CERTIFIED = "somebody", "certified"


async def refused(call, error, text):
    """Waits for a refusal of this kind that says this."""
    try:
        answer = await call
    except error as refusal:
        if text not in str(refusal):
            raise AssertionError(f"{refusal} does not say {text!r}") from refusal
    else:
        raise AssertionError(f"{answer} instead of a refusal: {text}")


async def denied(call):
    await refused(call, EtcdPermissionDeniedError, "etcdserver: permission denied")


class Scene:
    """A server, and who comes to it."""

    def __init__(self, endpoint, certificates):
        self.endpoint = endpoint
        self.certificates = Path(certificates)

    def client(self, certificate):
        """Somebody with this certificate, or with none."""
        def read(name):
            return (self.certificates / name).read_bytes()
        shown = {} if certificate is None else {
            "cert_chain": read(f"{certificate}.pem"), "cert_key": read(f"{certificate}.key")}
        return etcd3aio.Etcd3Client([self.endpoint], ca_cert=read("ca.pem"), tls_server_name="localhost",
                                    rpc_max_attempts=1, **shown)


async def log_in(client, name, password=None):
    client.set_token((await client.auth.authenticate(name, password or name)).token)


async def passwords(scene):
    async with scene.client(SOMEBODY) as client:
        failed = "etcdserver: authentication failed, invalid user ID or password"
        for name, password in (("reader", "another"), ("nobody", "nobody")):
            await refused(client.auth.authenticate(name, password), grpc.aio.AioRpcError, failed)
        no_password = "auth: authentication failed, password was given for no password user"
        await refused(client.auth.authenticate(CERTIFIED, CERTIFIED), grpc.aio.AioRpcError, no_password)
        await log_in(client, "reader")
        expect((await client.kv.get("k/1")).kvs[0].key, b"k/1")


async def a_role_is_for_its_keys(scene):
    async with scene.client(SOMEBODY) as client:
        await log_in(client, "reader")
        expect((await client.kv.get("k/", "k0", count_only=True)).count >= 1, True)
        for wanted in (("other", None), ("k/", "k1"), ("k/", b"\0"), (b"\0", b"\0")):
            await denied(client.kv.get(*wanted))
            await denied(client.kv.get(*wanted, serializable=True))
        await denied(client.kv.put("k/1", "w"))
        await denied(client.kv.delete("k/1"))
        await denied(client.auth.user_list())
        await denied(client.kv.compact(1))
        expect((await client.auth.user_get("reader")).roles, ["reads"])


async def a_certificate_is_enough_for_its_user(scene):
    async with scene.client(CERTIFIED) as client:
        await client.kv.put("k/certified", "1")
        expect((await client.kv.get("k/certified")).kvs[0].value, b"1")
        await denied(client.kv.put("other", "1"))
        # A token counts before the certificate.
        await log_in(client, "reader")
        await denied(client.kv.put("k/certified", "2"))
        client.set_token("none.1")
        await refused(client.kv.get("k/certified"), EtcdUnauthenticatedError, "etcdserver: invalid auth token")
        client.set_token(None)
        expect((await client.kv.delete("k/certified")).deleted, 1)


async def a_certificate_of_no_user_permits_nothing(scene):
    async with scene.client(SOMEBODY) as client:
        await denied(client.kv.get("k/1"))
        await denied(client.kv.put("k/1", "w"))


async def without_a_certificate_nobody_gets_in(scene):
    async with scene.client(None) as client:
        await refused(client.kv.get("k/1", timeout=10), EtcdConnectionError, "UNAVAILABLE")


async def a_token_ends_unless_it_is_renewed(scene):
    async with scene.client(SOMEBODY) as client:
        await log_in(client, "reader")
        # etcd looks once a second.
        await asyncio.sleep(TOKEN_SECONDS + 2)
        await refused(client.kv.get("k/1"), EtcdUnauthenticatedError, "etcdserver: invalid auth token")
        async with client.token_refresher("reader", "reader", interval=TOKEN_SECONDS / 4):
            for _ in range(4):
                await asyncio.sleep(TOKEN_SECONDS)
                expect((await client.kv.get("k/1")).count, 1)


async def root_changes_what_others_may(scene):
    async with scene.client(SOMEBODY) as root, scene.client(SOMEBODY) as client:
        await log_in(root, "root")
        await root.auth.role_add("guests")
        await root.auth.role_grant_permission("guests", "guest/", "guest0",
                                              perm_type=etcd3aio.PermissionType.READWRITE)
        await root.auth.user_add("guest", "guest")
        await log_in(client, "guest")
        await denied(client.kv.put("guest/1", "1"))
        await root.auth.user_grant_role("guest", "guests")
        await client.kv.put("guest/1", "1")
        await root.auth.role_revoke_permission("guests", "guest/", "guest0")
        await denied(client.kv.get("guest/1"))
        await root.auth.user_delete("guest")
        await refused(client.kv.get("guest/1"), EtcdUnauthenticatedError, "etcdserver: invalid auth token")
        await root.auth.role_delete("guests")
        expect("guest" in (await root.auth.user_list()).users, False)


async def watches_and_leases(scene):
    async with scene.client(CERTIFIED) as client:
        watch = client.watch.watch("k/watched/", "k/watched0")
        expect((await anext(watch)).created, True)
        lease = (await client.lease.grant(600)).ID
        await client.kv.put("k/watched/1", "1", lease=lease)
        expect([event.kv.value for event in (await anext(watch)).events], [b"1"])
        await client.lease.revoke(lease)
        expect([event.kv.key for event in (await anext(watch)).events], [b"k/watched/1"])
        await watch.aclose()
        refusal = await anext(client.watch.watch("other"))
        expect((refusal.canceled, "permission denied" in refusal.cancel_reason), (True, True))


TESTS = (passwords, a_role_is_for_its_keys, a_certificate_is_enough_for_its_user,
         a_certificate_of_no_user_permits_nothing, without_a_certificate_nobody_gets_in,
         a_token_ends_unless_it_is_renewed, root_changes_what_others_may, watches_and_leases)


def main():
    scene = Scene(*sys.argv[1:])
    return run_all(named(TESTS), lambda test: asyncio.run(asyncio.wait_for(test(scene), ENDS_SECONDS_MAX)))


if __name__ == "__main__":
    sys.exit(main())
