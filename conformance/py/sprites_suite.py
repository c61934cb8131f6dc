"""Sprites: create, get, list, update, delete, upgrade."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from harness import Context, Suite, equal, failure_of
from sprites import ListOptions, NotFoundError, Sprite, SpriteConfig, SpriteError, URLSettings

sprites = Suite("sprites")


@sprites.test("a sprite is created, found, and deleted")
def created(context: Context, _: Sprite) -> None:
    name = context.new_name()
    made = context.client.create_sprite(name)
    equal(made.name, name)
    assert made.id and made.created_at and made.url and made.url.startswith("http"), vars(made)
    assert made.status in ("cold", "warm", "running"), made.status
    found = context.client.get_sprite(name)
    equal((found.id, found.organization_name), (made.id, made.organization_name))
    context.client.delete_sprite(name)
    assert isinstance(failure_of(lambda: context.client.get_sprite(name)), NotFoundError)


@sprites.test("settings are kept")
def settings(context: Context, _: Sprite) -> None:
    made = context.client.create_sprite(
        context.new_name(),
        config=SpriteConfig(cpus=1, ram_mb=512, storage_gb=20),
        url_settings=URLSettings(auth="public"),
        labels=["blue", "green"],
    )
    found = context.client.get_sprite(made.name)
    equal(found.labels, ["blue", "green"])
    equal(found.url_settings.auth, "public")
    found.delete()


@sprites.test("an update changes what it names and nothing else")
def updated(context: Context, _: Sprite) -> None:
    made = context.client.create_sprite(context.new_name(), labels=["one"])
    equal(made.update(labels=["two", "three"]).labels, ["two", "three"])
    made.update_url_settings(URLSettings(auth="public"))
    found = context.client.get_sprite(made.name)
    equal((found.id, found.labels), (made.id, ["two", "three"]))
    equal(found.url_settings.auth, "public")
    found.delete()


@sprites.test("a list has pages and a prefix")
def listed(context: Context, _: Sprite) -> None:
    stem = context.new_name() + "-"
    names = [f"{stem}{letter}" for letter in "abc"]
    for name in names:
        context.client.create_sprite(name)
    page = context.client.list_sprites(ListOptions(prefix=stem, max_results=2))
    equal([entry.name for entry in page.sprites], names[:2])
    equal(page.has_more, True)
    rest = context.client.list_sprites(
        ListOptions(
            prefix=stem, max_results=2, continuation_token=page.next_continuation_token
        )
    )
    equal([entry.name for entry in rest.sprites], names[2:])
    equal(rest.has_more, False)
    equal([sprite.name for sprite in context.client.list_all_sprites(stem)], names)
    for name in names:
        context.client.delete_sprite(name)


@sprites.test("two creates of one name make one sprite")
def race(context: Context, _: Sprite) -> None:
    name = context.new_name()

    def create() -> object:
        try:
            return context.client.create_sprite(name)
        except SpriteError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(lambda _: create(), range(2)))
    lost = [outcome for outcome in outcomes if isinstance(outcome, SpriteError)]
    equal(len(lost), 1)
    assert "409" in str(lost[0]) and "name_taken" in str(lost[0]), lost[0]
    context.client.delete_sprite(name)


@sprites.test("an upgrade is answered")
def upgraded(_: Context, sprite: Sprite) -> None:
    sprite.upgrade()
