// Services: created, listed, stopped, started, restarted, signalled, logged, deleted.

import { assert, failureOf } from './harness.mjs';

const web = { cmd: 'sh', args: ['-c', 'echo up $A; echo oh >&2; exec sleep 1000000'], env: { A: '1' }, httpPort: 3000 };

async function eventsOf(stream) {
  const events = [];
  await (await stream).processAll((event) => { events.push(event); });
  return events;
}

const types = (events) => events.map((event) => event.type);

async function until(sprite, name, status) {
  for (;;) {
    const { state } = await sprite.getService(name);
    if (state.status === status) return state;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

export const services = {
  name: 'services',
  setUp: async ({ client, newName }) => {
    const sprite = await client.createSprite(newName());
    await eventsOf(sprite.createService('web', web, '1s'));
    return { sprite };
  },
  tests: [
    ['a service is created and shown with its state', async ({ sprite }) => {
      const stream = await sprite.createService('db', { ...web, httpPort: undefined }, '1s');
      const first = await stream.next();
      assert.equal(first.type, 'started');
      assert.equal(typeof first.timestamp, 'number');
      const rest = [];
      for await (const event of stream) rest.push(event);
      assert.ok(rest.some((event) => event.type === 'stdout' && event.data === 'up 1'));
      assert.ok(rest.some((event) => event.type === 'stderr' && event.data === 'oh'));
      const last = rest.at(-1);
      assert.equal(last.type, 'complete');
      assert.equal(last.logFiles.combined, '/.sprite/logs/services/db.log');
      stream.close();
      const shown = await sprite.getService('web');
      assert.deepEqual([shown.cmd, shown.httpPort, shown.env, shown.needs], ['sh', 3000, { A: '1' }, []]);
      assert.equal(shown.state.status, 'running');
      assert.ok(shown.state.pid > 0 && !Number.isNaN(Date.parse(shown.state.startedAt)));
      assert.deepEqual((await sprite.listServices()).map(({ name }) => name), ['db', 'web']);
    }],
    ['a second HTTP port is a conflict', async ({ sprite }) => {
      const error = await failureOf(sprite.createService('other', { cmd: 'true', httpPort: 4000 }));
      assert.match(String(error), /Service conflict: .*another service already has an HTTP port configured/);
    }],
    ['needs that go round are refused', async ({ sprite }) => {
      const error = await failureOf(sprite.createService('web', { ...web, needs: ['web'] }));
      assert.match(String(error), /status 400/);
    }],
    ['a service that ends at once is told, and why', async ({ sprite }) => {
      const events = await eventsOf(sprite.createService('bad', { cmd: 'sh', args: ['-c', 'exit 3'] }, '5s'));
      assert.deepEqual(types(events), ['started', 'exit', 'error', 'complete']);
      assert.equal(events[1].exitCode, 3);
      assert.equal((await until(sprite, 'bad', 'failed')).error, 'exited with status 3');
      await sprite.deleteService('bad');
    }],
    ['a service is stopped, started and restarted', async ({ sprite }) => {
      const stopped = await eventsOf(sprite.stopService('web', '2s'));
      assert.deepEqual(types(stopped), ['stopping', 'stopped', 'complete']);
      assert.equal((await sprite.getService('web')).state.status, 'stopped');
      assert.match(String(await failureOf(sprite.stopService('web'))), /Service not running/);
      const started = await eventsOf(sprite.startService('web', '1s'));
      assert.equal(started[0].type, 'started');
      const before = (await until(sprite, 'web', 'running')).pid;
      const restarted = await eventsOf(sprite.restartService('web', '1s'));
      assert.deepEqual(types(restarted).slice(0, 3), ['stopping', 'stopped', 'started']);
      assert.notEqual((await until(sprite, 'web', 'running')).pid, before);
    }],
    ['logs are read and followed', async ({ sprite }) => {
      const last = await eventsOf(sprite.getServiceLogs('web', { lines: 1 }));
      assert.deepEqual(types(last).slice(-1), ['complete']);
      assert.equal(last.length, 2);
      const all = await eventsOf(sprite.getServiceLogs('web', { duration: '1s' }));
      assert.ok(all.some((event) => event.data === 'up 1'));
    }],
    ['a service is signalled, and starts again when it ends by it', async ({ sprite }) => {
      await sprite.signalService('web', 'SIGKILL');
      for (;;) {
        const { state } = await sprite.getService('web');
        if (state.status === 'running' && state.restartCount === 1) break;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      assert.match(String(await failureOf(sprite.signalService('web', 'NOPE'))), /Invalid signal/);
      assert.match(String(await failureOf(sprite.signalService('gone', 'TERM'))), /Service not found/);
    }],
    ['a service is deleted, and then there is none', async ({ sprite }) => {
      await sprite.deleteService('web');
      assert.match(String(await failureOf(sprite.getService('web'))), /Service not found/);
      assert.match(String(await failureOf(sprite.deleteService('web'))), /Service not found/);
      assert.match(String(await failureOf(sprite.startService('web'))), /Service not found/);
    }],
  ],
};
