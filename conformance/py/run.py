"""The official Python SDK, unmodified, against a running server.

    SPRITES_TEST_URL=http://… SPRITES_TEST_TOKEN=… python run.py
"""

from __future__ import annotations

import os
import sys

from checkpoints import checkpoints
from checkpoints_http import checkpoints_http
from control import control
from errors import errors
from exec import execs, silence
from files import files
from forks_http import forks_http
import record
from harness import Context, run_all, wanted
from policies import policies
from services_suite import services
from sessions import sessions
from sprites_suite import sprites


def main() -> int:
    records = os.environ.get("SPRITES_TEST_RECORDS")
    if records:
        record.begin()
    context = Context.from_environment()
    suites = [sprites, execs, sessions, control, errors, policies, files]
    suites = wanted([*suites, checkpoints, checkpoints_http, forks_http, services])
    tally = run_all(suites, wanted([silence]), context)
    for sprite in context.client.list_all_sprites(context.prefix):
        sprite.delete()
    if records:
        record.end(records)
    print(f"{tally.passed} passed, {tally.failed} failed", flush=True)
    return 0 if tally.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
