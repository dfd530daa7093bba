"""Reads the few fields of an OpenAI request that routing needs, and leaves every other byte as it came.

Values stay raw: they are checked to be JSON but never built as objects, so a request of ten megabytes costs
milliseconds. The body sent upstream differs from the client's in `model` and `stream_options` only, and in what the
rules of a hosted API say (`request_adapter`). What is said to the model is looked into only where it may name media for
the engine to fetch: it stands in a network that clients must not reach through it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec

from gateway.domain.charges import MOST_CHOICES, MOST_PROMPTS, MOST_TOKENS, estimate_prompt_tokens
from gateway.errors import InvalidRequest

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ANY = msgspec.json.Decoder()
_VALUES = msgspec.json.Decoder(list[msgspec.Raw])
_KEY = re.compile(rb'[\s,]*("(?:[^"\\]|\\.)*")\s*:\s*')
_END = re.compile(rb"\s*\}\s*\Z")
_LIST_OF_PROMPTS = re.compile(rb'\[\s*["\[]')
MAX_FIELDS = 1000
"""Top-level members of a body; far more than any dialect has."""
_MEDIA_SIGNS = (b'url"', b"\\u00", b'audio"')
"""One of these stands in every body that names media: a letter of a name is either plain or written as \\u00XX."""
_PARTS = ("content", "output", "source")
"""Members of a message, an item or a part that may hold parts of their own."""
Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class BodyFields:
    """Which fields of a route's bodies mean something to the gateway; `model` always does."""

    streams: bool = False
    """`stream: true` gives a stream; elsewhere the field is the engine's."""
    has_stream_options: bool = False
    """Usage comes in a stream only when `stream_options` ask for it."""
    has_choices: bool = False
    """`n` is how many answers are wanted."""
    has_prompts: bool = False
    """`prompt` may be a list, of which each is answered."""
    max_tokens: tuple[str, ...] = ()
    """The limit on the answer's tokens; engines differ in which one counts, so the greatest is reserved."""
    media: tuple[str, ...] = ()
    """Members that may name media to fetch, in parts."""
    media_depth: int = 1
    """The opening brace before which no name of media can stand."""


CHAT_FIELDS = BodyFields(
    streams=True,
    has_stream_options=True,
    has_choices=True,
    max_tokens=("max_completion_tokens", "max_tokens"),
    media=("messages",),
    media_depth=3,  # of the body, of a message, of a part: whether or not they stand in lists, as they should
)
COMPLETION_FIELDS = replace(CHAT_FIELDS, has_prompts=True)


class Adaptation(NamedTuple):
    """What a hosted API's rules change about one request; see `request_adapter`."""

    left_out: frozenset[str] = frozenset()
    renamed: Mapping[str, str] = {}
    asks_for_usage: bool = True
    """Whether the API may be asked for the usage of a stream."""
    told: tuple[str, ...] = ()
    """Fields left out that the caller must hear of, in the order of the request."""


UNCHANGED = Adaptation()
"""Of a request to an engine without rules."""


class RequestBody(NamedTuple):
    """A request as far as the gateway reads it."""

    raw: bytes
    model: str
    stream: bool
    choices: int
    """How many answers the client asked for (`n`), to each of its prompts."""
    prompts: int
    prompt_estimate: int
    """Tokens of the prompts, by the size of the body."""
    max_tokens: int | None
    """Of each answer, where the client says."""
    wants_usage: bool
    """The client itself asked for the usage event, or it comes unasked."""
    members: dict[str, msgspec.Raw]
    stream_options: dict[str, Any]
    adaptation: Adaptation = UNCHANGED

    def value(self, name: str, kind: type, words: str) -> Any:
        """A member's value, None when absent or null. Raises InvalidRequest, "must be <words>", for another kind."""
        return _typed(self.members, name, kind, words)

    def for_engine(self, served_model_name: str) -> bytes:
        """The body to send upstream: the engine's name for the model, and usage asked for when streaming."""
        changes: dict[str, bytes] = {}
        if served_model_name != self.model:
            changes["model"] = msgspec.json.encode(served_model_name)
        if self.stream and not self.wants_usage and self.adaptation.asks_for_usage:
            changes["stream_options"] = msgspec.json.encode({**self.stream_options, "include_usage": True})
        if self.adaptation.left_out or self.adaptation.renamed:
            return self._rebuilt(changes)
        return self._spliced(changes) if changes else self.raw

    def _rebuilt(self, changes: dict[str, bytes]) -> bytes:
        """The members in their order, every value as it came but for `changes`; only the space between them goes."""
        left_out, renamed = self.adaptation.left_out, self.adaptation.renamed
        members: dict[str, msgspec.Raw | bytes] = {**self.members, **changes}
        parts: list[msgspec.Raw | bytes] = []
        for name, value in members.items():
            if name not in left_out:
                parts += [b",", msgspec.json.encode(renamed.get(name, name)), b":", value]
        parts[0] = b"{"
        return b"".join([*parts, b"}"])

    def _spliced(self, changes: dict[str, bytes]) -> bytes:
        parts: list[bytes] = []
        position = 0
        replaced = {key: value for key, value in changes.items() if key in self.members}
        spans = _spans(self.raw, self.members) if replaced else {}
        for start, end, value in sorted((*spans[key], value) for key, value in replaced.items()):
            parts += [self.raw[position:start], value]
            position = end
        added = [b'"%b":%b' % (key.encode(), value) for key, value in changes.items() if key not in replaced]
        if not added:
            return b"".join([*parts, self.raw[position:]])
        closing = self.raw.rindex(b"}")
        return b"".join([*parts, self.raw[position:closing], b",", b",".join(added), self.raw[closing:]])


