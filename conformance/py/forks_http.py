"""Forks over plain HTTP: the official SDKs have no methods for them."""

from __future__ import annotations

import json

from checkpoints_http import Api
from harness import Context, Suite, equal, eventually
from sprites import Sprite

forks_http = Suite("forks over HTTP")

RULES = [{"domain": "*.example.org", "action": "allow"}]


class Sprites(Api):
    """The routes of all sprites."""

    def __init__(self, context: Context):
        self.base = f"{context.url}/v1/sprites"
        self.token = context.token

    def fork(self, name: str, origin: dict[str, object], **asked: object) -> dict[str, object]:
        """Makes a fork, and says how the server shows it."""
        status, media, said = self.ask("POST", "", {"name": name, "from": origin, **asked})
        assert (status, media) == (201, "application/json"), (status, said)
        return json.loads(said)


def line(sprite: Sprite, command: str) -> str:
    """The line that a command writes."""
    return sprite.command("sh", "-c", command).output().decode().removesuffix("\n")


# The forks that several tests look at.
def running(sprite: Sprite) -> str:
    return f"{sprite.name}-running"


def second(sprite: Sprite) -> str:
    return f"{sprite.name}-second"


@forks_http.test("a fork of a running sprite has what was just written, and is another sprite")
def forked(context: Context, sprite: Sprite) -> None:
    api = Sprites(context)
    # A checkpoint, so that there is something that is not taken over.
    line(sprite, "echo then > state")
    equal(Api(context, sprite).create(), "v1")
    line(sprite, "echo now > state")
    asked = {"environment": {"A": "1", "B": "1"}, "labels": ["x"], "config": {"cpus": 1}}
    made = api.fork(running(sprite), {"sprite": sprite.name}, **asked)
    source = api.get(f"/{sprite.name}")
    equal((made["name"], source["status"]), (running(sprite), "running"))
    assert made["id"] != source["id"] and made["url"] != source["url"], (made, source)
    equal((made["environment"], made["labels"]), (asked["environment"], ["x"]))
    fork = context.client.sprite(made["name"])
    equal(line(fork, "cat state"), "now")
    assert line(fork, "hostname") != line(sprite, "hostname")


@forks_http.test("a fork begins without checkpoints")
def without_checkpoints(context: Context, sprite: Sprite) -> None:
    entries = Sprites(context).get(f"/{running(sprite)}/checkpoints?includeAuto=true")
    equal([(entry["id"], entry["source_id"]) for entry in entries], [("Current", "")])


@forks_http.test("what is written in one is not seen in the other")
def apart(context: Context, sprite: Sprite) -> None:
    fork = context.client.sprite(running(sprite))
    line(fork, "echo fork > state; touch of-fork")
    line(sprite, "echo source > state; touch of-source")
    look = "cat state; ls of-*"
    equal((line(fork, look), line(sprite, look)), ("fork\nof-fork", "source\nof-source"))


@forks_http.test("a fork of a checkpoint has the state of then")
def of_checkpoint(context: Context, sprite: Sprite) -> None:
    origin = {"sprite": sprite.name, "checkpoint": "v1"}
    made = Sprites(context).fork(f"{sprite.name}-then", origin)
    look = "cat state; ls | grep of- || true"
    equal(line(context.client.sprite(made["name"]), look), "then")
    equal(line(sprite, "cat state"), "source")


@forks_http.test("a sprite that sleeps is not woken by a fork")
def asleep(context: Context, sprite: Sprite) -> None:
    api = Sprites(context)
    line(sprite, "echo asleep > state")
    status, _, said = api.ask("POST", f"/{sprite.name}/sleep")
    assert status < 300, (status, said)
    made = api.fork(f"{sprite.name}-asleep", {"sprite": sprite.name})
    equal(line(context.client.sprite(made["name"]), "cat state"), "asleep")
    asleep_still = api.get(f"/{sprite.name}")["status"]
    assert asleep_still in ("warm", "cold"), asleep_still


@forks_http.test("variables, sizes, services and policies are taken over, labels are not")
def taken_over(context: Context, sprite: Sprite) -> None:
    api = Sprites(context)
    source, fork = f"/{running(sprite)}", f"/{second(sprite)}"
    service = {"cmd": "sleep", "args": ["1000000"]}
    equal(api.ask("PUT", f"{source}/services/web?duration=0s", service)[0], 200)
    equal(api.ask("POST", f"{source}/policy/network", {"rules": RULES})[0], 204)

    def pid(of: str) -> int | None:
        state = api.get(f"{of}/services/web")["state"]
        return state["pid"] if state["status"] == "running" else None

    before = eventually(30, "the service of the source runs", lambda: pid(source))
    config = api.get(source)["config"]
    asked = {"environment": {"B": "2"}, "config": {"storage_gb": config["storage_gb"]}}
    made = api.fork(second(sprite), {"sprite": running(sprite)}, **asked)
    equal((made["environment"], made["labels"]), ({"A": "1", "B": "2"}, []))
    sizes = ("cpus", "ram_mb", "storage_gb")
    equal([made["config"][size] for size in sizes], [config[size] for size in sizes])
    rules = [api.get(f"{name}/policy/network")["rules"] for name in (source, fork)]
    equal(rules[1], rules[0])
    equal([rule["domain"] for rule in rules[1]], ["*.example.org"])
    equal(line(context.client.sprite(second(sprite)), "echo $A $B"), "1 2")
    eventually(30, "the service of the fork runs", lambda: pid(fork))
    shown = api.get(f"{fork}/services/web")
    equal({key: shown[key] for key in service}, service)
    equal(pid(source), before)


@forks_http.test("the source is destroyed, and its fork lives on with its files")
def orphaned(context: Context, sprite: Sprite) -> None:
    api = Sprites(context)
    equal(api.ask("DELETE", f"/{running(sprite)}")[0], 204)
    fork = context.client.sprite(second(sprite))
    equal(line(fork, "cat state; ls of-*"), "fork\nof-fork")
    equal(api.ask("POST", f"/{second(sprite)}/restart")[0], 200)
    equal(line(fork, "cat state; ls of-*"), "fork\nof-fork")


@forks_http.test("what cannot be forked is refused, and nothing is made")
def refused(context: Context, sprite: Sprite) -> None:
    api = Sprites(context)
    name, origin = context.new_name(), {"sprite": sprite.name}
    larger = {"storage_gb": api.get(f"/{sprite.name}")["config"]["storage_gb"] + 1}
    for body in ({"from": origin, "config": larger}, {"from": {**origin, "memory": True}}):
        equal(api.refused("POST", "", {"name": name, **body})[0], 400)
    for wrong in (
        {"sprite": name},
        {"sprite": running(sprite)},
        {**origin, "checkpoint": "v999"},
        {**origin, "checkpoint": "nonsense"},
        # That of another sprite: its fork has none.
        {"sprite": second(sprite), "checkpoint": "v1"},
    ):
        equal(api.refused("POST", "", {"name": name, "from": wrong}), (404, "not_found"))
    taken = {"name": second(sprite), "from": origin}
    equal(api.refused("POST", "", taken), (409, "name_taken"))
    equal(api.refused("GET", f"/{name}"), (404, "not_found"))
    api.token = context.other_token
    equal(api.refused("POST", "", {"name": name, "from": origin}), (404, "not_found"))
