"""From validated entries to the frozen records, and the complaints that need more than one field to see.

References, duplicates, impossible shapes and facts without a source are found here; every check adds to the
document's problems and none stops at the first. Reading files and YAML does not belong here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.domain.records import (
    Adapter,
    ApiPrice,
    CandidateNames,
    Claim,
    Confidence,
    Consortium,
    CurrencyRate,
    ElectricityPrice,
    Gpu,
    GpuPrice,
    Licence,
    LinearShape,
    MlaShape,
    Model,
    ModelShape,
    MoeShape,
    ProgrammeEvent,
    ReasoningSwitch,
    Serving,
    ServingKind,
    Sourced,
    Timeouts,
    VisionShape,
    Weights,
)
from gateway.registry.adapters import read_adapter
from gateway.registry.claims import is_price, read_claim
from gateway.registry.replicas import ReplicaEntries, refer
from gateway.registry.schema import (
    ClaimBlock,
    ConsortiumBlock,
    ElectricityBlock,
    Fact,
    GpuBlock,
    MlaBlock,
    ModelBlock,
    NamesBlock,
    Origin,
    RateBlock,
    ServingBlock,
    ShapeBlock,
)
from gateway.registry.text import Document, Loc, did_you_mean

ORIGIN_FIELDS = frozenset(Origin.model_fields)
PLAIN_SERVING = {"kind", "served_model_name", "args", "adapter"}
"""What a serving block may say without a source of its own: choices of the operator, and rules that have theirs."""


@dataclass(frozen=True, slots=True)
class Known:
    """The names that entries may refer to."""

    consortia: Collection[str]
    gpus: Collection[str]
    currencies: Collection[str]
    sources: Collection[str]


class Entries:
    """Turns entries into records and complains of what does not hold together."""

    def __init__(self, document: Document, known: Known) -> None:
        self._document = document
        self._known = known
        self._replicas = ReplicaEntries(document, known.gpus)

    def refuse_duplicates(self, section: str, entries: Iterable[tuple[Loc, str]]) -> None:
        """Complain of each id that an earlier entry already has."""
        first: dict[str, Loc] = {}
        for loc, name in entries:
            if name in first:
                line = self._document.lines.get(first[name])
                where = f" on line {line}" if line else ""
                self._document.complain(loc, f"expected an id of its own; {section} already has {name!r}{where}")
            first.setdefault(name, loc)

    def _refer(self, loc: Loc, name: str | None, known: Collection[str], table: str) -> None:
        refer(self._document, loc, name, known, table)

    def _sourced(self, loc: Loc, origin: Origin, block: Origin | None = None, *, needed: bool) -> Sourced | None:
        """The origin of a fact: its own, else its block's. Complains where one is needed and missing."""
        keys = origin.source or (block.source if block else None)
        level = origin.confidence or (block.confidence if block else None)
        if origin.source:
            self._check_sources(loc, origin.source)
        if keys and level:
            note = origin.note or (block.note if block else None)
            return Sourced(", ".join(keys), Confidence(level), note)
        if keys or (needed and level):
            missing = "confidence (high, medium or low) beside its source" if keys else "source beside its confidence"
            self._document.complain(loc, f"expected a {missing}")
        elif needed:
            self._document.complain(loc, "a fact without a source; expected source and confidence here or on its block")
        return None

    def _check_sources(self, loc: Loc, keys: Sequence[str]) -> None:
        """A single word must be a key of `sources` (`C:skt/A.X-4.0` counts as `C`); several words are plain words."""
        known = self._known.sources
        for key in keys if known else ():
            if " " not in key and key not in known and key.split(":")[0] not in known:
                hint = did_you_mean(key, known) or "; add it there or write it in plain words"
                self._document.complain((*loc, "source"), f"{key!r} is not in sources{hint}")

    def _required(self, loc: Loc, origin: Origin) -> Sourced:
        """The origin of an entry that never goes without: prices, claims, rates, devices, events."""
        return self._sourced(loc, origin, needed=True) or Sourced("missing", Confidence.LOW)

    # --- consortia, devices, rates ------------------------------------------------------------------------

    def consortium(self, loc: Loc, block: ConsortiumBlock) -> Consortium:
        return Consortium(
            id=block.id,
            name_ko=block.name.ko,
            name_en=block.name.en,
            programme_status=block.programme_status,
            events=tuple(
                ProgrammeEvent(event.date, event.status, self._required((*loc, "events", n), event))
                for n, event in enumerate(block.events)
            ),
            partners=tuple(block.partners),
            demand_organisations=tuple(block.demand_organisations),
            gpu_supply=block.gpu_supply,
            focus=block.focus,
            sourced=self._required(loc, block),
            claims=self._claims(loc, block.id, block.claims, of_a_model=False),
            names=self._names((*loc, "names"), block.names or NamesBlock()),
        )

    def _names(self, loc: Loc, block: NamesBlock) -> CandidateNames:
        products = [*block.latin, *block.hangul]
        for n, name in enumerate(block.ordinary):
            if name not in products:
                hint = did_you_mean(name, products)
                self._document.complain((*loc, "ordinary", n), f"{name!r} is not among latin and hangul{hint}")
        for field in NamesBlock.model_fields:
            given: list[str] = getattr(block, field)
            twice = sorted({name for name in given if given.count(name) > 1})
            if twice:
                self._document.complain((*loc, field), f"expected each name once, got {twice[0]!r} more often")
        return CandidateNames(tuple(block.latin), tuple(block.hangul), tuple(block.company), tuple(block.ordinary))

    def gpu(self, loc: Loc, block: GpuBlock) -> Gpu:
        prices = []
        for n, price in enumerate(block.prices):
            at = (*loc, "prices", n)
            self._refer((*at, "currency"), price.currency, self._known.currencies, "currencies")
            sourced = self._required(at, price)
            prices.append(GpuPrice(price.per_hour, price.currency, price.tier, price.provider, price.date, sourced))
        return Gpu(
            id=block.id,
            name=block.name,
            memory_bytes=block.memory,
            bandwidth_bytes_per_s=block.bandwidth_tb_per_s * 1e12,
            bf16_flops=None if block.bf16_tflops is None else block.bf16_tflops * 1e12,
            fp8_flops=None if block.fp8_tflops is None else block.fp8_tflops * 1e12,
            watts=block.watts,
            sourced=self._required(loc, block),
            prices=tuple(prices),
        )

    def electricity(self, loc: Loc, block: ElectricityBlock) -> ElectricityPrice:
        self._refer((*loc, "currency"), block.currency, self._known.currencies, "currencies")
        return ElectricityPrice(block.per_kwh, block.currency, block.date, self._required(loc, block))

    def rate(self, loc: Loc, block: RateBlock) -> CurrencyRate:
        for field in ("base", "quote"):
            self._refer((*loc, field), getattr(block, field), self._known.currencies, "currencies")
        if block.base == block.quote:
            self._document.complain((*loc, "quote"), f"expected another currency than base, got {block.quote}")
        return CurrencyRate(block.base, block.quote, block.rate, block.date, self._required(loc, block))

    # --- models -------------------------------------------------------------------------------------------

    def model(self, loc: Loc, block: ModelBlock) -> Model:
        """The record of one candidate. Facts need a source as soon as the entry belongs to a consortium."""
        needed = block.consortium is not None
        self._refer((*loc, "consortium"), block.consortium, self._known.consortia, "consortia")
        facts = self._model_facts(loc, block, needed=needed)
        self._check_serving(loc, block)
        replicas, named = self._replicas.read((*loc, "replicas"), block.id, block.serving.kind, block.replicas)
        return Model(
            id=block.id,
            serving=_serving(block.id, block.serving, self._adapter((*loc, "serving"), block.serving, needed=needed)),
            consortium_id=block.consortium,
            name=block.name,
            released=block.released.value if block.released else None,
            weights=self._weights(loc, block, needed=needed),
            shape=self._shape((*loc, "shape"), block.shape, needed=needed) if block.shape else None,
            licence=self._licence(loc, block, needed=needed),
            reasoning=self._reasoning(loc, block, needed=needed),
            reasoning_parser=block.parsers.reasoning if block.parsers else None,
            tool_parser=block.parsers.tools if block.parsers else None,
            capabilities=frozenset((block.capabilities and block.capabilities.value) or ()),
            price=self._price((*loc, "price"), block, needed=needed),
            claims=self._claims(loc, block.id, block.claims, of_a_model=True),
            replicas=replicas,
            named_replicas=named,
            timeouts=Timeouts(**block.timeouts.model_dump()) if block.timeouts else Timeouts(),
            notes=block.notes,
            facts=facts,
        )

    def _model_facts(self, loc: Loc, block: ModelBlock, *, needed: bool) -> dict[str, Sourced]:
        """Sources of what has no record of its own: released, capabilities, parsers, serving."""
        stated: dict[str, tuple[Origin | None, bool]] = {
            "released": (block.released, _is_stated(block.released)),
            "capabilities": (block.capabilities, _is_stated(block.capabilities)),
            "parsers": (block.parsers, _says_something(block.parsers)),
            "serving": (block.serving, _says_something(block.serving, but_for=PLAIN_SERVING)),
        }
        found: dict[str, Sourced] = {}
        for name, (origin, says_something) in stated.items():
            if origin is not None:
                sourced = self._sourced((*loc, name), origin, needed=needed and says_something)
                found |= {name: sourced} if sourced else {}
        return found

    def _check_serving(self, loc: Loc, block: ModelBlock) -> None:
        at, serving = (*loc, "serving"), block.serving
        if serving.kind == "none" and not serving.reason:
            self._document.complain((*at, "reason"), "expected why nothing can serve it, as kind is none")
        if serving.kind == "none" and block.replicas:
            self._document.complain((*loc, "replicas"), "expected no replicas, as serving.kind is none")
        low, high = serving.min_vllm, serving.max_vllm
        if low and high and _ordered(low) > _ordered(high):
            self._document.complain((*at, "max_vllm"), f"expected {low} (min_vllm) or newer, got {high}")
        for field in ("min_vllm", "max_vllm", "backend", "startup_s"):
            if serving.kind != "vllm" and getattr(serving, field) is not None:
                self._document.complain((*at, field), f"only for kind vllm, but kind is {serving.kind}")

    def _adapter(self, loc: Loc, serving: ServingBlock, *, needed: bool) -> Adapter | None:
        if (block := serving.adapter) is None:
            return None
        at = (*loc, "adapter")
        if serving.kind != "openai_api":
            self._document.complain(at, f"only for kind openai_api, but kind is {serving.kind}")
        sourced = self._sourced(at, block, needed=needed and _says_something(block))
        return read_adapter(self._document, at, block, sourced)

    def _weights(self, loc: Loc, block: ModelBlock, *, needed: bool) -> Weights:
        if (weights := block.weights) is None:
            return Weights()
        sourced = self._sourced((*loc, "weights"), weights, needed=needed and _says_something(weights))
        return Weights(
            repo=weights.repo,
            revision=weights.revision,
            architecture=weights.architecture,
            dtype=weights.dtype,
            size_bytes=weights.size,
            group_size=weights.group_size,
            unquantised_params=weights.unquantised_params,
            sourced=sourced,
        )

    def _licence(self, loc: Loc, block: ModelBlock, *, needed: bool) -> Licence:
        if (licence := block.licence) is None:
            return Licence(id=None, commercial=None)
        sourced = self._sourced((*loc, "licence"), licence, needed=needed and _says_something(licence))
        return Licence(licence.id, licence.commercial, licence.notice, sourced)

    def _reasoning(self, loc: Loc, block: ModelBlock, *, needed: bool) -> ReasoningSwitch | None:
        if (switch := block.reasoning) is None:
            return None
        default = switch.default
        words = str(default).lower() if isinstance(default, bool) else default
        sourced = self._sourced((*loc, "reasoning"), switch, needed=needed)
        return ReasoningSwitch(switch.switch, switch.place, words, sourced)

    def _price(self, loc: Loc, block: ModelBlock, *, needed: bool) -> ApiPrice | None:
        if (price := block.price) is None:
            return None
        self._refer((*loc, "currency"), price.currency, self._known.currencies, "currencies")
        return ApiPrice(
            currency=price.currency,
            input_per_mtok=price.input_per_mtok,
            output_per_mtok=price.output_per_mtok,
            cached_input_per_mtok=price.cached_input_per_mtok,
            on=price.date,
            sourced=self._sourced(loc, price, needed=needed),
        )

    def _claims(self, loc: Loc, name: str, blocks: Sequence[ClaimBlock], *, of_a_model: bool) -> tuple[Claim, ...]:
        self.refuse_duplicates(
            f"{name}.claims", (((*loc, "claims", n, "id"), claim.id) for n, claim in enumerate(blocks))
        )
        claims = []
        for n, block in enumerate(blocks):
            at = (*loc, "claims", n)
            self._refer((*at, "gpu"), block.gpu, self._known.gpus, "gpus")
            if is_price(block):
                self._refer((*at, "unit"), block.unit, self._known.currencies, "currencies")
            claims.append(read_claim(self._document, at, block, self._required(at, block), of_a_model=of_a_model))
        return tuple(claims)

    def _shape(self, loc: Loc, block: ShapeBlock, *, needed: bool) -> ModelShape:
        facts: dict[str, Sourced] = {}
        values: dict[str, Any] = {}
        for name in (name for name in ShapeBlock.model_fields if name not in ORIGIN_FIELDS):
            part: Any = getattr(block, name)
            if part is None:
                continue
            is_stated = part.value is not None if isinstance(part, Fact) else True
            values[name] = part.value if isinstance(part, Fact) else None
            sourced = self._sourced((*loc, name), part, block, needed=needed and is_stated)
            facts |= {name: sourced} if sourced else {}
        if block.source:
            self._check_sources(loc, block.source)
        self._check_shape(loc, block, values)
        values["mla"] = _mla(block.mla)
        values["moe"] = _only(MoeShape, block.moe)
        values["linear"] = _only(LinearShape, block.linear)
        values["vision"] = _only(VisionShape, block.vision)
        if "active_params" not in block.model_fields_set and block.moe is None:
            values["active_params"] = values.get("params")
        has_others = values.get("sliding_window") or values.get("attention_chunk") or block.linear
        if not has_others and "global_layers" not in block.model_fields_set:
            values["global_layers"] = values.get("layers")
        return ModelShape(**values, facts=facts)

    def _check_shape(self, loc: Loc, block: ShapeBlock, values: Mapping[str, Any]) -> None:
        def at_most(name: str, value: int | None, limit_name: str, limit: int | None) -> None:
            if value is not None and limit is not None and value > limit:
                message = f"expected at most {limit_name} ({limit}), got {value}"
                self._document.complain((*loc, *name.split(".")), message)

        at_most("global_layers", values.get("global_layers"), "layers", values.get("layers"))
        at_most("linear.layers", block.linear.layers if block.linear else None, "layers", values.get("layers"))
        if values.get("sliding_window") and values.get("attention_chunk"):
            self._document.complain((*loc, "attention_chunk"), "expected none beside a sliding_window")
        at_most("active_params", values.get("active_params"), "params", values.get("params"))
        if block.moe:
            at_most("moe.experts_per_token", block.moe.experts_per_token, "experts", block.moe.experts)
            at_most("moe.dense_layers", block.moe.dense_layers, "layers", values.get("layers"))
        heads, kv_heads = values.get("heads"), values.get("kv_heads")
        if heads and kv_heads and heads % kv_heads:
            self._document.complain((*loc, "kv_heads"), f"expected a divisor of heads ({heads}), got {kv_heads}")


