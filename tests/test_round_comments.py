"""What reviewers wrote in their own words: read after closing, cleared one by one, and then in the public bundle."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clients import RawClient
from closed_rounds import BEGIN, ID, PHONE, ClosedRound, put_closed_round
from gateways import RunningGateway, running_gateway
from processes_under_test import run_simsa
from reviewer_clients import ReviewerClient

from gateway.domain.accounts import Role, Terms
from gateway.domain.rounds import RoundStatus, VoteEntry
from gateway.errors import InvalidRequest
from gateway.rounds.archive import unpack
from gateway.rounds.bundle_tools import TOOLS
from gateway.rounds.chain import FREE_TEXT
from gateway.rounds.clearing import comments_of, require_clearable
from gateway.rounds.verify import Published, Verdict, verify_bundle

ADMIN = "admin-key-of-this-test"
PATH = f"/api/rounds/{ID}"
WORDS = "의견입니다"


@dataclass
class Commented:
    """A gateway with a closed round in it, and who asks it."""

    gateway: RunningGateway
    closed: ClosedRound
    client: RawClient

    async def ask(self, method: str, path: str, body: Any = b"", *, status: int = 200, key: str = ADMIN) -> Any:
        headers = [("authorization", f"Bearer {key}")]
        answer = await self.client.request(method, f"{PATH}{path}", body=body, headers=headers)
        assert answer.status == status, answer.body
        return answer.json()

    async def comments(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.ask("GET", "/comments"))["data"]
        return found

    async def clearable(self) -> list[int]:
        return [one["entry"] for one in await self.comments() if not one["findings"]]

    async def bundle(self, kind: str) -> bytes:
        headers = [("authorization", f"Bearer {ADMIN}")]
        return (await self.client.request("GET", f"{PATH}/export?kind={kind}", headers=headers)).body


@pytest.fixture
async def it(tmp_path: Path) -> AsyncIterator[Commented]:
    async with running_gateway(tmp_path, [{"id": "m", "serving": {"kind": "vllm"}}], admin_key=ADMIN) as gateway:
        closed = await put_closed_round(gateway.services.rounds.store)
        async with RawClient(gateway.url) as client:
            yield Commented(gateway, closed, client)


def vote(number: int, item: str, revision: int = 1, **said: Any) -> VoteEntry:
    return VoteEntry(number, item, "r-1", revision, BEGIN, said, "", "")


def test_words_that_count_are_those_of_the_last_revision_with_what_looks_like_personal_data() -> None:
    votes = [
        vote(1, "i1", comment="첫 생각"),
        vote(2, "i2", comment="  "),
        vote(3, "i1", 2, comment=f"전화 {PHONE}", reason="a@example.org"),
        vote(4, "i3", choice="a"),
        vote(5, "i4", comment="좋습니다"),
    ]
    first, second = comments_of(votes, ())
    assert (first.number, first.words) == (3, {"reason": "a@example.org", "comment": f"전화 {PHONE}"})
    assert [(one.field, one.kind) for one in first.findings] == [("reason", "email"), ("comment", "phone")]
    assert (second.number, second.findings, second.clearance) == (5, (), None)
    require_clearable([first, second], [5])
    for number, words in ((1, "no words that count stand under 1"), (3, "looks like personal data")):
        with pytest.raises(InvalidRequest, match=words):
            require_clearable([first, second], [5, number])


async def test_cleared_comments_and_no_others_are_in_the_public_bundle(it: Commented) -> None:
    comments = await it.comments()
    assert any(one["findings"] and PHONE not in json.dumps(one["findings"]) for one in comments)
    first, second, *_ = [one["entry"] for one in comments if one["words"].get("comment") == WORDS]
    assert WORDS.encode() not in await it.bundle("public")
    made = (await it.ask("POST", "/clearances", {"entries": [first]}, status=201))["data"]
    assert [(one["entry"], one["by"]) for one in made] == [(first, "admin")]
    assert (await it.ask("POST", "/clearances", {"entries": [first]}, status=201))["data"] == []
    public = await it.bundle("public")
    lines = [json.loads(line) for line in unpack(public).files["votes.jsonl"].splitlines()]
    assert [line["sequence"] for line in lines if "opened" in line] == [first]
    one = await it.closed.round()
    closing = (await it.closed.content()).closing.root
    for data in (public, await it.bundle("audit")):
        found = verify_bundle(data, Published(root=one.root, head=one.head, closing=closing), analyse=TOOLS.analyse)
        assert found.faults == []
    log = [entry for entry in await it.closed.store.accesses(ID) if entry.action == "comment.clear"]
    assert [(entry.who, entry.role, entry.subject) for entry in log] == [("admin", "admin", str(first))]
    states = {one["entry"]: one["cleared_by"] for one in await it.comments()}
    assert (states[first], states[second]) == ("admin", None)


async def test_the_whole_public_bundle_with_cleared_words_is_authenticated(it: Commented) -> None:
    await it.ask("POST", "/clearances", {"entries": await it.clearable()}, status=201)
    one, content = await it.closed.round(), await it.closed.content()
    published = Published(root=one.root, head=one.head, closing=content.closing.root)
    found = verify_bundle(await it.bundle("public"), published, analyse=TOOLS.analyse, report=TOOLS.report)
    assert (found.faults, found.verdict) == ([], Verdict.AUTHENTICATED)


async def test_what_is_no_comment_or_looks_like_personal_data_is_cleared_by_nobody(it: Commented) -> None:
    comments = await it.comments()
    telling = next(one["entry"] for one in comments if one["findings"])
    fine = next(one["entry"] for one in comments if not one["findings"])
    silent = next(v.number for v in await it.closed.store.votes(ID) if not set(FREE_TEXT) & set(v.judgement))
    for wrong in (telling, silent, 99_999):
        refused = await it.ask("POST", "/clearances", {"entries": [fine, wrong]}, status=400)
        assert str(wrong) in refused["error"]["message"]
    for body in ({"entries": []}, {"entries": [0]}, {"entries": ["x"]}, {}):
        await it.ask("POST", "/clearances", body, status=400)
    assert await it.closed.store.clearances(ID) == []


async def test_comments_are_read_after_closing_and_cleared_until_the_round_is_archived(it: Commented) -> None:
    fine, store = (await it.clearable())[0], it.closed.store
    assert await store.move(ID, {RoundStatus.CLOSED}, RoundStatus.OPEN)
    for method, path, body in (("GET", "/comments", b""), ("POST", "/clearances", {"entries": [fine]})):
        refused = await it.ask(method, path, body, status=409)
        assert refused["error"]["code"] == "wrong_status"
    assert await store.move(ID, {RoundStatus.OPEN}, RoundStatus.ARCHIVED)
    assert await it.comments() != []
    await it.ask("POST", "/clearances", {"entries": [fine]}, status=409)


async def test_an_auditor_reads_comments_and_clears_none(it: Commented) -> None:
    auditor = await it.gateway.key_of("auditors", Terms(roles=frozenset({Role.AUDITOR})))
    entries = [one["entry"] for one in (await it.ask("GET", "/comments", key=auditor))["data"]]
    await it.ask("POST", "/clearances", {"entries": entries[:1]}, key=auditor, status=403)
    reads = [one.action for one in await it.closed.store.accesses(ID) if one.action == "comments.read"]
    assert len(reads) == 1


async def test_on_the_page_comments_are_read_ticked_confirmed_and_cleared(it: Commented) -> None:
    comments = await it.comments()
    first, second, *_ = [one["entry"] for one in comments if one["words"].get("comment") == WORDS]
    telling = next(one["entry"] for one in comments if one["findings"])
    async with ReviewerClient(it.gateway.url) as browser:
        await browser.post("/rounds/sign-in", {"key": ADMIN, "form": ""})
        assert f"/rounds/{ID}/comments" in (await browser.get(f"/rounds/{ID}")).body.decode()
        page = (await browser.get(f"/rounds/{ID}/comments")).body.decode()
        assert WORDS in page
        assert "전화번호" in page
        assert "010-****-****" in page
        offered = [f'value="{number}"' in page for number in (first, second, telling)]
        assert offered == [True, True, False]
        chosen = [("entry", str(first)), ("entry", str(second))]
        asked = (await browser.post(f"/rounds/{ID}/steps/clear", chosen)).body.decode()
        assert all(f'name="entry" value="{number}"' in asked for number in (first, second))
        assert await it.closed.store.clearances(ID) == []
        done = await browser.post(f"/rounds/{ID}/steps/clear", [*chosen, ("sure", "yes")])
        assert (done.status, done.header("location")) == (303, f"/rounds/{ID}?done=clear")
        assert [one.number for one in await it.closed.store.clearances(ID)] == sorted([first, second])
        assert "공개 허용됨" in (await browser.get(f"/rounds/{ID}/comments")).body.decode()
        assert (await browser.post(f"/rounds/{ID}/steps/clear", [("sure", "yes")])).status == 400
        assert (await browser.get(f"/rounds/{ID}/comments?after={telling}")).status == 200


async def test_on_the_command_line_comments_are_listed_and_cleared_by_number_or_from_a_file(
    it: Commented, tmp_path: Path
) -> None:
    async def run(*words: str) -> Any:
        return await run_simsa("round", *words, "--url", it.gateway.url, key=ADMIN)

    listed = json.loads((await run("comments", "closed")).out)
    numbers = [one["entry"] for one in listed if not one["findings"]]
    made = await run("clear", "closed", "--comment", str(numbers[0]), "--comment", str(numbers[1]))
    assert (made.code, [one["entry"] for one in json.loads(made.out)]) == (0, sorted(numbers[:2]))
    file = tmp_path / "cleared.txt"
    file.write_text("\n".join(map(str, numbers[1:])) + "\n")
    made = await run("clear", "closed", "--list", str(file))
    assert (made.code, [one["entry"] for one in json.loads(made.out)]) == (0, sorted(numbers[2:]))
    file.write_text("17, 18\n")
    for words, said in (
        (("--list", str(file)), "cleared.txt:1: expected a comment's number"),
        ((), "--comment NUMBER"),
    ):
        refused = await run("clear", "closed", *words)
        assert refused.code == 2
        assert said in refused.err
