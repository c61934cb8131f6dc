// Commands over one HTTP request.

import { assert, failureOf } from './harness.mjs';

export const http = {
  name: 'http',
  setUp: async ({ client, newName }) => ({ sprite: await client.createSprite(newName()) }),
  tests: [
    ['a command gives its output back over HTTP', async ({ sprite }) => {
      const script = 'echo out; sleep 0.1; echo err >&2';
      const { stdout, stderr, exitCode } = await sprite.execFileHTTP('sh', ['-c', script]);
      assert.deepEqual([stdout, stderr, exitCode], ['out\n', 'err\n', 0]);
    }],
    ['input is the body of the request', async ({ sprite }) => {
      const { stdout } = await sprite.execFileHTTP('cat', [], { input: 'from the body' });
      assert.equal(stdout, 'from the body');
    }],
    ['without input stdin is empty', async ({ sprite }) => {
      const { stdout } = await sprite.execFileHTTP('wc', ['-c']);
      assert.equal(stdout.trim(), '0');
    }],
    ['variables and directory arrive over HTTP', async ({ sprite }) => {
      const options = { env: { GREETING: 'a+b c' }, cwd: '/tmp' };
      const { stdout } = await sprite.execFileHTTP('sh', ['-c', 'echo $GREETING; pwd'], options);
      assert.equal(stdout, 'a+b c\n/tmp\n');
    }],
    ['the exit status comes over HTTP', async ({ sprite }) => {
      const error = await failureOf(sprite.execFileHTTP('sh', ['-c', 'exit 42']));
      assert.equal(error.exitCode, 42);
    }],
    ['100 fast commands over HTTP lose nothing', async ({ sprite }) => {
      for (let number = 0; number < 100; number += 1) {
        const { stdout } = await sprite.execFileHTTP('echo', [`${number}`]);
        assert.equal(stdout, `${number}\n`);
      }
    }],
  ],
};
