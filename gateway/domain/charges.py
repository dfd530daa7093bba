"""What a call is held with before anybody knows what it takes, and charged with afterwards.

Counts only: the windows and budgets that they are held against are `limits`, prices are `cost`.
"""

from __future__ import annotations

import re
from decimal import Decimal

from gateway.domain.cost import api_cost
from gateway.domain.records import CallStatus, Cost, Model, ServingKind, Usage

BYTES_PER_TOKEN = 3
"""Of a request's body. A Korean letter is three bytes and about one token; English has some four bytes a token."""
MEDIA_TOKENS = 1024
"""What one image or recording sent as a data: URL is taken for at least."""
MEDIA_BYTES_PER_TOKEN = 1024
"""Of a data: URL's letters, where that is more: what looks like a picture and is none is not free."""
MOST_MEDIA = 1024
"""Data: URLs that are recognised in one request; what comes after them is taken for text."""
MOST_TOKENS = 10_000_000
"""The longest answer that may be asked for: some ten times what any model can give, and a sum that stays a number."""
MOST_CHOICES = 1024
"""Answers to one prompt (`n`); OpenAI's own limit is 128."""
MOST_PROMPTS = 10_000
"""Prompts in one request. MOST_TOKENS for each of MOST_CHOICES to each of these is far from what a database keeps."""
_MEDIA = b";base64,"
_LONGEST_NAME = 256
_MEDIA_FIELD = re.compile(rb'(?:url|data|image|audio|video|file)"\s*:\s*"data:[^",\s]*\Z')
"""What stands before the data: a name of the fields that hold media, never one that holds a text."""
_LETTERS = re.compile(rb"[A-Za-z0-9+/=,_\\-]*+")  # the frames of a film are joined by commas
_LETTERS_AT_ONCE = 1 << 18
"""Bytes looked at before other threads may go on."""
_SERVED = frozenset({CallStatus.OK, CallStatus.CANCELLED, CallStatus.TRUNCATED})


def estimate_prompt_tokens(body: bytes) -> int:
    """Tokens of a request's prompt, from the size of its body: about right and cheap, never exact.

    Media sent as data: URLs do not count by their bytes as text does.
    """
    size, media_tokens, at = len(body), 0, 0
    for _ in range(MOST_MEDIA):
        at = body.find(_MEDIA, at)
        if at < 0:
            break
        begin = at + len(_MEDIA)
        end = _end_of_letters(body, begin) if _MEDIA_FIELD.search(body, max(0, at - _LONGEST_NAME), at) else begin
        if body.startswith(b'"', end) and end > begin:
            size -= end - begin
            media_tokens += max(MEDIA_TOKENS, (end - begin) // MEDIA_BYTES_PER_TOKEN)
        at = end
    return -(-size // BYTES_PER_TOKEN) + media_tokens


def _end_of_letters(body: bytes, begin: int) -> int:
    """Where the letters of base64 (a slash of JSON may be escaped) that stand from `begin` on come to an end."""
    end = begin
    while (letters := _LETTERS.match(body, end, end + _LETTERS_AT_ONCE)) and letters.end() > end:
        end = letters.end()
    return end


def reserved_completion_tokens(max_tokens: int | None, answers: int, default: int) -> int:
    """The most that the answers may have: what the request allows each, or `default` where it says nothing."""
    return min(MOST_TOKENS, max(0, default if max_tokens is None else max_tokens)) * answers


def reserved_cost(model: Model, prompt_tokens: int, completion_tokens: int) -> tuple[str, Decimal] | None:
    """(currency, amount) of a call of so many tokens; None where no price by the token is known, e.g. for GPU time."""
    if model.serving.kind is not ServingKind.OPENAI_API or model.price is None:
        return None
    cost = api_cost(model.price, Usage(prompt_tokens, completion_tokens))
    return (cost.currency, cost.amount) if cost.amount is not None and cost.currency is not None else None


def charged_tokens(
    status: CallStatus, usage: Usage, *, reached_engine: bool, prompt_estimate: int, reserved_completion: int
) -> tuple[int, int]:
    """What a call counts for, (prompt, completion): the counts that there are, and estimates for what an engine did but
    nobody counted.

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
    return prompt, completion


def estimated_cost(model: Model, cost: Cost, charged: tuple[int, int]) -> Decimal | None:
    """What a call of unknown cost is taken for in budgets of money: what it is charged with in tokens, at their price.

    None where the cost is known, where no price by the token is, and where nothing was charged.
    """
    if cost.amount is not None or not any(charged):
        return None
    priced = reserved_cost(model, *charged)
    return priced[1] if priced is not None and priced[0] == cost.currency else None
