"""The kinds of value that model_registry.yaml may hold, each with the words that say what would be right.

A kind is a Pydantic type for the loader and a JSON schema for editors. Blocks made of these values stand in
`schema`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Annotated, Literal, TypeVar
from urllib.parse import urlsplit

from pydantic import BeforeValidator, ValidationInfo, WithJsonSchema
from pydantic_core import PydanticCustomError

from gateway.domain.claim_terms import KV_FORMATS, METRICS
from gateway.registry.text import did_you_mean, shown

T = TypeVar("T")
LARGEST = 10**18
SMALLEST = Decimal("1e-12")
"""Below this a figure that is not 0 means nothing here, and a share of it would be no number."""


def _refusal(expected: str, got: object) -> PydanticCustomError:
    return PydanticCustomError("refused", "{message}", {"message": f"expected {expected}, got {shown(got)}"})


def _whole(expected: str, low: int) -> BeforeValidator:
    def check(raw: object) -> int:
        if isinstance(raw, bool) or not isinstance(raw, int) or not low <= raw <= LARGEST:
            raise _refusal(expected, raw)
        return raw

    return BeforeValidator(check)


def _number(expected: str, *, above_zero: bool) -> BeforeValidator:
    def check(raw: object) -> float:
        is_number = isinstance(raw, (int, float)) and not isinstance(raw, bool)
        value = float(raw) if is_number and abs(raw) <= LARGEST else -1.0  # type: ignore[arg-type]
        if not (value > 0 or (value == 0 and not above_zero)):
            raise _refusal(expected, raw)
        return value

    return BeforeValidator(check)


def _scaled(expected: str, scales: Mapping[str, int]) -> BeforeValidator:
    """A positive whole number, or text such as '32.0B' with a unit from `scales`."""
    pattern = re.compile(rf"(\d{{1,18}}(?:\.\d{{1,9}})?) ?({'|'.join(map(re.escape, scales))})", re.ASCII)

    def check(raw: object) -> int:
        if isinstance(raw, str) and (match := pattern.fullmatch(raw)):
            raw = int(Decimal(match[1]) * scales[match[2]])
        if isinstance(raw, bool) or not isinstance(raw, int) or not 0 < raw <= LARGEST:
            raise _refusal(expected, raw)
        return raw

    return BeforeValidator(check)


def _matching(pattern: str, expected: str) -> BeforeValidator:
    compiled = re.compile(pattern)

    def check(raw: object) -> str:
        if not isinstance(raw, str) or not compiled.fullmatch(raw):
            raise _refusal(expected, raw)
        return raw

    return BeforeValidator(check)


def _decimal(raw: object, expected: str) -> Decimal:
    """Exact: a YAML float is taken by its shortest decimal form."""
    try:
        if isinstance(raw, bool) or not isinstance(raw, (int, float, str)):
            raise InvalidOperation
        value = Decimal(raw) if isinstance(raw, int) else Decimal(str(raw))
        if not value.is_finite():
            raise InvalidOperation
    except InvalidOperation:
        raise _refusal(expected, raw) from None
    if value and not SMALLEST <= abs(value) <= LARGEST:
        message = f"expected {expected} of a size from {SMALLEST:.0e} to {LARGEST:.0e}, got {value:.4g}"
        raise PydanticCustomError("refused", "{message}", {"message": message})
    return value


def _price_per_mtok(raw: object, info: ValidationInfo) -> Decimal:
    expected = f"a number of {info.data.get('currency', 'USD')} per million tokens"
    if (value := _decimal(raw, expected)) < 0:
        raise _refusal(f"{expected}, 0 or more", raw)
    return value


def _positive_decimal(expected: str) -> BeforeValidator:
    def check(raw: object) -> Decimal:
        if (value := _decimal(raw, expected)) <= 0:
            raise _refusal(f"{expected}, more than 0", raw)
        return value

    return BeforeValidator(check)


def _truth(raw: object) -> bool:
    if not isinstance(raw, bool):
        raise _refusal("true or false", raw)
    return raw


def _day(raw: object) -> dt.date:
    if isinstance(raw, str):  # quoted, or from a JSON file
        with suppress(ValueError):
            return dt.date.fromisoformat(raw)
    if not isinstance(raw, dt.date) or isinstance(raw, dt.datetime):
        raise _refusal("a date such as 2026-11-23", raw)
    return raw


def _many(raw: object) -> object:
    """An empty list may be written as nothing at all."""
    return [] if raw is None else raw


def _metric(raw: object) -> str:
    """The name of a metric; a near one is told, as the whole list is long."""
    if not isinstance(raw, str) or raw not in METRICS:
        hint = did_you_mean(raw, METRICS) if isinstance(raw, str) else ""
        message = f"expected one of {', '.join(METRICS)}; got {shown(raw)}{hint}"
        raise PydanticCustomError("refused", "{message}", {"message": message})
    return raw


def _kv_format(raw: object) -> str:
    if not isinstance(raw, str) or raw not in KV_FORMATS:
        hint = did_you_mean(raw, KV_FORMATS) if isinstance(raw, str) else ""
        message = f"expected one of {', '.join(KV_FORMATS)}; got {shown(raw)}{hint}"
        raise PydanticCustomError("refused", "{message}", {"message": message})
    return raw


def _source_keys(raw: object) -> object:
    return [raw] if isinstance(raw, str) else raw


def _argument(raw: object) -> str:
    if isinstance(raw, bool) or not isinstance(raw, (str, int, float)) or raw == "":
        raise _refusal("one argument as text", raw)
    return str(raw)


def _variable(raw: object) -> str:
    """A variable's name. What stands there instead may be the key itself, so it is not repeated."""
    if not isinstance(raw, str) or not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,127}", raw):
        raise PydanticCustomError(
            "refused",
            "{message}",
            {
                "message": "expected the name of an environment variable such as UPSTAGE_API_KEY; "
                "what stands there may be a secret and is not repeated"
            },
        )
    return raw


