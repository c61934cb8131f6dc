// Runs a table of tests against a live server and counts them.
//
// A test is a name and an async function of the context. Tests of a suite run one after the other; a suite
// whose tests are long and quiet may run beside the others.

import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { SpritesClient } from '@fly/sprites';
import { running } from './record.mjs';

export { assert };

const TEST_LIMIT_MS = 180_000;

/** What every test is given. */
export function contextFromEnvironment() {
  const need = (name) => {
    const value = process.env[name];
    if (!value) throw new Error(`${name} is not set: this suite needs a running server`);
    return value;
  };
  const url = need('SPRITES_TEST_URL');
  const token = need('SPRITES_TEST_TOKEN');
  const client = new SpritesClient(token, { baseURL: url });
  const prefix = `js-${randomBytes(3).toString('hex')}-`;
  let names = 0;
  return {
    url,
    token,
    otherToken: process.env.SPRITES_TEST_OTHER_TOKEN,
    client,
    prefix,
    newName: () => `${prefix}${(names += 1)}`,
    clientWith: (options) => new SpritesClient(token, { baseURL: url, ...options }),
  };
}

/** Runs `work` and fails with `what` if it takes longer than `limit` milliseconds. */
export async function within(limit, what, work) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: no end within ${limit} ms`)), limit);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Calls `look` until it gives something truthy; the last thing it gave is part of the failure. */
export async function eventually(limit, what, look) {
  const deadline = Date.now() + limit;
  let last;
  do {
    last = await look();
    if (last) return last;
    await new Promise((resolve) => setTimeout(resolve, 50));
  } while (Date.now() < deadline);
  throw new Error(`${what}: not within ${limit} ms, last seen: ${JSON.stringify(last)}`);
}

/** Everything a spawned command writes, and its exit code. */
export async function collect(command) {
  const read = async (stream) => {
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return Buffer.concat(chunks);
  };
  // The SDK tells of one failure several times: the listener stays.
  const failed = new Promise((_, reject) => command.on('error', reject));
  const ended = Promise.all([read(command.stdout), read(command.stderr), command.wait()]);
  const [stdout, stderr, code] = await Promise.race([ended, failed]);
  return { stdout, stderr, code };
}

/** Resolves when the command's connection is open. */
export function opened(command) {
  return new Promise((resolve, reject) => {
    command.once('spawn', resolve);
    command.on('error', reject);
  });
}

/** A promise of the error that `work` must end with. */
export async function failureOf(work) {
  try {
    await work;
  } catch (error) {
    return error;
  }
  throw new Error('expected a failure, and there was none');
}

/** Those of `suites` that SPRITES_TEST_SUITES names, if it names any. */
export function wanted(suites) {
  const names = process.env.SPRITES_TEST_SUITES?.split(',');
  return names ? suites.filter((suite) => names.includes(suite.name)) : suites;
}

/**
 * With SPRITES_TEST_WAKE set, has a suite's sprite awake before its tests begin: SDKs give a connection a few seconds,
 * which a boot on an emulated computer does not fit in.
 */
async function wake({ url, token }, sprite) {
  if (!process.env.SPRITES_TEST_WAKE || !sprite) return;
  const headers = { Authorization: `Bearer ${token}` };
  const path = `${url}/v1/sprites/${sprite.name}/exec?cmd=true`;
  const signal = AbortSignal.timeout(TEST_LIMIT_MS);
  for (;;) {
    const answer = await fetch(path, { method: 'POST', headers, signal });
    await answer.arrayBuffer();
    if (answer.status === 200) return;
    // It still boots, and says when to ask again.
    assert.equal(answer.status, 503);
    await new Promise((resolve) => setTimeout(resolve, 1000 * Number(answer.headers.get('retry-after'))));
  }
}

/** Runs suites one after the other, beside those in `beside`, and gives back how many tests failed. */
export async function runAll(suites, beside, context) {
  const tally = { passed: 0, failed: 0 };
  // The SDK reports some failures outside any promise: they belong to whatever runs at that moment.
  const stray = [];
  process.on('uncaughtException', (error) => stray.push(error));
  process.on('unhandledRejection', (error) => stray.push(error));
  const quiet = Promise.all(beside.map((suite) => runSuite(suite, context, tally, stray)));
  for (const suite of suites) await runSuite(suite, context, tally, stray);
  await quiet;
  for (const error of stray) {
    tally.failed += 1;
    console.log(`FAIL  outside any test: ${error?.stack ?? error}`);
  }
  return tally;
}

async function runSuite(suite, context, tally, stray) {
  let shared;
  try {
    shared = suite.setUp ? await suite.setUp(context) : undefined;
    await wake(context, shared?.sprite);
  } catch (error) {
    tally.failed += 1;
    console.log(`FAIL  ${suite.name}: set-up: ${error?.stack ?? error}`);
    return;
  }
  for (const [name, test] of suite.tests) {
    const begun = performance.now();
    const before = stray.length;
    let failure;
    try {
      const work = running.run(`${suite.name}: ${name}`, () => test({ ...context, ...shared }));
      await within(TEST_LIMIT_MS, name, work);
      if (stray.length > before) failure = stray.splice(before)[0];
    } catch (error) {
      failure = error;
    }
    const took = `${Math.round(performance.now() - begun)} ms`;
    if (failure) {
      tally.failed += 1;
      console.log(`FAIL  ${suite.name}: ${name} (${took})\n${failure?.stack ?? failure}`);
    } else {
      tally.passed += 1;
      console.log(`ok    ${suite.name}: ${name} (${took})`);
    }
  }
}
