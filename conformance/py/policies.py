"""Policies: to where a sprite may connect."""

from __future__ import annotations

from harness import Context, Suite, equal, failure_of
from sprites import Sprite
from sprites.policy import get_network_policy, update_network_policy
from sprites.types import NetworkPolicy, PolicyRule

policies = Suite("policies")

RULES = [
    PolicyRule(include="defaults"),
    PolicyRule(domain="*.example.org", action="allow"),
    PolicyRule(domain="*", action="deny"),
]


def shown(rules: list[PolicyRule]) -> list[tuple[object, object, object]]:
    return [(rule.domain, rule.action, rule.include) for rule in rules]


@policies.test("a network policy is empty at first")
def empty(_: Context, sprite: Sprite) -> None:
    equal(sprite.get_network_policy().rules, [])


@policies.test("a network policy is kept, and closes the sprite to every name")
def kept(_: Context, sprite: Sprite) -> None:
    sprite.update_network_policy(NetworkPolicy(rules=RULES))
    equal(shown(sprite.get_network_policy().rules), shown(RULES))
    look = "getent hosts example.org >/dev/null && echo found || echo nothing"
    equal(sprite.command("sh", "-c", look).output(), b"nothing\n")


@policies.test("no rules open the sprite again")
def opened(_: Context, sprite: Sprite) -> None:
    sprite.update_network_policy(NetworkPolicy(rules=[]))
    equal(sprite.get_network_policy().rules, [])


@policies.test("the functions of the module do the same")
def functions(_: Context, sprite: Sprite) -> None:
    update_network_policy(sprite, NetworkPolicy(rules=RULES))
    equal(shown(get_network_policy(sprite).rules), shown(RULES))
    update_network_policy(sprite, NetworkPolicy(rules=[]))


@policies.test("a rule that is wrong changes nothing")
def wrong(_: Context, sprite: Sprite) -> None:
    rules = [PolicyRule(domain="a.org", action="perhaps")]
    failure = failure_of(lambda: sprite.update_network_policy(NetworkPolicy(rules=rules)))
    assert "400" in str(failure), failure
    equal(sprite.get_network_policy().rules, [])
