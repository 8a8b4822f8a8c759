"""References inside a prompt, `@1` to `@9`, and how long a prompt is."""

from __future__ import annotations

import re

__all__ = ["MAX_REFERENCES", "is_chinese", "mentions", "rename_references", "weighted_length"]

MAX_REFERENCES = 9
"""How many references a prompt can name."""

# Letters of scripts that put spaces between words, and digits. Chinese, Japanese, Korean and Thai do not, so there a
# mention may stand against the next character: "让@1骑上@2".
_WORD = r"0-9A-Za-z_\u00aa\u00b5\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u058f"
# With a scheme or without. Chinese punctuation and quotation marks end it, since in Chinese no space follows an address.
# An address begins where a run of its letters begins: so a long word is looked at once, and not once from each letter.
_ADDRESS = (
    r"(?<![0-9A-Za-z+.\-])(?:[A-Za-z][0-9A-Za-z+.\-]*://|(?:[0-9A-Za-z\-]+\.)+[A-Za-z]{2,}/)"
    r"[^\s\"<>\u2018-\u201d\u3000-\u303f\uff00-\uff20]+"
)
# Eighteen digits are far beyond any reference, and still a number that Python reads. What looks like a mention inside an address, or
# right before the rest of one, is the address's.
_MENTION = re.compile(rf"@?{_ADDRESS}|(?<![{_WORD}@])@([0-9]{{1,18}})(?![{_WORD}@])(?!\.[0-9A-Za-z])")
_LATIN = re.compile(r"[A-Za-z]")
_CHINESE = re.compile(r"[\u2e80-\u2fdf\u3000-\u303f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003fffd]")


def mentions(prompt: str) -> tuple[int, ...]:
    """The numbers of the references that a prompt names, in order and as often as it names them.

    Example:
        >>> mentions("@1 leads @2, write to a@1.example or https://example.com/@3")
        (1, 2)
    """
    return tuple(int(found[1]) for found in _MENTION.finditer(prompt) if found[1])


def rename_references(prompt: str, name: str) -> str:
    """The prompt with every `@i` written as a gateway wants it; all else stays untouched.

    Example:
        >>> rename_references("@1 leads @2, character3 stays.", "[Image {i}]")
        '[Image 1] leads [Image 2], character3 stays.'
    """
    return _MENTION.sub(lambda found: name.replace("{i}", str(int(found[1]))) if found[1] else found[0], prompt)


def is_chinese(prompt: str) -> bool:
    """Whether a prompt is mostly Chinese.

    Example:
        >>> is_chinese("让@1骑上@2"), is_chinese("The sign says 马, and @1 reads it")
        (True, False)
    """
    return len(_CHINESE.findall(prompt)) > len(_LATIN.findall(prompt))


def weighted_length(text: str, chinese_weight: int = 1) -> int:
    """How long a text is when a Chinese character counts for several.

    Example:
        >>> weighted_length("马 horse", chinese_weight=2)
        8
    """
    return len(text) + (chinese_weight - 1) * len(_CHINESE.findall(text))
