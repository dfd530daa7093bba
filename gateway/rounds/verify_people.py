"""Whether those who ran and judged a round did what its rules say: who opened the names, and when.

Each function gives the faults that it finds and never raises for a bundle's own contents, but what `verify` catches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from gateway.domain.accounts import Role
from gateway.rounds.bundle import ABOUT, BundleKind, whole_record
from gateway.rounds.bundle_view import BundleView, Fault
from gateway.rounds.closing import ACCESSES
from gateway.rounds.life import APPROVE

_PLACE = "approvals"
_LOGGED_AS: Mapping[str, frozenset[str]] = {
    Role.CHAIR.value: frozenset({Role.CHAIR.value}),
    Role.OPERATOR.value: frozenset({Role.OPERATOR.value, Role.ADMIN.value}),
}
"""The two roles that a reveal takes, and how the access log may call whoever acted in them."""


def approval_faults(view: BundleView) -> list[Fault]:
    """The names were opened by two people, a chair and an operator, after closing; the access log says so too.

    A public bundle names nobody, so that they are two people is the audit bundle's to show.
    """
    given = view.about["approvals"]
    if not view.is_revealed:
        return [Fault(ABOUT, _PLACE, "the names are not open: expected none")] if given else []
    roles = {one["role"] for one in given}
    faults = [
        Fault(ABOUT, _PLACE, f"expected one by the role {role}, found none") for role in _LOGGED_AS if role not in roles
    ]
    if view.about["bundle"] == BundleKind.AUDIT.value and len({one["who"] for one in given}) != len(given):
        faults.append(Fault(ABOUT, _PLACE, "expected two people, found one of them twice"))
    closed, revealed = (datetime.fromisoformat(view.about["moments"][name]) for name in ("closed_at", "revealed_at"))
    for number, one in enumerate(given):
        if not closed <= datetime.fromisoformat(one["at"]) <= revealed:
            words = f"given at {one['at']}: expected a moment from closing ({closed}) to the reveal ({revealed})"
            faults.append(Fault(ABOUT, f"{_PLACE}[{number}]", words))
    return [*faults, *_unlogged(view, given)]


def _unlogged(view: BundleView, given: list[Mapping[str, Any]]) -> Iterator[Fault]:
    """Approvals that the access log does not know, after the closing and by the same person where they are named."""
    lines = [line for line in view.records[ACCESSES] if line.get("after_closing")]
    logged = [one for one in map(whole_record, lines) if one["action"] == APPROVE]
    for number, one in enumerate(given):
        known = _LOGGED_AS.get(one["role"], ())
        if not any(entry["role"] in known and entry.get("who") == one.get("who") for entry in logged):
            words = f"the access log has no {APPROVE} of it after the closing"
            yield Fault(ABOUT, f"{_PLACE}[{number}]", words)
