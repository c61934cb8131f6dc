// Sprites: create, get, list, update, delete, check, restart.

import { assert, failureOf, within } from './harness.mjs';

export const sprites = {
  name: 'sprites',
  tests: [
    ['a sprite is created, found, and deleted', async ({ client, newName }) => {
      const name = newName();
      const created = await client.createSprite(name);
      assert.equal(created.name, name);
      assert.match(created.id, /\S/);
      assert.ok(['cold', 'warm', 'running'].includes(created.status), created.status);
      assert.ok(created.createdAt instanceof Date && !Number.isNaN(created.createdAt.getTime()));
      assert.match(created.url, /^https?:\/\//);
      const found = await client.getSprite(name);
      assert.equal(found.id, created.id);
      assert.equal(found.organizationName, created.organizationName);
      await client.deleteSprite(name);
      assert.equal((await failureOf(client.getSprite(name))).statusCode, 404);
    }],
    ['settings are kept', async ({ client, newName }) => {
      const created = await client.createSprite(newName(), {
        config: { cpus: 1, ramMB: 512, storageGB: 20 },
        labels: ['blue', 'green'],
        urlSettings: { auth: 'public' },
        environment: { FROM_THE_SPRITE: 'yes' },
      });
      const found = await client.getSprite(created.name);
      assert.deepEqual(found.labels, ['blue', 'green']);
      assert.equal(found.urlSettings.auth, 'public');
      assert.equal(found.config.cpus, 1);
      assert.equal(found.config.ramMB, 512);
      assert.equal(found.config.storageGB, 20);
      const { stdout } = await found.execFile('printenv', ['FROM_THE_SPRITE']);
      assert.equal(stdout, 'yes\n');
      await found.delete();
    }],
    ['an update changes what it names and nothing else', async ({ client, newName }) => {
      const created = await client.createSprite(newName(), { labels: ['one'] });
      const labelled = await created.update({ labels: ['two', 'three'] });
      assert.deepEqual(labelled.labels, ['two', 'three']);
      await created.updateURLSettings({ auth: 'public' });
      const found = await client.getSprite(created.name);
      assert.deepEqual(found.labels, ['two', 'three']);
      assert.equal(found.urlSettings.auth, 'public');
      assert.equal(found.id, created.id);
      await created.delete();
    }],
    ['a list has pages and a prefix', async ({ client, newName }) => {
      const names = [newName(), newName(), newName()].sort();
      for (const name of names) await client.createSprite(name);
      const stem = names[0].slice(0, names[0].lastIndexOf('-') + 1);
      const first = await client.listSprites({ prefix: stem, maxResults: 2 });
      assert.equal(first.sprites.length, 2);
      assert.equal(first.hasMore, true);
      assert.match(first.nextContinuationToken, /\S/);
      const seen = (await client.listAllSprites(stem)).map((sprite) => sprite.name);
      for (const name of names) assert.ok(seen.includes(name), `${name} in ${seen}`);
      assert.equal(new Set(seen).size, seen.length, 'no sprite is listed twice');
      const none = await client.listSprites({ prefix: `${stem}none-` });
      assert.deepEqual(none.sprites, []);
      assert.equal(none.hasMore, false);
      for (const name of names) await client.deleteSprite(name);
    }],
    ['two creates of one name make one sprite', async ({ client, newName }) => {
      const name = newName();
      const outcomes = await Promise.allSettled([
        client.createSprite(name),
        client.createSprite(name),
      ]);
      const won = outcomes.filter(({ status }) => status === 'fulfilled');
      const lost = outcomes.filter(({ status }) => status === 'rejected');
      assert.equal(won.length, 1);
      assert.equal(lost[0].reason.statusCode, 409);
      assert.equal(lost[0].reason.errorCode, 'name_taken');
      await client.deleteSprite(name);
    }],
    ['a name used again is another sprite', async ({ client, newName }) => {
      const name = newName();
      const first = await client.createSprite(name);
      await first.execFile('touch', ['/home/sprite/mine']);
      await first.delete();
      const second = await client.createSprite(name);
      assert.notEqual(second.id, first.id);
      const { stdout } = await second.execFile('ls', ['/home/sprite']);
      assert.ok(!stdout.includes('mine'), stdout);
      await second.destroy();
    }],
    ['files survive a restart', async ({ client, newName }) => {
      const sprite = await client.createSprite(newName());
      await sprite.execFile('sh', ['-c', 'echo kept > notes; sync']);
      const result = await sprite.restart();
      assert.equal(result.spriteName, sprite.name);
      const { stdout } = await sprite.execFile('cat', ['notes']);
      assert.equal(stdout, 'kept\n');
      await sprite.delete();
    }],
    ['a check tells how a sprite is', async ({ client, newName }) => {
      const sprite = await client.createSprite(newName());
      await sprite.execFile('true');
      const check = await sprite.check();
      assert.equal(check.spriteName, sprite.name);
      assert.equal(check.status, 'healthy');
      assert.ok(!Number.isNaN(check.checkedAt.getTime()));
      await sprite.upgrade();
      await sprite.delete();
    }],
    ['the live list tells of a new sprite', async ({ client, newName }) => {
      const stream = await client.watchSprites();
      const name = newName();
      const seen = (async () => {
        for await (const event of stream) if (event.name === name) return event;
        throw new Error('the stream ended');
      })();
      const sprite = await client.createSprite(name);
      await sprite.execFile('true');
      const event = await within(30_000, 'an event', seen);
      assert.ok(['cold', 'warm', 'running'].includes(event.status), event.status);
      stream.close();
      await sprite.delete();
    }],
  ],
};
