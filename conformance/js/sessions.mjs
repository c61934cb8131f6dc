// Sessions: listed, left, found again, killed.

import { assert, collect, eventually, failureOf, opened } from './harness.mjs';

/** Leaves a command as a lost connection would: the session goes on without us. */
async function leave(command) {
  const closed = new Promise((resolve) => command.wsCmd.ws.addEventListener('close', resolve));
  command.wsCmd.close();
  await closed;
}

/** The session that runs `mark`, once it is listed. */
async function find(sprite, mark) {
  return eventually(10_000, `a session with ${mark}`, async () => {
    const sessions = await sprite.listSessions();
    return sessions.find((session) => session.command.includes(mark));
  });
}

const count = (to, status, mark) =>
  `: ${mark}; i=0; while [ $i -lt ${to} ]; do i=$((i+1)); echo tick $i; sleep 0.1; done; exit ${status}`;

const ticks = (to) => Array.from({ length: to }, (_, i) => `tick ${i + 1}\n`).join('');

export const sessions = {
  name: 'sessions',
  setUp: async ({ client, newName }) => ({ sprite: await client.createSprite(newName()) }),
  tests: [
    ['a running session is listed', async ({ sprite }) => {
      const command = sprite.createSession('sh', ['-c', ': listed; sleep 1000'], { tty: true });
      const result = collect(command);
      await opened(command);
      const session = await find(sprite, 'listed');
      assert.match(session.id, /^\d+$/);
      assert.equal(session.tty, true);
      assert.equal(session.workdir, '/home/sprite');
      assert.ok(Math.abs(session.created.getTime() - Date.now()) < 120_000, `${session.created}`);
      const events = [];
      for await (const event of await sprite.killSession(session.id)) events.push(event);
      assert.equal(events.at(-1).type, 'complete');
      assert.equal(events.at(-1).exitCode, 143);
      await result;
      assert.ok(!(await sprite.listSessions()).some(({ id }) => id === session.id), 'it is gone');
    }],
    ['a session that was left is joined again to its true end', async ({ sprite }) => {
      const command = sprite.spawn('sh', ['-c', count(30, 42, 'rejoined')], {
        maxRunAfterDisconnect: '60s',
      });
      await opened(command);
      await new Promise((resolve) => command.stdout.once('data', resolve));
      const session = await find(sprite, 'rejoined');
      await leave(command);
      const { stdout, code } = await collect(sprite.attachSession(session.id));
      assert.equal(stdout.toString(), ticks(30));
      assert.equal(code, 42);
    }],
    ['a session that ended meanwhile tells its exit status', async ({ sprite }) => {
      const command = sprite.spawn('sh', ['-c', count(5, 9, 'ended')], {
        maxRunAfterDisconnect: '60s',
      });
      await opened(command);
      const session = await find(sprite, 'ended');
      await leave(command);
      await eventually(20_000, 'the session ends', async () => {
        const listed = await sprite.listSessions();
        return !listed.some(({ id }) => id === session.id);
      });
      const { stdout, code } = await collect(sprite.attachSession(session.id));
      assert.equal(stdout.toString(), ticks(5));
      assert.equal(code, 9);
    }],
    ['a terminal outlives its connection', async ({ sprite }) => {
      const script = ': terminal-kept; echo ready; read line; echo "got $line"';
      const command = sprite.createSession('sh', ['-c', script], { tty: true, rows: 24, cols: 80 });
      await opened(command);
      const session = await find(sprite, 'terminal-kept');
      await leave(command);
      const attached = sprite.attachSession(session.id);
      const result = collect(attached);
      await opened(attached);
      attached.stdin.write('again\r');
      const { stdout, code } = await result;
      assert.match(stdout.toString(), /got again/);
      assert.equal(code, 0);
    }],
    ['a session without a terminal ends after its time alone', async ({ sprite }) => {
      const command = sprite.spawn('sh', ['-c', ': alone; sleep 1000'], {
        maxRunAfterDisconnect: '1s',
      });
      await opened(command);
      const session = await find(sprite, 'alone');
      await leave(command);
      await eventually(15_000, 'the session ends', async () => {
        const listed = await sprite.listSessions();
        return !listed.some(({ id }) => id === session.id);
      });
    }],
    ['two clients see one session', async ({ sprite }) => {
      const command = sprite.spawn('sh', ['-c', count(10, 0, 'shared')]);
      const first = collect(command);
      await opened(command);
      const session = await find(sprite, 'shared');
      const second = collect(sprite.attachSession(session.id));
      assert.equal((await first).stdout.toString(), ticks(10));
      assert.equal((await second).stdout.toString(), ticks(10));
    }],
    ['long output is replayed from its first byte', async ({ sprite }) => {
      const script = ': replayed; seq 1 1000000; seq 1 400000 >&2; sleep 2; exit 3';
      const command = sprite.spawn('sh', ['-c', script], { maxRunAfterDisconnect: '60s' });
      await opened(command);
      const session = await find(sprite, 'replayed');
      await leave(command);
      const { stdout, stderr, code } = await collect(sprite.attachSession(session.id));
      const lines = (to) => Array.from({ length: to }, (_, i) => `${i + 1}\n`).join('');
      assert.ok(stdout.toString() === lines(1_000_000), 'stdout is whole');
      assert.ok(stderr.toString() === lines(400_000), 'stderr is whole');
      assert.equal(code, 3);
    }],
    ['who joins a terminal sees its screen', async ({ sprite }) => {
      const script = 'printf "\\033[2J\\033[Hshown\\r\\nhidden\\033[2K\\r"; : screen; read line';
      const command = sprite.createSession('sh', ['-c', script], { tty: true, rows: 24, cols: 80 });
      const seen = new Promise((resolve) => command.stdout.on('data', (data) => `${data}`.includes('hidden') && resolve()));
      await seen;
      const session = await find(sprite, ': screen');
      await leave(command);
      const attached = sprite.attachSession(session.id);
      const result = collect(attached);
      await opened(attached);
      attached.stdin.write('\r');
      const { stdout } = await result;
      assert.match(stdout.toString(), /shown/);
      assert.doesNotMatch(stdout.toString(), /hidden/);
    }],
    ['a kill that is not heeded becomes a SIGKILL', async ({ sprite }) => {
      const command = sprite.spawn('sh', ['-c', "trap '' TERM; : stubborn; echo ready; while :; do sleep 0.1; done"]);
      const result = collect(command);
      await new Promise((resolve) => command.stdout.once('data', resolve));
      const session = await find(sprite, 'stubborn');
      const types = [];
      for await (const event of await sprite.killSession(session.id, 'SIGTERM', '500ms')) {
        types.push(event.type);
      }
      assert.equal(types[0], 'signal');
      assert.ok(types.includes('killed'), `${types}`);
      assert.equal(types.at(-1), 'complete');
      assert.equal((await result).code, 137);
    }],
    ['a second kill is told that it is over', async ({ sprite }) => {
      const command = sprite.spawn('sh', ['-c', ': twice; sleep 1000']);
      const result = collect(command);
      await opened(command);
      const session = await find(sprite, 'twice');
      for await (const event of await sprite.killSession(session.id, 'SIGKILL')) void event;
      assert.equal((await result).code, 137);
      const error = await failureOf(sprite.killSession(session.id, 'SIGKILL'));
      assert.equal(error.statusCode, 410);
    }],
    ['a session that never was cannot be joined or killed', async ({ sprite }) => {
      const attached = sprite.attachSession('999999999');
      await failureOf(collect(attached));
      const error = await failureOf(sprite.killSession('999999999'));
      assert.equal(error.statusCode, 404);
    }],
  ],
};
