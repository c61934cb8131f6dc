// The official JavaScript SDK, unmodified, against a running server:
//   SPRITES_TEST_URL=http://… SPRITES_TEST_TOKEN=… node run.mjs

import { contextFromEnvironment, runAll, wanted } from './harness.mjs';
import { checkpoints } from './checkpoints.mjs';
import { control } from './control.mjs';
import { errors } from './errors.mjs';
import { exec, silence } from './exec.mjs';
import { files } from './files.mjs';
import { http } from './http.mjs';
import { policies } from './policies.mjs';
import { ports } from './ports.mjs';
import * as record from './record.mjs';
import { services } from './services.mjs';
import { sessions } from './sessions.mjs';
import { sprites } from './sprites.mjs';
import { terminal } from './terminal.mjs';

const context = contextFromEnvironment();
const suites = [
  sprites, exec, terminal, sessions, control, ports, http, files, errors, policies, services, checkpoints,
];
const records = process.env.SPRITES_TEST_RECORDS;
if (records) record.begin();
let status = 1;
try {
  const tally = await runAll(wanted(suites), wanted([silence]), context);
  await removeSprites(context);
  if (records) record.end(records);
  console.log(`${tally.passed} passed, ${tally.failed} failed`);
  status = tally.failed === 0 ? 0 : 1;
} catch (error) {
  console.error(error);
}
// Sockets that the SDK keeps open must not keep the process.
process.exit(status);

async function removeSprites({ client, prefix }) {
  for (const sprite of await client.listAllSprites(prefix)) await sprite.delete();
}
