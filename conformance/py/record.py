"""Notes which public methods of the SDK each test calls. The SDK does what it always does."""

from __future__ import annotations

import functools
import inspect
import json
import threading
from pathlib import Path
from typing import Callable

import sprites

running = threading.local()
_called: dict[str, set[str]] = {}
_lock = threading.Lock()


def _classes() -> list[type]:
    names = sorted(getattr(sprites, "__all__", dir(sprites)))
    values = [getattr(sprites, name) for name in names]
    return [v for v in values if inspect.isclass(v) and not issubclass(v, BaseException)]


def _methods(owner: type) -> dict[str, Callable[..., object]]:
    members = vars(owner).items()
    return {name: f for name, f in members if inspect.isfunction(f) and not name.startswith("_")}


def python_methods() -> list[str]:
    return [f"{owner.__name__}.{name}" for owner in _classes() for name in _methods(owner)]


def begin() -> None:
    for owner in _classes():
        for name, method in _methods(owner).items():
            setattr(owner, name, _noting(f"{owner.__name__}.{name}", method))


def _noting(called: str, method: Callable[..., object]) -> Callable[..., object]:
    @functools.wraps(method)
    def noting(*arguments: object, **named: object) -> object:
        test = getattr(running, "test", None)
        if test:
            with _lock:
                _called.setdefault(called, set()).add(test)
        return method(*arguments, **named)

    return noting


def end(directory: str) -> None:
    called = {method: sorted(tests) for method, tests in sorted(_called.items())}
    (Path(directory) / "py.json").write_text(json.dumps({"called": called}))
