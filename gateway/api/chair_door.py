"""Who comes to the pages of those who run rounds, and what every answer there is made of.

A key is shown once, at the sign-in; from then on a cookie that no script and no other site can use stands for it. Forms
come from our own pages with the session's token, and not too often. Which page it is belongs in `chair`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from fastapi import Request, Response

from gateway.api.deps import Services
from gateway.api.review_door import (
    NoSession,
    ReviewRoute,
    accepted_language,
    first,
    go_to,
    is_secure,
    read_fields,
)
from gateway.domain.accounts import Caller
from gateway.errors import (
    AuthenticationFailed,
    Conflict,
    InvalidRequest,
    NotFound,
    PageRefused,
    PermissionDenied,
    RateLimited,
    RequestTooLarge,
    SimsaError,
    Unavailable,
)
from gateway.rounds.life import OPERATING, READING, role_of
from gateway.rounds.links import Session
from gateway.web import LANGUAGES, Language, word

COOKIE = "simsa-rounds"
LANGUAGE_COOKIE = "simsa-rounds-language"
HOME = "/rounds"
SIGN_IN = "/rounds/sign-in"
MAX_FORM_BYTES = 1024 * 1024
"""Of an invitation of 2,000 reviewers."""
_KEY_HEADERS = (b"authorization", b"x-api-key")
_REFUSALS: tuple[tuple[type[SimsaError], str], ...] = (
    (RateLimited, word("Too many requests. Please wait a moment.")),
    (AuthenticationFailed, word("This key is not known here, or does not count any more.")),
    (PermissionDenied, word("Your key does not reach as far as this.")),
    (PageRefused, word("The request did not come from one of these pages. Please load the page anew and try again.")),
    (NotFound, word("There is no such page or round for you.")),
    (Conflict, word("As things stand this cannot be done.")),
    (RequestTooLarge, word("That is more than one form may hold.")),
    (InvalidRequest, word("Something in the form is not as it should be.")),
    (Unavailable, word("The gateway cannot be reached properly at the moment. Please try again shortly.")),
)
_FAILED = word("The gateway failed on this request; its log has the details.")
ROLES: Mapping[str, str] = {
    "chair": word("Chair"),
    "operator": word("Operator"),
    "auditor": word("Auditor"),
    "admin": word("Administrator"),
}


class NotSignedIn(NoSession):
    """Nobody that we know, or a session that has ended."""


@dataclass(frozen=True, slots=True)
class Seat:
    """Somebody who is signed in, and the language that they read."""

    caller: Caller
    session: Session
    language: Language


class ChairRoute(ReviewRoute):
    """A route whose refusals are pages of those who run rounds."""

    @staticmethod
    async def prepare(request: Request) -> None:
        """Whose session it is, for `find_seat`."""
        services: Services = request.app.state.services
        secret = request.cookies.get(COOKIE)
        if secret and len(secret) <= 200:
            request.state.signed_in = await services.chairs.caller(Session(secret))

    @staticmethod
    def led_on(request: Request) -> Response | None:
        """These pages stand at every address but the reviewers'."""
        return None

    @staticmethod
    def refusal(request: Request, error: Exception) -> Response:
        if isinstance(error, NoSession):
            path = request.url.path
            return go_to(f"{SIGN_IN}?{urlencode({'next': path})}" if request.method == "GET" else f"{SIGN_IN}?ended=1")
        assert isinstance(error, SimsaError)
        services: Services = request.app.state.services
        seat = find_seat(request)
        words = next((said for kind, said in _REFUSALS if isinstance(error, kind)), _FAILED)
        is_ours = isinstance(error, Conflict | InvalidRequest) and not isinstance(error, NotFound)
        response = render(
            services,
            request,
            seat,
            "rounds_message.html",
            heading=word("That did not work"),
            said=words,
            detail=telling(services, seat, error) if is_ours else None,
            back_to=_back(request),
        )
        response.status_code = error.status
        response.headers.update(dict(error.headers()))
        return response


def telling(services: Services, seat: Seat | None, error: SimsaError) -> str | None:
    """What exactly was wrong, for whom it may concern: who fails is not for a chair to know before the reveal."""
    if seat is not None and seat.caller.has_any(OPERATING):
        return error.message
    names_one = any(f"'{model}'" in error.message for model in services.registry.current.models)
    return None if names_one or seat is None else error.message


