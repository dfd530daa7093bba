"""What a call is held with before anybody knows what it takes, and charged with afterwards.

Counts only: the windows and budgets that they are held against are `limits`, prices are `cost`.
"""

from __future__ import annotations

from decimal import Decimal

from gateway.domain.cost import api_cost
from gateway.domain.records import CallStatus, Model, ServingKind, Usage

BYTES_PER_TOKEN = 3
"""Of a request's body. A Korean letter is three bytes and about one token; English has some four bytes a token."""
MEDIA_TOKENS = 1024
"""What one image or recording sent as a data: URL is taken for, whatever its size."""
_MEDIA = b";base64,"
_SERVED = frozenset({CallStatus.OK, CallStatus.CANCELLED, CallStatus.TRUNCATED})


def estimate_prompt_tokens(body: bytes) -> int:
    """Tokens of a request's prompt, from the size of its body: about right and cheap, never exact."""
    size, media, at = len(body), 0, body.find(_MEDIA)
    while at >= 0:
        end = body.find(b'"', at)
        end = len(body) if end < 0 else end
        size -= end - at
        media += 1
        at = body.find(_MEDIA, end)
    return -(-size // BYTES_PER_TOKEN) + MEDIA_TOKENS * media


def reserved_completion_tokens(max_tokens: int | None, choices: int, default: int) -> int:
    """The most that the answers may have: what the request allows each, or `default` where it says nothing."""
    return max(0, default if max_tokens is None else max_tokens) * choices


def reserved_cost(model: Model, prompt_tokens: int, completion_tokens: int) -> tuple[str, Decimal] | None:
    """(currency, amount) of a call of so many tokens; None where no price by the token is known, e.g. for GPU time."""
    if model.serving.kind is not ServingKind.OPENAI_API or model.price is None:
        return None
    cost = api_cost(model.price, Usage(prompt_tokens, completion_tokens))
    return (cost.currency, cost.amount) if cost.amount is not None and cost.currency is not None else None


def charged_tokens(
    status: CallStatus, usage: Usage, *, reached_engine: bool, prompt_estimate: int, reserved_completion: int
) -> int:
    """What a call counts for: the counts that there are, and estimates for what an engine did but nobody counted.

    The prompt is charged at its estimate where an engine took it and did not say how long it was: the client left, or
    the answer broke off. A whole answer without any count is charged as reserved. A refusal or failure without an
    answer costs nothing.
    """
    prompt, completion = usage.prompt_tokens, usage.completion_tokens
    was_served = reached_engine and (status in _SERVED or bool(completion))
    if prompt is None:
        prompt = prompt_estimate if was_served else 0
    if completion is None:
        completion = reserved_completion if was_served and status is CallStatus.OK else 0
    return prompt + completion
