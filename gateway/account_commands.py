"""`simsa org` and `simsa key`: organisations and keys of a running gateway, asked for over its admin routes.

The gateway does the work, so that a command works the same beside it and from afar, and what it changes counts at
once. SIMSA_ADMIN_KEY is sent where it is set.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, time
from typing import Annotated, Any, NoReturn
from urllib.parse import quote

import msgspec
import typer
from rich.console import Console

from gateway.console import Column, Figure, printable, render_table, wants_json
from gateway.errors import SimsaError
from gateway.gateway_client import admin_door, ask_gateway
from gateway.settings import Settings

org_app = typer.Typer(help="Organisations that may call the gateway.", no_args_is_help=True)
key_app = typer.Typer(help="Organisations' keys: what each may call, and how much.", no_args_is_help=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON; a pipe gets it anyway.")]
UrlOption = Annotated[str | None, typer.Option("--url", help="The gateway's address.")]
_BUDGET = re.compile(r"(?P<amount>\d+(?:\.\d+)?)\s*(?P<unit>tokens|[A-Z]{3})/(?P<period>day|month)")


@org_app.command("create")
def create_org(
    organisation: Annotated[str, typer.Argument(help="Its id: small letters, digits and hyphens.")],
    name: Annotated[str | None, typer.Option(help="Its name; the id if not given.")] = None,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Add an organisation."""
    made = _ask("POST", "/api/admin/orgs", {"id": organisation, "name": name or organisation}, url)
    _show(made, f"organisation {made['id']} is added; give it a key with: simsa key create {made['id']}", json)


@org_app.command("list")
def list_orgs(url: UrlOption = None, json: JsonFlag = False) -> None:
    """Show all organisations."""
    _show_table(_ask("GET", "/api/admin/orgs", None, url)["data"], _ORG_COLUMNS, json)


@org_app.command("revoke")
def revoke_org(
    organisation: Annotated[str, typer.Argument(help="Its id.")], url: UrlOption = None, json: JsonFlag = False
) -> None:
    """End an organisation's access: none of its keys counts any more."""
    ended = _ask("POST", f"/api/admin/orgs/{quote(organisation, safe='')}/revoke", None, url)
    _show(ended, f"organisation {ended['id']} is revoked, with all of its keys", json)


RolesOption = Annotated[list[str] | None, typer.Option(help="integrator, reviewer, chair, operator, auditor, admin.")]
ModelsOption = Annotated[list[str] | None, typer.Option(help="A model that it may call; all if none is given.")]
RoutesOption = Annotated[list[str] | None, typer.Option(help="A route that it may use; all if none is given.")]
LicencesOption = Annotated[
    list[str] | None, typer.Option(help="A licence (or model) whose non-commercial terms are accepted.")
]
ExpiresOption = Annotated[str | None, typer.Option(help="Day (UTC) or moment from which it is not valid.")]
RequestsOption = Annotated[int | None, typer.Option(help="Requests a minute.")]
TokensOption = Annotated[int | None, typer.Option(help="Tokens a minute, prompts and answers.")]
ConcurrentOption = Annotated[int | None, typer.Option(help="Calls at a time.")]
BudgetsOption = Annotated[
    list[str] | None, typer.Option(help="E.g. 1000000tokens/day or 50000KRW/month; may be given repeatedly.")
]
DefaultTokensOption = Annotated[
    int | None, typer.Option(help="Tokens reserved for answers where a request names no limit; 1024 if not given.")
]
PriorityOption = Annotated[str | None, typer.Option(help="reviewer, interactive, batch or load_test.")]


