"""What every request to /review must show, and what every answer is made of: the reviewers' side of the wire.

Answers have one set of headers, whatever they say, and a size that tells nothing. Requests that change something come
from our own pages, with the session's token, and not too often. Which page it is belongs in `review`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import structlog
from fastapi import Request, Response
from fastapi.routing import APIRoute

from gateway.api.deps import Services
from gateway.asgi import ClientLeft, read_body
from gateway.errors import InternalError, InvalidRequest, NotFound, PageRefused, RateLimited, SimsaError, Unavailable
from gateway.review_address import came_to_review_address
from gateway.rounds.links import LinkRefused
from gateway.rounds.report import POLICY
from gateway.rounds.visits import Visit
from gateway.rounds.voting import Overtaken
from gateway.web import Language, language_of, word

COOKIE = "simsa-review"
PAGE_BYTES = 16 * 1024
"""A page's size is a multiple of it."""
MAX_FORM_BYTES = 64 * 1024
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Mapping[str, str] = {
    "cache-control": "no-store, no-transform",
    "content-security-policy": _POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
}
"""On every answer below /review, refusals and files included."""
_LINK_WORDS = {
    "invalid": word("This link is not valid. Please check that you copied all of it."),
    "expired": word("This link has expired. Please ask the organisers for a new one."),
    "replaced": word("There is a newer link for you; this one is no longer valid."),
    "revoked": word("This link has been withdrawn. Please turn to the organisers."),
}
_NO_ENTRANCE = word("This link does not open")
_SESSION_ENDED = (
    word("Your session has ended"),
    word(
        "Please open your link again. A session ends when you enter anew in another window or on another device, "
        "or leave."
    ),
)
_OVERTAKEN = (word("Changed in another window"), word("This item was changed in another window."))
_FAILED = (word("That did not work"), word("Please go back to the review and try again."))
_REFUSALS: tuple[tuple[type[SimsaError], tuple[str, str]], ...] = (
    (RateLimited, (word("A little slower, please"), word("Too many requests. Please wait a moment."))),
    (NotFound, (word("Not found"), word("There is no such page in your review."))),
    (
        Unavailable,
        (
            word("Not available right now"),
            word("The review cannot be reached at the moment. Please try again shortly; what was saved stays saved."),
        ),
    ),
)
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class NoSession(Exception):
    """Nobody that we know, or a session that another one ended."""


class ReviewRoute(APIRoute):
    """A route whose refusals are pages (or small JSON where a script asks), with the headers of all."""

    def get_route_handler(self) -> Handler:
        answer = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                if "\0" in request.url.path or "%00" in str(request.url):
                    raise NotFound("Nothing here has a NUL in its name.")
                await self.prepare(request)
                response = self.led_on(request) or await answer(request)
            except (SimsaError, LinkRefused, Overtaken, NoSession) as error:
                response = self.refusal(request, error)
            except ClientLeft:
                raise
            except Exception as error:  # noqa: BLE001  a reviewer gets a page whatever fails, and the log the reason
                structlog.get_logger("simsa").error("request failed", path=request.url.path, exc_info=error)
                response = self.refusal(request, InternalError())
            for name, value in HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return handler

    @staticmethod
    async def prepare(request: Request) -> None:
        """Look up what every page needs, before any of it."""

    @staticmethod
    def led_on(request: Request) -> Response | None:
        """Where reviewers have an address of their own, the way to it from any other; None where the page may stand.

        A browser takes the link's token along, which stands behind '#'. Raises NoSession for a form: sessions of
        another address have ended, and the link opens one anew.
        """
        services: Services = request.app.state.services
        url = services.settings.review_url
        if url is None or came_to_review_address(request.scope):
            return None
        if request.method not in ("GET", "HEAD"):
            raise NoSession
        query = request.scope["query_string"]
        place = request.scope["raw_path"] + (b"?" + query if query else b"")
        return Response(status_code=307, headers={"location": url + place.decode("latin-1")})

    @staticmethod
    def refusal(request: Request, error: Exception) -> Response:
        """What stands in place of the page."""
        return _refusal(request, error)


# --- requests -----------------------------------------------------------------------------------------------


async def visit_of(request: Request, services: Services) -> Visit:
    """Who comes. Raises NoSession, RateLimited where a session reads too much."""
    secret = request.cookies.get(COOKIE)
    visit = None if not secret or len(secret) > 200 else await services.reviewing.visit(secret)
    if visit is None:
        raise NoSession
    if request.method in ("GET", "HEAD"):
        services.review_limits.check_read(visit.session.digest)
    return visit


async def read_fields(request: Request, *, most_bytes: int = MAX_FORM_BYTES) -> dict[str, list[str]]:
    """The fields of a form from one of our own pages. Raises PageRefused, InvalidRequest, RequestTooLarge."""
    refuse_foreign_origin(request)
    raw = await read_body(request.scope, request.receive, most_bytes)
    try:
        return parse_qs(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=1_000)
    except ValueError as error:
        raise InvalidRequest("The form cannot be read.") from error


