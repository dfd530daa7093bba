"""The shapes of organisations and keys over HTTP: what admins may send, and what OpenAPI says they get back."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from gateway.api.schemas import Amount, Asked, Moment
from gateway.domain.accounts import DEFAULT_MAX_TOKENS, Budget, Key, Limits, Period, Role, Terms
from gateway.domain.records import Priority

Id = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
Name = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Names = Annotated[list[Annotated[str, StringConstraints(max_length=200)]], Field(max_length=500)]
Count = Annotated[int, Field(ge=1, le=2**53)]
Roles = Annotated[list[Role], Field(min_length=1, max_length=len(Role))]


def _in_utc(moment: datetime) -> datetime:
    """The same moment; near the first and the last year its offset can lead out of the calendar."""
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise ValueError("expected a moment between the years 1 and 9999 of UTC") from None


End = Annotated[AwareDatetime, AfterValidator(_in_utc)]


class OrganisationRequest(Asked):
    id: Id = Field(description="Small letters, digits and hyphens: it stands in records and bills.")
    name: Name


class BudgetIn(Asked):
    period: Period = Field(description="A day or month of UTC.")
    unit: Annotated[str, StringConstraints(pattern=r"^(tokens|[A-Z]{3})$")] = Field(
        description="tokens, or a currency such as KRW; costs in other currencies do not count against it."
    )
    amount: Annotated[Decimal, Field(gt=0, max_digits=24, decimal_places=6)]

    @field_validator("amount")
    @classmethod
    def _is_plain(cls, amount: Decimal) -> Decimal:
        return Decimal(f"{amount:f}")


class LimitsIn(Asked):
    """How much the key may use; what is left out is not limited."""

    requests_per_min: Count | None = None
    tokens_per_min: Count | None = None
    concurrent: Count | None = Field(None, description="Calls at a time; each side of a comparison is one.")
    budgets: list[BudgetIn] = Field([], max_length=20)
    default_max_tokens: Count = Field(
        DEFAULT_MAX_TOKENS, description="Tokens of an answer that are reserved where a request names no limit."
    )

    def limits(self) -> Limits:
        return Limits(
            requests_per_min=self.requests_per_min,
            tokens_per_min=self.tokens_per_min,
            concurrent=self.concurrent,
            budgets=tuple(Budget(budget.period, budget.unit, budget.amount) for budget in self.budgets),
            default_max_tokens=self.default_max_tokens,
        )


class KeyRequest(Asked):
    organisation: Id
    name: Name = Field(description="What it is for, in words.")
    roles: Roles = Field([Role.INTEGRATOR])
    models: Names | None = Field(None, description="Ids of models that it may call; all if left out.")
    routes: Names | None = Field(None, description="Routes that it may use, e.g. chat_completions; all if left out.")
    licences: Names = Field(
        [], description="Licences (or models) whose non-commercial terms the organisation has accepted."
    )
    expires_at: End | None = Field(None, description="Not valid from this moment on.")
    limits: LimitsIn = LimitsIn()
    priority: Priority = Priority.INTERACTIVE
    may_set_priority: bool = Field(
        False, description="Whether bodies may carry `priority`, `cache_salt` and `request_id`."
    )

    def terms(self) -> Terms:
        return Terms(
            roles=frozenset(self.roles),
            models=None if self.models is None else frozenset(self.models),
            routes=None if self.routes is None else frozenset(self.routes),
            licences=frozenset(self.licences),
            limits=self.limits.limits(),
            priority=self.priority,
            may_set_priority=self.may_set_priority,
        )


class KeyChange(Asked):
    """What is left out stays as it is. `null` takes a scope, an end or a limit away, where one may be missing."""

    name: Name | None = None
    roles: Roles | None = None
    models: Names | None = None
    routes: Names | None = None
    licences: Names | None = None
    expires_at: End | None = None
    limits: LimitsIn | None = Field(None, description="Limits that are left out stay as they are.")
    priority: Priority | None = None
    may_set_priority: bool | None = None

    @model_validator(mode="after")
    def _says_what(self) -> KeyChange:
        for name in self.model_fields_set - {"models", "routes", "expires_at"}:
            if getattr(self, name) is None:
                raise ValueError(f"'{name}' cannot be null: leave it out to keep it")
        return self

    def applied(self, key: Key) -> Key:
        """The key with these changes."""
        named = self.model_fields_set
        terms: dict[str, Any] = {
            name: getattr(self, name) for name in ("priority", "may_set_priority") if name in named
        }
        for name in ("roles", "models", "routes", "licences"):
            if name in named:
                values = getattr(self, name)
                terms[name] = None if values is None else frozenset(values)
        if self.limits is not None:
            limits = self.limits.limits()
            terms["limits"] = replace(
                key.terms.limits, **{name: getattr(limits, name) for name in self.limits.model_fields_set}
            )
        own = {name: getattr(self, name) for name in ("name", "expires_at") if name in named}
        return replace(key, **own, terms=replace(key.terms, **terms))


class OrganisationOut(BaseModel):
    id: str
    name: str
    created_at: Moment
    revoked_at: Moment | None


class BudgetOut(BaseModel):
    period: Period
    unit: str
    amount: Amount
    spent: Amount = Field(description="Since the day or month of UTC began.")
    reserved: Amount = Field(description="Held by calls in flight.")


class LimitsOut(BaseModel):
    requests_per_min: int | None
    tokens_per_min: int | None
    concurrent: int | None
    default_max_tokens: int
    budgets: list[BudgetOut]


class KeyOut(BaseModel):
    id: str
    organisation: str
    name: str
    prefix: str = Field(description="The first characters of the secret, to tell keys apart by.")
    status: Literal["active", "expired", "revoked"] = Field(
        description="The key's own; none counts while its organisation is revoked."
    )
    created_at: Moment
    expires_at: Moment | None
    revoked_at: Moment | None
    roles: list[Role]
    models: list[str] | None
    routes: list[str] | None
    licences: list[str]
    models_without_licence: list[str] = Field(
        description="Models in its scope that it may not call: they forbid commercial use, and it has no grant."
    )
    priority: Priority
    may_set_priority: bool
    limits: LimitsOut
    in_flight: int
    calls_without_cost_this_month: int = Field(description="Their cost is unknown and counts against no budget.")


class NewKeyOut(KeyOut):
    secret: str = Field(description="The key itself. It is shown this once and cannot be read again.")


class OrganisationList(BaseModel):
    data: list[OrganisationOut]


class KeyList(BaseModel):
    data: list[KeyOut]
