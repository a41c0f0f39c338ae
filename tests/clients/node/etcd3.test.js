// Works with a server the way a Node program does, through etcd3 (on grpc-js).
//
// Owns: what is asked of that client, and what must come back. Must never: speak to the server any other way, or share
// keys between tests. Run by node's own test runner; the server's URL is in SERVER_URL.
'use strict';

const { test, before, after } = require('node:test');
const assert = require('node:assert/strict');
const { once } = require('node:events');
const { setTimeout: pause } = require('node:timers/promises');
const { Etcd3, EtcdLockFailedError } = require('etcd3');

const LEASE_SECONDS = 2;
const EXPIRED_SECONDS_MAX = 15;
const options = { timeout: 60_000 };
let client;

before(() => {
  client = new Etcd3({ hosts: process.env.SERVER_URL });
});
after(() => client.close());

test('values', options, async () => {
  await client.put('kv/a').value('1');
  await client.put('kv/b').value('2');
  assert.equal(await client.get('kv/a').string(), '1');
  assert.equal(await client.get('kv/none').string(), null);
  assert.deepEqual(await client.getAll().prefix('kv/').strings(), { 'kv/a': '1', 'kv/b': '2' });
  assert.deepEqual(await client.getAll().prefix('kv/').sort('Key', 'Descend').limit(1).keys(), ['kv/b']);
  assert.equal(await client.getAll().prefix('kv/').count(), 2);
  const before = await client.put('kv/a').value(Buffer.from([0, 255])).getPrevious();
  assert.equal(before.value.toString(), '1');
  assert.deepEqual(await client.get('kv/a').buffer(), Buffer.from([0, 255]));
  assert.equal((await client.delete().prefix('kv/')).deleted, '2');
});

test('transactions', options, async () => {
  const claim = () =>
    client
      .if('txn/a', 'Create', '==', 0)
      .then(client.put('txn/a').value('mine'), client.put('txn/b').value('too'))
      .else(client.get('txn/a'))
      .commit();
  const first = await claim();
  assert.equal(first.succeeded, true);
  const second = await claim();
  assert.equal(second.succeeded, false);
  assert.equal(second.responses[0].response_range.kvs[0].value.toString(), 'mine');
  assert.equal(await client.get('txn/b').string(), 'too');
});

test('software transactions retry until nothing came between', options, async () => {
  await client.put('stm/count').value('0');
  const add = () =>
    client.stm({ retries: 50 }).transact(async (tx) => {
      const value = Number(await tx.get('stm/count').string());
      await tx.put('stm/count').value(String(value + 1));
    });
  await Promise.all(Array.from({ length: 8 }, add));
  assert.equal(await client.get('stm/count').number(), 8);
});

test('watches', options, async () => {
  const watcher = await client.watch().prefix('watch/').withPreviousKV().create();
  const seen = [];
  const all = new Promise((resolve) => {
    const note = (what) => (kv, before) => {
      seen.push([what, kv.key.toString(), kv.value.toString(), before ? before.value.toString() : '']);
      if (seen.length === 3) resolve();
    };
    watcher.on('put', note('put')).on('delete', note('delete'));
  });
  await client.put('watch/a').value('1');
  await client.put('other').value('1');
  await client.put('watch/a').value('2');
  await client.delete().key('watch/a');
  await all;
  await watcher.cancel();
  assert.deepEqual(seen, [
    ['put', 'watch/a', '1', ''],
    ['put', 'watch/a', '2', '1'],
    ['delete', 'watch/a', '', '2'],
  ]);
});

test('many watchers share a stream', options, async () => {
  const watchers = await Promise.all(
    Array.from({ length: 50 }, (_, number) => client.watch().key(`many/${number}`).create()),
  );
  const events = watchers.map((watcher) => once(watcher, 'put'));
  for (let number = 0; number < watchers.length; number += 1) {
    await client.put(`many/${number}`).value(String(number));
  }
  const found = await Promise.all(events);
  assert.deepEqual(found.map(([kv]) => kv.value.toString()), watchers.map((_, number) => String(number)));
  await Promise.all(watchers.map((watcher) => watcher.cancel()));
});

test('a watch begins at a revision of the past', options, async () => {
  const { header } = await client.put('past/a').value('1');
  await client.put('past/a').value('2');
  const watcher = client.watch().key('past/a').startRevision(header.revision).watcher();
  const values = [];
  await new Promise((resolve) => {
    watcher.on('put', (kv) => {
      values.push(kv.value.toString());
      if (values.length === 2) resolve();
    });
  });
  await watcher.cancel();
  assert.deepEqual(values, ['1', '2']);
});

test('leases', options, async () => {
  const lease = client.lease(600, { autoKeepAlive: false });
  await lease.put('lease/a').value('1');
  const id = await lease.grant();
  assert.equal((await client.get('lease/a').exec()).kvs[0].lease, id);
  await lease.keepaliveOnce();
  const { leases } = await client.leaseClient.leaseLeases();
  assert.ok(leases.some((found) => found.ID === id));
  await lease.revoke();
  assert.equal(await client.get('lease/a').string(), null);
});

test('a lease is kept alive, and ends when it is not', options, async () => {
  const kept = client.lease(LEASE_SECONDS);
  await kept.put('expiry/kept').value('1');
  const watcher = await client.watch().key('expiry/left').create();
  // The client asks for the lease here, not with the put.
  const begin = performance.now();
  const left = client.lease(LEASE_SECONDS, { autoKeepAlive: false });
  await left.put('expiry/left').value('1');
  const gone = await Promise.race([once(watcher, 'delete'), pause(EXPIRED_SECONDS_MAX * 1000, null, { ref: false })]);
  assert.ok(gone, 'it has not ended');
  assert.ok(performance.now() - begin >= LEASE_SECONDS * 1000, 'it ended early');
  assert.equal(await client.get('expiry/kept').string(), '1');
  await watcher.cancel();
  await kept.revoke();
});

test('locks', options, async () => {
  let holders = 0;
  let rounds = 0;
  const work = async () => {
    for (;;) {
      try {
        return await client.lock('lock/one').ttl(30).do(async () => {
          holders += 1;
          assert.equal(holders, 1);
          await pause(20);
          holders -= 1;
          rounds += 1;
        });
      } catch (error) {
        assert.ok(error instanceof EtcdLockFailedError, String(error));
        await pause(20);
      }
    }
  };
  await Promise.all(Array.from({ length: 5 }, work));
  assert.equal(rounds, 5);
});

test('elections', options, async () => {
  const [first, second] = [client.election('election', 30), client.election('election', 30)];
  const one = first.campaign('one');
  await once(one, 'elected');
  assert.equal(await first.leader(), 'one');
  const two = second.campaign('two');
  const elected = once(two, 'elected');
  await one.resign();
  await elected;
  assert.equal(await second.leader(), 'two');
  await two.resign();
});