def _exporter(raw: object) -> str:
    """The address of an exporter's page; /metrics where it names no path. Credentials are refused, and not repeated.

    In one spelling, by which two replicas' counters are compared.
    """
    if isinstance(raw, str) and "@" in raw:
        message = "expected an address without credentials"
        raise PydanticCustomError("refused", "{message}", {"message": message})
    expected = "the address of an exporter's page such as http://node:9400/metrics"
    if not isinstance(raw, str) or not raw.isprintable() or " " in raw:
        raise _refusal(expected, raw)
    try:
        parts = urlsplit(raw)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise _refusal(expected, raw) from None
    if not is_address or parts.query or parts.fragment:
        raise _refusal(expected, raw)
    place = parts.netloc.lower().removesuffix(":443" if parts.scheme == "https" else ":80").removesuffix(":")
    path = re.sub("/+", "/", parts.path).rstrip("/")
    return f"{parts.scheme}://{place}{path or '/metrics'}"


def _gpu_label(raw: object) -> str:
    """How an exporter names a GPU: its index on the machine, or its UUID."""
    is_index = isinstance(raw, int) and not isinstance(raw, bool) and 0 <= raw < 1024
    if is_index or (isinstance(raw, str) and re.fullmatch(r"\d{1,3}|GPU-[0-9A-Za-z-]{1,64}", raw, re.ASCII)):
        return str(raw).lstrip("0") or "0"
    raise _refusal("a GPU's index such as 0, or its UUID such as GPU-5b4e07f6-3a86-4340-039d-25f2a83cdc43", raw)


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_DNS_NAME = re.compile(rf"(?=.{{1,254}}\Z){_LABEL}(?:\.{_LABEL})*\.?", re.ASCII)


def _dns_name(raw: object) -> str:
    """A host's name alone. An address has nothing to be looked up."""
    if not isinstance(raw, str) or not _DNS_NAME.fullmatch(raw) or raw.rstrip(".").rpartition(".")[2].isdigit():
        raise _refusal("a DNS name such as engines.models.svc.cluster.local", raw)
    return raw


