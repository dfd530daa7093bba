"""Who may call what: the key of a request, and how far it reaches.

Without an admin key the server only hears loopback, and there every program of the machine is let in, browsers too. So
a web page of somebody else must not be able to call through one: neither by a name of its own that points at loopback
(DNS rebinding) nor by a request to another site. What a key has used up belongs in `limits`.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

import msgspec
from pydantic import SecretStr

from gateway.domain.accounts import EVERYTHING, Caller, Role
from gateway.domain.queueing import RANKS
from gateway.domain.records import Model, Priority
from gateway.errors import AuthenticationFailed, InvalidRequest, PageRefused, PermissionDenied
from gateway.key_ring import TOKEN_PREFIX

ONE_ANSWER = "Missing or invalid API key: send it as 'Authorization: Bearer <key>'."
_OUR_TOKENS = TOKEN_PREFIX.encode()
_IN_THE_FOREGROUND = frozenset({b"false", b"null"})
_LOOPBACK = rb"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?\Z"
_LOCAL_HOST = re.compile(_LOOPBACK, re.IGNORECASE)
_LOCAL_ORIGIN = re.compile(rb"https?://" + _LOOPBACK, re.IGNORECASE)
_RUN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}\Z")
_RUNNING_LOAD = frozenset({Role.OPERATOR, Role.ADMIN})
"""Whose calls of any class may belong to a load run."""
_TEMPLATE = "chat_template"
_TEMPLATE_VARIABLES = "chat_template_kwargs"
OPERATORS_FIELDS = frozenset(
    {
        "kv_transfer_params",  # hosts and ports that the engine connects to, paths that it writes to
        "ec_transfer_params",  # the same for encoded media
        "vllm_xargs",  # whatever the engine's extensions take, the two above included
        "request_id",  # connectors read addresses out of it and name files by it
        "prompt_embeds",  # a serialised tensor, which the engine loads
        "mm_processor_kwargs",  # arguments of the code that reads media
        "media_io_kwargs",
        _TEMPLATE,  # a program that the engine runs
    }
)
"""Fields of vLLM 0.32 by which a body makes the engine open connections, use files, or run what the client wrote."""
Headers = Iterable[tuple[bytes, bytes]]


class Access:
    """Finds out who a request is from. Without an admin key that is the operator, but no foreign page."""

    def __init__(self, admin_key: SecretStr | None, find_key: Callable[[bytes], Caller | None]) -> None:
        """`find_key`: whose token it is; see `KeyRing.find`."""
        self._admin_digest = sha256(admin_key.get_secret_value().encode()).digest() if admin_key is not None else None
        self._find_key = find_key

    @property
    def asks_for_key(self) -> bool:
        return self._admin_digest is not None

    def check(self, headers: Headers, *, or_x_api_key: bool = False) -> Caller:
        """The caller. Raises AuthenticationFailed, with the same words for every reason, unless the key is right.

        Where the gateway asks for no key: the operator, or PageRefused for what a web page of another site may have
        sent. A token that looks like one of our keys is held to be one even there, so that limits and scopes can be
        tried, and a revoked key does not become the operator's. `or_x_api_key`: it may come in that header too.
        """
        token = _token(headers, or_x_api_key)
        if self._admin_digest is None and not token.startswith(_OUR_TOKENS):
            _refuse_foreign_pages(headers)
            return EVERYTHING
        caller = self._find_key(token)
        if caller is not None:
            return caller
        if self._admin_digest is not None and hmac.compare_digest(sha256(token).digest(), self._admin_digest):
            return EVERYTHING
        raise AuthenticationFailed(ONE_ANSWER)


def permit_route(caller: Caller, route: str) -> None:
    """Raise PermissionDenied unless the caller may have models answer through this route."""
    if not caller.may_use(route):
        raise PermissionDenied(
            f"This key may not use the route '{route}': its roles or its scope of routes exclude it. "
            "The operator can make one that may."
        )


def permit_model(caller: Caller, model: Model) -> None:
    """Raise PermissionDenied, saying which of scope and licence stands in the way, unless they may call it."""
    if caller.may_call(model):
        return
    if caller.lacks_licence(model):
        why = f"its licence ({model.licence.id or 'not named'}) allows no commercial use, and this key has no grant"
    else:
        why = "it is not in this key's scope of models"
    raise PermissionDenied(
        f"This key may not call '{model.id}': {why}. GET /v1/models lists what it may call.", param="model"
    )


def permit_fields(caller: Caller, fields: Mapping[str, msgspec.Raw]) -> None:
    """Raise PermissionDenied for a body whose fields steer an engine itself, or what other callers get of it."""
    if caller.is_admin:
        return
    if not OPERATORS_FIELDS.isdisjoint(fields):
        raise _field_denied(next(name for name in fields if name in OPERATORS_FIELDS), "only the operator may")
    if _TEMPLATE_VARIABLES in fields and _holds_template(fields[_TEMPLATE_VARIABLES]):
        raise _field_denied(f"{_TEMPLATE_VARIABLES}.{_TEMPLATE}", "only the operator may")
    if not caller.may_set_priority:
        for name in ("priority", "cache_salt"):
            if name in fields:
                raise _field_denied(name, "leave it out, or ask the operator for a key that may")


def _holds_template(variables: msgspec.Raw) -> bool:
    """Whether the variables of the chat template name another template; what cannot be read, engines do not read."""
    raw = bytes(variables)
    if b"chat_template" not in raw and b"\\" not in raw:
        return False
    try:
        return _TEMPLATE in msgspec.json.decode(variables, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return True


def _field_denied(name: str, words: str) -> PermissionDenied:
    return PermissionDenied(f"This key may not set '{name}': {words}.", param=name, code="parameter_not_allowed")


def permit_background(caller: Caller, value: msgspec.Raw | None) -> None:
    """Raise PermissionDenied for a response in the background, `value` being that field of its body.

    The engine answers at once and goes on: no limit of the key, of its calls at a time or of the replica's holds what
    it does then, and its tokens are never seen.
    """
    if value is None or caller.may_use_background or bytes(value) in _IN_THE_FOREGROUND:
        return
    raise PermissionDenied(
        "This key may not have responses made in the background: leave 'background' out, or ask the operator for a key "
        "that may.",
        param="background",
        code="parameter_not_allowed",
    )


def asked_priority(caller: Caller, header: bytes) -> Priority:
    """The class that `x-simsa-priority` asks for: the key's own or a lower one, which harms nobody; any for the admin.

    Raises InvalidRequest for no class, PermissionDenied for one that goes before the key's.
    """
    text = header.decode("latin-1")
    if text not in RANKS:
        shown, known = text[:40], ", ".join(RANKS)
        raise InvalidRequest(f"The header 'x-simsa-priority: {shown}' names no class: expected {known}")
    priority = Priority(text)
    if RANKS[priority] < RANKS[caller.priority] and not caller.is_admin:
        raise PermissionDenied(
            f"This key's calls are of class {caller.priority}: 'x-simsa-priority: {priority}' would go before them. "
            "Leave the header out, or ask the operator for a key of that class.",
            code="priority_not_allowed",
        )
    return priority


def asked_run(caller: Caller, header: bytes) -> str:
    """The load run that a call belongs to, as `x-simsa-run-id` names it.

    Raises InvalidRequest for what is no id, PermissionDenied unless the key is of class load_test or an operator's: a
    run's figures are made of all calls that name it, and any key's call may ask for a lower class.
    """
    if _RUN_ID.match(header) is None:
        shown = header[:80].decode("latin-1")
        raise InvalidRequest(
            f"The header 'x-simsa-run-id: {shown}' is no id of a run: expected 1 to 64 letters, digits, '.', '_' or '-'"
        )
    if caller.priority is not Priority.LOAD_TEST and not caller.has_any(_RUNNING_LOAD):
        raise PermissionDenied(
            f"Only keys of class load_test may name a run. This key is of class {caller.priority}, which "
            "'x-simsa-priority: load_test' does not change: leave 'x-simsa-run-id' out, or ask the operator for a key "
            "of that class.",
            code="run_not_allowed",
        )
    return header.decode("ascii")


def permit_roles(caller: Caller, roles: frozenset[Role]) -> None:
    """Raise PermissionDenied unless the caller has one of the roles."""
    if not caller.has_any(roles):
        wanted = " or ".join(sorted(roles))
        raise PermissionDenied(f"This needs a key with the role {wanted}.", code="role_required")


def _token(headers: Headers, or_x_api_key: bool) -> bytes:
    """The token sent, b"" where there is none; of repeated headers the first counts."""
    other = b""
    for name, value in headers:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            return token.strip() if scheme.lower() == b"bearer" else b""
        if or_x_api_key and name == b"x-api-key" and not other:
            other = value.strip()
    return other


def _refuse_foreign_pages(headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Every browser names the host; a page of another loopback port is another site, but one of this machine."""
    is_cross_site = has_local_origin = False
    for name, value in headers:
        if name == b"host":
            if _LOCAL_HOST.match(value) is None:
                raise _refused("host", value, "host_not_allowed")
        elif name == b"origin":
            if _LOCAL_ORIGIN.match(value) is None:
                raise _refused("origin", value, "origin_not_allowed")
            has_local_origin = True
        elif name == b"sec-fetch-site":
            is_cross_site |= value.lower() == b"cross-site"
    if is_cross_site and not has_local_origin:
        raise _refused("sec-fetch-site", b"cross-site", "origin_not_allowed")


def _refused(name: str, value: bytes, code: str) -> PageRefused:
    shown = value[:80].decode("latin-1")
    return PageRefused(
        f"The header '{name}: {shown}' is not of this machine: without SIMSA_ADMIN_KEY only localhost, 127.0.0.0/8 and "
        "[::1] are answered. To be called by another name or by a web page, set a key.",
        code=code,
    )
