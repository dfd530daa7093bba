"""The routes that go to one engine, as data: where they go, how their bodies are read, in which dialect they answer.

A new route of engines is an entry here. What happens to a call is the same for all and stands in `active_call`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from gateway.domain.dialects import BODIES, Dialect
from gateway.domain.dialects.choices import CHAT, COMPLETIONS
from gateway.domain.dialects.messages import MESSAGES
from gateway.domain.dialects.responses import RESPONSES
from gateway.error_shapes import ANTHROPIC, OPENAI, ErrorShape
from gateway.error_shapes import RESPONSES as RESPONSES_ERRORS
from gateway.request_body import CHAT_FIELDS, COMPLETION_FIELDS, BodyFields


class _Facts(msgspec.Struct):
    usage: object = None
    error: object = None


_FACTS = msgspec.json.Decoder(_Facts)


def decode_facts(body: bytes) -> object:
    """What the gateway reads of an answer that may be megabytes of vectors: the rest is checked and not built.

    Raises ValueError when it is no JSON object.
    """
    return msgspec.structs.asdict(_FACTS.decode(body))


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route of engines."""

    name: str
    """Label in metrics and records."""
    path: bytes
    dialect: Dialect
    fields: BodyFields
    errors: ErrorShape = OPENAI
    is_below_base: bool = True
    """Whether the path stands below the replica's base path, or at its root as vLLM's own routes do."""
    headers: tuple[bytes, ...] = ()
    """The client's headers that go on to the engine, in lower case."""
    takes_x_api_key: bool = False
    decode: Callable[[bytes], object] = msgspec.json.decode
    """Reads a whole answer's body."""
    keeps_replies: bool = False
    """Engines may keep what they answered, to be asked for or continued later under its id."""

    is_computed: bool = True
    """Whether a model reads the prompt; counting or naming its tokens is free of charge."""

    @property
    def generates(self) -> bool:
        """Whether its answers have tokens of their own, which a request may limit."""
        return bool(self.fields.max_tokens)


_ANTHROPIC_HEADERS = (b"anthropic-version", b"anthropic-beta")

CHAT_COMPLETIONS = Endpoint("chat_completions", b"/chat/completions", CHAT, CHAT_FIELDS)
TEXT_COMPLETIONS = Endpoint("completions", b"/completions", COMPLETIONS, COMPLETION_FIELDS)
RESPONSES_CREATE = Endpoint(
    "responses",
    b"/responses",
    RESPONSES,
    BodyFields(
        streams=True,
        max_tokens=("max_output_tokens",),
        media=("input", "previous_input_messages", "tools"),
    ),
    errors=RESPONSES_ERRORS,
    keeps_replies=True,
)
MESSAGES_CREATE = Endpoint(
    "messages",
    b"/messages",
    MESSAGES,
    BodyFields(streams=True, max_tokens=("max_tokens",), media=("messages", "system", "mcp_servers", "tools")),
    errors=ANTHROPIC,
    headers=_ANTHROPIC_HEADERS,
    takes_x_api_key=True,
)
COUNT_TOKENS = Endpoint(
    "count_tokens",
    b"/messages/count_tokens",
    BODIES,
    BodyFields(media=("messages", "system", "mcp_servers", "tools")),
    errors=ANTHROPIC,
    headers=_ANTHROPIC_HEADERS,
    takes_x_api_key=True,
    is_computed=False,
)
EMBEDDINGS = Endpoint(
    "embeddings", b"/embeddings", BODIES, BodyFields(media=("input", "messages")), decode=decode_facts
)
RERANK = Endpoint("rerank", b"/rerank", BODIES, BodyFields(media=("query", "documents")), decode=decode_facts)
# Below /v1 vLLM serves it too, with a warning in its log each time.
SCORE = Endpoint(
    "score",
    b"/score",
    BODIES,
    BodyFields(media=("queries", "documents", "items", "text_1", "text_2", "data_1", "data_2")),
    is_below_base=False,
    decode=decode_facts,
)
TOKENIZE = Endpoint(
    "tokenize",
    b"/tokenize",
    BODIES,
    BodyFields(media=("messages",)),
    is_below_base=False,
    decode=decode_facts,
    is_computed=False,
)
DETOKENIZE = Endpoint("detokenize", b"/detokenize", BODIES, BodyFields(), is_below_base=False, is_computed=False)

ENDPOINTS: dict[str, Endpoint] = {
    "/v1/chat/completions": CHAT_COMPLETIONS,
    "/v1/completions": TEXT_COMPLETIONS,
    "/v1/responses": RESPONSES_CREATE,
    "/v1/messages": MESSAGES_CREATE,
    "/v1/messages/count_tokens": COUNT_TOKENS,
    "/v1/embeddings": EMBEDDINGS,
    "/v1/rerank": RERANK,
    "/rerank": RERANK,
    "/v1/score": SCORE,
    "/score": SCORE,
    "/tokenize": TOKENIZE,
    "/detokenize": DETOKENIZE,
}
"""By the path that clients use."""
