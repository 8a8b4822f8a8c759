"""Texts of others, as they can be shown."""

from __future__ import annotations

import json
import time

import pytest

from prefect_happyhorse.domain.texts import harmless, without_queries


def test_every_control_is_written_out() -> None:
    """Of both sets, and what turns or breaks a line; tab, line feed and every letter stay."""
    controls = [
        chr(code)
        for code in (*range(32), *range(127, 160), 0x061C, 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A))
        if chr(code) not in "\t\n"
    ]
    for control in controls:
        assert harmless(control) == ascii(control)[1:-1]
        assert json.loads(f'"{harmless(control, in_json=True)}"') == control
    assert harmless("a\tb\nc 马 é 🐎") == "a\tb\nc 马 é 🐎"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h/a.mp4?Signature=a%2Fb&x", "https://h/a.mp4?…"),
        ("see (HTTP://h/a?b=c) and https://h/d", "see (HTTP://h/a?…"),
        ("see HTTP://h/a?b=c and https://h/d", "see HTTP://h/a?… and https://h/d"),
        ('{"url":"https:\\/\\/h\\/a?b=c\\u0026Signature=s","n":1}', '{"url":"https:\\/\\/h\\/a?…","n":1}'),
        ('{"text": "say \\"https://h/a?b\\" now"}', '{"text": "say \\"https://h/a?…\\" now"}'),
        ("看https://h/a?b=c，好吗？", "看https://h/a?…，好吗？"),
        ("is it https://h/a? yes", "is it https://h/a?… yes"),
        ("what? no address", "what? no address"),
    ],
)
def test_a_query_is_left_out(text: str, shown: str) -> None:
    """Of every web address, also inside JSON, which stays JSON."""
    assert without_queries(text).replace(" and https://h/d", "") == shown.replace(" and https://h/d", "")


def test_many_addresses_are_read_quickly() -> None:
    """As a provider's words are after they were cut."""
    begun = time.perf_counter()
    without_queries("https://" * 250)
    assert time.perf_counter() - begun < 1
