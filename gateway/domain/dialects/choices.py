"""The dialect of /v1/chat/completions and /v1/completions: choices in every event, `[DONE]` at the end.

Hardly an event is parsed here: the plain searches over its bytes are the gateway's work per token.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from gateway.domain.dialects import GIVEN_UP, NOTABLE, OUTPUT, REASONING, Notice, WholeAnswer, count, read_usage
from gateway.domain.engine_errors import error_kind
from gateway.domain.records import Usage

DONE = b"[DONE]"
# Keys can be told from text: inside a JSON string every quote is escaped, so `{"content"` never occurs in one.
_CHAT_OUTPUT = re.compile(rb'[{,\s]"(?:content"\s*:\s*"[^"]|refusal"\s*:\s*"[^"]|tool_calls"\s*:\s*\[\s*\{)')
_CHAT_REASONING = re.compile(rb'[{,\s]"reasoning(?:_content)?"\s*:\s*"[^"]')
_TEXT_OUTPUT = re.compile(rb'[{,\s]"text"\s*:\s*"[^"]')
_NOTABLE = re.compile(rb'[{,\s]"(?:usage"\s*:\s*\{|finish_reason"\s*:\s*"|error"\s*:)')
_CHOICES = b'"choices"'


@dataclass(frozen=True, slots=True)
class ChoicesDialect:
    """Where a route's tokens are: patterns over one event's data."""

    usual_output: bytes
    """How an output text nearly always begins; the patterns decide about all else."""
    output: re.Pattern[bytes]
    reasoning: re.Pattern[bytes] | None
    done: bytes | None = DONE
    model_path: tuple[str, ...] | None = None

    def look(self, data: bytes) -> int:
        seen = NOTABLE if _is_notable(data) else 0
        end = data.find(self.usual_output) + len(self.usual_output)
        if end >= len(self.usual_output) and data[end : end + 1] != b'"':
            return seen | OUTPUT
        if self.output.search(data) is not None:
            return seen | OUTPUT
        if self.reasoning is not None and self.reasoning.search(data) is not None:
            return seen | REASONING
        return seen

    def read(self, body: dict[str, Any]) -> Notice:
        if body.get("error") is not None or body.get("object") == "error":
            return Notice(failure=f"the engine reported an error mid-stream{error_kind(body)}")
        choices = body.get("choices")
        if not isinstance(choices, list):
            choices = []
        finished = {
            _index(choice): choice["finish_reason"]
            for choice in choices
            if isinstance(choice, dict) and isinstance(choice.get("finish_reason"), str)
        }
        usage = body.get("usage")
        if not isinstance(usage, dict):
            return Notice(finished)
        is_final = bool(finished) or not choices
        return Notice(finished, read_usage(usage), is_final_usage=is_final, is_only_usage=not choices)

    def read_whole(self, body: dict[str, Any]) -> WholeAnswer:
        usage = body.get("usage")
        reason = _first(body).get("finish_reason")
        if not isinstance(reason, str):
            reason = None
        failure = None
        if reason is None or reason in GIVEN_UP:
            failure = f"The engine gave no finished answer (finish_reason {reason})."
        return WholeAnswer(read_usage(usage) if isinstance(usage, dict) else Usage(), reason, failure)

    def first_tokens(self, body: dict[str, Any]) -> tuple[int, str]:
        """By running usage, token ids or log probabilities; else assumed to be 1."""
        usage = body.get("usage")
        running = count(usage.get("completion_tokens")) if isinstance(usage, dict) else None
        if running:
            return running, "running_usage"
        choice = _first(body)
        if isinstance(choice.get("token_ids"), list) and choice["token_ids"]:
            return len(choice["token_ids"]), "token_ids"
        logprobs = choice.get("logprobs")
        if isinstance(logprobs, dict):
            listed = logprobs.get("content") or logprobs.get("tokens")
            if isinstance(listed, list) and listed:
                return len(listed), "logprobs"
        return 1, "assumed"


CHAT = ChoicesDialect(usual_output=b'{"content":"', output=_CHAT_OUTPUT, reasoning=_CHAT_REASONING)
COMPLETIONS = ChoicesDialect(usual_output=b',"text":"', output=_TEXT_OUTPUT, reasoning=None)


def _is_notable(data: bytes) -> bool:
    """Whether an event may carry usage, an ending or an error; the plain searches spare most events the pattern."""
    if _CHOICES not in data:
        return True
    if b'"usage"' not in data and b'"error"' not in data:
        endings = data.count(b'"finish_reason"')
        if endings == data.count(b'"finish_reason":null'):
            return False
    return _NOTABLE.search(data) is not None


def _first(body: dict[str, Any]) -> dict[str, Any]:
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else {}


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0
