# SPDX-License-Identifier: Apache-2.0
"""Templates of images: rendered as LXD renders those that its images have, and nothing else."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sysd.images import templates
from sysd.model.errors import InvalidError
from sysd.model.instance import Instance
from sysd.model.templates import MAX_OUTPUT, Template, render

INSTANCE = Instance(
    uuid="11111111-2222-4333-8444-555555555555",
    name="web1",
    image="0" * 64,
    id_base=1 << 20,
    config={"user.greeting": "{{ trigger }}", "user.network_mode": "link-local"},
)
# As distrobuilder writes them.
NETWORK = """\
{% if config_get("user.network-config", "") == "" %}version: 1
config:
  - type: physical
    name: {% if instance.type == "virtual-machine" %}enp5s0{% else %}eth0{% endif %}
    subnets:
      - type: {% if config_get("user.network_mode", "") == "link-local" %}manual{% else %}dhcp{% endif %}
        control: auto{% else %}{{ config_get("user.network-config", "") }}{% endif %}
"""
MADE = """\
version: 1
config:
  - type: physical
    name: eth0
    subnets:
      - type: manual
        control: auto
"""


def made(text: str, trigger: str = "create", **properties: str) -> str:
    return Template("/x", text, [trigger], properties).render(INSTANCE, "x86_64", trigger)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("", ""),
        ("plain { } % #", "plain { } % #"),
        ("{{ container.name }}\n", "web1\n"),
        ("{{instance.name}}{{ instance.type }}{{ container.architecture }}", "web1containerx86_64"),
        ("{{ trigger }} {{ path }} {{ container.privileged }} {{ container.ephemeral }}", "create /x false false"),
        ('{{ config_get("user.greeting", "") }}', "{{ trigger }}"),
        ('{{ config_get("user.none", properties.default) }}', "#cloud-config"),
        ('{{ config_get("user.none") }}', ""),
        ("{{ nothing }}{{ container.nothing }}{{ container }}{{ config_get }}{{ instance.name.x }}", ""),
        ("{{ 'a' }}{{ \"b\" }}", "ab"),
        ("a {#- {{ bad( #} b", "a b"),
        ("a {{- 'b' -}} \n c", "abc"),
        ("{% if 'x' %}1{% endif %}{% if '' %}2{% endif %}{% if not '' %}3{% endif %}", "13"),
        ('{% if trigger != "create" %}a{% elif trigger == "create" %}b{% elif "x" %}c{% else %}d{% endif %}', "b"),
        ('{% if "" %}{% if "x" %}a{% else %}b{% endif %}{% else %}{% if "" %}c{% else %}d{% endif %}{% endif %}', "d"),
        ('{% if "" %}{{ unknown(1) }}{% endif %}', ""),
        (NETWORK, MADE),
    ],
)
def test_rendering(text: str, result: str) -> None:
    assert made(text, default="#cloud-config") == result


@pytest.mark.parametrize(
    "text",
    [
        "{{", "{{ a", "{% if x %}", "{% endif %}", "{% else %}", "{% for a in b %}{% endfor %}",
        "{% include '/etc/shadow' %}",
        "{{ a|safe }}", "{{ a b }}", "{{ a[0] }}", "{{ }}", "{{ 'a }}", "{{ open('/etc/shadow') }}",
        "{{ config_get( }}",
        "{{ config_get('a', 'b', 'c') }}", "{{ path('x') }}", "{% if a == %}{% endif %}",
        "{% if a == b c %}{% endif %}",
        "{{ " + "config_get(" * 5000 + "'a'" + ")" * 5000 + " }}", "{{ 'a' }}" * 2000, "{{ 1 }}", "{{ == }}",
        "{{ __class__.__mro__() }}",
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused(text: str) -> None:
    with pytest.raises(InvalidError):
        made(text)


def test_what_is_made_is_bounded() -> None:
    config = {"user.big": "x" * (1 << 16)}
    text = "{{ config_get('user.big', '') }}" * (MAX_OUTPUT >> 15)
    with pytest.raises(InvalidError):
        Template("/x", text, ["start"]).render(replace(INSTANCE, config=config), "x86_64", "start")


@given(st.text(alphabet="{}%#-'\" ifelsndcogt_().,=!x\n", max_size=200))
def test_any_text_is_rendered_or_refused(text: str) -> None:
    with suppress(InvalidError):
        assert isinstance(render(text, {"x": "y", "config_get": lambda key, default: default}), str)


def test_entries_need_their_texts() -> None:
    entry = templates.Entry("/etc/hostname", "hostname.tpl", ["create"], {"a": "b"}, True)
    assert templates.resolve([entry], {"hostname.tpl": b"x", "other": b"y"}) == [
        Template("/etc/hostname", "x", ["create"], {"a": "b"}, True)
    ]
    for texts in ({}, {"hostname.tpl": b"\xff"}):
        with pytest.raises(InvalidError):
            templates.resolve([entry], texts)


PATHS = ["", "/", "etc/x", "/etc/", "/etc//x", "/../x", "/a/./b", "/a\nb", "/a\0b", "/" + "a" * 1024]


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_are_none(path: str) -> None:
    with pytest.raises(InvalidError):
        templates.check([Template(path, "", ["create"])])


def test_templates_that_can_not_be_kept() -> None:
    for bad in ([], ["delete"], ["create", ""]):
        with pytest.raises(InvalidError):
            templates.check([Template("/x", "", bad)])
    with pytest.raises(InvalidError):
        templates.check([Template(f"/{n}", "", ["start"]) for n in range(65)])
    with pytest.raises(InvalidError):
        templates.check([Template("/x", "x" * 30_000, ["start"])])


@pytest.mark.parametrize(
    "change",
    [
        {"path": 1},
        {"when": "create"},
        {"when": [1]},
        {"text": None},
        {"properties": {"a": 1}},
        {"create_only": 1},
        {"more": 1},
    ],
)
def test_a_workers_templates_are_checked(change: dict[str, object]) -> None:
    good = {"path": "/x", "text": "", "when": ["create"], "properties": {}, "create_only": False}
    assert templates.load([good]) == [Template("/x", "", ["create"])]
    with pytest.raises((TypeError, ValueError, InvalidError)):
        templates.load([good | change])
