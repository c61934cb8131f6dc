// Commands with a terminal.

import { assert, collect, opened } from './harness.mjs';

const spawn = (sprite, script, options = {}) =>
  sprite.spawn('sh', ['-c', script], { tty: true, rows: 24, cols: 80, ...options });

/** Resolves when the output holds `text`. */
function says(command, text) {
  let seen = '';
  return new Promise((resolve) => {
    command.stdout.on('data', (chunk) => {
      seen += chunk;
      if (seen.includes(text)) resolve(seen);
    });
  });
}

export const terminal = {
  name: 'terminal',
  setUp: async ({ client, newName }) => ({ sprite: await client.createSprite(newName()) }),
  tests: [
    ['a terminal is a terminal', async ({ sprite }) => {
      const { stdout, code } = await collect(spawn(sprite, 'tty; test -t 0 && test -t 1 && test -t 2'));
      assert.match(stdout.toString(), /^\/dev\/pts\/\d+\r\n$/);
      assert.equal(code, 0);
    }],
    ['a terminal has the size that was asked for', async ({ sprite }) => {
      const { stdout } = await collect(spawn(sprite, 'stty size', { rows: 30, cols: 101 }));
      assert.equal(stdout.toString(), '30 101\r\n');
    }],
    ['a terminal is resized', async ({ sprite }) => {
      const command = spawn(sprite, "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.1; done");
      const result = collect(command);
      await says(command, 'ready');
      command.resize(132, 50);
      assert.match((await result).stdout.toString(), /50 132/);
    }],
    ['a terminal takes what is typed', async ({ sprite }) => {
      const command = spawn(sprite, 'read line; echo "got $line"');
      const result = collect(command);
      await opened(command);
      command.stdin.write('typed\r');
      assert.match((await result).stdout.toString(), /got typed/);
    }],
    ['Ctrl-C interrupts', async ({ sprite }) => {
      const command = spawn(sprite, "trap 'echo caught; exit 0' INT; echo ready; while :; do sleep 0.1; done");
      const result = collect(command);
      await says(command, 'ready');
      command.stdin.write('\x03');
      const { stdout, code } = await result;
      assert.match(stdout.toString(), /caught/);
      assert.equal(code, 0);
    }],
    ['success is told by the close of the connection', async ({ sprite }) => {
      assert.equal((await collect(spawn(sprite, 'exit 0'))).code, 0);
    }],
    ['failure is told by the close of the connection', async ({ sprite }) => {
      assert.equal((await collect(spawn(sprite, 'exit 7'))).code, 1);
    }],
    ['a session is introduced first', async ({ sprite }) => {
      const command = spawn(sprite, 'echo hello');
      const messages = [];
      command.on('message', (message) => messages.push(message));
      await collect(command);
      assert.equal(messages[0].type, 'session_info');
      assert.equal(typeof messages[0].session_id, 'string');
      assert.equal(messages[0].tty, true);
      const exit = messages.find((message) => message.type === 'exit');
      assert.equal(exit.exit_code, 0);
    }],
  ],
};
