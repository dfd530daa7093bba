"""Load runs kept in the gateway, on both databases and over HTTP: what is stored, checked, compared and believed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from clients import Answer, RawClient
from databases import ScratchDatabase
from gateways import RunningGateway, entry, running_gateway
from load_runs import made_run
from populated_gateway import GPU, GPUS
from test_store import ended, opened

from gateway.domain.accounts import EVERYTHING, Role, Terms
from gateway.domain.records import Call, CallStatus, Provenance
from gateway.load_run_checks import Document, RecordedCalls, checked, for_claims, span_of
from gateway.load_runs import LoadRuns, RunDiffers, read_document
from gateway.store import Store
from loadtests.cells import Run
from loadtests.exports import read_run, run_json

ADMIN = "admin-key-of-this-test"
NOW = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PLACE = "/api/load-runs"


def small(**over: Any) -> tuple[Run, dict[str, dict[str, tuple[float, ...]]]]:
    """A run of one cell through the gateway, and its spreads."""
    run, drawn = made_run(is_small=True)
    cell = next(one for one in run.cells if one.id == "claim-ttft")
    spreads = {f"{cell.id}/{cell.door}": {one.metric: one.quantiles for one in drawn if one.cell == cell.id}}
    kept = {"cells": [cell], "searches": [], "doors": [], "state": "complete", **over}
    return msgspec.structs.replace(run, **kept), spreads


def changed_repeats(run: Run, **over: Any) -> Run:
    (cell,) = run.cells
    repeats = [msgspec.structs.replace(repeat, **over) for repeat in cell.repeats]
    return msgspec.structs.replace(run, cells=[msgspec.structs.replace(cell, repeats=repeats)])


def without_repeats(run: Run, wanted: int) -> Run:
    (cell,) = run.cells
    return msgspec.structs.replace(run, cells=[msgspec.structs.replace(cell, repeats=cell.repeats[:wanted])])


# --- in the database ----------------------------------------------------------------------------------------


@pytest.fixture
async def store(database: ScratchDatabase) -> AsyncIterator[Store]:
    store = await Store.open(database.url)
    yield store
    await store.close()


async def test_a_run_comes_back_as_it_was_handed_in(store: Store) -> None:
    runs, (run, spreads) = LoadRuns(store), small()
    kept, is_new = await runs.keep(Document(run, spreads), checked(run, {}), EVERYTHING, NOW)
    assert is_new
    assert kept.sha256 == hashlib.sha256(run_json(run)).hexdigest()
    content = await runs.document(run.id)
    assert content is not None
    assert read_document(content) == Document(run, spreads)
    found = await runs.found(run.id)
    assert found is not None
    assert found[0] == kept
    assert all(not repeat.timeline for cell in found[1].cells for repeat in cell.repeats)
    assert await runs.newest(10) == [kept]
    assert await runs.newest(10, model="another") == []
    assert await runs.keep(Document(run, spreads), checked(run, {}), EVERYTHING, NOW) == (kept, False)


async def test_a_complete_run_stands_and_a_stopped_one_may_go_on(store: Store) -> None:
    runs, (run, _) = LoadRuns(store), small()
    stopped = msgspec.structs.replace(without_repeats(run, 1), state="stopped", ended_at=None)

    async def hand_in(one: Run) -> bool:
        return (await runs.keep(Document(one), checked(one, {}), EVERYTHING, NOW))[1]

    assert await hand_in(stopped)
    with pytest.raises(RunDiffers, match="another run is kept"):
        await hand_in(msgspec.structs.replace(run, seed=1))
    assert not await hand_in(run)
    found = await runs.found(run.id)
    assert found is not None
    assert (found[0].state, len(found[1].cells[0].repeats)) == ("complete", 3)
    with pytest.raises(RunDiffers, match="what it showed stands"):
        await hand_in(stopped)


async def test_a_run_that_goes_on_keeps_every_repeat_as_it_was_and_its_key(store: Store) -> None:
    runs, (run, _) = LoadRuns(store), small(state="stopped")
    await runs.keep(Document(run), checked(run, {}), EVERYTHING, NOW)
    better = changed_repeats(run, errors={"nothing": 1})
    for other in (without_repeats(run, 2), better):
        with pytest.raises(RunDiffers, match="repeats that this one lacks, or has otherwise"):
            await runs.keep(Document(other), checked(other, {}), EVERYTHING, NOW)
    whole = msgspec.structs.replace(run, state="complete")
    with pytest.raises(RunDiffers, match="handed in with another key"):
        await runs.keep(Document(whole), checked(whole, {}), replace(EVERYTHING, key="key-2"), NOW)


async def test_a_run_that_comes_again_is_looked_up_once_more(store: Store) -> None:
    runs, (run, _) = LoadRuns(store), small()
    await runs.keep(Document(run), checked(run, {}), EVERYTHING, NOW)
    await runs.keep(Document(run), checked(run, records_of(run)), EVERYTHING, NOW)
    found = await runs.found(run.id)
    assert found is not None
    assert found[1].cells[0].is_valid
    await runs.keep(Document(run), checked(run, {}), EVERYTHING, NOW)
    assert await runs.found(run.id) == found, "records that were removed since take nothing away"


async def test_real_runs_are_looked_at_before_any_number_of_others(store: Store) -> None:
    runs = LoadRuns(store)
    first, _ = small(id="run-0", provenance="real", cells=[])
    for one in (first, *(small(id=f"run-{n}", began_at=f"2026-04-0{n}T00:00:00Z", cells=[])[0] for n in (1, 2, 3))):
        await runs.keep(Document(one), checked(one, {}), EVERYTHING, NOW)
    found = (await runs.findings_of({first.model: None}, most=2))[first.model]
    assert [one.id for one in found] == ["run-0", "run-3"]


def test_what_other_weights_showed_settles_nothing_of_todays() -> None:
    run, _ = small(weights_repo="org/model-v1")
    findings = checked(run, records_of(run))
    for todays, holds in (("org/model-v1", True), (None, True), ("org/model-v2", False)):
        (cell,) = for_claims(findings, todays).cells
        assert cell.is_valid is holds
    assert "the registry names org/model-v2 by now" in cell.checks[-1].seen


async def test_a_withdrawn_run_is_read_and_no_evidence(store: Store) -> None:
    runs, (run, _) = LoadRuns(store), small()
    await runs.keep(Document(run), checked(run, {}), EVERYTHING, NOW)
    assert [one.id for one in (await runs.findings_of({run.model: None}))[run.model]] == [run.id]
    await runs.withdraw(run.id, "key-1", "the wrong weights were served", NOW)
    await runs.withdraw(run.id, "key-2", "once more", NOW)
    (kept,) = await runs.newest(10)
    assert (kept.withdrawn_by, kept.withdrawn_why) == ("key-1", "the wrong weights were served")
    assert await runs.findings_of({run.model: None}) == {run.model: []}


async def test_the_records_tell_what_was_answered_under_a_run(store: Store) -> None:
    calls = [
        ended(opened(number, run_id="r-1" if number < 4 else None), status=status, provenance=provenance)
        for number, (status, provenance) in enumerate(
            [
                (CallStatus.OK, Provenance.REAL),
                (CallStatus.ERROR, Provenance.REAL),
                (CallStatus.OK, Provenance.SIMULATED),
                (CallStatus.OK, Provenance.REAL),
            ],
            start=1,
        )
    ]
    await store.upsert_calls(calls)
    found = await LoadRuns(store).recorded("exaone", ["r-1", "r-2"])
    assert sorted(found["r-1"], key=str) == [RecordedCalls("real", 2, 1), RecordedCalls("simulated", 1, 1)]
    assert "r-2" not in found
    assert await LoadRuns(store).recorded("another", ["r-1"]) == {}


# --- what the records bear out ------------------------------------------------------------------------------


def records_of(run: Run, **over: Any) -> dict[str, list[RecordedCalls]]:
    """As many calls as the run counts, and two of the warm-up."""
    (cell,) = run.cells
    return {
        repeat.run_id: [
            replace(RecordedCalls("simulated", repeat.outcomes["ok"] + 2, repeat.outcomes["ok"] + 2), **over)
        ]
        for repeat in cell.repeats
    }


def test_a_run_that_the_records_bear_out_stays_valid() -> None:
    run, _ = small()
    (cell,) = checked(run, records_of(run)).cells
    assert cell.is_valid
    assert {one.passed for repeat in cell.repeats for one in repeat.checks if one.name == "gateway_records"} == {True}


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"ok": 1}, "1 answered calls of this repeat are recorded as simulated"),
        ({"provenance": "stand_in"}, "0 answered calls of this repeat are recorded as simulated, "),
    ],
)
def test_a_run_that_the_records_contradict_is_invalid(over: dict[str, Any], words: str) -> None:
    run, _ = small()
    (cell,) = checked(run, records_of(run, **over)).cells
    assert not cell.is_valid
    (check, *_) = (one for one in cell.repeats[0].checks if one.passed is False)
    assert check.name == "gateway_records"
    assert words in check.seen


def test_a_repeat_that_claims_no_answer_is_borne_out_by_nothing() -> None:
    run, _ = small()
    (cell,) = checked(changed_repeats(run, outcomes={}), records_of(run)).cells
    assert not cell.is_valid


def test_what_went_past_the_gateway_is_kept_and_speaks_to_no_claim() -> None:
    run, _ = small()
    (cell,) = run.cells
    direct = msgspec.structs.replace(run, cells=[msgspec.structs.replace(cell, door="direct")])
    (found,) = checked(direct, {}).cells
    assert found.is_valid
    assert for_claims(checked(direct, {}), None).cells == []


def test_a_run_spans_its_repeats() -> None:
    run, _ = small()
    run = changed_repeats(run, load_s=22.0)
    begin, end = span_of(run) or (None, None)
    assert begin == datetime(2026, 3, 2, 1, 15, tzinfo=UTC)
    assert end == datetime(2026, 3, 2, 3, 15, 22, tzinfo=UTC)
    assert span_of(msgspec.structs.replace(run, cells=[])) is None


# --- over HTTP ----------------------------------------------------------------------------------------------


@dataclass
class Door:
    gateway: RunningGateway
    client: RawClient

    async def get(self, path: str = "") -> Answer:
        return await self.client.request("GET", f"{PLACE}{path}")

    async def hand_in(self, run: Run, spreads: Any = None) -> Answer:
        body = {"run": msgspec.to_builtins(run), "spreads": spreads or {}}
        return await self.client.request("POST", PLACE, body=body)


@asynccontextmanager
async def door(directory: Path, *, claims: Any = ()) -> AsyncIterator[Door]:
    models = [entry("sim-dense-32b", "http://127.0.0.1:9", claims=list(claims))]
    async with (
        running_gateway(directory, models, sections={"gpus": GPUS}, admin_key=ADMIN) as gateway,
        RawClient(gateway.url, key=ADMIN) as client,
    ):
        yield Door(gateway, client)


async def test_a_run_is_handed_in_listed_read_and_reported(tmp_path: Path) -> None:
    run, spreads = small()
    async with door(tmp_path) as it:
        first, again = await it.hand_in(run, spreads), await it.hand_in(run, spreads)
        assert (first.status, again.status) == (201, 200)
        assert first.json() == again.json() == (await it.get()).json()["data"][0]
        detail = (await it.get(f"/{run.id}")).json()
        (cell,) = msgspec.convert(detail["findings"], Run).cells
        assert {one.name: one.passed for one in cell.repeats[0].checks}["gateway_records"] is False
        whole = await it.get(f"/{run.id}/run.json")
        assert read_run(whole.body) == run
        assert hashlib.sha256(whole.body).hexdigest() == first.json()["sha256"]
        table = await it.get(f"/{run.id}/tables/repeats")
        assert table.header("content-type") == "text/csv; charset=utf-8"
        assert table.body.count(b"\r\n") == 1 + 3
        for language in ("ko", "en"):
            page = await it.get(f"/report?run={run.id}&language={language}")
            assert page.status == 200
            assert "default-src 'none'" in (page.header("content-security-policy") or "")
            assert f'<html lang="{language}"' in page.body.decode()


async def test_two_runs_are_compared_and_reported_together(tmp_path: Path) -> None:
    before, _ = small()
    repeats = [
        msgspec.structs.replace(repeat, run_id=f"run-2.{number}")
        for number, repeat in enumerate(before.cells[0].repeats)
    ]
    after = msgspec.structs.replace(
        before, id="run-2", cells=[msgspec.structs.replace(before.cells[0], repeats=repeats)]
    )
    async with door(tmp_path) as it:
        for run in (before, after):
            await it.hand_in(run)
        found = (await it.get(f"/{before.id}/differences/{after.id}")).json()
        assert found["differences"] == [], "repeats that no record bears out are not compared"
        assert [one["cell"] for one in found["not_compared"]] == ["claim-ttft"]
        assert (await it.get(f"/report?run={before.id}&run={after.id}")).status == 200
        assert (await it.get(f"/report?run={before.id}&run={before.id}")).status == 400


async def test_what_is_no_run_or_unknown_is_refused_in_one_sentence(tmp_path: Path) -> None:
    run, spreads = small()
    async with door(tmp_path) as it:
        for body, words in (
            ({"run": 1}, "This is no load run: Expected `object`, got `int` - at `$.run`"),
            ({}, "Object missing required field `run`"),
            ({"run": {**msgspec.to_builtins(run), "v": 99}}, "it is of version 99"),
            ({"run": {**msgspec.to_builtins(run), "id": "a/b"}}, "its id must be of letters"),
            ({"run": {**msgspec.to_builtins(run), "state": "running"}}, "only one that has ended is kept"),
            ({"run": {**msgspec.to_builtins(run), "began_at": "2026-03-02T01:15:00"}}, "need their offset"),
            ({"run": {**msgspec.to_builtins(run), "began_at": "yesterday"}}, "Invalid isoformat"),
            ({"run": {**msgspec.to_builtins(run), "began_at": "9999-01-01T00:00:00Z"}}, "in the future"),
            (
                {"run": {**msgspec.to_builtins(run), "provenance": "real"}},
                "its provenance is 'real', its repeats' another",
            ),
            ({"run": {**msgspec.to_builtins(run), "id": "run-9"}}, "must begin with 'run-9.' and differ"),
            ({"run": msgspec.to_builtins(changed_repeats(run, cost_per_mtok_out="abc"))}, "'abc' is no number"),
            ({"run": msgspec.to_builtins(changed_repeats(run, door="elsewhere"))}, "a cell's door must be one of"),
            ({"run": msgspec.to_builtins(run), "spreads": {"claim-ttft/gateway": {"ttft_s": [2, 1]}}}, "101 quantiles"),
        ):
            answer = await it.client.request("POST", PLACE, body=body)
            assert answer.status == 400, words
            assert words in answer.json()["error"]["message"]
        for path in ("/none", "/none/run.json", "/none/tables/cells", "/none/differences/none", "/report?run=none"):
            assert (await it.get(path)).status == 404, path
        await it.hand_in(run, spreads)
        other = await it.hand_in(msgspec.structs.replace(run, seed=99))
        assert (other.status, other.json()["error"]["message"]) == (
            409,
            f"{run.id} is kept already and was complete: what it showed stands.",
        )


async def test_auditors_read_and_operators_hand_in(tmp_path: Path) -> None:
    run, _ = small()
    async with door(tmp_path) as it:
        allowed = {Role.INTEGRATOR: (403, 403), Role.AUDITOR: (403, 200), Role.OPERATOR: (201, 200)}
        for role, statuses in allowed.items():
            key = await it.gateway.key_of(f"org-{role}", Terms(roles=frozenset({role})))
            async with RawClient(it.gateway.url, key=key) as client:
                kept = await client.request("POST", PLACE, body={"run": msgspec.to_builtins(run)})
                read = await client.request("GET", PLACE)
            assert (kept.status, read.status) == statuses
        (listed,) = (await it.get()).json()["data"]
        assert listed["organisation"] == "org-operator"


def calls_of(run: Run) -> list[Call]:
    """What the gateway would have recorded of the run."""
    (cell,) = run.cells
    names = [repeat.run_id for repeat in cell.repeats for _ in range(repeat.outcomes["ok"])]
    return [ended(opened(number, model=run.model, run_id=name)) for number, name in enumerate(names)]


CLAIM = {
    "id": "ttft",
    "text": "first token within 2 s",
    "metric": "ttft_s",
    "value": 2,
    "unit": "s",
    "statistic": "p95",
    "gpu": GPU,
    "gpus": 1,
    "concurrency": 40,
    "source": "stated for this test",
    "confidence": "low",
}


async def test_a_kept_run_speaks_to_the_claims_of_its_model_until_it_is_withdrawn(tmp_path: Path) -> None:
    run, _ = small(gpu=GPU, gpus=1)
    seen = msgspec.structs.replace(run.cells[0].repeats[0].objectives[0], metric="ttft_s", statistic="p95", limit="2")
    run = changed_repeats(run, claimed={"ttft": seen})
    async with door(tmp_path, claims=[CLAIM]) as it:

        async def evidence() -> list[dict[str, Any]]:
            (found,) = (await it.client.request("GET", "/api/claims")).json()["data"]
            return [one for one in found["evidence"] if run.id in one["source"]]

        assert await evidence() == []
        await it.hand_in(run)
        assert "0 answered calls of this repeat are recorded" in (await evidence())[0]["invalid"]
        await it.gateway.services.store.upsert_calls(calls_of(run))
        await it.hand_in(run)
        (one,) = await evidence()
        assert one["invalid"] is None
        assert (one["kind"], one["provenance"], one["concurrency"]) == ("simulated", "simulated", 40)
        assert len(one["repeats"]) == 3
        why = {"why": "another engine was meant"}
        withdrawn = await it.client.request("POST", f"{PLACE}/{run.id}/withdraw", body=why)
        assert withdrawn.json()["withdrawn_why"] == "another engine was meant"
        assert await evidence() == []
        assert json.loads(withdrawn.body)["withdrawn_by"] is None


async def test_claims_say_what_could_not_be_looked_at(tmp_path: Path, sqlite_file: ScratchDatabase) -> None:
    async with door(tmp_path, claims=[CLAIM]) as it:

        async def left_out() -> str | None:
            answer = await it.client.request("GET", "/api/claims")
            assert (answer.status, len(answer.json()["data"])) == (200, 1)
            told: str | None = answer.json()["left_out"]
            return told

        assert await left_out() is None
        async with sqlite_file.gone():
            assert await left_out() == "The database is away: stored engines and load runs were not looked at."
