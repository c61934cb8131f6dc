"""Files, by every method of the SDK's paths."""

from __future__ import annotations

from harness import Context, Suite, equal, failure_of
from sprites import Sprite
from sprites.exceptions import (
    DirectoryNotEmptyError,
    FileNotFoundError_,
    IsADirectoryError_,
    NotADirectoryError_,
    PermissionError_,
)

files = Suite("files")


@files.test("what was written is read")
def written(_: Context, sprite: Sprite) -> None:
    fs = sprite.filesystem("/home/sprite")
    path = fs / "py/deep/file.bin"
    content = bytes(i % 251 for i in range(300_000))
    path.write_bytes(content, mode=0o600)
    equal(path.read_bytes(), content)
    path.write_text("grüße\n")
    equal(path.read_text(), "grüße\n")
    equal(sprite.command("cat", "/home/sprite/py/deep/file.bin").output(), "grüße\n".encode())


@files.test("stat, exists, is_file and is_dir")
def stat(_: Context, sprite: Sprite) -> None:
    fs = sprite.filesystem()
    path = fs / "home/sprite/py-stat/file"
    path.write_text("12345", mode=0o640)
    found = path.stat()
    equal((found.size, found.mode, found.is_dir, found.name), (5, "0640", False, "file"))
    assert path.exists() and path.is_file() and not path.is_dir()
    assert not (path.parent / "none").exists()
    equal(fs.path("/home/sprite", "py-stat", "file").read_text(), "12345")


@files.test("directories are made, listed and removed")
def directories(_: Context, sprite: Sprite) -> None:
    fs = sprite.filesystem("/home/sprite")
    (fs / "py-dir/a").mkdir(parents=True)
    (fs / "py-dir/b").mkdir()
    error = failure_of(lambda: (fs / "py-none/x/y").mkdir())
    assert isinstance(error, FileNotFoundError_), repr(error)
    equal(sorted((fs / "py-dir").listdir()), ["a", "b"])
    equal(sorted(path.name for path in (fs / "py-dir").iterdir()), ["a", "b"])
    (fs / "py-dir/a").rmdir()
    (fs / "py-dir/b/file").write_text("x")
    error = failure_of((fs / "py-dir/b").rmdir)
    assert isinstance(error, DirectoryNotEmptyError), repr(error)
    (fs / "py-dir").rmtree()
    assert not (fs / "py-dir").exists()


@files.test("rename, replace, copy_to, chmod, touch and unlink")
def changed(_: Context, sprite: Sprite) -> None:
    fs = sprite.filesystem("/home/sprite")
    (fs / "py-change/a").write_text("one")
    (fs / "py-change/a").rename(fs / "py-change/b")
    (fs / "py-change/c").write_text("other")
    (fs / "py-change/c").replace(fs / "py-change/b")
    equal((fs / "py-change/b").read_text(), "other")
    (fs / "py-change").copy_to(fs / "py-copy")
    equal((fs / "py-copy/b").read_text(), "other")
    (fs / "py-copy/b").chmod(0o755)
    equal((fs / "py-copy/b").stat().mode, "0755")
    (fs / "py-copy").chmod(0o700, recursive=True)
    equal((fs / "py-copy/b").stat().mode, "0700")
    (fs / "py-copy/new").touch()
    equal((fs / "py-copy/new").read_bytes(), b"")
    (fs / "py-copy/new").unlink()
    error = failure_of((fs / "py-copy/new").unlink)
    assert isinstance(error, FileNotFoundError_), repr(error)
    (fs / "py-copy/new").unlink(missing_ok=True)
    (fs / "py-copy").rmtree()
    (fs / "py-change").rmtree()


@files.test("errors are those of files")
def errors(_: Context, sprite: Sprite) -> None:
    fs = sprite.filesystem()
    (fs / "home/sprite/py-error").write_text("x")
    for work, kind in (
        (lambda: (fs / "home/sprite/none").read_bytes(), FileNotFoundError_),
        (lambda: (fs / "home/sprite").read_bytes(), IsADirectoryError_),
        (lambda: (fs / "home/sprite/py-error/below").read_bytes(), NotADirectoryError_),
        (lambda: (fs / "etc/shadow").read_bytes(), PermissionError_),
        (lambda: (fs / "etc/new").write_text(""), PermissionError_),
    ):
        error = failure_of(work)
        assert isinstance(error, kind), repr(error)