# --- plain translations -------------------------------------------------------------------------------------


def _is_stated(fact: Fact[Any] | None) -> bool:
    return fact is not None and fact.value is not None


def _says_something(block: Origin | None, *, but_for: Collection[str] = ()) -> bool:
    """Whether any field but the origin's own was given a value."""
    if block is None:
        return False
    given = block.model_fields_set - ORIGIN_FIELDS - set(but_for)
    return any(getattr(block, name) is not None for name in given)


def _only(record: type[Any], block: Origin | None) -> Any:
    return record(**block.model_dump(exclude=set(ORIGIN_FIELDS))) if block else None


def _mla(block: MlaBlock | None) -> MlaShape | None:
    """A width that is not known becomes 0, with which nothing is computed."""
    if block is None:
        return None
    return MlaShape(
        kv_lora_rank=block.kv_lora_rank or 0,
        qk_rope_head_dim=(block.qk_rope_head_dim or 0) if block.kv_lora_rank else 0,
        q_lora_rank=block.q_lora_rank,
        index_head_dim=block.index_head_dim,
    )


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _serving(model_id: str, block: ServingBlock, adapter: Adapter | None) -> Serving:
    return Serving(
        kind=ServingKind(block.kind),
        served_model_name=block.served_model_name or model_id,
        min_vllm=block.min_vllm,
        max_vllm=block.max_vllm,
        backend=block.backend,
        trust_remote_code=block.trust_remote_code,
        startup_s=block.startup_s,
        args=tuple(block.args),
        reason=block.reason,
        adapter=adapter,
    )
