"""Works with a server the way a Python program does, through aetcd.

Owns: what is asked of that client, and what must come back. Must never: speak to the server any other way, or share keys
between tests. Needs requirements.txt.

  python aetcd_client.py HOST:PORT
"""

import asyncio
import sys
import time

import aetcd

from checks import expect, named, run_all

ENDS_SECONDS_MAX = 60  # each test
LEASE_SECONDS = 2
EXPIRED_SECONDS_MAX = 15


async def values_and_revisions(client):
    await client.put(b"kv/a", b"1")
    first = await client.get(b"kv/a")
    await client.put(b"kv/a", b"2")
    second = await client.get(b"kv/a")
    expect((second.value, second.version, second.create_revision), (b"2", 2, first.create_revision))
    expect(second.mod_revision, first.mod_revision + 1)
    await client.put(b"kv/b", b"3")
    expect([item.key for item in await client.get_prefix(b"kv/", sort_order="descend")], [b"kv/b", b"kv/a"])
    expect([item.value for item in await client.get_range(b"kv/a", b"kv/b")], [b"2"])
    expect(await client.get(b"kv/none"), None)
    expect((await client.delete(b"kv/a", prev_kv=True)).prev_kv.value, b"2")
    expect(await client.delete(b"kv/a"), None)
    expect(await client.replace(b"kv/b", b"3", b"4"), True)
    expect(await client.replace(b"kv/b", b"3", b"5"), False)
    expect((await client.delete_prefix(b"kv/")).deleted, 1)


async def transactions(client):
    operations = client.transactions
    await client.put(b"txn/a", b"1")
    done, answers = await client.transaction(
        compare=[operations.value(b"txn/a") == b"1", operations.version(b"txn/a") > 0, operations.create(b"txn/b") == 0],
        success=[operations.put(b"txn/b", b"2"), operations.get(b"txn/a"), operations.delete(b"txn/a")],
        failure=[operations.put(b"txn/c", b"3")],
    )
    expect((done, len(answers)), (True, 3))
    expect([await client.get(key) is None for key in (b"txn/a", b"txn/b", b"txn/c")], [True, False, True])
    done, _ = await client.transaction(compare=[operations.mod(b"txn/b") == 1], success=[],
                                       failure=[operations.put(b"txn/c", b"3")])
    expect((done, (await client.get(b"txn/c")).value), (False, b"3"))


async def watches(client):
    watch = await client.watch_prefix(b"watch/", prev_kv=True)
    await client.put(b"watch/a", b"1")
    await client.put(b"other", b"1")
    await client.put(b"watch/a", b"2")
    await client.delete(b"watch/a")
    seen = []
    async for event in watch:
        seen.append((event.kind, event.kv.key, event.kv.value, event.prev_kv.value if event.prev_kv else b""))
        if len(seen) == 3:
            break
    await watch.cancel()
    put, delete = aetcd.EventKind.PUT, aetcd.EventKind.DELETE
    expect(seen, [(put, b"watch/a", b"1", b""), (put, b"watch/a", b"2", b"1"), (delete, b"watch/a", b"", b"2")])


async def watches_of_the_past(client):
    await client.put(b"past/a", b"1")
    revision = (await client.get(b"past/a")).mod_revision
    await client.put(b"past/a", b"2")
    seen = []
    watch = await client.watch(b"past/a", start_revision=revision)
    async for event in watch:
        seen.append((event.kv.mod_revision, event.kv.value))
        if len(seen) == 2:
            break
    await watch.cancel()
    expect(seen, [(revision, b"1"), (revision + 1, b"2")])
    await client.compact(revision + 1, physical=True)
    try:
        async for event in await client.watch(b"past/a", start_revision=revision):
            raise AssertionError(f"{event} of a compacted revision")
    except aetcd.RevisionCompactedError as error:
        expect(error.compacted_revision, revision + 1)
    else:
        raise AssertionError("the watch ended without an error")


async def leases(client):
    lease = await client.lease(600)
    await client.put(b"lease/a", b"1", lease)
    await client.put(b"lease/b", b"1", lease)
    expect(await lease.granted_ttl(), 600)
    expect(590 < await lease.remaining_ttl() <= 600, True)
    expect(sorted(await lease.keys()), [b"lease/a", b"lease/b"])
    expect((await lease.refresh()).TTL, 600)
    await lease.revoke()
    expect([await client.get(key) for key in (b"lease/a", b"lease/b")], [None, None])


async def expiry(client):
    begin = time.monotonic()
    lease = await client.lease(LEASE_SECONDS)
    await client.put(b"expiry/a", b"1", lease)
    event = await client.watch_once(b"expiry/a", timeout=EXPIRED_SECONDS_MAX, kind=aetcd.EventKind.DELETE)
    expect(event.kind, aetcd.EventKind.DELETE)
    expect(time.monotonic() - begin >= LEASE_SECONDS, True)
    expect(await lease.remaining_ttl() < 0, True)


async def locks(client):
    """The recipe: a key with a lease that is put if it is not there, and a watch for its end."""
    holders, most, order = 0, 0, []

    async def work(name):
        nonlocal holders, most
        lock = client.lock(b"lock/one", ttl=30)
        expect(await lock.acquire(timeout=20), True)
        holders += 1
        most = max(most, holders)
        order.append(name)
        await asyncio.sleep(0.05)
        holders -= 1
        expect(await lock.is_acquired(), True)
        await lock.release()

    await asyncio.gather(*(work(name) for name in range(5)))
    expect((most, sorted(order)), (1, [0, 1, 2, 3, 4]))
    first, second = client.lock(b"lock/two", ttl=30), client.lock(b"lock/two", ttl=30)
    expect(await first.acquire(timeout=5), True)
    expect(await second.acquire(timeout=0), False)
    await first.release()
    expect(await second.acquire(timeout=5), True)


async def upkeep(client):
    status = await client.status()
    expect(status.leader.id > 0 and status.db_size > 0, True)
    expect([member.name async for member in client.members()], ["default"])
    expect([alarm async for alarm in client.list_alarms()], [])
    expect(await client.hash() > 0, True)


TESTS = (values_and_revisions, transactions, watches, watches_of_the_past, leases, expiry, locks, upkeep)


async def run(test, host, port):
    async with aetcd.Client(host=host, port=port) as client:
        await asyncio.wait_for(test(client), ENDS_SECONDS_MAX)


def main():
    host, port = sys.argv[1].rsplit(":", 1)
    return run_all(named(TESTS), lambda test: asyncio.run(run(test, host, int(port))))


if __name__ == "__main__":
    sys.exit(main())
