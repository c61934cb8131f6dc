"""Control mode: one connection, one operation after the other."""

from __future__ import annotations

import io

from harness import Context, Suite, equal
from sprites import Sprite, SpriteError, SpritesClient
from sprites.exceptions import TimeoutError as CommandTimeout

control = Suite("control")


def _controlled(context: Context, sprite: Sprite) -> Sprite:
    client = SpritesClient(context.token, base_url=context.url, control_mode=True)
    return client.sprite(sprite.name)


@control.test("commands share a connection")
def shared(context: Context, sprite: Sprite) -> None:
    sprite = _controlled(context, sprite)
    for number in range(20):
        result = sprite.run("echo", str(number), capture_output=True, timeout=30)
        equal((result.returncode, result.stdout), (0, f"{number}\n".encode()))
    equal((sprite.use_control_mode(), sprite.has_control_connection()), (True, True))


@control.test("streams stay apart and the exit status is told")
def apart(context: Context, sprite: Sprite) -> None:
    sprite = _controlled(context, sprite)
    script = "echo a; echo b >&2; exit 42"
    result = sprite.run("sh", "-c", script, capture_output=True, timeout=30)
    equal((result.returncode, result.stdout, result.stderr), (42, b"a\n", b"b\n"))


@control.test("variables, directory and stdin arrive")
def arrive(context: Context, sprite: Sprite) -> None:
    sprite = _controlled(context, sprite)
    command = sprite.command(
        "sh", "-c", "echo $GREETING; pwd; cat",
        env={"GREETING": "a b=c"}, cwd="/tmp", stdin=io.BytesIO(b"typed"), timeout=30,
    )
    equal(command.output(), b"a b=c\n/tmp\ntyped")


@control.test("a terminal has its size in control mode")
def terminal(context: Context, sprite: Sprite) -> None:
    sprite = _controlled(context, sprite)
    result = sprite.run(
        "stty", "size", capture_output=True, tty=True, tty_rows=30, tty_cols=101, timeout=30
    )
    equal((result.returncode, result.stdout), (0, b"30 101\r\n"))


@control.test("a command that cannot start does not hang")
def missing(context: Context, sprite: Sprite) -> None:
    sprite = _controlled(context, sprite)
    try:
        result = sprite.run("/no/such/program", capture_output=True, timeout=30)
    except CommandTimeout:
        raise
    except SpriteError:
        return
    assert result.returncode != 0, result
