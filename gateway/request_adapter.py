"""Fits a request to a hosted API by the registry's rules: what is left out, renamed, or refused beforehand.

Only the names of top-level fields are looked at, and the few values that a limit speaks of; nothing else is parsed or
changed. The rules themselves are data: `domain.records.Adapter`, written in the registry.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gateway.domain.records import Adapter, Model, StreamUsage
from gateway.errors import InvalidRequest
from gateway.request_body import Adaptation, RequestBody

_NUMBER = msgspec.json.Decoder(int | float | None)
_ASKS_FOR_NOTHING = frozenset({b"null", b"false", b"0", b"0.0", b'""', b"[]", b"{}"})
"""Values with which a client only spells out that it does not want something."""
_STREAM_OPTIONS = "stream_options"


def adapt(body: RequestBody, model: Model) -> RequestBody:
    """The request as the model's API can take it; the very same where there are no rules.

    Raises InvalidRequest that names the field and the model: for a field that the API cannot honour, for a value above
    its limit, and for two fields that are one to it.
    """
    adapter = model.serving.adapter
    if adapter is None:
        return body
    left_out: list[str] = []
    told: list[str] = []
    for name, value in body.members.items():
        if name in adapter.drop:
            left_out.append(name)
            told.append(name)
        elif (reason := adapter.refuse.get(name)) is not None:
            if bytes(value) not in _ASKS_FOR_NOTHING:
                raise InvalidRequest(
                    f"'{model.id}' does not take '{name}': {reason} Leave it out, or ask another model.",
                    param=name,
                    code="unsupported_field",
                )
            left_out.append(name)
            told.append(name)
    left_out += _shadowed(body, adapter, model)
    _check_limits(body, adapter, model)
    asks_for_usage = adapter.stream_usage is StreamUsage.ASKED
    if not asks_for_usage and _STREAM_OPTIONS in body.members:
        left_out.append(_STREAM_OPTIONS)
        if body.wants_usage and adapter.stream_usage is StreamUsage.NEVER:
            told.append(_STREAM_OPTIONS)
    renamed = {name: target for name, target in adapter.rename.items() if name in body.members}
    return body._replace(adaptation=Adaptation(frozenset(left_out), renamed, asks_for_usage, tuple(told)))


def _shadowed(body: RequestBody, adapter: Adapter, model: Model) -> Iterator[str]:
    """Of two fields that are one to the API, the one that says null. Raises InvalidRequest where both say something."""
    for name, target in adapter.rename.items():
        if name in body.members and target in body.members:
            empty = next((field for field in (name, target) if bytes(body.members[field]) == b"null"), None)
            if empty is None:
                raise InvalidRequest(
                    f"'{name}' and '{target}' are the same to '{model.id}': send one of them.", param=name
                )
            yield empty


def _check_limits(body: RequestBody, adapter: Adapter, model: Model) -> None:
    for name, value in body.members.items():
        most = adapter.limits.get(adapter.rename.get(name, name))
        if most is None:
            continue
        try:
            number = _NUMBER.decode(value)
        except msgspec.DecodeError:
            continue  # not a number: the API's own complaint tells more
        if number is not None and number > most:
            raise InvalidRequest(
                f"'{name}' may be at most {most} for '{model.id}', got {number}.", param=name, code="above_limit"
            )
