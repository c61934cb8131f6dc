// What does not exist, is taken, or is not allowed.

import { SpritesClient } from '@fly/sprites';
import { assert, collect, failureOf } from './harness.mjs';

export const errors = {
  name: 'errors',
  tests: [
    ['an unknown sprite is 404', async ({ client, newName }) => {
      const name = newName();
      for (const work of [
        () => client.getSprite(name),
        () => client.updateSprite(name, { labels: ['x'] }),
        () => client.deleteSprite(name),
        () => client.sprite(name).check(),
        () => client.sprite(name).restart(),
        () => client.sprite(name).execFileHTTP('true'),
      ]) {
        const error = await failureOf(work());
        assert.equal(error.statusCode, 404, `${work}: ${error}`);
        assert.equal(error.errorCode, 'not_found', `${work}`);
      }
      await failureOf(collect(client.sprite(name).spawn('true')));
    }],
    ['a taken name is 409', async ({ client, newName }) => {
      const sprite = await client.createSprite(newName());
      const error = await failureOf(client.createSprite(sprite.name));
      assert.equal(error.statusCode, 409);
      assert.equal(error.errorCode, 'name_taken');
      await sprite.delete();
    }],
    ...['', 'UPPER', 'with space', '-front', 'end-', 'a_b', 'ü', 'x'.repeat(64), '../etc'].map((name) => [
      `the name ${JSON.stringify(name.slice(0, 12))} is refused`, async ({ client }) => {
        const error = await failureOf(client.createSprite(name));
        assert.equal(error.statusCode, 400, `${error}`);
      },
    ]),
    ...['', 'nonsense', 'a/b/c/d', 'x'.repeat(4000)].map((token) => [
      `the token ${JSON.stringify(token.slice(0, 12))} is refused`, async ({ url }) => {
        const client = new SpritesClient(token, { baseURL: url });
        const error = await failureOf(client.listSprites());
        assert.equal(error.statusCode, 401, `${error}`);
      },
    ]),
    ['a token with a changed secret is refused', async ({ url, token }) => {
      const last = token.at(-1) === 'a' ? 'b' : 'a';
      const client = new SpritesClient(token.slice(0, -1) + last, { baseURL: url });
      assert.equal((await failureOf(client.listSprites())).statusCode, 401);
    }],
    ['another organisation does not see a sprite', async ({ url, client, otherToken, newName }) => {
      assert.ok(otherToken, 'SPRITES_TEST_OTHER_TOKEN is not set');
      const sprite = await client.createSprite(newName());
      const other = new SpritesClient(otherToken, { baseURL: url });
      assert.equal((await failureOf(other.getSprite(sprite.name))).statusCode, 404);
      assert.equal((await failureOf(other.deleteSprite(sprite.name))).statusCode, 404);
      await failureOf(collect(other.sprite(sprite.name).spawn('true')));
      const seen = await other.listAllSprites(sprite.name);
      assert.deepEqual(seen, []);
      // The same name is free there.
      const theirs = await other.createSprite(sprite.name);
      assert.notEqual(theirs.id, sprite.id);
      await theirs.delete();
      assert.equal((await client.getSprite(sprite.name)).id, sprite.id);
      await sprite.delete();
    }],
    ['a resource out of range is refused', async ({ client, newName }) => {
      for (const config of [{ cpus: 0 }, { cpus: 100_000 }, { ramMB: 1 }, { storageGB: -1 }]) {
        const error = await failureOf(client.createSprite(newName(), { config }));
        assert.equal(error.statusCode, 400, JSON.stringify(config));
      }
    }],
  ],
};
