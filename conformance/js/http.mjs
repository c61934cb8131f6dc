// Commands over one HTTP request.
//
// A frame is a chunk of the answer, without a length of its own. The SDK reads what its HTTP library hands out,
// which may be two chunks in one; its documentation says so. So every command here leaves a pause between what
// it writes and its end. That the chunks themselves are right is tested beside the server.

import { assert, failureOf } from './harness.mjs';

export const http = {
  name: 'http',
  setUp: async ({ client, newName }) => ({ sprite: await client.createSprite(newName()) }),
  tests: [
    ['a command gives its output back over HTTP', async ({ sprite }) => {
      const script = 'echo out; sleep 0.2; echo err >&2; sleep 0.2';
      const { stdout, stderr, exitCode } = await sprite.execFileHTTP('sh', ['-c', script]);
      assert.deepEqual([stdout, stderr, exitCode], ['out\n', 'err\n', 0]);
    }],
    ['input is the body of the request', async ({ sprite }) => {
      const { stdout } = await sprite.execFileHTTP('sh', ['-c', 'cat; sleep 0.2'], {
        input: 'from the body',
      });
      assert.equal(stdout, 'from the body');
    }],
    ['without input stdin is empty', async ({ sprite }) => {
      const { stdout } = await sprite.execFileHTTP('sh', ['-c', 'wc -c; sleep 0.2']);
      assert.equal(stdout.trim(), '0');
    }],
    ['variables and directory arrive over HTTP', async ({ sprite }) => {
      const options = { env: { GREETING: 'a+b c' }, cwd: '/tmp' };
      const { stdout } = await sprite.execFileHTTP('sh', ['-c', 'echo "$GREETING $PWD"; sleep 0.2'], options);
      assert.equal(stdout, 'a+b c /tmp\n');
    }],
    ['the exit status comes over HTTP', async ({ sprite }) => {
      const error = await failureOf(sprite.execFileHTTP('sh', ['-c', 'exit 42']));
      assert.equal(error.exitCode, 42);
    }],
    ['many commands over HTTP lose nothing', async ({ sprite }) => {
      const numbers = Array.from({ length: 40 }, (_, number) => number);
      const worker = async () => {
        for (let number = numbers.pop(); number !== undefined; number = numbers.pop()) {
          const { stdout } = await sprite.execFileHTTP('sh', ['-c', `echo ${number}; sleep 0.2`]);
          assert.equal(stdout, `${number}\n`);
        }
      };
      await Promise.all([worker(), worker(), worker(), worker()]);
    }],
  ],
};
