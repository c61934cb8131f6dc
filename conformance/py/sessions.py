"""Sessions: listed, left, found again, killed."""

from __future__ import annotations

import threading

from harness import Context, Suite, equal, eventually, failure_of
from sprites import NetworkError, Session, Sprite, SpriteError
from sprites.exceptions import TimeoutError as CommandTimeout
from sprites.session import kill_session

sessions = Suite("sessions")


def _find(sprite: Sprite, mark: str) -> Session:
    def look() -> Session | None:
        return next((s for s in sprite.list_sessions() if mark in s.command), None)

    return eventually(10, f"a session with {mark}", look)


def _start(sprite: Sprite, script: str, **options: object) -> threading.Thread:
    """Runs a command from another thread, as a client of its own would."""

    def work() -> None:
        try:
            sprite.run("sh", "-c", script, capture_output=True, **options)
        except SpriteError:
            pass

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def _ticks(count: int) -> str:
    return "".join(f"tick {number}\n" for number in range(1, count + 1))


@sessions.test("a running session is listed and killed")
def listed(_: Context, sprite: Sprite) -> None:
    client = _start(sprite, ": listed; sleep 1000")
    session = _find(sprite, "listed")
    assert session.id.isdecimal(), session
    equal((session.tty, session.workdir), (False, "/home/sprite"))
    types = [message.type for message in kill_session(sprite, session.id, "SIGTERM", 5)]
    equal((types[0], types[-1]), ("signal", "complete"))
    client.join(30)
    assert not client.is_alive(), "the client was not told of the end"
    assert all(s.id != session.id for s in sprite.list_sessions()), "it is still listed"
    error = failure_of(lambda: kill_session(sprite, session.id))
    equal(getattr(error, "status_code", None), 410)


@sessions.test("a session that was left is joined again to its true end")
def rejoined(_: Context, sprite: Sprite) -> None:
    script = (
        ": rejoined; i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo tick $i; sleep 0.1; done; exit 42"
    )
    # The deadline closes the connection; the session goes on for its 10 seconds alone.
    error = failure_of(
        lambda: sprite.run("sh", "-c", script, capture_output=True, timeout=1.0)
    )
    assert isinstance(error, CommandTimeout), error
    session = _find(sprite, "rejoined")
    attached = sprite.attach_session(session.id, timeout=60)
    error = failure_of(attached.output)
    equal(getattr(error, "exit_code", lambda: None)(), 42)
    equal(error.stdout.decode(), _ticks(30))


@sessions.test("a session that ended meanwhile tells its exit status")
def ended(_: Context, sprite: Sprite) -> None:
    client = _start(sprite, ": ended; echo out; sleep 1; exit 9")
    session = _find(sprite, "ended")
    client.join(30)
    error = failure_of(sprite.attach_session(session.id, timeout=30).output)
    equal((error.exit_code(), error.stdout), (9, b"out\n"))


@sessions.test("long output is replayed from its first byte")
def replayed(_: Context, sprite: Sprite) -> None:
    waits = "mkfifo /tmp/replayed; read go < /tmp/replayed"
    client = _start(sprite, f": replayed; seq 1 1000000; seq 1 400000 >&2; {waits}; exit 3")
    session = _find(sprite, "replayed")
    go = "until [ -p /tmp/replayed ]; do sleep 0.1; done; echo go > /tmp/replayed"
    sprite.run("sh", "-c", go)
    client.join(60)
    error = failure_of(sprite.attach_session(session.id, timeout=60).output)
    equal(error.exit_code(), 3)
    assert error.stdout == "".join(f"{n}\n" for n in range(1, 1_000_001)).encode()
    assert error.stderr == "".join(f"{n}\n" for n in range(1, 400_001)).encode()


@sessions.test("a session that never was cannot be joined or killed")
def unknown(_: Context, sprite: Sprite) -> None:
    error = failure_of(sprite.attach_session("999999999", timeout=30).output)
    assert isinstance(error, SpriteError) and not isinstance(error, NetworkError), repr(error)
    equal(getattr(error, "status_code", None), 404)
    error = failure_of(lambda: kill_session(sprite, "999999999"))
    equal(getattr(error, "status_code", None), 404)
