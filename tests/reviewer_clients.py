"""A reviewer's browser without a script: follows forms by hand, keeps its cookie, says where its requests come from."""

from __future__ import annotations

import json
import re
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

from clients import Answer, RawClient

_FORM = re.compile(r'name="form" value="([0-9a-f]{64})"')


class ReviewerClient:
    """`async with ReviewerClient(gateway.url) as reviewer`: requests one after the other over one connection."""

    def __init__(self, url: str, *, host: str | None = None) -> None:
        """`host`: the name under which the gateway is called, where it is not the address's own."""
        self._client = RawClient(url)
        self._host = host
        self._origin = f"http://{host or urlsplit(url).netloc}"
        self.cookie: str | None = None
        self.form = ""
        """The token of the last page that had one."""

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._client.__aexit__(*exc_info)

    async def get(self, path: str, **headers: str) -> Answer:
        return self._seen(await self._client.request("GET", path, headers=self._headers(headers)))

    async def post(self, path: str, fields: Any = (), **headers: str) -> Answer:
        """Send a form; `fields` as pairs where names repeat."""
        pairs = list(fields.items()) if isinstance(fields, dict) else list(fields)
        body = urlencode([("form", self.form), *pairs] if "form" not in dict(pairs) else pairs).encode()
        sent = {"origin": self._origin, "content-type": "application/x-www-form-urlencoded", **headers}
        return self._seen(await self._client.request("POST", path, headers=self._headers(sent), body=body))

    async def save(self, item: str, judgement: Any, *, base: int, **headers: str) -> Answer:
        """What the page's script sends."""
        body = json.dumps({"form": self.form, "judgement": judgement, "base_revision": base}).encode()
        sent = {"origin": self._origin, "content-type": "application/json", **headers}
        path = f"/review/items/{item}/judgement"
        return self._seen(await self._client.request("POST", path, headers=self._headers(sent), body=body))

    async def enter(self, token: str) -> Answer:
        """Take a link, and look at the page that it leads to."""
        answer = await self.post("/review/enter", {"link": token, "form": ""})
        location = answer.header("location")
        return answer if location is None else await self.get(location)

    def _headers(self, headers: dict[str, str]) -> list[tuple[str, str]]:
        cookie = {"cookie": self.cookie} if self.cookie else {}
        host = {"host": self._host} if self._host else {}
        return [(name.replace("_", "-"), value) for name, value in {**host, **cookie, **headers}.items() if value]

    def _seen(self, answer: Answer) -> Answer:
        given = answer.header("set-cookie")
        if given is not None:
            self.cookie = given.partition(";")[0]
        found = _FORM.search(answer.body.decode(errors="replace"))
        if found is not None:
            self.form = found[1]
        return answer
