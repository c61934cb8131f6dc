// Notes which public methods of the SDK each test calls. The SDK does what it always does.

import { AsyncLocalStorage } from 'node:async_hooks';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import * as sdk from '@fly/sprites';

/** Holds the name of the test that runs. */
export const running = new AsyncLocalStorage();

const called = new Map();
const exported = [];

export function begin() {
  for (const [owner, value] of Object.entries(sdk)) {
    if (typeof value !== 'function' || !/^class\b/.test(Function.prototype.toString.call(value))) continue;
    if (value.prototype instanceof Error) continue;
    exported.push(owner);
    for (const name of Object.getOwnPropertyNames(value.prototype)) {
      const property = Object.getOwnPropertyDescriptor(value.prototype, name);
      if (name === 'constructor' || typeof property.value !== 'function') continue;
      const method = property.value;
      const noting = function (...args) {
        const test = running.getStore();
        if (test) note(`${owner}.${name}`, test);
        return method.apply(this, args);
      };
      Object.defineProperty(value.prototype, name, { ...property, value: noting });
    }
  }
}

function note(method, test) {
  if (!called.has(method)) called.set(method, new Set());
  called.get(method).add(test);
}

export function end(directory) {
  const tests = Object.fromEntries([...called].map(([method, names]) => [method, [...names].sort()]));
  writeFileSync(path.join(directory, 'js.json'), JSON.stringify({ exported, called: tests }));
}
