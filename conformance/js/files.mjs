// Files, by every method of the SDK's file system.

import { assert, collect, eventually, failureOf, within } from './harness.mjs';

/** A directory of its own for each test. */
let places = 0;
const place = () => `/home/sprite/js-files-${(places += 1)}`;

async function shell(sprite, script) {
  const { stdout, code } = await collect(sprite.spawn('sh', ['-c', script]));
  assert.equal(code, 0, `${script}: ${stdout}`);
  return stdout.toString().trim();
}

export const files = {
  name: 'files',
  async setUp({ client, newName }) {
    const sprite = await client.createSprite(newName());
    return { sprite, fs: client.sprite(sprite.name).filesystem('/home/sprite') };
  },
  tests: [
    ['readFile gives what writeFile was given', async ({ fs }) => {
      const path = `${place()}/deep/er/file.bin`;
      const bytes = Buffer.from(Array.from({ length: 300_000 }, (_, i) => i % 251));
      await fs.writeFile(path, bytes);
      assert.ok((await fs.readFile(path)).equals(bytes));
      await fs.writeFile(path, 'grüße\n');
      assert.equal(await fs.readFile(path, 'utf8'), 'grüße\n');
      await fs.writeFile(path, '');
      assert.equal(await fs.readFile(path, 'utf8'), '');
    }],
    ['a relative path begins at the working directory', async ({ fs, sprite }) => {
      await fs.writeFile('relative.txt', 'here');
      assert.equal(await shell(sprite, 'cat ~/relative.txt'), 'here');
      await sprite.filesystem('/tmp').writeFile('relative.txt', 'there');
      assert.equal(await shell(sprite, 'cat /tmp/relative.txt'), 'there');
    }],
    ['writeFile sets the mode, and the user owns the file', async ({ fs, sprite }) => {
      const path = `${place()}/run.sh`;
      await fs.writeFile(path, '#!/bin/sh\necho ran\n', { mode: 0o755 });
      assert.equal(await shell(sprite, `stat -c %a:%U ${path}; ${path}`), '755:sprite\nran');
    }],
    ['appendFile, writeJSON and readJSON', async ({ fs }) => {
      const path = `${place()}/log`;
      await fs.appendFile(path, 'a');
      await fs.appendFile(path, 'b');
      assert.equal(await fs.readFile(path, 'utf8'), 'ab');
      await fs.writeJSON(path, { a: [1, 'ü'] }, { spaces: 2 });
      assert.deepEqual(await fs.readJSON(path), { a: [1, 'ü'] });
    }],
    ['readdir lists names and types', async ({ fs, sprite }) => {
      const dir = place();
      await shell(sprite, `mkdir -p ${dir}/sub/deep; cd ${dir}; echo 1 > one; ln -s one link; echo 2 > sub/two.txt; ln -s /etc sub/away`);
      assert.deepEqual((await fs.readdir(dir)).sort(), ['link', 'one', 'sub']);
      const entries = await fs.readdir(dir, { withFileTypes: true });
      const kinds = Object.fromEntries(entries.map((e) => [e.name, [e.isDirectory(), e.isFile(), e.isSymbolicLink()]]));
      assert.deepEqual(kinds, { link: [false, false, true], one: [false, true, false], sub: [true, false, false] });
      // Links are not followed below the directory.
      assert.deepEqual((await fs.readdir(dir, { recursive: true })).sort(), ['away', 'deep', 'link', 'one', 'sub', 'two.txt']);
      assert.deepEqual(await fs.readdir(dir, { recursive: true, pattern: '*.txt' }), ['two.txt']);
      assert.deepEqual(await fs.readdir(`${dir}/sub/deep`), []);
    }],
    ['mkdir makes directories', async ({ fs }) => {
      const dir = `${place()}/a/b`;
      await fs.mkdir(dir, { recursive: true });
      assert.deepEqual(await fs.readdir(dir), []);
      await fs.mkdir(`${dir}/c`);
      assert.deepEqual(await fs.readdir(dir), ['c']);
    }],
    ['stat and exists', async ({ fs, sprite }) => {
      const dir = place();
      await fs.writeFile(`${dir}/file`, '12345', { mode: 0o640 });
      await shell(sprite, `ln -s nowhere ${dir}/dangling`);
      const stat = await fs.stat(`${dir}/file`);
      assert.equal(stat.size, 5);
      assert.equal(stat.mode & 0o777, 0o640);
      assert.ok(stat.isFile() && !stat.isDirectory());
      assert.ok(Math.abs(Date.now() - stat.mtime.getTime()) < 600_000);
      assert.ok((await fs.stat(`${dir}/dangling`)).isSymbolicLink());
      assert.equal(await fs.exists(`${dir}/file`), true);
      assert.equal(await fs.exists(`${dir}/none`), false);
    }],
    ['rename, copyFile and rm', async ({ fs }) => {
      const dir = place();
      await fs.writeFile(`${dir}/a`, 'one');
      await fs.rename(`${dir}/a`, `${dir}/b`);
      await fs.copyFile(`${dir}/b`, `${dir}/c`);
      assert.deepEqual((await fs.readdir(dir)).sort(), ['b', 'c']);
      await fs.copyFile(dir, `${dir}-copy`, { recursive: true, preserveAttrs: true });
      assert.equal(await fs.readFile(`${dir}-copy/c`, 'utf8'), 'one');
      assert.equal((await failureOf(fs.copyFile(dir, `${dir}-no`))).code, 'EISDIR');
      assert.equal((await failureOf(fs.rm(dir))).code, 'ENOTEMPTY');
      await fs.rm(dir, { recursive: true });
      assert.equal((await failureOf(fs.readdir(dir))).code, 'ENOENT');
      await fs.rm(dir, { force: true });
    }],
    ['chmod and chown', async ({ fs, sprite }) => {
      const dir = place();
      await fs.writeFile(`${dir}/sub/a`, 'x');
      await fs.chmod(dir, 0o700, { recursive: true });
      assert.equal(await shell(sprite, `stat -c %a ${dir} ${dir}/sub ${dir}/sub/a`), '700\n700\n700');
      assert.equal((await failureOf(fs.chown(dir, { uid: 0 }))).code, 'EPERM');
      await fs.chown(dir, { uid: 'root', gid: 0, recursive: true, asRoot: true });
      assert.equal(await shell(sprite, `sudo stat -c %U:%g ${dir} ${dir}/sub/a`), 'root:0\nroot:0');
      await fs.chown(dir, { uid: 'sprite', gid: 'sprite', recursive: true, asRoot: true });
      await fs.rm(dir, { recursive: true });
    }],
    ['asRoot does what the user may not', async ({ fs }) => {
      assert.equal((await failureOf(fs.rename('/etc/hostname', '/etc/hostname.old'))).code, 'EACCES');
      assert.equal((await failureOf(fs.writeFile('/etc/new', ''))).code, 'EACCES');
      await fs.copyFile('/etc/hostname', '/etc/hostname.copy', { asRoot: true });
      await fs.rm('/etc/hostname.copy', { asRoot: true });
    }],
    ['errors have the codes of the kernel', async ({ fs, sprite }) => {
      const dir = place();
      await fs.writeFile(`${dir}/file`, 'x');
      await shell(sprite, `mkfifo ${dir}/fifo`);
      for (const [code, work] of [
        ['ENOENT', () => fs.readFile(`${dir}/none`)],
        ['EISDIR', () => fs.readFile(dir)],
        ['EISDIR', () => fs.writeFile(dir, 'x')],
        ['ENOTDIR', () => fs.readFile(`${dir}/file/below`)],
        ['EACCES', () => fs.readFile('/etc/shadow')],
        ['EINVAL', () => fs.readFile(`${dir}/fifo`)],
        ['EINVAL', () => fs.writeFile(`${dir}/fifo`, 'x')],
        ['EINVAL', () => fs.readFile('/dev/zero')],
      ]) {
        const error = await within(20_000, `${work}`, failureOf(work()));
        assert.equal(error.code, code, `${work}: ${error}`);
        assert.ok(error.path, `${work}: no path`);
      }
    }],
    ['watch tells what happens to files', async ({ fs, sprite }) => {
      const dir = place();
      await shell(sprite, `mkdir -p ${dir}/sub`);
      const watcher = await fs.watch(dir, { recursive: true });
      const seen = [];
      const until = async (what, wanted) => {
        while (!seen.some(wanted)) {
          const event = await within(20_000, `${what} in ${JSON.stringify(seen)}`, watcher.next());
          assert.ok(event, `${what}: the watch ended`);
          seen.push(event);
        }
      };
      await until('subscribed', (e) => e.type === 'subscribed' && e.paths[0] === dir);
      await fs.writeFile(`${dir}/sub/a`, 'x');
      const is = (kind, path) => (e) => e.type === 'event' && e.event === kind && e.path === path;
      await until('create', is('create', `${dir}/sub/a`));
      await shell(sprite, `cd ${dir}; echo more >> sub/a; chmod 600 sub/a; mv sub/a sub/b; mkdir -p new/deep; echo 1 > new/deep/c; rm sub/b`);
      await until('write', is('write', `${dir}/sub/a`));
      await until('chmod', is('chmod', `${dir}/sub/a`));
      await until('rename', (e) => is('rename', `${dir}/sub/a`)(e) && e.dest === `${dir}/sub/b`);
      await until('remove', is('remove', `${dir}/sub/b`));
      // Directories made later are watched, and what they got meanwhile is told.
      await until('a file in a new directory', is('create', `${dir}/new/deep/c`));
      watcher.close();
    }],
    ['watching what is not there is an error, and the watch goes on', async ({ fs }) => {
      const dir = place();
      await fs.writeFile(`${dir}/a`, 'x');
      const watcher = await fs.watch([`${dir}/none`, dir]);
      const first = await within(20_000, 'an error', watcher.next());
      assert.equal(first.type, 'error');
      assert.equal(first.path, `${dir}/none`);
      assert.deepEqual((await within(20_000, 'subscribed', watcher.next())).paths, [dir]);
      watcher.close();
    }],
  ],
};
