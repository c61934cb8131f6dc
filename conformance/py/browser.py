"""A browser at sprites' private URLs: it logs in, stays known over a sleep, and is nobody at the next sprite.

    SPRITES_TEST_URL=http://… SPRITES_TEST_TOKEN=… SPRITES_TEST_BROWSER=chromium python browser.py

The browser is Chromium, driven by its own protocol. Behaviour reference §5: URLs of sprites.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from typing import Any

from harness import Context, Suite, equal, eventually, run_all
from sprites import Sprite
from websockets.sync.client import connect

browser = Suite("browser")

PATIENCE_SECONDS = 60

# A web server that shows what it was asked with, and has its count in its memory alone.
PAGE = r"""use IO::Socket::INET; my $n = 0;
my $s = IO::Socket::INET->new(LocalAddr => '0.0.0.0:8080', Listen => 50, ReuseAddr => 1) or die;
while (my $c = $s->accept) { my $h = '';
  while (my $l = <$c>) { last if $l =~ /^\r?\n$/; $h .= $l }
  $n++ if $h =~ m{^GET /page}; my $b = "<title>page</title><pre>n=$n\n$h</pre>";
  print $c "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: " . length($b) .
    "\r\nSet-Cookie: own=mine\r\nConnection: close\r\n\r\n$b"; close $c }"""


class Browser:
    """One window of a Chromium of our own."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._program = subprocess.Popen(
            [
                os.environ["SPRITES_TEST_BROWSER"],
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--remote-debugging-port=0",
                f"--user-data-dir={self._directory.name}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            # What is started is a script, and what that starts are many: they end together.
            start_new_session=True,
        )
        assert self._program.stderr
        said = []
        for line in self._program.stderr:
            said.append(line)
            if "DevTools listening on " in line:
                break
        else:
            raise AssertionError(f"the browser ended: {said}")
        self._open = contextlib.ExitStack()
        self._socket = self._open.enter_context(connect(said[-1].split()[-1], max_size=None))
        self._asked = 0
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        self._ask("Page.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        os.killpg(self._program.pid, signal.SIGKILL)
        self._program.wait()
        self._directory.cleanup()

    def _ask(self, method: str, **params: object) -> Any:
        self._asked += 1
        message = {"id": self._asked, "method": method, "params": params}
        if hasattr(self, "_session"):
            message["sessionId"] = self._session
        self._socket.send(json.dumps(message))
        while True:
            said = json.loads(self._socket.recv(timeout=PATIENCE_SECONDS))
            if said.get("id") == self._asked:
                assert "error" not in said, said
                return said["result"]

    def run(self, script: str) -> Any:
        """What a script of the page comes to."""
        ran = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in ran, ran
        return ran["result"].get("value")

    def until(self, script: str, what: str) -> Any:
        """What a script comes to, as soon as that is something: pages come and go meanwhile."""

        def look() -> Any:
            try:
                return self.run(f"document.readyState == 'complete' && ({script})")
            except AssertionError:
                return None

        return eventually(PATIENCE_SECONDS, what, look)

    def open(self, url: str) -> None:
        self._ask("Page.navigate", url=url)

    def text(self) -> str:
        return self.run("document.body.innerText")

    def log_in(self, token: str) -> None:
        """Fills in the form, and sends it."""
        self.until("document.querySelector('input[name=token]')?.name", "the form of the login")
        self.run(
            f"document.querySelector('input[name=token]').value = {json.dumps(token)};"
            "document.querySelector('form').requestSubmit()"
        )


def slept(context: Context, sprite: Sprite) -> None:
    request = urllib.request.Request(
        f"{context.url}/v1/sprites/{sprite.name}/sleep",
        method="POST",
        headers={"Authorization": f"Bearer {context.token}"},
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_SECONDS) as answer:
        equal(answer.status, 204)


def counted(page: Browser) -> int:
    """The count of the page that is shown, once it is one that was not there before."""
    return int(page.until("/n=\\d+/.exec(document.body.innerText)?.[0].slice(2)", "the page"))


@browser.test("a login leads back to the page, which sees nothing of it; a sleep changes nothing; others are closed")
def logs_in(context: Context, sprite: Sprite) -> None:
    # Its last event is that it runs.
    list(sprite.create_service("web", "perl", args=["-e", PAGE], http_port=8080, duration=1))
    url = context.client.get_sprite(sprite.name).url
    with Browser() as page:
        page.open(f"{url}/page?a=b")
        page.until("document.querySelector('input[name=token]')?.name", "the form of the login")
        assert page.run("location.href").startswith(f"{context.url}/login?"), page.run("location.href")
        page.log_in("not-a-token")
        page.until("document.body.innerText.length > 0 && location.pathname == '/login' && 1", "the form again")
        page.log_in(context.token)
        page.until("location.pathname == '/page' && 1", "the page")
        equal(page.run("location.href"), f"{url}/page?a=b")
        equal(counted(page), 1)
        shown = page.text().lower()
        assert "authorization:" not in shown and "sprite-" not in cookies(shown), shown
        equal(page.run("document.cookie"), "own=mine")

        slept(context, sprite)
        before = time.time() * 1000
        page.run("location.reload()")
        page.until(f"performance.timeOrigin > {before} && location.pathname == '/page' && 1", "the page again")
        equal(counted(page), 2)
        shown = page.text().lower()
        assert "own=mine" in cookies(shown) and "sprite-" not in cookies(shown), shown

        other = context.new_sprite()
        page.open(context.client.get_sprite(other.name).url)
        page.until("location.pathname == '/login' && 1", "the login of another sprite")


def cookies(shown: str) -> str:
    """What of the request that a page shows are cookies."""
    return "".join(line for line in shown.splitlines() if line.startswith("cookie:"))


def main() -> int:
    context = Context.from_environment()
    tally = run_all([browser], [], context)
    for sprite in context.client.list_all_sprites(context.prefix):
        sprite.delete()
    print(f"{tally.passed} passed, {tally.failed} failed", flush=True)
    return 0 if tally.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
