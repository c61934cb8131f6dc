"""Services: created, listed, stopped, started, signalled, deleted."""

from __future__ import annotations

import time

from harness import Context, Suite, equal, failure_of
from sprites import Sprite

services = Suite("services")

ARGS = ["-c", "echo up $A; echo oh >&2; exec sleep 1000000"]


def types(stream: object) -> list[str]:
    return [event.type for event in stream]


def until(sprite: Sprite, name: str, status: str) -> object:
    while True:
        state = sprite.get_service(name).state
        if state.status == status:
            return state
        time.sleep(0.05)


@services.test("a service is created and shown with its state")
def created(_: Context, sprite: Sprite) -> None:
    with sprite.create_service("web", "sh", args=ARGS, http_port=3000, duration=1, env={"A": "1"}) as stream:
        events = list(stream)
    equal(events[0].type, "started")
    assert any(event.type == "stdout" and event.data == "up 1" for event in events), events
    assert any(event.type == "stderr" and event.data == "oh" for event in events), events
    equal(events[-1].type, "complete")
    equal(events[-1].log_files["combined"], "/.sprite/logs/services/web.log")
    shown = sprite.get_service("web")
    equal((shown.cmd, shown.args, shown.http_port, shown.env), ("sh", ARGS, 3000, {"A": "1"}))
    equal(shown.state.status, "running")
    assert shown.state.pid > 0 and shown.state.started_at is not None, shown.state
    equal([service.name for service in sprite.list_services()], ["web"])


@services.test("a second HTTP port is a conflict")
def conflict(_: Context, sprite: Sprite) -> None:
    failure = failure_of(lambda: sprite.create_service("other", "true", http_port=4000))
    assert "conflict" in str(failure), failure


@services.test("needs are started before, and circles are refused")
def needs(_: Context, sprite: Sprite) -> None:
    sprite.create_service("api", "sh", args=ARGS, needs=["web"], duration=1)
    equal(sprite.get_service("api").needs, ["web"])
    failure = failure_of(lambda: sprite.create_service("web", "sh", args=ARGS, needs=["api"]))
    assert "400" in str(failure), failure
    failure = failure_of(lambda: sprite.delete_service("web"))
    assert "conflict" in str(failure), failure
    sprite.delete_service("api")


@services.test("a service that ends at once is told, and why")
def failing(_: Context, sprite: Sprite) -> None:
    stream = sprite.create_service("bad", "sh", args=["-c", "exit 3"], duration=5)
    seen = []
    stream.process_all(seen.append)
    stream.close()
    equal([event.type for event in seen], ["started", "exit", "error", "complete"])
    equal(seen[1].exit_code, 3)
    equal(until(sprite, "bad", "failed").error, "exited with status 3")
    sprite.delete_service("bad")


@services.test("a service is stopped and started")
def stopped(_: Context, sprite: Sprite) -> None:
    equal(types(sprite.stop_service("web", timeout=2)), ["stopping", "stopped", "complete"])
    equal(sprite.get_service("web").state.status, "stopped")
    failure = failure_of(lambda: sprite.stop_service("web"))
    assert "not running" in str(failure), failure
    equal(types(sprite.start_service("web", duration=1))[0], "started")


@services.test("a service is signalled, and starts again when it ends by it")
def signalled(_: Context, sprite: Sprite) -> None:
    sprite.signal_service("web", "SIGKILL")
    while sprite.get_service("web").state.restart_count != 1:
        time.sleep(0.05)
    until(sprite, "web", "running")
    failure = failure_of(lambda: sprite.signal_service("web", "NOPE"))
    assert "Invalid signal" in str(failure), failure
    failure = failure_of(lambda: sprite.signal_service("gone", "TERM"))
    assert "not found" in str(failure), failure


@services.test("a service is deleted, and then there is none")
def deleted(_: Context, sprite: Sprite) -> None:
    sprite.delete_service("web")
    for call in (sprite.get_service, sprite.delete_service, sprite.start_service):
        failure = failure_of(lambda call=call: call("web"))
        assert "not found" in str(failure), failure
