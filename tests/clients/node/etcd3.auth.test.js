// Works with a server that wants certificates and users the way a Node program does, through etcd3 (on grpc-js).
//
// Owns: what is asked of that client, and what must come back. Must never: speak to the server any other way, or share keys
// between tests. Run by node's own test runner; the server, its users and its certificates are those of secure.py: its URL is in
// SERVER_URL, and their directory in CERTIFICATES.
'use strict';

const { test } = require('node:test');
const assert = require('node:assert/strict');
const { once } = require('node:events');
const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { setTimeout: pause } = require('node:timers/promises');
const {
  Etcd3,
  EtcdAuthenticationFailedError,
  EtcdInvalidAuthTokenError,
  EtcdPermissionDeniedError,
  GRPCUnavailableError,
  Range,
} = require('etcd3');

const TOKEN_SECONDS = 2; // as secure.py has it
const options = { timeout: 60_000 };

// Runs `work` with the client of somebody who has this certificate, or none, and this name and password, or none.
async function as(certificate, name, work) {
  const read = (file) => readFileSync(join(process.env.CERTIFICATES, file));
  const credentials = { rootCertificate: read('ca.pem') };
  if (certificate) {
    credentials.certChain = read(`${certificate}.pem`);
    credentials.privateKey = read(`${certificate}.key`);
  }
  const [username, password] = name ? [name, name] : [];
  const auth = name ? { username, password } : undefined;
  const client = new Etcd3({ hosts: process.env.SERVER_URL, credentials, auth });
  try {
    return await work(client);
  } finally {
    client.close();
  }
}

const denied = (call) => assert.rejects(call, EtcdPermissionDeniedError);

test('a wrong password logs nobody in', options, async () => {
  await as('somebody', 'nobody', async (client) => {
    await assert.rejects(client.get('k/1').string(), EtcdAuthenticationFailedError);
  });
});

test('a role is for its keys', options, async () => {
  await as('somebody', 'reader', async (client) => {
    assert.equal(await client.get('k/1').string(), 'v');
    assert.equal((await client.getAll().prefix('k/1').strings())['k/1'], 'v');
    await denied(client.get('other').string());
    await denied(client.getAll().strings());
    await denied(client.put('k/1').value('w'));
    await denied(client.delete().key('k/1').exec());
    await denied(client.if('k/1', 'Create', '>', 0).then(client.put('k/1').value('w')).commit());
    await denied(client.getUsers());
  });
});

test('a token that has ended is replaced by the client', options, async () => {
  await as('somebody', 'reader', async (client) => {
    assert.equal(await client.get('k/1').string(), 'v');
    // etcd looks once a second.
    await pause((TOKEN_SECONDS + 2) * 1000);
    assert.equal(await client.get('k/1').string(), 'v');
  });
});

test('a certificate is enough for its user, and one of no user permits nothing', options, async () => {
  await as('certified', null, async (client) => {
    await client.put('k/node').value('1');
    assert.equal(await client.get('k/node').string(), '1');
    await denied(client.put('other').value('1'));
    await client.delete().key('k/node');
  });
  await as('somebody', null, (client) => denied(client.get('k/1').string()));
});

test('without a certificate nobody gets in', options, async () => {
  await as(null, null, (client) => assert.rejects(client.get('k/1').string(), GRPCUnavailableError));
});

test('watches are for keys that may be read', options, async () => {
  await as('certified', null, async (client) => {
    const watcher = await client.watch().prefix('k/watched/').create();
    const told = once(watcher, 'put');
    await client.put('k/watched/1').value('1');
    assert.equal((await told)[0].value.toString(), '1');
    await watcher.cancel();
    // The client's own watcher would leave its stream open once it was refused, and keep node from ending.
    const stream = await client.watchClient.watch();
    stream.write({ create_request: { key: Buffer.from('other') } });
    const [refusal] = await once(stream, 'data');
    assert.deepEqual([refusal.created, refusal.canceled], [true, true]);
    assert.match(refusal.cancel_reason, /etcdserver: permission denied/);
    stream.on('error', () => undefined);
    stream.cancel();
  });
});

test('root changes what others may', options, async () => {
  await as('somebody', 'root', async (root) => {
    const role = await root.role('guests').create();
    await role.grant({ permission: 'Readwrite', range: Range.prefix('guest/') });
    const user = await root.user('guest').create('guest');
    await user.addRole('guests');
    await as('somebody', 'guest', async (client) => {
      await client.put('guest/1').value('1');
      await denied(client.put('other').value('1'));
      await user.removeRole('guests');
      await denied(client.put('guest/1').value('2'));
      await user.delete();
      await assert.rejects(client.get('guest/1').string(), (error) =>
        error instanceof EtcdAuthenticationFailedError || error instanceof EtcdInvalidAuthTokenError);
    });
    await role.delete();
    assert.deepEqual((await root.getRoles()).map((left) => left.name).includes('guests'), false);
  });
});
