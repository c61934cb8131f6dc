"""Commands over a WebSocket, with and without a terminal."""

from __future__ import annotations

import hashlib
import io
from concurrent.futures import ThreadPoolExecutor

from harness import Context, Suite, equal, failure_of
from sprites import ExecError, Sprite

execs = Suite("exec")
silence = Suite("silence")

MIB = 1024 * 1024


def run(sprite: Sprite, *words: str, **options: object):
    return sprite.run(*words, capture_output=True, timeout=120, **options)


@execs.test("a command gives its output back")
def output(_: Context, sprite: Sprite) -> None:
    result = run(sprite, "echo", "hello", "world")
    equal((result.stdout, result.stderr, result.returncode), (b"hello world\n", b"", 0))


@execs.test("the environment is that of a sprite")
def environment(_: Context, sprite: Sprite) -> None:
    result = run(sprite, "sh", "-c", "id -un; id -u; pwd; hostname; echo $HOME")
    equal(result.stdout.decode(), f"sprite\n1000\n/home/sprite\n{sprite.name}\n/home/sprite\n")


@execs.test("stdout and stderr stay apart")
def apart(_: Context, sprite: Sprite) -> None:
    result = run(sprite, "sh", "-c", "echo out; echo err >&2; echo out2")
    equal((result.stdout, result.stderr), (b"out\nout2\n", b"err\n"))


@execs.test("the exit status is told")
def status(_: Context, sprite: Sprite) -> None:
    for code in (0, 1, 2, 42, 126, 127, 255):
        equal(run(sprite, "sh", "-c", f"exit {code}").returncode, code)


@execs.test("death by a signal is 128 and its number")
def signals(_: Context, sprite: Sprite) -> None:
    for name, code in (("TERM", 143), ("KILL", 137), ("SEGV", 139)):
        equal(run(sprite, "sh", "-c", f"kill -{name} $$").returncode, code)


@execs.test("a failed command carries its output")
def failed(_: Context, sprite: Sprite) -> None:
    error = failure_of(
        lambda: run(sprite, "sh", "-c", "echo a; echo b >&2; exit 3", check=True)
    )
    assert isinstance(error, ExecError), error
    equal((error.exit_code(), error.stdout, error.stderr), (3, b"a\n", b"b\n"))


@execs.test("variables are added to those that are there")
def variables(_: Context, sprite: Sprite) -> None:
    wanted = {"SPACED": "a b  c", "SIGNS": "a=b&c+d%20#\"'", "WORDS": "grüße ✓", "LINES": "a\nb"}
    result = run(sprite, "env", "-0", env=wanted)
    entries = (entry.split("=", 1) for entry in result.stdout.decode().split("\0") if entry)
    seen = dict(entries)
    for name, value in wanted.items():
        equal(seen.get(name), value)
    equal(seen.get("HOME"), "/home/sprite")
    assert "/usr/bin" in seen["PATH"], seen["PATH"]


@execs.test("a command runs where it is told")
def directory(_: Context, sprite: Sprite) -> None:
    equal(run(sprite, "pwd", cwd="/tmp").stdout, b"/tmp\n")


@execs.test("stdin arrives and ends")
def stdin(_: Context, sprite: Sprite) -> None:
    data = bytes(range(256)) * 4096
    command = sprite.command("sha256sum", stdin=io.BytesIO(data), timeout=60)
    equal(command.output().decode().split()[0], hashlib.sha256(data).hexdigest())


@execs.test("without stdin it ends at once")
def no_stdin(_: Context, sprite: Sprite) -> None:
    equal(run(sprite, "cat").stdout, b"")


@execs.test("bytes come back as they are")
def binary(_: Context, sprite: Sprite) -> None:
    script = "import sys; sys.stdout.buffer.write(bytes(range(256)) * 16)"
    equal(run(sprite, "python3", "-c", script).stdout, bytes(range(256)) * 16)


class _Digest(io.RawIOBase):
    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.length = 0

    def write(self, data: bytes) -> int:
        self.hash.update(data)
        self.length += len(data)
        return len(data)


@execs.test("64 MiB come back whole")
def large(_: Context, sprite: Sprite) -> None:
    size = 64 * MIB
    sink = _Digest()
    script = f"yes 0123456789abcdef | head -c {size}"
    sprite.command("sh", "-c", script, stdout=sink, timeout=150).run()
    line = b"0123456789abcdef\n"
    wanted = hashlib.sha256((line * (size // len(line) + 1))[:size]).hexdigest()
    equal((sink.length, sink.hash.hexdigest()), (size, wanted))


@execs.test("200 fast commands lose nothing")
def fast(_: Context, sprite: Sprite) -> None:
    def one(number: int) -> tuple[int, bytes]:
        result = run(sprite, "echo", str(number))
        return result.returncode, result.stdout

    with ThreadPoolExecutor(4) as pool:
        for number, seen in enumerate(pool.map(one, range(200))):
            equal(seen, (0, f"{number}\n".encode()))


@execs.test("a terminal is a terminal of its size")
def terminal(_: Context, sprite: Sprite) -> None:
    result = run(sprite, "sh", "-c", "tty; stty size", tty=True, tty_rows=30, tty_cols=101)
    first, second = result.stdout.decode().split("\r\n")[:2]
    assert first.startswith("/dev/pts/"), result.stdout
    equal(second, "30 101")


@execs.test("a terminal tells the exit status")
def terminal_status(_: Context, sprite: Sprite) -> None:
    equal(run(sprite, "sh", "-c", "exit 0", tty=True).returncode, 0)
    equal(run(sprite, "sh", "-c", "exit 42", tty=True).returncode, 42)


@execs.test("a terminal takes what is typed")
def typed(_: Context, sprite: Sprite) -> None:
    sink = io.BytesIO()
    command = sprite.command(
        "sh", "-c", 'read line; echo "got $line"',
        tty=True, stdin=io.BytesIO(b"typed\r"), stdout=sink, timeout=30,
    )
    command.run()
    assert b"got typed" in sink.getvalue(), sink.getvalue()


@silence.test("a command may be silent for 65 seconds")
def silent(_: Context, sprite: Sprite) -> None:
    result = run(sprite, "sh", "-c", "sleep 65; echo done; exit 5")
    equal((result.stdout, result.returncode), (b"done\n", 5))
