// Ports: proxies to them, and the watch of them.

import { connect } from 'node:net';
import { assert, collect, within } from './harness.mjs';

// Perl is in every base image. Speaks first, then says again what it hears.
const server = (port) => `use IO::Socket::INET; $| = 1; $SIG{CHLD} = 'IGNORE';
my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => ${port}, Listen => 100, ReuseAddr => 1) or die;
print "listening\\n";
while (my $c = $s->accept) { next if fork; syswrite($c, "hello\\n");
  while (sysread($c, my $b, 65536)) { syswrite($c, $b) } exit }`;

async function serve(sprite, port) {
  const command = sprite.spawn('perl', ['-e', server(port)]);
  await within(20_000, 'the server listens', new Promise((resolve) => command.stdout.once('data', resolve)));
  return command;
}

/** Says something to a local port, and gives what came back by the time that `length` bytes have. */
function talk(port, text, length) {
  return within(20_000, 'an answer', new Promise((resolve, reject) => {
    const socket = connect(port, 'localhost');
    let heard = '';
    socket.on('error', reject);
    socket.on('connect', () => socket.write(text));
    socket.on('close', () => resolve(heard));
    socket.on('data', (data) => {
      heard += data;
      if (heard.length >= length) socket.destroy();
    });
  }));
}

const portOf = (session) => Number(session.localAddr().split(':').pop());

export const ports = {
  name: 'ports',
  setUp: async ({ client, newName }) => ({ sprite: await client.createSprite(newName()) }),
  tests: [
    ['a proxied port answers, and speaks first', async ({ sprite }) => {
      await serve(sprite, 3000);
      const session = await sprite.proxyPort(0, 3000);
      assert.equal(await talk(portOf(session), 'one', 9), 'hello\none');
      const many = await Promise.all(
        Array.from({ length: 20 }, (_, n) => talk(portOf(session), `n${n}`, 7 + `${n}`.length)),
      );
      assert.deepEqual(many, Array.from({ length: 20 }, (_, n) => `hello\nn${n}`));
      session.close();
    }],
    ['a port where nobody listens closes its connection', async ({ sprite }) => {
      const session = await sprite.proxyPort(0, 9);
      const failed = await talk(portOf(session), 'x', 1).catch((error) => error.code);
      assert.ok(['', 'ECONNRESET'].includes(failed), failed);
      session.close();
    }],
    ['several ports are proxied', async ({ sprite }) => {
      await serve(sprite, 3001);
      await serve(sprite, 3002);
      const sessions = await sprite.proxyPorts([
        { localPort: 0, remotePort: 3001 }, { localPort: 0, remotePort: 3002 },
      ]);
      for (const session of sessions) assert.equal(await talk(portOf(session), 'x', 7), 'hello\nx');
      const closed = sessions.map((session) => session.wait());
      for (const session of sessions) session.close();
      await within(20_000, 'their end', Promise.all(closed));
    }],
    ['ports are watched', async ({ sprite }) => {
      const watcher = await sprite.watchPorts();
      const list = await within(20_000, 'a list', watcher.next());
      assert.equal(list.type, 'port_list');
      const command = await serve(sprite, 3003);
      const opened = await within(20_000, 'an event', watcher.next());
      assert.deepEqual([opened.type, opened.port, opened.address], ['port_opened', 3003, '127.0.0.1']);
      assert.ok(opened.pid > 0);
      command.kill('SIGKILL');
      const closed = await within(20_000, 'an event', watcher.next());
      assert.deepEqual([closed.type, closed.port], ['port_closed', 3003]);
      watcher.close();
    }],
    ['a command whose ports are told still ends', async ({ sprite }) => {
      const script = `perl -e 'use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 3004, Listen => 1); sleep 1'; echo done`;
      const { stdout, code } = await collect(sprite.spawn('sh', ['-c', script]));
      assert.deepEqual([`${stdout}`, code], ['done\n', 0]);
    }],
  ],
};
