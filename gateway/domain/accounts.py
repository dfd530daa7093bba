"""Organisations, their keys, and what a key lets its bearer do: frozen facts and the questions that they answer.

A key's secret is none of these facts: only its digest is kept, and only where keys are looked up. Counting what a key
has used belongs in `limits`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

from gateway.domain.records import Model, Priority

TOKENS = "tokens"
"""The unit of a budget that is not money."""
DEFAULT_MAX_TOKENS = 1024


class Role(StrEnum):
    INTEGRATOR = "integrator"
    """Calls models for a demand-side organisation."""
    REVIEWER = "reviewer"
    """Judges anonymous answers; calls no model by name."""
    CHAIR = "chair"
    """Leads a round and sees its progress, no names."""
    OPERATOR = "operator"
    """Runs the gateway: calls every route and sees all organisations' use."""
    AUDITOR = "auditor"
    """Reads everything and changes nothing."""
    ADMIN = "admin"
    """Makes and revokes organisations and keys as well."""


CALLING = frozenset({Role.INTEGRATOR, Role.OPERATOR, Role.ADMIN})
"""Who may have models answer. Reviewers and chairs may not: asking by name tells which model is which."""
OVERSEEING = frozenset({Role.AUDITOR, Role.OPERATOR, Role.ADMIN})
"""Who sees what all organisations did; everybody else sees their own."""
INSPECTING = frozenset({Role.AUDITOR, Role.ADMIN})
"""Who sees organisations and keys."""
ADMINISTERING = frozenset({Role.ADMIN})
"""Who makes and revokes them."""


class Period(StrEnum):
    """Days and months of UTC, so that a budget's day is the day of /api/usage, and no day has 23 or 25 hours."""

    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `amount` of `unit` in a day or month. `unit`: "tokens", or a currency's code of three letters."""

    period: Period
    unit: str
    amount: Decimal


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a key may use; None = not limited."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    concurrent: int | None = None
    budgets: tuple[Budget, ...] = ()
    default_max_tokens: int = DEFAULT_MAX_TOKENS
    """Tokens of an answer that are reserved where the request names no limit of its own."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a key lets its bearer do. For `models` and `routes` None means all."""

    roles: frozenset[Role] = frozenset({Role.INTEGRATOR})
    models: frozenset[str] | None = None
    routes: frozenset[str] | None = None
    """Names of endpoints, e.g. chat_completions, and comparisons."""
    licences: frozenset[str] = frozenset()
    """Ids of licences, or of models, whose non-commercial terms the organisation has accepted."""
    limits: Limits = Limits()
    priority: Priority = Priority.INTERACTIVE
    may_set_priority: bool = False
    """Whether a body may carry the engine's own `priority`, `cache_salt` and `request_id`."""


@dataclass(frozen=True, slots=True)
class Organisation:
    id: str
    name: str
    created_at: datetime
    revoked_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key as it may be shown. `prefix`: the first characters of the secret, by which people tell keys apart."""

    id: str
    organisation: str
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    terms: Terms


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sent a request, and what they may do."""

    key: str | None
    """The key's id; None for the admin key of the environment and where no key is asked for."""
    organisation: str | None
    terms: Terms
    is_admin: bool = False
    """Every right, without scopes and limits."""

    @property
    def priority(self) -> Priority:
        return self.terms.priority

    @property
    def limits(self) -> Limits:
        return self.terms.limits

    @property
    def may_set_priority(self) -> bool:
        return self.is_admin or self.terms.may_set_priority

    @property
    def own_only(self) -> str | None:
        """The organisation whose records alone they may see; None: they see all."""
        return None if self.has_any(OVERSEEING) else self.organisation

    def has_any(self, roles: frozenset[Role]) -> bool:
        return self.is_admin or not roles.isdisjoint(self.terms.roles)

    def may_use(self, route: str) -> bool:
        """Whether models may be asked through the route."""
        terms = self.terms
        return self.is_admin or (
            (terms.routes is None or route in terms.routes) and not CALLING.isdisjoint(terms.roles)
        )

    def lacks_licence(self, model: Model) -> bool:
        """Whether the model's terms forbid commercial use and this caller's organisation has not accepted them."""
        licence, granted = model.licence, self.terms.licences
        if licence.commercial is not False or self.is_admin:
            return False
        return licence.id not in granted and model.id not in granted

    def may_call(self, model: Model) -> bool:
        models = self.terms.models
        return self.is_admin or ((models is None or model.id in models) and not self.lacks_licence(model))

    @property
    def calls_models(self) -> bool:
        """Whether any model answers this caller by name."""
        return self.has_any(CALLING)


EVERYTHING = Caller(None, None, Terms(roles=frozenset(Role)), is_admin=True)
"""The operator: who has the admin key of the environment, or calls a gateway that asks for none."""
