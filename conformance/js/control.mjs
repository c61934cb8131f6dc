// Control mode: one connection, one operation after the other.

import { assert, failureOf, within } from './harness.mjs';

export const control = {
  name: 'control',
  setUp: async ({ clientWith, newName }) => {
    const client = clientWith({ controlMode: true });
    return { sprite: await client.createSprite(newName()) };
  },
  tests: [
    ['commands share a connection', async ({ sprite }) => {
      for (let number = 0; number < 20; number += 1) {
        const { stdout, exitCode } = await sprite.execFile('echo', [`${number}`]);
        assert.deepEqual([stdout, exitCode], [`${number}\n`, 0]);
      }
      assert.equal(sprite.hasControlConnection(), true, 'the SDK did not fall back');
    }],
    ['streams stay apart and the exit status is told', async ({ sprite }) => {
      const error = await failureOf(sprite.execFile('sh', ['-c', 'echo a; echo b >&2; exit 42']));
      assert.deepEqual([error.exitCode, error.stdout, error.stderr], [42, 'a\n', 'b\n']);
    }],
    ['variables and directory arrive', async ({ sprite }) => {
      const options = { env: { GREETING: 'a b=c' }, cwd: '/tmp' };
      const { stdout } = await sprite.execFile('sh', ['-c', 'echo $GREETING; pwd'], options);
      assert.equal(stdout, 'a b=c\n/tmp\n');
    }],
    ['operations at once take connections of their own', async ({ sprite }) => {
      const numbers = Array.from({ length: 8 }, (_, number) => number);
      const outputs = await Promise.all(
        numbers.map(async (number) => (await sprite.execFile('echo', [`${number}`])).stdout),
      );
      assert.deepEqual(outputs, numbers.map((number) => `${number}\n`));
    }],
    ['an operation takes stdin, a signal and a resize', async ({ sprite }) => {
      const connection = await sprite.getControlConnection();
      const cat = await connection.startOp('exec', { cmd: ['cat'], stdin: true });
      let echoed = '';
      cat.on('stdout', (data) => { echoed += data; });
      cat.write(Buffer.from('typed'));
      cat.sendEOF();
      assert.equal(await within(10_000, 'cat ends', cat.wait()), 0);
      assert.equal(echoed, 'typed');
      const sleep = await connection.startOp('exec', { cmd: ['sleep', '1000'], stdin: true });
      await within(10_000, 'a session', new Promise((resolve) => sleep.once('message', resolve)));
      sleep.signal('TERM');
      assert.equal(await within(10_000, 'sleep ends', sleep.wait()), 143);
      const script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done";
      const shell = await connection.startOp('exec', {
        cmd: ['sh', '-c', script], tty: true, rows: 24, cols: 80, stdin: true,
      });
      let screen = '';
      shell.on('stdout', (data) => {
        screen += data;
        if (screen.trim() === 'ready') shell.resize(132, 50);
      });
      assert.equal(await within(10_000, 'the shell ends', shell.wait()), 0);
      assert.match(screen, /50 132/);
      sprite.closeControlConnection();
    }],
    ['a command that cannot start ends its operation and not the connection', async ({ sprite }) => {
      const connection = await sprite.getControlConnection();
      const missing = await connection.startOp('exec', { cmd: ['/no/such/program'], stdin: true });
      // The error may come as an event or as an exit status other than 0; an end must come.
      missing.on('error', () => {});
      const code = await within(10_000, 'the operation ends', missing.wait());
      assert.notEqual(code, 0);
      const next = await connection.startOp('exec', { cmd: ['true'], stdin: true });
      assert.equal(await within(10_000, 'true ends', next.wait()), 0);
      sprite.closeControlConnection();
    }],
  ],
};
