from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from prefect_happyhorse.domain.prompts import MAX_REFERENCES, mentions, rename_references, weighted_length

quick = settings(deadline=None, max_examples=150)
NAMES = ["character{i}", "[Image {i}]"]
every_name = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize(
    ("prompt", "numbers"),
    [
        ("@1", (1,)),
        ("@1 leads @2.", (1, 2)),
        ("@2, then @1, then @2", (2, 1, 2)),
        ("(@1)", (1,)),
        ("@1/@2", (1, 2)),
        ("@1-@2", (1, 2)),
        ("@1's mane", (1,)),
        ("@1\n@2\t@3", (1, 2, 3)),
        ("\N{LEFT-POINTING DOUBLE ANGLE QUOTATION MARK}@1\N{RIGHT-POINTING DOUBLE ANGLE QUOTATION MARK}", (1,)),
        ("@1\N{MULTIPLICATION SIGN}@2", (1, 2)),
        ("@0 and @10", (0, 10)),
        ("@09", (9,)),
        ("让@1骑上@2", (1, 2)),
        ("馬@1、@2。", (1, 2)),
        ("@1が@2に乗る", (1, 2)),
        ("말@1을", (1,)),
        ("ม้า@1วิ่ง", (1,)),
        ("🐎@1🐎", (1,)),
        ("看https://example.com/a，@1跑", (1,)),
        ("https://example.com @1", (1,)),
        ('"https://example.com/@2"@1', (1,)),
    ],
)
def test_a_mention_is_an_at_and_a_number_that_stand_alone(prompt: str, numbers: tuple[int, ...]) -> None:
    """Also against the next character in scripts that put no spaces, and against punctuation in all."""
    assert mentions(prompt) == numbers


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "@",
        "@@1",
        "@1@2",
        "@one",
        "a@1",
        "é@1",
        "Ж@1",
        "@1a",
        "@1_",
        "@1.5",
        "horse@1.example",
        "first.last@1.example",
        "张@1.example",
        "https://example.com/@1",
        "https://user:secret@1/",
        "http://@1",
        "s3://bucket/@1/horse.png",
        "git+ssh://me@1/x",
        "www.example.com/@1",
        "example.com/a/@1?b=@2",
        "character1 and [Image 2]",
        "@" + "9" * 5000,
    ],
)
@every_name
def test_what_is_no_mention_stays_untouched(prompt: str, name: str) -> None:
    """E-mail addresses, web addresses with a scheme and without, versions, words, and what a gateway itself would write."""
    assert mentions(prompt) == ()
    assert rename_references(prompt, name) == prompt


@pytest.mark.parametrize(
    ("name", "renamed"),
    [
        ("character{i}", "character1 leads character2 past character3, see https://example.com/@1 or ask a@1.example."),
        ("[Image {i}]", "[Image 1] leads [Image 2] past character3, see https://example.com/@1 or ask a@1.example."),
    ],
)
def test_mentions_are_written_as_the_gateway_reads_them(name: str, renamed: str) -> None:
    """A literal `character3` and every address pass through."""
    assert rename_references("@1 leads @2 past character3, see https://example.com/@1 or ask a@1.example.", name) == renamed


@given(st.text(alphabet=st.characters(exclude_characters="@", exclude_categories=["Cs"])))
@quick
@every_name
def test_a_text_without_an_at_is_untouched(name: str, prompt: str) -> None:
    """Whatever stands in it."""
    assert (mentions(prompt), rename_references(prompt, name)) == ((), prompt)


@given(st.emails())
@quick
@every_name
def test_an_email_address_is_untouched(name: str, address: str) -> None:
    """Every one that the standard allows, also one whose host begins with a digit."""
    prompt = f"Write to {address} today"
    assert (mentions(prompt), rename_references(prompt, name)) == ((), prompt)


@given(
    scheme=st.sampled_from(["https://", "http://", "s3://", "rtsp://", ""]),
    path=st.text(alphabet="abc123@/?=&.-_~%:", max_size=30),
    number=st.integers(1, 9),
)
@quick
def test_a_web_address_is_untouched(scheme: str, path: str, number: int) -> None:
    """Wherever an `@` and a number stand in it; what follows after a space is read again."""
    address = f"{scheme}example.com/{path}@{number}"
    assert mentions(f"See {address} and @2 there") == (2,)
    assert rename_references(f"See {address}", "[Image {i}]") == f"See {address}"


@given(st.text(alphabet="@0123456789 马a.,/:é[]" + "\n", max_size=60))
@quick
@every_name
def test_renaming_is_idempotent_and_leaves_no_mention(name: str, prompt: str) -> None:
    """What is renamed once has nothing left to rename, since no gateway's name holds an `@`."""
    renamed = rename_references(prompt, name)
    assert rename_references(renamed, name) == renamed
    assert renamed.count("@") == prompt.count("@") - len(mentions(prompt))


@given(
    words=st.lists(st.sampled_from(["马", "骑上", "走", "の", "、", "。", " runs ", ", "]), min_size=1, max_size=8),
    numbers=st.lists(st.integers(1, MAX_REFERENCES), min_size=8, max_size=8),
)
@quick
def test_mentions_stand_against_characters(words: list[str], numbers: list[int]) -> None:
    """A mention between any two characters of a script without spaces is found, in order."""
    prompt = "".join(f"@{number}{word}" for word, number in zip(words, numbers, strict=False))
    assert mentions(prompt) == tuple(numbers[: len(words)])


@given(before=st.text(max_size=20), after=st.text(max_size=20), number=st.integers(0, 99))
@quick
def test_all_around_a_mention_stays(before: str, after: str, number: int) -> None:
    """Only the mention itself changes."""
    assume("@" not in before + after and after[:1] not in set("0123456789"))
    prompt = f"{before}@{number}{after}"
    assert rename_references(prompt, "<{i}>") in {prompt, f"{before}<{number}>{after}"}


@pytest.mark.parametrize(
    "prompt", ["a" * 300_000, "a." * 150_000, "ab." * 100_000 + "/", "@" * 300_000, "https://" * 40_000, "-" * 300_000]
)
def test_a_long_prompt_is_read_once(prompt: str) -> None:
    """Time grows with the length and not with its square: these would keep a machine busy for hours."""
    assert mentions(prompt) == ()


@pytest.mark.parametrize(
    ("text", "weight", "length"),
    [
        ("horse", 1, 5),
        ("horse", 2, 5),
        ("马", 1, 1),
        ("马", 2, 2),
        ("马 horse", 2, 8),
        ("。，！", 2, 6),
        ("𠮷", 2, 2),
        ("🐎", 2, 1),
        ("é", 2, 1),
        ("", 2, 0),
    ],
)
def test_a_chinese_character_counts_for_several(text: str, weight: int, length: int) -> None:
    """Chinese punctuation too, and characters beyond the basic plane; letters, accents and emoji count one."""
    assert weighted_length(text, weight) == length


def test_every_character_counts_one_by_itself() -> None:
    """Where a source does not say otherwise."""
    assert weighted_length("马 horse") == 7
