"""Check a request against its route, before anything is sent: every problem, in one list."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable

from prefect_happyhorse.catalog.fields import WireField, WireType
from prefect_happyhorse.catalog.routes import Route
from prefect_happyhorse.domain.assets import MediaAsset
from prefect_happyhorse.domain.errors import InvalidRequest
from prefect_happyhorse.domain.locations import locate
from prefect_happyhorse.domain.prompts import MAX_REFERENCES, mentions, rename_references, weighted_length
from prefect_happyhorse.domain.requests import MEDIA_FIELDS, GenerationRequest, iter_media

__all__ = ["check", "find_advice", "find_problems", "fits_size", "wire_value"]

_NOT_WIRE = frozenset({"capability", "options"})
_NOUNS: dict[WireType, str] = {"integer": "a whole number", "number": "a number", "boolean": "true or false"}
_TYPES: dict[WireType, type | tuple[type, ...]] = {"integer": int, "number": (int, float), "boolean": bool}
_UNITS = {"duration": " seconds"}


def check(request: GenerationRequest, route: Route, *, more: Iterable[str] = ()) -> None:
    """Refuse a request that its route cannot carry."""
    problems = (*find_problems(request, route), *more)
    if problems:
        raise InvalidRequest(
            f"{route.gateway} cannot take this {route.capability} for {route.model}: {_count(len(problems), 'problem')}. Nothing was sent.",
            gateway=route.gateway,
            capability=route.capability,
            model=route.model,
            problems=problems,
        )


def find_problems(request: GenerationRequest, route: Route) -> tuple[str, ...]:
    """Every problem that a request has with its route, as sentences."""
    problems = (
        *_foreign_fields(request, route),
        *_option_problems(request, route),
        *(problem for field in route.fields for problem in _field_problems(request, route, field)),
        *_general_problems(request, route),
        *_mention_problems(request, route),
        *_media_problems(request, route),
    )
    return tuple(dict.fromkeys(problems))


def find_advice(request: GenerationRequest, route: Route) -> tuple[str, ...]:
    """What a request does otherwise than the provider advises, as sentences; it refuses nothing."""
    return tuple(
        f"{name}: between {field.advised[0]:g} and {field.advised[1]:g}{_UNITS.get(name, '')} is advised (got {value})"
        for field in route.fields
        if field.advised is not None
        for name, value in _sources(request, field).items()
        if isinstance(value, (int, float)) and not field.advised[0] <= value <= field.advised[1]
    )


def wire_value(value: object, field: WireField) -> object:
    """A request's value as a wire field writes it."""
    if field.render == "upper":
        return str(value).upper()
    if field.render == "text":
        return str(value)
    if field.render == "size":
        return re.sub("[X×]", "*", str(value).upper())
    if field.render == "number":
        digits = str(value).removesuffix("p")
        return int(digits) if digits.isascii() and digits.isdecimal() else value
    return value


def _is_set(value: object) -> bool:
    return value is not None and value != ()


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _foreign_fields(request: GenerationRequest, route: Route) -> Iterable[str]:
    taken = route.request_fields | {"model"}
    for name in type(request).model_fields:
        if name in _NOT_WIRE or name in taken or not _is_set(value := getattr(request, name)):
            continue
        shown = "" if name in MEDIA_FIELDS else f" (got {value!r})"
        yield f"{name} is not accepted here{shown}; accepted are {', '.join(sorted(taken))}"


def _option_problems(request: GenerationRequest, route: Route) -> Iterable[str]:
    known = route.options
    for name, value in request.options.items():
        if name not in known:
            listed = f"this route has {', '.join(sorted(known))}" if known else "this route has none"
            yield f"options.{name} is no option here (got {value!r}); {listed}"


def _sources(request: GenerationRequest, field: WireField) -> dict[str, object]:
    """The set values that a wire field takes, by request field."""
    found: dict[str, object] = {}
    for name in field.source_names:
        value = request.options.get(name.removeprefix("options.")) if name.startswith("options.") else getattr(request, name, None)
        if _is_set(value):
            found[name] = value
    return found