@key_app.command("create")
def create_key(
    organisation: Annotated[str, typer.Argument(help="The organisation's id.")],
    name: Annotated[str, typer.Option(help="What the key is for.")] = "default",
    role: RolesOption = None,
    model: ModelsOption = None,
    route: RoutesOption = None,
    licence: LicencesOption = None,
    expires: ExpiresOption = None,
    requests_per_min: RequestsOption = None,
    tokens_per_min: TokensOption = None,
    concurrent: ConcurrentOption = None,
    budget: BudgetsOption = None,
    default_max_tokens: DefaultTokensOption = None,
    priority: PriorityOption = None,
    may_set_priority: Annotated[bool, typer.Option(help="Bodies may carry `priority` and `cache_salt`.")] = False,
    may_use_background: Annotated[bool, typer.Option(help="Responses may be made in the background.")] = False,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Make a key and show it, once."""
    terms = _terms(role, model, route, licence, expires, priority, may_set_priority or None, may_use_background or None)
    limits = _limits_asked(requests_per_min, tokens_per_min, concurrent, budget, default_max_tokens)
    request = {"organisation": organisation, "name": name, **terms, "limits": limits}
    made = _ask("POST", "/api/admin/keys", request, url)
    words = (
        f"{made['secret']}\n\nThis is {made['id']} of {made['organisation']}. It cannot be shown again: keep it now."
    )
    if without := made["models_without_licence"]:
        words += (
            f"\n\nIt may not call {', '.join(without)}: not licensed for commercial use. "
            f"Where {made['organisation']} has accepted such terms: simsa key change {made['id']} --licence LICENCE"
        )
    _show(made, words, json)


@key_app.command("change")
def change_key(
    key: Annotated[str, typer.Argument(help="The key's id, as `simsa key list` shows it.")],
    name: Annotated[str | None, typer.Option(help="What the key is for.")] = None,
    role: RolesOption = None,
    model: ModelsOption = None,
    route: RoutesOption = None,
    licence: LicencesOption = None,
    expires: ExpiresOption = None,
    requests_per_min: RequestsOption = None,
    tokens_per_min: TokensOption = None,
    concurrent: ConcurrentOption = None,
    budget: BudgetsOption = None,
    default_max_tokens: DefaultTokensOption = None,
    priority: PriorityOption = None,
    may_set_priority: Annotated[
        bool | None, typer.Option(help="Whether bodies may carry `priority` and `cache_salt`.")
    ] = None,
    may_use_background: Annotated[
        bool | None, typer.Option(help="Whether responses may be made in the background.")
    ] = None,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Change what a key says; its secret and what it used stay. What is not named stays too; lists are replaced."""
    request = _terms(role, model, route, licence, expires, priority, may_set_priority, may_use_background)
    limits = _limits_asked(requests_per_min, tokens_per_min, concurrent, budget, default_max_tokens)
    request |= _given({"name": name, "limits": limits or None})
    if not request:
        _refuse("name what is to change, e.g. --tokens-per-min 100000")
    changed = _ask("PATCH", f"/api/admin/keys/{quote(key, safe='')}", request, url)
    _show(changed, f"{changed['id']} of {changed['organisation']} is changed", json)


@key_app.command("list")
def list_keys(
    organisation: Annotated[str | None, typer.Argument(help="Only this organisation's.")] = None,
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Show keys by their first characters, with their limits and what is left of budgets."""
    query = f"?organisation={quote(organisation, safe='')}" if organisation is not None else ""
    _show_table(_ask("GET", f"/api/admin/keys{query}", None, url)["data"], _KEY_COLUMNS, json)


@key_app.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(help="The key's id, as `simsa key list` shows it.")],
    url: UrlOption = None,
    json: JsonFlag = False,
) -> None:
    """Revoke a key; it does not count from now on."""
    ended = _ask("POST", f"/api/admin/keys/{quote(key, safe='')}/revoke", None, url)
    _show(ended, f"{ended['id']} of {ended['organisation']} is revoked", json)


def _ask(method: str, path: str, body: object | None, url: str | None) -> Any:
    settings = Settings()
    gateway = admin_door(settings, url)
    try:
        return asyncio.run(ask_gateway(gateway, method, path, body))
    except SimsaError as error:
        _refuse(error.message)


def _terms(
    role: list[str] | None,
    model: list[str] | None,
    route: list[str] | None,
    licence: list[str] | None,
    expires: str | None,
    priority: str | None,
    may_set_priority: bool | None,
    may_use_background: bool | None,
) -> dict[str, Any]:
    return _given(
        {
            "roles": role or None,
            "models": model or None,
            "routes": route or None,
            "licences": licence or None,
            "expires_at": _moment(expires) if expires is not None else None,
            "priority": priority,
            "may_set_priority": may_set_priority,
            "may_use_background": may_use_background,
        }
    )


def _limits_asked(
    requests_per_min: int | None,
    tokens_per_min: int | None,
    concurrent: int | None,
    budget: list[str] | None,
    default_max_tokens: int | None,
) -> dict[str, Any]:
    return _given(
        {
            "requests_per_min": requests_per_min,
            "tokens_per_min": tokens_per_min,
            "concurrent": concurrent,
            "default_max_tokens": default_max_tokens,
            "budgets": [_budget(text) for text in budget or ()] or None,
        }
    )


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    """What was named; the gateway knows what the rest is."""
    return {name: value for name, value in fields.items() if value is not None}


def _budget(text: str) -> dict[str, str]:
    found = _BUDGET.fullmatch(text)
    if found is None:
        _refuse(f"--budget: expected something like 1000000tokens/day or 50000KRW/month, got '{text}'")
    return found.groupdict()


def _moment(text: str) -> str:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        _refuse(f"--expires: expected a day such as 2026-12-31, or a moment with its offset, got '{text}'")
    if moment.tzinfo is None and moment.time() == time():
        moment = moment.replace(tzinfo=UTC)
    if moment.tzinfo is None:
        _refuse(f"--expires: say the moment's offset, e.g. {text}+09:00")
    return moment.isoformat()


# --- shown ----------------------------------------------------------------------------------------------------


def _text(name: str) -> Column[dict[str, Any]]:
    title = name.replace("_", " ").capitalize()
    return Column(title, lambda row: Figure(str(row[name])))


def _list(title: str, name: str) -> Column[dict[str, Any]]:
    return Column(title, lambda row: Figure("all" if row[name] is None else ", ".join(row[name]) or "none"))


def _status(row: dict[str, Any]) -> Figure:
    return Figure("revoked" if row["revoked_at"] is not None else "active")


def _until(row: dict[str, Any]) -> Figure:
    return Figure(row["expires_at"] or "no end")


def _limits(row: dict[str, Any]) -> Figure:
    limits = row["limits"]
    words = [
        f"{limits[name]:,} {unit}"
        for name, unit in (
            ("requests_per_min", "requests/min"),
            ("tokens_per_min", "tokens/min"),
            ("concurrent", "at a time"),
        )
        if limits[name] is not None
    ]
    words += [f"{b['spent']} of {b['amount']} {b['unit']}/{b['period']} spent" for b in limits["budgets"]]
    return Figure("\n".join(words) or "none")


_ID = Column[dict[str, Any]]("Id", lambda row: Figure(row["id"]), is_copied=True)
_ORG_COLUMNS = (_ID, _text("name"), Column("Status", _status), _text("created_at"))
_KEY_COLUMNS = (
    _ID,
    _text("organisation"),
    _text("name"),
    _text("prefix"),
    _text("status"),
    _list("Roles", "roles"),
    _list("Models", "models"),
    Column("Valid until", _until),
    Column("Limits", _limits),
)


def _show(made: Any, words: str, as_json: bool) -> None:
    if as_json or wants_json(sys.stdout):
        _print_json(made)
    else:
        Console().print(printable(words), markup=False, highlight=False, soft_wrap=True)


def _show_table(rows: Sequence[dict[str, Any]], columns: Sequence[Column[dict[str, Any]]], as_json: bool) -> None:
    if as_json or wants_json(sys.stdout):
        _print_json(rows)
    else:
        Console().print(render_table(rows, columns))


def _print_json(value: Any) -> None:
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def _refuse(message: str) -> NoReturn:
    print(f"simsa: {printable(message)}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