async def read_visited_form(request: Request, services: Services) -> tuple[Visit, dict[str, list[str]]]:
    """Who sends a form, and its fields. Raises NoSession, PageRefused, RateLimited, InvalidRequest."""
    fields = await read_fields(request)
    visit = await visit_of(request, services)
    check_form(services, visit, first(fields, "form"))
    return visit, fields


async def read_visited_json(request: Request, services: Services, shape: type[Any]) -> tuple[Visit, Any]:
    """The same for what the script sends: `shape` is a msgspec struct with a field `form`."""
    refuse_foreign_origin(request)
    raw = await read_body(request.scope, request.receive, MAX_FORM_BYTES)
    visit = await visit_of(request, services)
    try:
        body = msgspec.json.decode(raw, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"The request body is not what is expected: {error}") from error
    check_form(services, visit, body.form)
    return visit, body


def check_form(services: Services, visit: Visit, token: str) -> None:
    """Raise PageRefused unless the form was made for this session, RateLimited where it is too much."""
    services.review_limits.check_post(visit.session.digest)
    if not visit.session.owns(token):
        raise PageRefused("The form is not of this session.", code="form_refused")


def refuse_foreign_origin(request: Request) -> None:
    """Raise PageRefused for a request that another site may have made.

    Without a referrer browsers say of a form that its origin is "null"; then `sec-fetch-site` must say whose it is.
    """
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site")
    is_named = origin not in (None, "null")
    if is_named and urlsplit(origin).netloc != request.headers.get("host"):
        raise PageRefused("The request comes from another site.", code="origin_not_allowed")
    if site not in (None, "same-origin") or (not is_named and site is None):
        raise PageRefused("The request does not come from one of the review's own pages.", code="origin_not_allowed")


def first(fields: Mapping[str, list[str]], name: str) -> str:
    """A field of a form; "" where there is none."""
    return fields.get(name, [""])[0]


def address_of(request: Request) -> str:
    return request.client.host if request.client is not None else ""


# --- answers ------------------------------------------------------------------------------------------------


def page(html: str, *, status: int = 200) -> Response:
    """A page whose size is a multiple of PAGE_BYTES."""
    body = html.encode()
    return Response(body + b"\n" * (-len(body) % PAGE_BYTES), status, media_type="text/html; charset=utf-8")


def report_answer(html: str, language: Language) -> Response:
    """A round's report: it brings its styles along, and may fetch and run nothing."""
    headers = {"content-security-policy": POLICY, "content-language": language}
    return Response(html.encode(), media_type="text/html; charset=utf-8", headers=headers)


def json_answer(content: Any, *, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def go_to(path: str) -> Response:
    """Have the browser fetch another page."""
    return Response(status_code=303, headers={"location": path})


def keep_session(response: Response, secret: str, request: Request) -> Response:
    """Give the browser its session; over https only, where the request came so."""
    response.set_cookie(COOKIE, secret, path="/review", httponly=True, samesite="strict", secure=is_secure(request))
    return response


def is_secure(request: Request) -> bool:
    """Whether the browser speaks https to us, or to what stands before us."""
    forwarded = request.headers.get("x-forwarded-proto", "")
    return request.url.scheme == "https" or forwarded.split(",")[0].strip() == "https"


def accepted_language(request: Request) -> Language:
    """Of somebody whom we do not know yet."""
    return language_of(request.headers.get("accept-language"))


def same_length(html: tuple[str, str]) -> tuple[str, str]:
    """Both sides of an item in the same number of bytes: the shorter one ends in spaces."""
    longest = max(len(side.encode()) for side in html)
    a, b = (side + " " * (longest - len(side.encode())) for side in html)
    return a, b


def _refusal(request: Request, error: Exception) -> Response:
    """In the reader's language where it is a page; without anything that the request did not say itself."""
    status, code, heading, words = _said(error)
    headers = dict(error.headers()) if isinstance(error, SimsaError) else {}
    if request.url.path.endswith("/judgement"):
        told = error.message if isinstance(error, InvalidRequest) else words
        content: dict[str, Any] = {"error": {"code": code, "message": told}}
        if isinstance(error, Overtaken):
            content |= {"revision": error.current.revision, "judgement": error.current.judgement}
        response = json_answer(content, status=status)
    else:
        services: Services = request.app.state.services
        web, language = services.web, accepted_language(request)
        link = ("/review/", web.say(language, word("To the review")))
        html = web.render(
            "message.html",
            language,
            round_title="",
            form_token="",
            back="",
            heading=web.say(language, heading),
            lines=[web.say(language, words)],
            link=None if isinstance(error, NoSession | LinkRefused) else link,
        )
        response = page(html, status=status)
    response.headers.update(headers)
    return response


def _said(error: Exception) -> tuple[int, str, str, str]:
    """Status, code, heading and words of a refusal."""
    match error:
        case NoSession():
            status, code, said = 401, "no_session", _SESSION_ENDED
        case LinkRefused():
            status, code, said = 403, f"link_{error.why}", (_NO_ENTRANCE, _LINK_WORDS[error.why])
        case Overtaken():
            status, code, said = 409, "overtaken", _OVERTAKEN
        case SimsaError():
            status, code = error.status, str(error.code)
            said = next((words for kind, words in _REFUSALS if isinstance(error, kind)), _FAILED)
        case _:
            raise error
    return status, code, *said
