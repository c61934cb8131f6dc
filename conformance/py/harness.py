"""Runs tables of tests against a live server and counts them."""

from __future__ import annotations

import faulthandler
import os
import secrets
import sys
import threading
import time
import traceback
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from typing import Callable, TypeVar

import record
from sprites import Sprite, SpritesClient

T = TypeVar("T")

# Longer than any test, shorter than anybody waits.
TEST_LIMIT_SECONDS = 180


def _need(name: str) -> str:
    value = os.environ.get(name)
    if not value:
        sys.exit(f"{name} is not set: this suite needs a running server")
    return value


@dataclass
class Context:
    """What every test is given."""

    url: str
    token: str
    other_token: str
    prefix: str
    client: SpritesClient
    _names: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @staticmethod
    def from_environment() -> Context:
        url, token = _need("SPRITES_TEST_URL"), _need("SPRITES_TEST_TOKEN")
        return Context(
            url=url,
            token=token,
            other_token=os.environ.get("SPRITES_TEST_OTHER_TOKEN", ""),
            prefix=f"py-{secrets.token_hex(3)}-",
            client=SpritesClient(token, base_url=url),
        )

    def new_name(self) -> str:
        with self._lock:
            self._names += 1
            return f"{self.prefix}{self._names}"

    def new_sprite(self) -> Sprite:
        return self.client.create_sprite(self.new_name())


Test = Callable[[Context, Sprite], None]


class Suite:
    """Tests that share one sprite and run one after the other."""

    def __init__(self, name: str):
        self.name = name
        self.tests: list[tuple[str, Test]] = []

    def test(self, name: str) -> Callable[[Test], Test]:
        def add(test: Test) -> Test:
            self.tests.append((name, test))
            return test

        return add


def eventually(limit: float, what: str, look: Callable[[], T | None]) -> T:
    """Calls `look` until it gives something true; the last thing it gave is part of the failure."""
    deadline = time.monotonic() + limit
    while True:
        last = look()
        if last:
            return last
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {limit} s, last seen: {last!r}")
        time.sleep(0.05)


def failure_of(work: Callable[[], object]) -> Exception:
    """The exception that `work` must end with."""
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 - whichever it is, the test looks at it
        return error
    raise AssertionError(f"expected a failure, got {result!r}")


def equal(seen: object, wanted: object) -> None:
    if seen != wanted:
        raise AssertionError(f"expected {wanted!r}, got {seen!r}")


def wanted(suites: list[Suite]) -> list[Suite]:
    """Those of `suites` that SPRITES_TEST_SUITES names, if it names any."""
    names = os.environ.get("SPRITES_TEST_SUITES")
    return [suite for suite in suites if not names or suite.name in names.split(",")]


def _wake(context: Context, sprite: Sprite) -> None:
    """With SPRITES_TEST_WAKE set, has a suite's sprite awake before its tests begin: SDKs give a connection a few
    seconds, which a boot on an emulated computer does not fit in."""
    if not os.environ.get("SPRITES_TEST_WAKE"):
        return
    request = urllib.request.Request(
        f"{context.url}/v1/sprites/{sprite.name}/exec?cmd=true",
        method="POST",
        headers={"Authorization": f"Bearer {context.token}"},
    )
    deadline = time.monotonic() + TEST_LIMIT_SECONDS
    while True:
        try:
            with urllib.request.urlopen(request, timeout=TEST_LIMIT_SECONDS) as answer:
                answer.read()
            return
        except urllib.error.HTTPError as error:
            # It still boots, and says when to ask again.
            if error.code != 503 or time.monotonic() > deadline:
                raise
            time.sleep(float(error.headers["Retry-After"]))


class Tally:
    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0
        self._lock = threading.Lock()

    def add(self, suite: str, name: str, begun: float, failure: str | None) -> None:
        took = f"{(time.monotonic() - begun) * 1000:.0f} ms"
        with self._lock:
            if failure is None:
                self.passed += 1
                print(f"ok    {suite}: {name} ({took})", flush=True)
            else:
                self.failed += 1
                print(f"FAIL  {suite}: {name} ({took})\n{failure}", flush=True)


def _run_suite(suite: Suite, context: Context, tally: Tally) -> None:
    begun = time.monotonic()
    try:
        sprite = context.new_sprite()
        _wake(context, sprite)
    except Exception:  # noqa: BLE001 - a suite that cannot begin is one failure
        tally.add(suite.name, "set-up", begun, traceback.format_exc())
        return
    for name, test in suite.tests:
        begun = time.monotonic()
        failure = None
        try:
            record.running.test = f"{suite.name}: {name}"
            test(context, sprite)
        except Exception:  # noqa: BLE001 - counted and shown
            failure = traceback.format_exc()
        tally.add(suite.name, name, begun, failure)


def run_all(suites: list[Suite], beside: list[Suite], context: Context) -> Tally:
    """Runs suites one after the other, beside those that are long and quiet."""
    tally = Tally()
    count = sum(len(suite.tests) for suite in suites)
    # A call that never comes back would keep the process for ever: it is told where it hangs, and ended.
    faulthandler.dump_traceback_later(TEST_LIMIT_SECONDS + 10 * count, exit=True)
    threads = [
        threading.Thread(target=_run_suite, args=(suite, context, tally)) for suite in beside
    ]
    for thread in threads:
        thread.start()
    for suite in suites:
        _run_suite(suite, context, tally)
    for thread in threads:
        thread.join()
    faulthandler.cancel_dump_traceback_later()
    return tally
