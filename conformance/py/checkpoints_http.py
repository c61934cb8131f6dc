"""Checkpoints over plain HTTP: what the official SDKs do not look at, and what they have no methods for."""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.request
from datetime import datetime

from harness import TEST_LIMIT_SECONDS, Context, Suite, equal
from sprites import Sprite

checkpoints_http = Suite("checkpoints over HTTP")

FIELDS = {"id", "create_time", "source_id", "comment", "is_auto", "health", "history"}


class Api:
    """The routes of one sprite."""

    def __init__(self, context: Context, sprite: Sprite):
        self.base = f"{context.url}/v1/sprites/{sprite.name}"
        self.token = context.token

    def ask(self, method: str, path: str, body: object = None) -> tuple[int, str, bytes]:
        """Status, media type and body of an answer, whatever it says."""
        headers = {"Authorization": f"Bearer {self.token}"}
        data = None
        if body is not None:
            headers["Content-Type"] = "application/json"
            data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base}{path}", data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=TEST_LIMIT_SECONDS) as answer:
                return answer.status, answer.headers.get_content_type(), answer.read()
        except urllib.error.HTTPError as answer:
            return answer.code, answer.headers.get_content_type(), answer.read()

    def get(self, path: str) -> object:
        status, media, body = self.ask("GET", path)
        equal((status, media), (200, "application/json"))
        return json.loads(body)

    def refused(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Status and code of an answer that says no."""
        status, _, said = self.ask(method, path, body)
        assert status >= 400, (method, path, status, said)
        return status, json.loads(said)["error"]

    def lines(self, path: str, body: object = None) -> list[dict[str, str]]:
        """The lines of a stream that ends well."""
        status, media, said = self.ask("POST", path, body)
        equal((status, media), (200, "application/x-ndjson"))
        assert said.endswith(b"\n"), said
        lines = [json.loads(line) for line in said.splitlines() if line]
        for line in lines:
            equal(set(line), {"type", "data", "time"})
            assert moment(line["time"]).tzinfo is not None, line
        equal([line["type"] for line in lines], ["info"] * (len(lines) - 1) + ["complete"])
        times = [moment(line["time"]) for line in lines]
        equal(times, sorted(times))
        return lines

    def create(self, body: object = None) -> str:
        """Makes a checkpoint, and says what it is called."""
        return named(self.lines("/checkpoint", body)[-1]["data"])

    def restore(self, checkpoint: str) -> None:
        last = self.lines(f"/checkpoints/{checkpoint}/restore")[-1]["data"]
        equal(last, f"Restored to {checkpoint}")

    def ids(self, query: str = "") -> list[str]:
        return [one["id"] for one in self.get(f"/checkpoints{query}")]


def named(text: str) -> str:
    """The checkpoint that the last line of a creation names."""
    found = re.match(r"Checkpoint (v\d+) created\b", text)
    assert found, text
    return found[1]


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


@checkpoints_http.test("without a checkpoint there is the present")
def first(context: Context, sprite: Sprite) -> None:
    (present,) = Api(context, sprite).get("/checkpoints")
    assert FIELDS <= set(present), present
    moment(present["create_time"])
    wanted = {"id": "Current", "source_id": "", "comment": "", "is_auto": False, "health": "", "history": []}
    equal({key: present[key] for key in wanted}, wanted)


@checkpoints_http.test("the lines of a creation, with a body and without")
def created(context: Context, sprite: Sprite) -> None:
    api = Api(context, sprite)
    for body, checkpoint in ((None, "v1"), ({}, "v2"), ({"comment": "x"}, "v3")):
        said = [line["data"] for line in api.lines("/checkpoint", body)]
        equal(said[0], "Creating checkpoint...")
        assert f"  ID: {checkpoint}" in said[1:-1], said
        equal(named(said[-1]), checkpoint)


@checkpoints_http.test("an entry of the list is the checkpoint by its id")
def shown(context: Context, sprite: Sprite) -> None:
    api = Api(context, sprite)
    entries = api.get("/checkpoints")
    equal([entry["id"] for entry in entries], ["Current", "v3", "v2", "v1"])
    for entry in entries[1:]:
        assert FIELDS <= set(entry), entry
        moment(entry["create_time"])
        equal(api.get(f"/checkpoints/{entry['id']}"), entry)
    wanted = {"source_id": "v2", "comment": "x", "is_auto": False, "health": "", "history": ["v1", "v2"]}
    equal({key: entries[1][key] for key in wanted}, wanted)
    equal(entries[0]["source_id"], "v3")


@checkpoints_http.test("the lines of a restore, and the state that it replaced")
def restored(context: Context, sprite: Sprite) -> None:
    api = Api(context, sprite)
    said = [line["data"] for line in api.lines("/checkpoints/v2/restore")]
    equal((said[0], said[-1]), ("Restoring to checkpoint v2...", "Restored to v2"))
    equal(api.ids(), ["Current", "v3", "v2", "v1"])
    equal(api.ids("?includeAuto=false"), ["Current", "v3", "v2", "v1"])
    entries = api.get("/checkpoints?includeAuto=true")
    equal([entry["id"] for entry in entries], ["Current", "auto-1", "v3", "v2", "v1"])
    equal([entry["is_auto"] for entry in entries], [False, True, False, False, False])
    equal((entries[0]["source_id"], entries[1]["source_id"]), ("v2", "v3"))
    equal(api.ids("?history=v2"), ["v2", "v1"])
    equal(api.ids("?history=auto-1&includeAuto=true"), ["auto-1", "v3", "v2", "v1"])


@checkpoints_http.test("what does not exist is not found")
def unknown(context: Context, sprite: Sprite) -> None:
    api = Api(context, sprite)
    for checkpoint in ("v999", "auto-999", "nonsense"):
        path = f"/checkpoints/{checkpoint}"
        for method, below in (("GET", ""), ("DELETE", ""), ("POST", "/restore")):
            equal(api.refused(method, path + below), (404, "not_found"))
    api.token = context.other_token
    for method, path in (("GET", "/checkpoints"), ("GET", "/checkpoints/v1"), ("POST", "/checkpoint")):
        equal(api.refused(method, path), (404, "not_found"))


@checkpoints_http.test("the one that the sprite stands on stays, others are deleted, and no id comes again")
def deleted(context: Context, sprite: Sprite) -> None:
    api = Api(context, sprite)
    equal(api.refused("DELETE", "/checkpoints/v2"), (409, "conflict"))
    # The newest one: its number is the next one that could be given again.
    equal(api.ask("DELETE", "/checkpoints/v3")[0], 204)
    equal(api.refused("DELETE", "/checkpoints/v3"), (404, "not_found"))
    equal(api.refused("GET", "/checkpoints/v3"), (404, "not_found"))
    equal(api.ids(), ["Current", "v2", "v1"])
    equal(api.create(), "v4")
    # What others go back to may go as well.
    equal(api.ask("DELETE", "/checkpoints/v1")[0], 204)
    equal(api.ask("DELETE", "/checkpoints/auto-1")[0], 204)
    equal(api.ids("?includeAuto=true"), ["Current", "v4", "v2"])
    api.restore("v2")


@checkpoints_http.test("of two restores at once one is refused")
def together(context: Context, sprite: Sprite) -> None:
    api = Api(context, sprite)
    begin = threading.Barrier(2)
    statuses = []

    def restore() -> None:
        begin.wait()
        statuses.append(api.ask("POST", "/checkpoints/v2/restore")[0])

    threads = [threading.Thread(target=restore) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    equal(sorted(statuses), [200, 409])
    equal(sprite.command("echo", "used").output(), b"used\n")


@checkpoints_http.test("a comment has at most 1024 bytes")
def too_long(context: Context, sprite: Sprite) -> None:
    api = Api(context, sprite)
    before = api.ids()
    for comment in ("x" * 1025, "ü" * 512 + "x", 5):
        equal(api.refused("POST", "/checkpoint", {"comment": comment})[0], 400)
    equal(api.ids(), before)
    longest = "ü" * 512
    made = api.create({"comment": longest})
    equal(api.get(f"/checkpoints/{made}")["comment"], longest)


@checkpoints_http.test("looking at checkpoints does not wake a sprite")
def asleep(context: Context, sprite: Sprite) -> None:
    api = Api(context, sprite)
    status, _, said = api.ask("POST", "/sleep")
    assert status < 300, (status, said)
    assert "v2" in api.ids("?includeAuto=true")
    equal(api.get("/checkpoints/v2")["id"], "v2")
    equal(api.refused("GET", "/checkpoints/v999"), (404, "not_found"))
    asleep_still = api.get("")["status"]
    assert asleep_still in ("warm", "cold"), asleep_still