def _field_problems(request: GenerationRequest, route: Route, field: WireField) -> Iterable[str]:
    found = _sources(request, field)
    if not found:
        if field.required and (names := field.source_names):
            rule = _rule(field, names[0])
            yield f"{' or '.join(names)} is required here{f' and must be {rule}{_whose(field, route)}' if rule else ''}"
        return
    for name in field.without:
        if _is_set(getattr(request, name)):
            yield f"{' and '.join(found)} must be left out beside {name}, where the provider ignores it"
    if field.type in {"url", "url[]", "file", "media[]", "messages"}:
        yield from _count_problems(field, found, splits=any(other.pick == "rest" for other in route.fields))
        if field.max_chars is not None and isinstance(prompt := found.get("prompt"), str):
            yield from _length_problems("prompt", prompt, field, route)
        return
    if field.maximum_with:
        lower = [most for name, most in field.maximum_with.items() if _is_set(getattr(request, name))]
        field = field.model_copy(update={"maximum": min([*lower, *([] if field.maximum is None else [field.maximum])])})
    for name, value in found.items():
        yield from _value_problems(name, value, field, route)


def _value_problems(name: str, value: object, field: WireField, route: Route) -> Iterable[str]:
    written = wire_value(value, field)
    if field.render == "text":
        # The same value goes over the wire twice, once as a number and once as text: the number is what is checked.
        return
    if not _has_type(written, field):
        kind, rule = _NOUNS.get(field.type, "text"), _rule(field, name)
        yield f"{name} must be {rule if field.values else f'{kind} {rule}'.strip()} (got {value!r}){_whose(field, route) if rule else ''}"
        return
    fits = fits_size(written, field) if field.pixels and isinstance(written, str) else not field.values or written in field.values
    if not fits or (isinstance(written, (int, float)) and not _within(written, field)):
        yield f"{name} must be {_rule(field, name)} (got {value!r}){_whose(field, route)}"
    if field.max_chars is not None and isinstance(written, str):
        yield from _length_problems(name, written, field, route)


def _length_problems(name: str, written: str, field: WireField, route: Route) -> Iterable[str]:
    called = route.name_of_references(written) if name == "prompt" else None
    text = rename_references(written, called) if called else written
    if field.max_chars is not None and (length := weighted_length(text, field.chinese_weight)) > field.max_chars:
        weight = f", a Chinese one counting {field.chinese_weight}" if field.chinese_weight > 1 else ""
        read = "" if text == written else " as the gateway reads it"
        yield f"{name} must have at most {field.max_chars} characters{weight} (got {length}{read}){_whose(field, route)}"


def _whose(field: WireField, route: Route) -> str:
    """Words behind a limit that is not the provider's own."""
    return f"; the limit is {field.borrowed}, and {route.facts.title} names none" if field.borrowed else ""


def fits_size(text: str, field: WireField) -> bool:
    """Whether a size, as it is written on the wire, is one that the field takes."""
    sides = re.fullmatch(r"([0-9]{1,6})\*([0-9]{1,6})", text)
    if sides is None or field.pixels is None:
        return text in field.values
    width, height = map(int, sides.groups())
    least, most = field.aspect or (0.0, math.inf)
    return field.pixels[0] <= width * height <= field.pixels[1] and height > 0 and least <= width / height <= most


def _has_type(value: object, field: WireField) -> bool:
    # To Python true and false are numbers.
    return isinstance(value, _TYPES.get(field.type, str)) and isinstance(value, bool) == (field.type == "boolean")


def _within(value: float, field: WireField) -> bool:
    return (field.minimum is None or value >= field.minimum) and (field.maximum is None or value <= field.maximum)


def _rule(field: WireField, name: str) -> str:
    """What a value must be, as it goes on after "must be"; empty where the field says nothing."""
    if field.pixels is not None:
        words = "".join(f"{word}, " for word in field.values)
        ratio = f" and a ratio between {field.aspect[0]:g} and {field.aspect[1]:g}" if field.aspect else ""
        return f"{words}{'or ' if words else ''}width*height with {field.pixels[0]:,} to {field.pixels[1]:,} pixels in all{ratio}"
    if field.values:
        shown = [str(value).lower() if field.render == "upper" else str(value) for value in field.values]
        return f"one of {', '.join(shown)}" if len(shown) > 1 else shown[0]
    unit = _UNITS.get(name, "")
    if field.minimum is not None and field.minimum == field.maximum:
        return f"{field.minimum:g}{unit}"
    if field.minimum is not None and field.maximum is not None:
        return f"between {field.minimum:g} and {field.maximum:.0f}{unit}"
    if field.maximum is not None:
        return f"at most {field.maximum:.0f}{unit}"
    return f"{field.minimum:g} or more{unit}" if field.minimum is not None else ""


