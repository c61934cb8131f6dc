"""Checkpoints: created, listed, shown, restored, by both clients of the SDK. What is on the disk is asked for by
commands."""

from __future__ import annotations

import asyncio

from harness import Context, Suite, equal, failure_of
from sprites import AsyncSpritesClient, NotFoundError, Sprite

checkpoints = Suite("checkpoints")


def shell(sprite: Sprite, script: str) -> str:
    return sprite.command("sh", "-c", script).output().decode()


@checkpoints.test("a checkpoint is created, and its id stands in the messages")
def created(_: Context, sprite: Sprite) -> None:
    shell(sprite, "echo first > changed; echo first > removed")
    with sprite.create_checkpoint("before all") as stream:
        messages = list(stream)
    equal((messages[0].type, messages[0].data), ("info", "Creating checkpoint..."))
    assert "  ID: v1" in [message.data for message in messages], messages
    equal(messages[-1].type, "complete")
    assert messages[-1].data.startswith("Checkpoint v1 created"), messages
    equal({message.type for message in messages[:-1]}, {"info"})


@checkpoints.test("checkpoints are listed, the newest first, behind the present")
def listed(_: Context, sprite: Sprite) -> None:
    shell(sprite, "echo second > changed; rm removed; echo second > later")
    last = list(sprite.create_checkpoint())[-1]
    assert last.data.startswith("Checkpoint v2 created"), last
    found = sprite.list_checkpoints()
    equal([one.id for one in found], ["Current", "v2", "v1"])
    equal([one.comment for one in found], ["", "", "before all"])
    equal([one.history for one in found[1:]], [["v1"], []])
    assert found[2].create_time <= found[1].create_time, found
    equal([one.id for one in sprite.list_checkpoints("v2")], ["v2", "v1"])
    equal([one.id for one in sprite.list_checkpoints("v1")], ["v1"])


@checkpoints.test("a checkpoint is shown, and an unknown one is not found")
def shown(_: Context, sprite: Sprite) -> None:
    equal(sprite.get_checkpoint("v1"), sprite.list_checkpoints()[-1])
    error = failure_of(lambda: sprite.get_checkpoint("v9"))
    assert isinstance(error, NotFoundError), repr(error)
    error = failure_of(lambda: sprite.restore_checkpoint("v9"))
    equal(getattr(error, "status_code", None), 404)


@checkpoints.test("a restore takes the disk back, and the sprite is used on")
def restored(_: Context, sprite: Sprite) -> None:
    with sprite.restore_checkpoint("v1") as stream:
        messages = list(stream)
    equal((messages[0].type, messages[0].data), ("info", "Restoring to checkpoint v1..."))
    equal((messages[-1].type, messages[-1].data), ("complete", "Restored to v1"))
    equal(shell(sprite, "cat changed removed; ls later 2>/dev/null || echo gone"), "first\nfirst\ngone\n")
    equal(shell(sprite, "echo third > changed; cat changed"), "third\n")
    equal([one.id for one in sprite.list_checkpoints()], ["Current", "v2", "v1"])


@checkpoints.test("the client without waiting does the same")
def without_waiting(context: Context, sprite: Sprite) -> None:
    async def work() -> None:
        async with AsyncSpritesClient(context.token, base_url=context.url) as client:
            same = client.sprite(sprite.name)
            messages = list(await same.create_checkpoint("third"))
            assert messages[-1].data.startswith("Checkpoint v3 created"), messages
            equal((await same.get_checkpoint("v3")).comment, "third")
            equal([one.id for one in await same.list_checkpoints()], ["Current", "v3", "v2", "v1"])
            messages = list(await same.restore_checkpoint("v2"))
            equal((messages[-1].type, messages[-1].data), ("complete", "Restored to v2"))

    asyncio.run(work())
    equal(shell(sprite, "cat changed later"), "second\nsecond\n")
