// Policies: network, privileges, resources. Read-backs go through the SDK, what holds through commands.

import { assert, failureOf } from './harness.mjs';

export const policies = {
  name: 'policies',
  setUp: async ({ client, newName }) => ({ sprite: await client.createSprite(newName()) }),
  tests: [
    ['a network policy is empty at first', async ({ sprite }) => {
      const policy = await sprite.getNetworkPolicy();
      assert.deepEqual(policy.rules, []);
    }],
    ['a network policy is kept, and closes the sprite to every name', async ({ sprite }) => {
      const rules = [
        { include: 'defaults' },
        { domain: '*.example.org', action: 'allow' },
        { domain: '*', action: 'deny' },
      ];
      await sprite.updateNetworkPolicy({ rules });
      const policy = await sprite.getNetworkPolicy();
      assert.deepEqual(policy.rules, rules);
      // A field of ours, which the SDK hands through.
      assert.equal(policy.enforcement, 'closed');
      const looked = 'getent hosts example.org >/dev/null && echo found || echo nothing';
      const { stdout } = await sprite.execFile('sh', ['-c', looked]);
      assert.equal(stdout, 'nothing\n');
    }],
    ['no rules open the sprite again', async ({ sprite }) => {
      await sprite.updateNetworkPolicy({ rules: [] });
      assert.equal((await sprite.getNetworkPolicy()).enforcement, 'open');
    }],
    ['a rule that is wrong changes nothing', async ({ sprite }) => {
      const wrong = [{ domain: 'a.org', action: 'perhaps' }];
      const error = await failureOf(sprite.updateNetworkPolicy({ rules: wrong }));
      assert.match(String(error), /Invalid policy/);
      assert.deepEqual((await sprite.getNetworkPolicy()).rules, []);
    }],
    ['privileges are kept, hold for new sessions, and are deleted', async ({ sprite }) => {
      const policy = { profile: 'minimal', devices: ['/dev/null'], noNewPrivileges: true };
      await sprite.updatePrivilegesPolicy(policy);
      assert.deepEqual(await sprite.getPrivilegesPolicy(), policy);
      const read = 'grep -E "^(NoNewPrivs|CapBnd)" /proc/self/status';
      const confined = (await sprite.execFile('sh', ['-c', read])).stdout;
      assert.match(confined, /NoNewPrivs:\s+1/);
      assert.match(confined, /CapBnd:\s+0+\n/);
      await sprite.deletePrivilegesPolicy();
      assert.equal((await sprite.getPrivilegesPolicy()).profile, '');
      assert.match((await sprite.execFile('sh', ['-c', read])).stdout, /NoNewPrivs:\s+0/);
    }],
    ['a limit of memory is kept and deleted', async ({ sprite }) => {
      await sprite.updateResourcesPolicy({ memory: { limitMB: 512, autoscale: true } });
      const kept = await sprite.getResourcesPolicy();
      assert.deepEqual(kept.memory, { limitMB: 512, autoscale: true });
      await sprite.deleteResourcesPolicy();
      assert.equal((await sprite.getResourcesPolicy()).memory, undefined);
    }],
    ['a limit outside its range is refused', async ({ sprite }) => {
      const error = await failureOf(sprite.updateResourcesPolicy({ memory: { limitMB: 1 } }));
      assert.match(String(error), /status 400/);
    }],
  ],
};
