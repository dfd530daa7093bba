"""Who may call: the admin key, compared in constant time. Organisations' keys do not exist yet."""

from __future__ import annotations

import hmac
from collections.abc import Iterable

from pydantic import SecretStr

from gateway.errors import AuthenticationFailed

ONE_ANSWER = "Missing or invalid API key: send it as 'Authorization: Bearer <key>'."


class Access:
    """Checks the key of a request. Without an admin key every caller is let in; the server then only hears loopback."""

    def __init__(self, admin_key: SecretStr | None) -> None:
        self._key = admin_key.get_secret_value().encode() if admin_key is not None else None

    @property
    def asks_for_key(self) -> bool:
        return self._key is not None

    def check(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise AuthenticationFailed, with the same words for every reason, unless the key is right."""
        if self._key is None:
            return
        given = next((value for name, value in headers if name == b"authorization"), b"")
        scheme, _, token = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(token.strip(), self._key):
            raise AuthenticationFailed(ONE_ANSWER)
