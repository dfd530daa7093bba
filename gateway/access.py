"""Who may call: the admin key, compared in constant time. Organisations' keys do not exist yet.

Without a key the server only hears loopback, and there every program of the machine is let in, browsers too. So a web
page of somebody else must not be able to call through one: neither by a name of its own that points at loopback (DNS
rebinding) nor by a request to another site.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Iterable

from pydantic import SecretStr

from gateway.errors import AuthenticationFailed, PageRefused

ONE_ANSWER = "Missing or invalid API key: send it as 'Authorization: Bearer <key>'."
_LOOPBACK = rb"(?:localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?\Z"
_LOCAL_HOST = re.compile(_LOOPBACK, re.IGNORECASE)
_LOCAL_ORIGIN = re.compile(rb"https?://" + _LOOPBACK, re.IGNORECASE)


class Access:
    """Checks the key of a request. Without an admin key every caller of this machine is let in, but no foreign page."""

    def __init__(self, admin_key: SecretStr | None) -> None:
        self._key = admin_key.get_secret_value().encode() if admin_key is not None else None

    @property
    def asks_for_key(self) -> bool:
        return self._key is not None

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise AuthenticationFailed, with the same words for every reason, unless the key is right.

        Where there is no key: PageRefused for what a web page of another site may have sent.
        """
        if self._key is None:
            _refuse_foreign_pages(headers)
            return
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._key):
            raise AuthenticationFailed(ONE_ANSWER)


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