def _count_problems(field: WireField, found: dict[str, object], *, splits: bool) -> Iterable[str]:
    """Problems with how many media there are; `splits` when another field takes those that follow the first."""
    if (field.type == "messages" and field.render != "parts") or (field.pick == "first" and splits):
        return
    apart = {"prompt", *(item.source for item in field.items if item.apart)}
    counted = {name: value for name, value in found.items() if name not in apart}
    number = sum(len(value) if isinstance(value, tuple) else 1 for value in counted.values())  # pyright: ignore[reportUnknownArgumentType]
    found = counted or found
    taken_by_the_first = 1 if field.pick == "rest" else 0
    most = 1 if field.type in {"url", "file"} else field.max_items
    if most is not None and number > most + taken_by_the_first:
        yield _too_many(found, number, most + taken_by_the_first)
    if field.min_items is not None and number < field.min_items:
        yield f"{' and '.join(found)} must hold at least {field.min_items} (got {number})"


def _too_many(names: Iterable[str], number: int, most: int) -> str:
    return f"{' and '.join(names)} must hold at most {most} (got {number})"


def _general_problems(request: GenerationRequest, route: Route) -> Iterable[str]:
    if request.prompt is not None and not request.prompt.strip():
        yield "prompt must not be blank"
    duration = getattr(request, "duration", None)
    bounded = any("duration" in field.source and field.minimum is not None for field in route.fields)
    if duration is not None and duration < 1 and not bounded:
        yield f"duration must be 1 or more seconds (got {duration!r})"
    references = getattr(request, "references", ())
    if len(references) > MAX_REFERENCES and not _limits_references(route):
        yield f"references must hold at most {MAX_REFERENCES}, since a prompt can name no more (got {len(references)})"
    videos = len(getattr(request, "reference_videos", ()))
    voices = sum(1 for name, _, _ in iter_media(request) if name == "voice")
    if voices and voices != videos:
        yield f"voice belongs to a reference video and must hold one for each, in their order (got {voices} for {videos})"


def _limits_references(route: Route) -> bool:
    """Whether the provider's own limit refuses as many references as a prompt cannot name."""
    of_fields = (
        field.max_items
        for field in route.fields
        # Messages are counted by themselves, and not by what they hold.
        if "references" in field.source_names and (field.type != "messages" or field.render == "parts")
    )
    of_media = (limit.max_count for limit in route.media if "references" in limit.request_fields)
    return any(most is not None and most <= MAX_REFERENCES for most in (*of_fields, *of_media))


def _mention_problems(request: GenerationRequest, route: Route) -> Iterable[str]:
    named = mentions(request.prompt or "")
    if not named:
        return
    available = len(getattr(request, "references", ()))
    for number in sorted({number for number in named if not 1 <= number <= available}):
        yield f"prompt names @{number}, but there {'is' if available == 1 else 'are'} {_count(available, 'reference')}"
    if route.reference_name is None:
        yield f"prompt names @{named[0]}, but {route.gateway} documents no way to name a reference here; describe it in words"


def _media_problems(request: GenerationRequest, route: Route) -> Iterable[str]:
    for name, position, medium in iter_media(request):
        if isinstance(medium, MediaAsset):
            continue
        where = name if position is None else f"{name}[{position}]"
        try:
            location = locate(medium)
        except ValueError as error:
            yield f"{where}={medium!r}: it {error}"
            continue
        if location == "inline" and not route.base64 and name not in route.file_fields:
            yield f"{where} must be an address that {route.gateway} can read: it takes no data URLs"
    for limit in route.media:
        number = sum(1 for name, _, _ in iter_media(request) if name in limit.request_fields)
        if limit.max_count is not None and number > limit.max_count:
            yield _too_many((name for name in limit.request_fields if name in route.request_fields), number, limit.max_count)