# --- requests -----------------------------------------------------------------------------------------------


def shown_key(request: Request, services: Services, key: str) -> Caller:
    """Whose key was typed in; without one, where none is asked for, the operator, unless a foreign page asks.

    Raises AuthenticationFailed, PageRefused, and PermissionDenied for roles that have nothing to do with rounds.
    """
    headers = _without_keys(request)
    if key:
        headers.append((b"authorization", b"Bearer " + key.encode("utf-8", "surrogatepass")))
    caller = services.access.check(headers)
    if key and caller.is_admin and not services.access.asks_for_key:
        raise AuthenticationFailed("There is no such key.")
    if not caller.has_any(READING):
        raise PermissionDenied("Rounds are for the roles chair, operator, auditor and admin.", code="role_required")
    return caller


def find_seat(request: Request) -> Seat | None:
    """Who comes, None where it is nobody; a key that has lost its roles is nobody's."""
    caller: Caller | None = getattr(request.state, "signed_in", None)
    if caller is None or not caller.has_any(READING):
        return None
    return Seat(caller, Session(request.cookies[COOKIE]), language_for(request))


def seat_of(request: Request, services: Services) -> Seat:
    """Who comes. Raises NotSignedIn, and PageRefused for a foreign page where no key is asked for."""
    if not services.access.asks_for_key:
        services.access.check(_without_keys(request))
    seat = find_seat(request)
    if seat is None:
        raise NotSignedIn
    return seat


async def read_seated_form(request: Request, services: Services) -> tuple[Seat, dict[str, list[str]]]:
    """Who sends a form, and its fields. Raises NotSignedIn, PageRefused, RateLimited, InvalidRequest."""
    fields = await read_fields(request, most_bytes=MAX_FORM_BYTES)
    seat = seat_of(request, services)
    services.chair_limits.check_post(seat.session.digest)
    if not seat.session.owns(first(fields, "form")):
        raise PageRefused("The form is not of this session.", code="form_refused")
    return seat, fields


def language_for(request: Request) -> Language:
    """The language chosen on these pages, else the one that the browser asks for."""
    chosen = request.cookies.get(LANGUAGE_COOKIE)
    return next((one for one in LANGUAGES if one == chosen), accepted_language(request))


def own_page(path: str) -> str:
    """A path below /rounds to go on with; anything else becomes the list of rounds."""
    is_ours = path == HOME or path.startswith((f"{HOME}/", f"{HOME}?"))
    is_plain = path.isascii() and path.isprintable() and "//" not in path and "\\" not in path and len(path) < 500
    return path if is_ours and is_plain else HOME


# --- answers ------------------------------------------------------------------------------------------------


def render(services: Services, request: Request, seat: Seat | None, template: str, **values: Any) -> Response:
    """A page, with what all of them have."""
    language = language_for(request) if seat is None else seat.language
    common = {
        "round_title": services.web.say(language, word("Blind review rounds")),
        "form_token": "",
        "back": "",
        "token": seat.session.form_token if seat is not None else "",
        "path": request.url.path,
        "here": quote(request.url.path) if request.method == "GET" else HOME,
        "role": ROLES[role_of(seat.caller)] if seat is not None else None,
    }
    html = services.web.render(template, language, **{**common, **values})
    return Response(html.encode(), media_type="text/html; charset=utf-8")


def keep_cookie(response: Response, request: Request, name: str, value: str) -> Response:
    response.set_cookie(name, value, path=HOME, httponly=True, samesite="strict", secure=is_secure(request))
    return response


def drop_session(response: Response) -> Response:
    response.delete_cookie(COOKIE, path=HOME, httponly=True, samesite="strict")
    return response


def _back(request: Request) -> str:
    """Where to go on from a refusal: the round that it was about."""
    parts = request.url.path.split("/")
    return quote(f"{HOME}/{parts[2]}") if len(parts) > 3 and parts[2] != "static" else HOME


def _without_keys(request: Request) -> list[tuple[bytes, bytes]]:
    """The headers by which pages are told from foreign ones.

    Without a referrer browsers name the origin of our own forms "null"; that it is ours `sec-fetch-site` says, which no
    page can set.
    """
    is_own = request.headers.get("sec-fetch-site") == "same-origin"
    return [
        (name, value)
        for name, value in request.scope["headers"]
        if name not in _KEY_HEADERS and not (is_own and (name, value) == (b"origin", b"null"))
    ]
