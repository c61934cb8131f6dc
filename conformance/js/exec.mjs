// Commands over a WebSocket, without a terminal.

import { createHash } from 'node:crypto';
import { assert, collect, eventually, failureOf, opened } from './harness.mjs';

const MIB = 1024 * 1024;

export const exec = {
  name: 'exec',
  setUp: async ({ client, newName }) => ({ sprite: await client.createSprite(newName()) }),
  tests: [
    ['a command gives its output back', async ({ sprite }) => {
      const { stdout, stderr, exitCode } = await sprite.execFile('echo', ['hello', 'world']);
      assert.deepEqual([stdout, stderr, exitCode], ['hello world\n', '', 0]);
    }],
    ['a line is a command', async ({ sprite }) => {
      const { stdout } = await sprite.exec('echo one two');
      assert.equal(stdout, 'one two\n');
    }],
    ['a signal ends a command, which knows its end', async ({ sprite }) => {
      const command = sprite.spawn('sleep', ['60']);
      await opened(command);
      const ended = collect(command);
      command.signal('TERM');
      assert.equal((await ended).code, 143);
      assert.equal(command.exitCode(), 143);
    }],
    ['the environment is that of a sprite', async ({ sprite }) => {
      const { stdout } = await sprite.execFile('sh', ['-c', 'id -un; id -u; pwd; hostname; echo $HOME']);
      assert.equal(stdout, `sprite\n1000\n/home/sprite\n${sprite.name}\n/home/sprite\n`);
    }],
    ['the user becomes root without a password', async ({ sprite }) => {
      const { stdout } = await sprite.execFile('sudo', ['-n', 'id', '-u']);
      assert.equal(stdout, '0\n');
    }],
    ['stdout and stderr stay apart', async ({ sprite }) => {
      const { stdout, stderr } = await sprite.execFile('sh', ['-c', 'echo out; echo err >&2; echo out2']);
      assert.deepEqual([stdout, stderr], ['out\nout2\n', 'err\n']);
    }],
    ...[0, 1, 2, 42, 126, 127, 255].map((code) => [
      `exit status ${code} is told`, async ({ sprite }) => {
        const result = await collect(sprite.spawn('sh', ['-c', `exit ${code}`]));
        assert.equal(result.code, code);
      },
    ]),
    ['a failed command carries its output', async ({ sprite }) => {
      const error = await failureOf(sprite.execFile('sh', ['-c', 'echo a; echo b >&2; exit 3']));
      assert.deepEqual([error.exitCode, error.stdout, error.stderr], [3, 'a\n', 'b\n']);
    }],
    ['a shell tells of a command that does not exist', async ({ sprite }) => {
      const { code, stderr } = await collect(sprite.spawn('sh', ['-c', 'no-such-command']));
      assert.equal(code, 127);
      assert.match(stderr.toString(), /no-such-command/);
    }],
    ...[['SIGTERM', 143], ['SIGKILL', 137], ['SIGINT', 130], ['HUP', 129]].map(([signal, code]) => [
      `${signal} ends a command with ${code}`, async ({ sprite }) => {
        const command = sprite.spawn('sleep', ['1000']);
        const result = collect(command);
        await opened(command);
        command.kill(signal);
        assert.equal((await result).code, code);
      },
    ]),
    ['a signal reaches the whole process group', async ({ sprite }) => {
      const command = sprite.spawn('sh', ['-c', 'sleep 1234 & echo ready; wait']);
      const result = collect(command);
      command.stdout.once('data', () => command.kill('SIGTERM'));
      assert.equal((await result).code, 143);
      await eventually(10_000, 'the child is gone', async () => {
        const left = await collect(sprite.spawn('pgrep', ['-fx', 'sleep 1234']));
        return left.code === 1;
      });
    }],
    ['variables are added to those that are there', async ({ sprite }) => {
      const env = { PLAIN: 'value', SPACED: 'a b  c', SIGNS: 'a=b&c+d%20#"\'', WORDS: 'grüße ✓' };
      const { stdout } = await sprite.execFile('env', ['-0'], { env });
      const seen = Object.fromEntries(
        stdout.split('\0').filter(Boolean).map((entry) => [
          entry.slice(0, entry.indexOf('=')), entry.slice(entry.indexOf('=') + 1),
        ]),
      );
      for (const [name, value] of Object.entries(env)) assert.equal(seen[name], value);
      assert.match(seen.PATH, /\/usr\/bin/);
      assert.equal(seen.HOME, '/home/sprite');
    }],
    ['arguments arrive as they are', async ({ sprite }) => {
      const args = ['', ' ', 'a b', '+', '%41', '&x=y', '"\'\\', '*', '$HOME', 'ü✓', '-n'];
      const { stdout } = await sprite.execFile('printf', ['%s\\n', ...args]);
      assert.equal(stdout, `${args.join('\n')}\n`);
    }],
    ['a command runs where it is told', async ({ sprite }) => {
      const { stdout } = await sprite.execFile('pwd', [], { cwd: '/tmp' });
      assert.equal(stdout, '/tmp\n');
    }],
    ['stdin arrives and ends', async ({ sprite }) => {
      const command = sprite.spawn('cat');
      const result = collect(command);
      await opened(command);
      command.stdin.write('one ');
      command.stdin.end('two');
      const { stdout, code } = await result;
      assert.deepEqual([stdout.toString(), code], ['one two', 0]);
    }],
    ['an empty stdin ends at once', async ({ sprite }) => {
      const command = sprite.spawn('wc', ['-c']);
      const result = collect(command);
      await opened(command);
      command.stdin.end();
      assert.equal((await result).stdout.toString().trim(), '0');
    }],
    ['a large stdin arrives whole', async ({ sprite }) => {
      const input = Buffer.alloc(4 * MIB, 'abcdefghijklmno\n');
      const command = sprite.spawn('sha256sum');
      const result = collect(command);
      await opened(command);
      for (let at = 0; at < input.length; at += 65_536) {
        command.stdin.write(input.subarray(at, at + 65_536));
      }
      command.stdin.end();
      const wanted = createHash('sha256').update(input).digest('hex');
      assert.equal((await result).stdout.toString().split(' ')[0], wanted);
    }],
    ['bytes come back as they are', async ({ sprite }) => {
      const script = 'import sys; sys.stdout.buffer.write(bytes(range(256)) * 16)';
      const { stdout } = await collect(sprite.spawn('python3', ['-c', script]));
      assert.deepEqual(stdout, Buffer.concat(Array(16).fill(Buffer.from([...Array(256).keys()]))));
    }],
    ['64 MiB come back whole', async ({ sprite }) => {
      const size = 64 * MIB;
      const command = sprite.spawn('sh', ['-c', `yes 0123456789abcdef | head -c ${size}`]);
      const hash = createHash('sha256');
      let length = 0;
      command.stdout.on('data', (chunk) => {
        length += chunk.length;
        hash.update(chunk);
      });
      const ended = new Promise((resolve) => command.stdout.once('end', resolve));
      assert.equal(await command.wait(), 0);
      await ended;
      const wanted = createHash('sha256')
        .update(Buffer.alloc(size, '0123456789abcdef\n')).digest('hex');
      assert.deepEqual([length, hash.digest('hex')], [size, wanted]);
    }],
    ['200 fast commands lose nothing', async ({ sprite }) => {
      const numbers = Array.from({ length: 200 }, (_, number) => number);
      const worker = async () => {
        for (let number = numbers.pop(); number !== undefined; number = numbers.pop()) {
          const { stdout } = await sprite.execFile('echo', [`${number}`]);
          assert.equal(stdout, `${number}\n`);
        }
      };
      await Promise.all([worker(), worker(), worker(), worker()]);
    }],
    ['a command writes a lot on both streams', async ({ sprite }) => {
      const script = 'for i in $(seq 2000); do echo out $i; echo err $i >&2; done';
      const { stdout, stderr } = await sprite.execFile('sh', ['-c', script]);
      const lines = (word) => Array.from({ length: 2000 }, (_, i) => `${word} ${i + 1}\n`).join('');
      assert.equal(stdout, lines('out'));
      assert.equal(stderr, lines('err'));
    }],
  ],
};

/** Longer than any client waits without hearing something. */
export const silence = {
  name: 'silence',
  setUp: async ({ client, newName }) => ({ sprite: await client.createSprite(newName()) }),
  tests: [
    ['a command may be silent for 65 seconds', async ({ sprite }) => {
      const result = await collect(sprite.spawn('sh', ['-c', 'sleep 65; echo done; exit 5']));
      assert.deepEqual([result.stdout.toString(), result.code], ['done\n', 5]);
    }],
  ],
};