def _port(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 1 <= raw <= 65535:
        raise _refusal("a port, 1 to 65535", raw)
    return raw


def _address(raw: object) -> str:
    """An engine's address without a trailing slash. Credentials in it are refused, and not repeated."""
    expected = "an address such as http://127.0.0.1:8101"
    if isinstance(raw, str) and "@" in raw:
        message = "expected an address without credentials; name the key's variable in api_key_env"
        raise PydanticCustomError("refused", "{message}", {"message": message})
    if not isinstance(raw, str) or not raw.isprintable() or " " in raw:
        raise _refusal(expected, raw)
    try:
        parts = urlsplit(raw)
        is_address = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        raise _refusal(expected, raw) from None
    if not is_address or parts.query or parts.fragment:
        raise _refusal(expected, raw)
    if parts.path.rstrip("/").endswith("/v1"):
        raise _refusal("the address without /v1, which base_path adds", raw)
    return raw.rstrip("/")


_COUNT = "a whole number, 1 or more"
Count = Annotated[int, _whole(_COUNT, 1), WithJsonSchema({"type": "integer", "minimum": 1})]
CountOrZero = Annotated[int, _whole("a whole number, 0 or more", 0), WithJsonSchema({"type": "integer", "minimum": 0})]
Params = Annotated[
    int,
    _scaled("a number of parameters such as 2597000000 or '2.6B'", {"M": 10**6, "B": 10**9, "T": 10**12}),
    WithJsonSchema({"type": ["integer", "string"], "pattern": r"^\d+(\.\d+)? ?[MBT]$", "minimum": 1}),
]
Size = Annotated[
    int,
    _scaled(
        "a number of bytes such as 85899345920, '80 GB' or '81559 MiB'",
        {"MB": 10**6, "GB": 10**9, "MiB": 2**20, "GiB": 2**30},
    ),
    WithJsonSchema({"type": ["integer", "string"], "pattern": r"^\d+(\.\d+)? ?(MB|GB|MiB|GiB)$", "minimum": 1}),
]
Positive = Annotated[
    float,
    _number("a number, more than 0", above_zero=True),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0}),
]
Weight = Annotated[
    float, _number("a number, 0 or more", above_zero=False), WithJsonSchema({"type": "number", "minimum": 0})
]
PerMtok = Annotated[Decimal, BeforeValidator(_price_per_mtok), WithJsonSchema({"type": ["number", "string"]})]
Amount = Annotated[Decimal, _positive_decimal("a number"), WithJsonSchema({"type": ["number", "string"]})]
Number = Annotated[
    Decimal,
    BeforeValidator(lambda raw: _decimal(raw, "a number")),
    WithJsonSchema({"type": ["number", "string"]}),
]
Truth = Annotated[bool, BeforeValidator(_truth), WithJsonSchema({"type": "boolean"})]
Day = Annotated[dt.date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
Text = Annotated[str, _matching(r"(?s).*\S.*", "text (in quotes where YAML would read something else)")]
LatinName = Annotated[str, _matching(r"(?=.*[A-Za-z])[ -~]{2,60}", "a name in Latin letters, two signs or more")]
HangulName = Annotated[str, _matching(r"(?=.*[가-힣])[ -~가-힣]{2,60}", "a name in Hangul, two signs or more")]
AnyName = Annotated[
    str, _matching(r"(?=.*[A-Za-z가-힣])[ -~가-힣]{2,60}", "a name in Latin letters or Hangul, two signs or more")
]
Name = Annotated[str, _matching(r"[A-Za-z0-9][A-Za-z0-9._:/+-]{0,127}", "a name of letters, digits and . _ : / + -")]
Version = Annotated[str, _matching(r"\d{1,4}(\.\d{1,4}){1,3}", "a version in quotes such as '0.10.2'")]
Currency = Annotated[str, _matching(r"[A-Z]{3}", "a currency code such as USD")]
Variable = Annotated[str, BeforeValidator(_variable), WithJsonSchema({"type": "string"})]
Address = Annotated[str, BeforeValidator(_address), WithJsonSchema({"type": "string", "pattern": "^https?://"})]
DnsName = Annotated[str, BeforeValidator(_dns_name), WithJsonSchema({"type": "string", "format": "hostname"})]
Port = Annotated[int, BeforeValidator(_port), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": 65535})]
ExporterAddress = Annotated[
    str, BeforeValidator(_exporter), WithJsonSchema({"type": "string", "pattern": "^https?://"})
]
GpuLabel = Annotated[str, BeforeValidator(_gpu_label), WithJsonSchema({"type": ["integer", "string"]})]
SeriesName = Annotated[
    str, _matching(r"[A-Za-z_:][A-Za-z0-9_:]{0,199}", "a metric's name such as DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")
]
BasePath = Annotated[str, _matching(r"(/[A-Za-z0-9._-]+)*", "a path such as /v1 without a slash at its end")]
Path = Annotated[str, _matching(r"(/[A-Za-z0-9._-]+)+", "a path such as /health without a slash at its end")]
Argument = Annotated[str, BeforeValidator(_argument), WithJsonSchema({"type": ["string", "number"]})]
Sources = Annotated[
    list[Text],
    BeforeValidator(_source_keys),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]
Many = Annotated[list[T], BeforeValidator(_many)]
Level = Literal["high", "medium", "low"]
MetricName = Annotated[str, BeforeValidator(_metric), WithJsonSchema({"enum": list(METRICS)})]
KvFormat = Annotated[str, BeforeValidator(_kv_format), WithJsonSchema({"enum": list(KV_FORMATS)})]
Capability = Literal["chat", "completions", "reasoning", "tools", "structured_output", "vision", "embeddings"]
