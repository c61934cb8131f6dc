// Checkpoints: created, listed, shown, restored. What is on the disk is asked for by commands.

import { assert, failureOf } from './harness.mjs';

async function messagesOf(stream) {
  const messages = [];
  await (await stream).processAll((message) => { messages.push(message); });
  return messages;
}

async function shell(sprite, script) {
  return (await sprite.execFile('sh', ['-c', script])).stdout;
}

const ids = (checkpoints) => checkpoints.map(({ id }) => id);

export const checkpoints = {
  name: 'checkpoints',
  setUp: async ({ client, newName }) => {
    const sprite = await client.createSprite(newName());
    await shell(sprite, 'echo first > changed; echo first > removed; chmod 751 changed');
    return { sprite };
  },
  tests: [
    ['a checkpoint is created, and its id stands in the messages', async ({ sprite }) => {
      const stream = await sprite.createCheckpoint('before all');
      const messages = [await stream.next()];
      assert.deepEqual([messages[0].type, messages[0].data], ['info', 'Creating checkpoint...']);
      for await (const message of stream) messages.push(message);
      stream.close();
      assert.equal(await stream.next(), null);
      assert.ok(messages.some(({ data }) => data === '  ID: v1'), JSON.stringify(messages));
      assert.ok(messages.every(({ time }) => !Number.isNaN(Date.parse(time))), JSON.stringify(messages));
      const last = messages.pop();
      assert.equal(last.type, 'complete');
      assert.match(last.data, /^Checkpoint v1 created\b/);
      assert.ok(messages.every(({ type }) => type === 'info'), JSON.stringify(messages));
    }],
    ['checkpoints are listed, the newest first, behind the present', async ({ sprite }) => {
      await shell(sprite, 'echo second > changed; rm removed; echo second > later');
      const messages = await messagesOf(sprite.createCheckpoint());
      assert.match(messages.at(-1).data, /\bv2\b/);
      const listed = await sprite.listCheckpoints();
      assert.deepEqual(ids(listed), ['Current', 'v2', 'v1']);
      const [present, second, first] = listed;
      assert.deepEqual([present.sourceId, present.comment, present.isAuto], ['v2', '', false]);
      assert.deepEqual([second.sourceId, second.comment, second.history], ['v1', '', ['v1']]);
      assert.deepEqual([first.sourceId, first.comment, first.history], ['', 'before all', []]);
      assert.deepEqual([first.isAuto, first.health], [false, '']);
      assert.ok(first.createTime.getTime() <= second.createTime.getTime(), `${first.createTime}`);
      assert.deepEqual(ids(await sprite.listCheckpoints('v2')), ['v2', 'v1']);
      assert.deepEqual(ids(await sprite.listCheckpoints('v1')), ['v1']);
    }],
    ['a checkpoint is shown, and an unknown one is not found', async ({ sprite }) => {
      const listed = await sprite.listCheckpoints();
      assert.deepEqual(await sprite.getCheckpoint('v1'), listed.at(-1));
      assert.match(String(await failureOf(sprite.getCheckpoint('v9'))), /Checkpoint not found: v9/);
      assert.match(String(await failureOf(sprite.restoreCheckpoint('v9'))), /status 404/);
    }],
    ['a restore takes the disk back, and the sprite is used on', async ({ sprite }) => {
      await shell(sprite, 'echo third > changed; echo third > third');
      const stream = await sprite.restoreCheckpoint('v1');
      const messages = [await stream.next()];
      assert.deepEqual([messages[0].type, messages[0].data], ['info', 'Restoring to checkpoint v1...']);
      for await (const message of stream) messages.push(message);
      stream.close();
      const last = messages.at(-1);
      assert.deepEqual([last.type, last.data], ['complete', 'Restored to v1']);
      const seen = await shell(sprite, 'cat changed removed; ls later third 2>/dev/null; stat -c %a changed');
      assert.equal(seen, 'first\nfirst\n751\n');
      assert.equal(await shell(sprite, 'echo fourth > changed; cat changed'), 'fourth\n');
      const listed = await sprite.listCheckpoints();
      assert.deepEqual(ids(listed), ['Current', 'v2', 'v1']);
      assert.equal(listed[0].sourceId, 'v1');
    }],
    ['what was replaced is an automatic checkpoint, to be restored too', async ({ sprite }) => {
      const replaced = await sprite.getCheckpoint('auto-1');
      assert.deepEqual([replaced.isAuto, replaced.sourceId], [true, 'v2']);
      const messages = await messagesOf(sprite.restoreCheckpoint('auto-1'));
      assert.equal(messages.at(-1).type, 'complete');
      assert.equal(await shell(sprite, 'cat changed later third'), 'third\nsecond\nthird\n');
    }],
    ['a comment that is too long is refused', async ({ sprite }) => {
      const error = await failureOf(sprite.createCheckpoint('x'.repeat(1025)));
      assert.match(String(error), /status 400/);
    }],
  ],
};
