"""A live installation under load: a rolling restart cuts no stream, and kill -9 of any part loses no record or vote."""

from __future__ import annotations

import asyncio
import signal
from collections import defaultdict
from pathlib import Path

from databases import ScratchPostgres
from guards import HANG_S
from redis_server import RedisServer
from stack import Stack, running_stack

from gateway.domain.hash_chain import verify_chain
from gateway.rounds.chain import chained

CALLS = "SELECT request_id, status FROM calls WHERE request_id LIKE 'live-%'"


async def test_a_rolling_restart_under_streams_cuts_none(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with running_stack(tmp_path, postgres, redis) as it:
        await it.readers.until(10)
        for gateway in it.gateways:
            gateway.signal(signal.SIGTERM)
            assert await gateway.ended() == 0
            await it.readers.until(5)
            await gateway.start()
            await it.readers.until(5)
        assert set(it.readers.met) == {"whole"}, it.readers.met
        await nothing_is_lost(it)
        assert await it.rule_failures() == []


async def test_kill_9_of_each_part_in_turn_loses_no_record_and_no_vote(
    tmp_path: Path, postgres: ScratchPostgres, redis: RedisServer
) -> None:
    async with running_stack(tmp_path, postgres, redis) as it:
        await it.readers.until(5)
        await it.voter.until(5)
        for part in (*it.gateways, it.engines[0], it.proxy, it.prometheus):
            await part.kill()
            if part is not it.proxy:
                await it.readers.until(3)
            await part.start()
            await it.readers.until(3)
            await it.voter.until(3)
        redis.stop()
        await it.readers.until(5)
        await it.voter.until(3)
        redis.start()
        await it.readers.until(3)
        postgres.cluster.crash()
        await it.readers.until(5)  # calls go on, votes wait: nobody is told of one that is not kept
        acknowledged = len(it.voter.acknowledged)
        postgres.cluster.start()
        await it.voter.until(3)
        assert it.voter.acknowledged[acknowledged:]
        await nothing_is_lost(it)


async def nothing_is_lost(it: Stack) -> None:
    """Whoever was served stands in the records, whole answers once as such, and each acknowledged vote in its chain."""
    await it.rest()
    async with asyncio.timeout(HANG_S):
        while True:
            told: dict[str, list[str]] = defaultdict(list)
            for row in await it.postgres.rows(CALLS):
                told[row["request_id"]].append(row["status"])
            if it.readers.begun <= told.keys() and not any("open" in statuses for statuses in told.values()):
                break
            await asyncio.sleep(0.1)
    assert {request: told[request] for request in it.readers.whole if told[request].count("ok") != 1} == {}
    votes = await it.round.store.votes(it.round.id)
    assert [vote.number for vote in votes] == list(range(1, len(votes) + 1))
    assert set(it.voter.acknowledged) <= {vote.revision for vote in votes}
    assert verify_chain([chained(vote) for vote in votes], round_id=it.round.id) is None
