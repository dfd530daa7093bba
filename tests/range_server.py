"""A server of files with range requests, as a hub has them, over real sockets: what was asked and sent is kept."""

from __future__ import annotations

import re
from collections.abc import Mapping

from scripted_http import ScriptedServer
from scripted_replies import Reply, Request


class RangeServer(ScriptedServer):
    """Serves `files` by path. `knows_ranges=False`: sends every file whole, as some servers do."""

    def __init__(self, files: Mapping[str, bytes], *, knows_ranges: bool = True) -> None:
        super().__init__()
        self._files = files
        self._knows_ranges = knows_ranges

    def usual(self, request: Request) -> Reply:
        data = self._files.get(request.path)
        if data is None:
            return Reply.text("no such file", status=404)
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", request.header("range") or "")
        if asked is None or not self._knows_ranges:
            pieces = tuple(data[at : at + 65536] for at in range(0, len(data), 65536)) or (b"",)
            return Reply(pieces=pieces, content_type="application/octet-stream")
        first, last = int(asked[1]), min(int(asked[2]), len(data) - 1)
        if first >= len(data):
            return Reply.text("", status=416)
        headers = (("content-range", f"bytes {first}-{last}/{len(data)}"),)
        return Reply(206, headers, (data[first : last + 1],), content_type="application/octet-stream")

    def ranges_of(self, path: str) -> list[str | None]:
        return [request.header("range") for request in self.requests_to(path)]