def read_request(raw: bytes, fields: BodyFields = CHAT_FIELDS, *, allow_remote_media: bool = False) -> RequestBody:
    """Parse a body. Raises InvalidRequest that names the field and what would be right.

    Unless `allow_remote_media`, media must come as data: URLs. All that takes time in proportion to the body happens
    here, so that a large one can be read off the event loop.
    """
    members = _members(raw)
    if not _is_compact(raw, members):
        _spans(raw, members)
    if not allow_remote_media and _may_name_media(raw, fields.media_depth):
        for name in fields.media:
            if name in members:
                _refuse_remote_media(name, members[name])
    model = _typed(members, "model", str, "a string")
    if not model:
        raise InvalidRequest("'model' is missing: expected the id of a model, see GET /v1/models", param="model")
    options = _stream_options(members) if fields.has_stream_options else {}
    return RequestBody(
        raw=raw,
        model=model,
        stream=fields.streams and bool(_typed(members, "stream", bool, "true or false")),
        choices=_choices(members) if fields.has_choices else 1,
        prompts=_prompts(members) if fields.has_prompts else 1,
        prompt_estimate=estimate_prompt_tokens(raw),
        max_tokens=_greatest_limit(members, fields.max_tokens),
        wants_usage=bool(options.get("include_usage")) or not fields.has_stream_options,
        members=members,
        stream_options=options,
    )


def _choices(members: dict[str, msgspec.Raw]) -> int:
    choices: int | None = _typed(members, "n", int, "a whole number")
    if choices is None:
        return 1
    if not 1 <= choices <= MOST_CHOICES:
        raise InvalidRequest(f"'n' must be from 1 to {MOST_CHOICES:,}, got {_shown(choices)}", param="n")
    return choices


def _prompts(members: dict[str, msgspec.Raw]) -> int:
    """How many prompts are to be continued: a list of texts, or of lists of token ids. A list of ids is one."""
    prompt = members.get("prompt")
    if prompt is None or bytes(memoryview(prompt)[:1]) != b"[" or _LIST_OF_PROMPTS.match(prompt) is None:
        return 1
    prompts = len(_VALUES.decode(prompt))
    if prompts > MOST_PROMPTS:
        raise InvalidRequest(
            f"'prompt' has {prompts:,} prompts; at most {MOST_PROMPTS:,} go into one request: send several.",
            param="prompt",
        )
    return prompts


def _greatest_limit(members: dict[str, msgspec.Raw], names: tuple[str, ...]) -> int | None:
    """None where none is given. What is below 1 is the engine's to complain of."""
    greatest: int | None = None
    for name in names:
        limit: int | None = _typed(members, name, int, "a whole number")
        if limit is None:
            continue
        if limit > MOST_TOKENS:
            raise InvalidRequest(f"'{name}' must be at most {MOST_TOKENS:,}, got {_shown(limit)}", param=name)
        greatest = limit if greatest is None else max(greatest, limit)
    return greatest


def _stream_options(members: dict[str, msgspec.Raw]) -> dict[str, Any]:
    options: dict[str, Any] = _typed(members, "stream_options", dict, "an object") or {}
    include_usage = options.get("include_usage")
    if include_usage is not None and not isinstance(include_usage, bool):
        raise InvalidRequest(
            f"'stream_options.include_usage' must be true or false, got {_shown(include_usage)}",
            param="stream_options.include_usage",
        )
    return options


def _members(raw: bytes) -> dict[str, msgspec.Raw]:
    try:
        if not raw.isascii():
            raw.decode()
        members = _MEMBERS.decode(raw)
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The request body is not valid UTF-8 (byte {error.start}).") from None
    except RecursionError:
        raise InvalidRequest("The request body is nested too deeply.") from None
    except msgspec.ValidationError:
        raise InvalidRequest("The request body must be a JSON object.") from None
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"The request body is not valid JSON: {error}") from None
    if len(members) > MAX_FIELDS:
        raise InvalidRequest(f"The request body has {len(members)} fields; more than {MAX_FIELDS} is no request.")
    return members


