"""Rounds over real sockets: a plan becomes answers, queues and a sealed root; each step by whom it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from clients import RawClient
from engines import ScriptedEngine
from gateways import RunningGateway, entry, running_gateway
from guards import HANG_S

from gateway.domain.accounts import Role, Terms
from gateway.domain.rounds import AnswerStatus, ItemKind, Reviewer, Round, RoundAnswer, RoundStatus
from gateway.domain.sealing import Opening, check_seal
from gateway.rounds.answering import AnsweringProgress, model_groups
from gateway.rounds.bundle_tools import TOOLS
from gateway.rounds.sealed import draft_digest
from gateway.rounds.store import RoundStore
from gateway.rounds.verify import Published, Verdict, verify_bundle
from gateway.rounds.views import answering_object, without_models

ROUNDS = "/api/rounds"
ADMIN = "admin-key-of-this-test"
PLAN: dict[str, Any] = {
    "name": "first",
    "title": {"ko": "1차 심사", "en": "First round"},
    "models": ["a", "b", "c"],
    "prompts": [{"id": f"p{n}", "text": f"질문 {n}", "stratum": "finance" if n % 2 else "law"} for n in range(8)],
    "design": {"votes_per_reviewer": 6},
    "sampling": {"max_tokens": 4},
}


@dataclass
class Desk:
    gateway: RunningGateway
    engines: dict[str, ScriptedEngine]
    client: RawClient

    async def ask(self, method: str, path: str, body: Any = b"", *, status: int = 200, key: str = ADMIN) -> Any:
        headers = [("authorization", f"Bearer {key}")]
        answer = await self.client.request(method, f"{ROUNDS}{path}", body=body, headers=headers)
        assert answer.status == status, answer.body
        return answer.json() if answer.body else None

    async def drafted(self, *, led_by: str = ADMIN, **changes: Any) -> Any:
        return await self.ask("POST", "", {**PLAN, **changes}, status=201, key=led_by)

    async def answered(self, round_id: str) -> Any:
        """What is kept once every model answered."""
        await self.ask("POST", f"/{round_id}/answers")
        async with asyncio.timeout(HANG_S):
            while not (await self.ask("GET", f"/{round_id}/answers"))["is_over"]:
                await asyncio.sleep(0.01)
        return await self.ask("POST", f"/{round_id}/answers/collect")

    async def invited(self, round_id: str, count: int = 3) -> list[Any]:
        people = [{"label": f"심사위원 {n}", "stratum": "expert" if n % 2 else "user"} for n in range(count)]
        made = await self.ask("POST", f"/{round_id}/reviewers", {"reviewers": people}, status=201)
        found: list[Any] = made["data"]
        return found

    async def sealed(self, *, led_by: str = ADMIN, **changes: Any) -> Any:
        """A round that went from plan to seal; its chair drafts it."""
        drafted = await self.drafted(led_by=led_by, **changes)
        await self.answered(drafted["id"])
        await self.invited(drafted["id"])
        rehearsed = await self.ask("POST", f"/{drafted['id']}/dry-run")
        assert rehearsed["dry_run"]["passed"], rehearsed["dry_run"]["problems"]
        return await self.ask("POST", f"/{drafted['id']}/seal")


@asynccontextmanager
async def desk(directory: Path, **settings: Any) -> AsyncIterator[Desk]:
    async with AsyncExitStack() as stack:
        engines = {name: await stack.enter_async_context(ScriptedEngine([name])) for name in ("a", "b", "c")}
        models = [entry(name, engine.url) for name, engine in engines.items()]
        gateway = await stack.enter_async_context(
            running_gateway(directory, models, **{"admin_key": ADMIN, "batch_retry_s": 0.01, **settings})
        )
        client = await stack.enter_async_context(RawClient(gateway.url))
        await gateway.until_live("a", "b", "c")
        yield Desk(gateway, engines, client)


async def test_a_round_goes_from_plan_to_seal_and_nothing_of_it_can_change_afterwards(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        sealed = await it.sealed()
        assert sealed["status"] == "sealed"
        assert len(sealed["root"]) == 64
        assert (sealed["head"], sealed["votes"]) == (None, 0)
        await it.ask("POST", f"/{sealed['id']}/answers", status=409)
        await it.ask("POST", f"/{sealed['id']}/answers/collect", status=409)
        await it.ask("PUT", f"/{sealed['id']}/plan", PLAN, status=409)
        await it.ask("POST", f"/{sealed['id']}/reviewers", {"reviewers": [{"label": "late"}]}, status=409)
        await it.ask("POST", f"/{sealed['id']}/seal", status=409)


async def test_the_root_covers_every_part_that_was_sealed(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        sealed = await it.sealed()
        store = it.gateway.services.rounds.store
        documents, secrets = await store.documents(sealed["id"]), await store.secrets(sealed["id"])
        commitments = documents.pop("commitments")
        openings = {name: Opening(bytes.fromhex(secrets[f"salt {name}"]), documents[name]) for name in commitments}
        assert set(openings) >= {"plan", "prompts", "design", "lexicon", "answers", "mapping", "reviewers"}
        assert check_seal(commitments, openings, sealed["root"]).holds
        changed = replace(openings["prompts"], value=[*documents["prompts"][1:]])
        assert check_seal(commitments, {"prompts": changed}, sealed["root"]).altered == ("prompts",)


async def test_only_the_mapping_says_which_model_took_part(tmp_path: Path) -> None:
    names = {"a": "canary-alpha", "b": "canary-beta", "c": "canary-gamma"}
    async with AsyncExitStack() as stack:
        engines = {n: await stack.enter_async_context(ScriptedEngine([names[n]])) for n in names}
        models = [entry(names[n], engine.url) for n, engine in engines.items()]
        gateway = await stack.enter_async_context(
            running_gateway(tmp_path, models, admin_key=ADMIN, batch_retry_s=0.01)
        )
        client = await stack.enter_async_context(RawClient(gateway.url))
        await gateway.until_live(*names.values())
        it = Desk(gateway, engines, client)
        sealed = await it.sealed(models=list(names.values()))
        documents = await gateway.services.rounds.store.documents(sealed["id"])
        assert "canary" in str(documents["mapping"])
        assert "canary" in str(documents["lexicon"]), "whose names are hidden in answers: all of the registry's"
        others = {name: part for name, part in documents.items() if name not in ("mapping", "lexicon")}
        assert "canary" not in str(others)


async def test_the_queues_are_those_of_the_design_under_random_ids(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        sealed = await it.sealed()
        items = await it.gateway.services.rounds.store.items(sealed["id"])
        votes = [item for item in items if item.kind is ItemKind.VOTE]
        assert len(votes) == 18
        assert len({item.reviewer for item in items}) == 3
        ids = [name for item in items for name in (item.id, item.left_id, item.right_id)]
        assert len(set(ids)) == len(ids)
        assert all(len(name) == 32 for name in ids)
        assert {item.left for item in votes} | {item.right for item in votes} == {"a", "b", "c"}


async def test_a_draft_without_a_dry_run_of_its_own_is_not_sealed(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        drafted = await it.drafted()
        await it.answered(drafted["id"])
        await it.invited(drafted["id"])
        refused = await it.ask("POST", f"/{drafted['id']}/seal", status=409)
        assert refused["error"]["code"] == "dry_run_needed"
        assert (await it.ask("POST", f"/{drafted['id']}/dry-run"))["dry_run"]["passed"]
        await it.ask("POST", f"/{drafted['id']}/reviewers", {"reviewers": [{"label": "another"}]}, status=201)
        refused = await it.ask("POST", f"/{drafted['id']}/seal", status=409)
        assert refused["error"]["code"] == "dry_run_needed", "the rehearsed draft was another one"


async def test_a_round_is_not_sealed_with_other_names_than_its_answers_were_redacted_with(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        drafted = await it.drafted()
        path = f"/{drafted['id']}"
        await it.answered(drafted["id"])
        await it.invited(drafted["id"])
        await it.ask("POST", f"{path}/dry-run")
        models = [entry(name, engine.url) for name, engine in it.engines.items()]
        it.gateway.write_registry([*models, {**entry("newcomer", "http://127.0.0.1:9"), "name": "Newcomer One"}])
        await it.gateway.services.registry.look()
        for step in ("seal", "dry-run"):
            refused = await it.ask("POST", f"{path}/{step}", status=409)
            assert "names that redaction takes out have changed" in refused["error"]["message"]
            assert "simsa round generate" in refused["error"]["message"]
        await it.ask("POST", f"{path}/answers/collect")
        refused = await it.ask("POST", f"{path}/seal", status=409)
        assert refused["error"]["code"] == "dry_run_needed", "rehearsed with answers redacted otherwise"
        assert (await it.ask("POST", f"{path}/dry-run"))["dry_run"]["passed"]
        assert (await it.ask("POST", f"{path}/seal"))["status"] == "sealed"


async def test_a_dry_run_leaves_no_trace_in_the_round(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        drafted = await it.drafted()
        await it.answered(drafted["id"])
        await it.invited(drafted["id"])
        rehearsed = await it.ask("POST", f"/{drafted['id']}/dry-run")
        store = it.gateway.services.rounds.store
        assert (rehearsed["status"], rehearsed["votes"], rehearsed["root"]) == ("draft", 0, None)
        assert await store.items(drafted["id"]) == []
        assert await store.votes(drafted["id"]) == []


async def test_answers_come_through_recorded_calls_of_the_batch_class_and_are_redacted(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        drafted = await it.drafted()
        kept = await it.answered(drafted["id"])
        assert kept["kept"]["answers"] == 24
        assert kept["kept"]["failed"] == 0
        calls = await it.gateway.calls(24)
        answers = await it.gateway.services.rounds.store.answers(drafted["id"])
        assert {answer.call_id for answer in answers} == {call.opened.id for call in calls}
        assert all(answer.facts["timing"]["e2e_s"] is not None for answer in answers)
        assert all(answer.shown is not None for answer in answers)


async def test_steps_are_taken_in_order_and_never_back(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        sealed = await it.sealed()
        path = f"/{sealed['id']}"
        refused = await it.ask("POST", f"{path}/close", status=409)
        assert "this one is sealed" in refused["error"]["message"]
        for step, status in (("open", "open"), ("pause", "paused"), ("open", "open"), ("close", "closed")):
            assert (await it.ask("POST", f"{path}/{step}"))["status"] == status
        assert (await it.ask("POST", f"{path}/open", status=409))["error"]["code"] == "wrong_status"
        await it.ask("POST", f"{path}/archive", status=409)


async def test_names_are_opened_by_a_chair_and_an_operator_who_are_two_people(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        chair = await it.gateway.key_of("chair", Terms(roles=frozenset({Role.CHAIR, Role.OPERATOR})))
        operator = await it.gateway.key_of("operator", Terms(roles=frozenset({Role.OPERATOR})))
        sealed = await it.sealed()
        path = f"/{sealed['id']}"
        await it.ask("POST", f"{path}/open")
        await it.ask("POST", f"{path}/reveal", status=409)
        await it.ask("POST", f"{path}/close")
        for _ in range(2):
            once = await it.ask("POST", f"{path}/reveal", key=chair)
            assert (once["round"]["status"], once["missing"]) == ("closed", ["operator"])
        assert once["round"]["approvals"] is None
        both = await it.ask("POST", f"{path}/reveal", key=operator)
        assert sorted(one["role"] for one in both["round"]["approvals"]) == ["chair", "operator"]
        assert (both["round"]["status"], both["missing"]) == ("revealed", [])


async def test_a_chair_sees_progress_but_no_model_behind_an_answer(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        chair = await it.gateway.key_of("chair", Terms(roles=frozenset({Role.CHAIR})))
        sealed = await it.sealed(led_by=chair)
        path = f"/{sealed['id']}"
        progress = await it.ask("GET", f"{path}/progress", key=chair)
        assert [row["stratum"] for row in progress["strata"]] == ["expert", "user"]
        assert {row["state"] for row in progress["reviewers"]} == {"invited"}
        assert (await it.ask("GET", f"{path}/answers", key=chair))["failures"] is None
        await it.ask("POST", f"{path}/answers", status=403, key=chair)


async def test_which_model_never_answered_is_told_to_operators_and_to_no_chair(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        chair = await it.gateway.key_of("chair", Terms(roles=frozenset({Role.CHAIR})))
        drafted = await it.drafted(led_by=chair, name="no answer of one")
        path, store = f"/{drafted['id']}", it.gateway.services.rounds.store
        await it.answered(drafted["id"])
        await it.invited(drafted["id"])
        gone = [
            replace(answer, status=AnswerStatus.FAILED, text=None, shown=None)
            for answer in await store.answers(drafted["id"])
            if answer.model == "b"
        ]
        rehearsed = await it.ask("POST", f"{path}/dry-run", key=chair)
        await store.save_answers(drafted["id"], gone)
        refused = (await it.ask("POST", f"{path}/dry-run", key=chair, status=409))["error"]
        assert refused["code"] == "cannot_seal"
        assert "1 of 3 models have no answer to any prompt" in refused["message"]
        assert "'b'" not in refused["message"]
        assert "They are" not in refused["message"]
        told = (await it.ask("POST", f"{path}/dry-run", status=409))["error"]["message"]
        assert told == f"{refused['message']} They are: b."
        digest = draft_digest(*(await draft_of(store, drafted["id"])))
        await store.update(drafted["id"], dry_run={**rehearsed["dry_run"], "digest": digest})
        assert (await it.ask("POST", f"{path}/seal", key=chair, status=409))["error"] == refused


def test_a_chair_sees_that_the_answers_wait_and_not_for_which_model() -> None:
    progress = AnsweringProgress((), 8, 3, 0, waiting_for="b: no replica answers")
    failed = RoundAnswer("p1", "b", AnswerStatus.FAILED, None, None, "unknown", None, None, (), {})
    shown = answering_object(progress, [failed])
    assert shown["waiting_for"] == "b: no replica answers"
    seen = without_models(shown)
    assert (seen["waiting_for"], seen["failures"]) == ("a model or a limit; operators see which", None)
    assert without_models({**shown, "waiting_for": None})["waiting_for"] is None


async def draft_of(store: RoundStore, round_id: str) -> tuple[Round, list[RoundAnswer], list[Reviewer]]:
    one = await store.get(round_id)
    assert one is not None
    return one, await store.answers(round_id), await store.reviewers(round_id)


async def test_links_are_issued_by_chairs_alone_and_each_is_in_the_access_log(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        chair = await it.gateway.key_of("chair", Terms(roles=frozenset({Role.CHAIR})))
        operator = await it.gateway.key_of("operator", Terms(roles=frozenset({Role.OPERATOR})))
        both = await it.gateway.key_of("both", Terms(roles=frozenset({Role.CHAIR, Role.OPERATOR})))
        path = f"/{(await it.drafted(led_by=chair))['id']}"
        asked = {"reviewers": [{"label": "심사위원"}]}
        for key in (operator, both):
            await it.ask("POST", f"{path}/reviewers", asked, key=key, status=403)
        made = (await it.ask("POST", f"{path}/reviewers", asked, key=chair, status=201))["data"][0]
        for key in (operator, both):
            await it.ask("POST", f"{path}/reviewers/{made['id']}/link", key=key, status=403)
        await it.ask("POST", f"{path}/reviewers/{made['id']}/link")
        log = (await it.ask("GET", f"{path}/access"))["data"]
        links = [(one["role"], one["action"]) for one in log if one["subject"] == made["id"]]
        assert links == [("chair", "link.issue"), ("admin", "link.renew")]


async def test_a_rounds_answers_by_model_are_the_operators_until_the_reveal(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        auditor = await it.gateway.key_of("auditor", Terms(roles=frozenset({Role.AUDITOR})))
        drafted = await it.drafted()
        await it.answered(drafted["id"])
        batches = await it.gateway.services.rounds.store.batch_ids(drafted["id"])

        async def seen(key: str) -> list[int]:
            headers = [("authorization", f"Bearer {key}")]
            lists = [
                (await it.client.request("GET", f"/api/comparisons{path}", headers=headers)).json()["data"]
                for path in ("", "/batches")
            ]
            one = await it.client.request("GET", f"/api/comparisons/batches/{batches[0]}", headers=headers)
            whole = await it.client.request("GET", "/api/comparisons/export", headers=headers)
            return [*(len(found) for found in lists), one.status, len(whole.body.splitlines())]

        assert await seen(auditor) == [0, 0, 404, 0]
        assert await seen(ADMIN) == [8, len(batches), 200, 8]
        await it.gateway.services.rounds.store.update(drafted["id"], status="revealed")
        assert await seen(auditor) == [8, len(batches), 200, 8]


async def test_a_chair_leads_the_rounds_of_their_own_organisation_alone(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        one = await it.gateway.key_of("one", Terms(roles=frozenset({Role.CHAIR})))
        other = await it.gateway.key_of("other", Terms(roles=frozenset({Role.CHAIR})))
        operators = await it.drafted()
        own = await it.ask("POST", "", {**PLAN, "name": "own"}, status=201, key=one)
        assert [row["id"] for row in (await it.ask("GET", "", key=one))["data"]] == [own["id"]]
        assert (await it.ask("GET", "", key=other))["data"] == []
        for unseen in (own, operators):
            await it.ask("GET", f"/{unseen['id']}", status=404, key=other)


async def test_integrators_and_reviewers_see_no_round(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        sealed = await it.sealed()
        for role in (Role.INTEGRATOR, Role.REVIEWER):
            key = await it.gateway.key_of(role.value, Terms(roles=frozenset({role})))
            for path in ("", f"/{sealed['id']}", f"/{sealed['id']}/plan", f"/{sealed['id']}/progress"):
                await it.ask("GET", path, status=403, key=key)


async def test_what_is_excluded_says_by_what_rule_and_only_before_closing(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        sealed = await it.sealed()
        path = f"/{sealed['id']}"
        body = {"kind": "prompt", "subject": "p1", "rule": "leaked", "reason": "the question was in the news"}
        made = await it.ask("POST", f"{path}/exclusions", body, status=201)
        assert (made["rule"], made["by"]) == ("leaked", "admin")
        await it.ask("POST", f"{path}/exclusions", {**body, "subject": "p99"}, status=404)
        for rule in ("conflict", "no_answer"):
            refused = await it.ask("POST", f"{path}/exclusions", {**body, "rule": rule}, status=400)
            assert "gateway itself" in refused["error"]["message"]
        await it.ask("POST", f"{path}/open")
        await it.ask("POST", f"{path}/close")
        await it.ask("POST", f"{path}/exclusions", {**body, "subject": "p2"}, status=409)
        assert [row["subject"] for row in (await it.ask("GET", f"{path}/exclusions"))["data"]] == ["p1"]


async def test_bad_plans_are_refused_with_the_field_and_what_would_be_right(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        for changes, words in (
            ({"models": ["a", "a"]}, "repeated: a"),
            ({"models": ["a", "nobody"]}, "nobody"),
            ({"cut": 3}, "fewer than the 3 models"),
            ({"set": "core-1"}, "either 'prompts' or 'set'"),
            ({"design": {"votes_per_reviewer": 0}}, "votes_per_reviewer"),
            ({"desgin": {}}, "desgin"),
        ):
            status = 404 if "nobody" in str(changes) else 400
            refused = await it.ask("POST", "", {**PLAN, **changes}, status=status)
            assert words in refused["error"]["message"], refused


async def test_a_model_that_never_answers_is_named_before_sealing(tmp_path: Path) -> None:
    async with desk(tmp_path, batch_attempts=1) as it:
        it.engines["c"].tokens = 0
        drafted = await it.drafted()
        kept = await it.answered(drafted["id"])
        assert kept["failures"] == [{"model": "c", "code": "empty_answer", "count": 8}]
        await it.invited(drafted["id"])
        refused = await it.ask("POST", f"/{drafted['id']}/dry-run", status=409)
        assert "1 of 3 models have no answer to any prompt" in refused["error"]["message"]
        assert refused["error"]["message"].endswith("They are: c.")


async def test_a_round_of_cards_judges_bins_and_says_what_is_unknown(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        plan = {name: value for name, value in PLAN.items() if name != "prompts"}
        drafted = await it.ask("POST", "", {**plan, "kind": "cards", "design": {"votes_per_reviewer": 3}}, status=201)
        kept = await it.ask("POST", f"/{drafted['id']}/answers/collect")
        assert kept["kept"]["answers"] == 3 * drafted["prompts"]
        answers = await it.gateway.services.rounds.store.answers(drafted["id"])
        assert all("알 수 없음" in answer.shown for answer in answers if answer.prompt_id.startswith("card-ko"))
        assert all("unknown" in answer.shown for answer in answers if answer.prompt_id.startswith("card-en"))


def test_models_are_asked_in_groups_that_comparisons_take() -> None:
    for count in range(2, 21):
        models = [f"m{n}" for n in range(count)]
        groups = model_groups(models)
        assert sorted(model for group in groups for model in group) == sorted(models)
        assert all(2 <= len(group) <= 8 for group in groups)


def test_every_status_is_reached_from_another() -> None:
    assert {status.value for status in RoundStatus} >= {"draft", "sealed", "open", "paused", "closed", "revealed"}


async def test_a_closed_round_is_exported_by_an_auditor_and_holds_against_what_was_published(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        auditor = await it.gateway.key_of("auditor", Terms(roles=frozenset({Role.AUDITOR, Role.OPERATOR})))
        sealed = await it.sealed()
        path = f"/{sealed['id']}"
        for refused in ("/export", "/votes.csv"):
            assert (await it.ask("GET", f"{path}{refused}", status=409))["error"]["code"] == "wrong_status"
        await it.ask("POST", f"{path}/open")
        closed = await it.ask("POST", f"{path}/close")
        assert len(closed["closing"]) == 64
        assert (await it.ask("GET", path))["closing"] == closed["closing"]
        for kind in ("audit", "public"):
            headers = [("authorization", f"Bearer {auditor}")]
            answer = await it.client.request("GET", f"{ROUNDS}{path}/export?kind={kind}", headers=headers)
            assert answer.status == 200
            published = Published(root=closed["root"], head=closed["head"], closing=closed["closing"])
            found = verify_bundle(answer.body, published, analyse=TOOLS.analyse, report=TOOLS.report)
            assert (found.faults, found.verdict) == ([], Verdict.AUTHENTICATED)
            assert found.bundle == dict(answer.headers)["x-simsa-bundle-root"]
        accesses = (await it.ask("GET", f"{path}/access"))["data"]
        assert [row["action"] for row in accesses[-2:]] == ["export.audit", "export.public"]
        assert accesses[-1]["subject"] == found.bundle


async def test_an_integrator_exports_nothing(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        key = await it.gateway.key_of("integrator", Terms(roles=frozenset({Role.INTEGRATOR})))
        drafted = await it.drafted()
        for path in ("export", "votes.csv"):
            await it.ask("GET", f"/{drafted['id']}/{path}", status=403, key=key)


async def test_a_dry_run_tells_what_the_round_can_show_and_what_its_bundle_weighs(tmp_path: Path) -> None:
    async with desk(tmp_path) as it:
        drafted = await it.drafted()
        await it.answered(drafted["id"])
        await it.invited(drafted["id"])
        found = (await it.ask("POST", f"/{drafted['id']}/dry-run"))["dry_run"]
        assert (found["passed"], found["problems"]) == (True, [])
        facts = found["facts"]
        assert facts["votes"] >= 20
        assert facts["design"]["votes"] == 18
        assert 0.5 < facts["resolution"]["win_rate_one_pair"] < facts["resolution"]["win_rate_all_pairs"] < 1
        assert min(facts["bundle_bytes"].values()) > 10_000
