"""What does not exist, is taken, or is not allowed."""

from __future__ import annotations

from harness import Context, Suite, equal, failure_of
from sprites import AuthenticationError, NotFoundError, Sprite, SpriteConfig, SpritesClient

errors = Suite("errors")


@errors.test("an unknown sprite is not found")
def unknown(context: Context, _: Sprite) -> None:
    client, name = context.client, context.new_name()
    for work in (
        lambda: client.get_sprite(name),
        lambda: client.update_sprite(name, labels=["x"]),
        lambda: client.destroy_sprite(name),
        lambda: client.upgrade_sprite(name),
    ):
        error = failure_of(work)
        assert isinstance(error, NotFoundError), repr(error)
    error = failure_of(lambda: client.sprite(name).run("true", timeout=30))
    equal(getattr(error, "status_code", None), 404)


@errors.test("a taken name is told")
def taken(context: Context, sprite: Sprite) -> None:
    error = failure_of(lambda: context.client.create_sprite(sprite.name))
    assert "409" in str(error) and "name_taken" in str(error), error


@errors.test("a bad name is refused")
def bad_name(context: Context, _: Sprite) -> None:
    for name in ("", "UPPER", "with space", "-front", "end-", "a_b", "ü", "x" * 64):
        error = failure_of(lambda name=name: context.client.create_sprite(name))
        assert "400" in str(error), f"{name!r}: {error}"


@errors.test("a bad token is refused")
def bad_token(context: Context, sprite: Sprite) -> None:
    for token in ("nonsense", "a/b/c/d", context.token[:-1] + "!", "x" * 4000):
        client = SpritesClient(token, base_url=context.url)
        error = failure_of(client.list_sprites)
        assert isinstance(error, AuthenticationError), repr(error)
        error = failure_of(lambda client=client: client.sprite(sprite.name).run("true", timeout=30))
        equal(getattr(error, "status_code", None), 401)


@errors.test("another organisation does not see a sprite")
def foreign(context: Context, sprite: Sprite) -> None:
    assert context.other_token, "SPRITES_TEST_OTHER_TOKEN is not set"
    other = SpritesClient(context.other_token, base_url=context.url)
    assert isinstance(failure_of(lambda: other.get_sprite(sprite.name)), NotFoundError)
    assert isinstance(failure_of(lambda: other.destroy_sprite(sprite.name)), NotFoundError)
    error = failure_of(lambda: other.sprite(sprite.name).run("true", timeout=30))
    equal(getattr(error, "status_code", None), 404)
    equal(other.list_all_sprites(sprite.name), [])


@errors.test("a resource out of range is refused")
def out_of_range(context: Context, _: Sprite) -> None:
    for config in (SpriteConfig(cpus=100_000), SpriteConfig(ram_mb=1), SpriteConfig(storage_gb=-1)):
        error = failure_of(
            lambda config=config: context.client.create_sprite(context.new_name(), config=config)
        )
        assert "400" in str(error), f"{config}: {error}"
