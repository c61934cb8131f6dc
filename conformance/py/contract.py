"""The API's own document against the server that it describes: schemathesis asks whatever the document allows, and
what it does not; every answer must be one that the document tells, and no answer may fail to come.

    SPRITES_TEST_URL=http://… SPRITES_TEST_TOKEN=… python contract.py

Nothing is left out by hand. A WebSocket asked for without an upgrade is refused as documented, and a stream of lines
is read for a while.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import tempfile
from pathlib import Path

from sprites import SpritesClient

SUITE = "the document is kept"

# The same requests in every run; what is found is found again.
SEED = 20261122
# Every operation is reached in a third of it.
SECONDS = 75
# A run that goes on for longer hangs.
AT_MOST_SECONDS = 300

CONFIG = """
hooks = "media_types.py"
seed = {seed}
max-time = {seconds}
workers = 2
request-timeout = 20
max-stream-events = 5
continue-on-failure = true

[headers]
Authorization = "Bearer ${{SPRITES_TEST_TOKEN}}"

[checks]
enabled = false
status_code_conformance.enabled = true
content_type_conformance.enabled = true
response_schema_conformance.enabled = true
# 501 is an answer: this server, or this driver, cannot do it.
not_a_server_error = {{ enabled = true, expected-statuses = ["2xx", "3xx", "4xx", "501"] }}

[generation]
database = "none"

# Most requests are about a sprite that there is, with words that mean something there.
[dictionaries]
sprites = {{ values = ["{sprite}"] }}
others = {{ values = ["{prefix}other"] }}
sessions = {{ values = ["1", "20"] }}
checkpoints = {{ values = ["v1", "v2", "auto-1"] }}
paths = {{ values = ["/tmp/a", "/tmp/b", "/etc/hostname", "/nowhere/at/all"] }}

[parameters]
"path.name" = {{ dictionary = "sprites", probability = 0.8 }}
"path.session" = {{ dictionary = "sessions", probability = 0.5 }}
"path.id" = {{ dictionary = "checkpoints", probability = 0.5 }}
"query.path" = {{ dictionary = "paths", probability = 0.5 }}

[[operations]]
include-operation-id = "delete_sprite"
parameters = {{ "path.name" = {{ dictionary = "others", probability = 0.5 }} }}
"""

# What the document names and the tool does not know: an archive is bytes.
MEDIA_TYPES = """
import schemathesis

schemathesis.serializer.alias("application/x-tar", "application/octet-stream")
"""


def need(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: this needs a running server")
    return value


def main() -> int:
    url, token = need("SPRITES_TEST_URL"), need("SPRITES_TEST_TOKEN")
    client = SpritesClient(token, base_url=url)
    before = {sprite.name for sprite in client.list_all_sprites("")}
    prefix = f"contract-{secrets.token_hex(3)}-"
    sprite = client.create_sprite(f"{prefix}0")
    try:
        with tempfile.TemporaryDirectory() as directory:
            passed, failed = search(Path(directory), url, prefix, sprite.name)
    finally:
        # Whatever was made is gone again.
        for made in client.list_all_sprites(""):
            if made.name not in before:
                made.delete()
    print(f"{passed} passed, {failed} failed", flush=True)
    return 0 if failed == 0 else 1


def search(directory: Path, url: str, prefix: str, sprite: str) -> tuple[int, int]:
    """How many operations were asked for and always answered as they should, and how many were not."""
    config, report = directory / "schemathesis.toml", directory / "report.ndjson"
    config.write_text(CONFIG.format(seed=SEED, seconds=SECONDS, sprite=sprite, prefix=prefix))
    (directory / "media_types.py").write_text(MEDIA_TYPES)
    program = Path(sys.executable).with_name("schemathesis")
    words = [program, "--config-file", config, "run", f"{url}/openapi.json", "--no-color"]
    words += ["--report-ndjson-path", report]
    try:
        ended = subprocess.run(words, cwd=directory, timeout=AT_MOST_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        print(f"FAIL  {SUITE}: it did not end within {AT_MOST_SECONDS} s")
        return 0, 1
    asked, wrong = count(report)
    for operation in sorted(wrong):
        print(f"FAIL  {operation}: {SUITE}")
    # Whatever else it ends with is a failure too: a document that cannot be read, a server that is gone.
    rest = 1 if ended.returncode != 0 and not wrong else 0
    return len(asked - wrong), len(wrong) + rest


def count(report: Path) -> tuple[set[str], set[str]]:
    """The operations that were asked for, and those of which an answer was wrong or failed to come."""
    asked: set[str] = set()
    wrong: set[str] = set()
    for line in report.read_text().splitlines():
        event = json.loads(line)
        finished = event.get("ScenarioFinished")
        if finished is None:
            continue
        record = finished["recorder"]
        for case, checks in record.get("checks", {}).items():
            operation = name_of(record["cases"][case]["value"])
            asked.add(operation)
            if any(check["status"] == "failure" for check in checks):
                wrong.add(operation)
        for case, exchange in record.get("interactions", {}).items():
            if exchange.get("response") is None:
                wrong.add(name_of(record["cases"][case]["value"]))
    return asked, wrong


def name_of(case: dict) -> str:
    return f"{case['method']} {case['path']}"


if __name__ == "__main__":
    sys.exit(main())