def _may_name_media(raw: bytes, depth: int) -> bool:
    """Whether to look for names of media; none stands before the opening brace number `depth`."""
    inner = -1
    for _ in range(depth):
        inner = raw.find(b"{", inner + 1)
        if inner < 0:
            return False
    return any(raw.find(sign, inner) >= 0 for sign in _MEDIA_SIGNS)


def _refuse_remote_media(name: str, raw_value: msgspec.Raw) -> None:
    """Raise InvalidRequest where a content part in the member `name` holds an address instead of its data.

    Of a name that occurs twice in a part the last one counts, as for the engines' own parsers.
    """
    try:
        where = next(_remote_media(_ANY.decode(raw_value), name), None)
    except msgspec.DecodeError as error:  # e.g. a number beyond every range
        raise InvalidRequest(f"'{name}' cannot be read: {error}", param=name) from None
    except RecursionError:
        raise InvalidRequest(f"'{name}' is nested too deeply.", param=name) from None
    if where is not None:
        raise InvalidRequest(
            f"{where}: this gateway lets engines fetch nothing: send the content itself as a data: URL. "
            "The operator may allow addresses with SIMSA_ALLOW_REMOTE_MEDIA.",
            param=where,
            code="remote_url_not_allowed",
        )


def _remote_media(value: Any, where: str) -> Iterator[str]:
    """The place of every address in messages, items or parts, and in the parts that these have.

    Other members are not entered: what a model gave a tool, for one, may name any address, and nobody fetches it.
    """
    if isinstance(value, list):
        for position, each in enumerate(value):
            yield from _remote_media(each, f"{where}[{position}]")
    elif isinstance(value, dict):
        for name, member in value.items():
            if _is_remote(name, member):
                yield f"{where}.{name}"
            elif name in _PARTS:
                yield from _remote_media(member, f"{where}.{name}")


def _is_remote(name: str, value: Any) -> bool:
    """Whether a member of a content part makes the engine fetch, or read a file of its own.

    In a field that takes an address, everything but data: does; audio comes as plain base64, which has no colon.
    """
    if name.endswith("url"):
        return any(not text.startswith("data:") for text in _texts(value, "url"))
    is_audio = name.endswith("audio")
    return is_audio and any(":" in text and not text.startswith("data:") for text in _texts(value, "data"))


def _texts(value: Any, name: str) -> Iterator[str]:
    """The texts that a media field holds: itself, its member `name`, or a list of either."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from _texts(value.get(name), name)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, name)


def _is_compact(raw: bytes, members: dict[str, msgspec.Raw]) -> bool:
    """Whether the body is so short that there is no room for a repeated name: no space, each member once.

    The usual clients send this form, and it costs less to see than `_spans`.
    """
    shortest = 1 + 4 * len(members)
    for name, value in members.items():
        shortest += (len(name) if name.isascii() else len(name.encode())) + len(memoryview(value))
    return len(raw) == shortest


def _spans(raw: bytes, members: dict[str, msgspec.Raw]) -> dict[str, Span]:
    """Where each value stands; walking the members in order also finds any name that occurs twice.

    The decoder keeps a repeated name's first place and last value, so the walk and the bytes then disagree.
    """
    spans: dict[str, Span] = {}
    cursor = raw.index(b"{") + 1
    for name, value in members.items():
        found = _KEY.match(raw, cursor)
        assert found is not None
        written = found[1]
        if written[1:-1] != name.encode():  # another name, or the same one written with escapes
            decoded = _ANY.decode(written)
            if decoded != name:
                raise _duplicate(decoded)
        start = found.end()
        text = bytes(value)
        if not raw.startswith(text, start):
            raise _duplicate(name)
        cursor = start + len(text)
        spans[name] = (start, cursor)
    if _END.match(raw, cursor) is None:
        extra = _KEY.match(raw, cursor)
        raise _duplicate(_ANY.decode(extra[1]) if extra else next(reversed(members)))
    return spans


def _duplicate(name: object) -> InvalidRequest:
    return InvalidRequest(f"The field '{name}' occurs more than once: send it once.", param=str(name))


def _typed(members: dict[str, msgspec.Raw], name: str, kind: type, words: str) -> Any:
    """The member's value, None when absent or null. bool is no int here."""
    value = members.get(name)
    if value is None:
        return None
    try:
        decoded = _ANY.decode(value)
    except msgspec.DecodeError as error:  # e.g. a number beyond every range
        raise InvalidRequest(f"'{name}' must be {words}: {error}", param=name) from None
    if decoded is None or (isinstance(decoded, kind) and not (kind is int and isinstance(decoded, bool))):
        return decoded
    raise InvalidRequest(f"'{name}' must be {words}, got {_shown(decoded)}", param=name)


def _shown(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 40 else text[:37] + "..."
