"""Every statement about blind review rounds.

The store keeps two promises of a round by itself, whatever calls it: a step of a round's life is taken only from the
status that it may be taken from, and votes form one chain without gaps, written while the round is open and never
changed. For that each transaction that writes has its round to itself, on both kinds of database. Who may do what
belongs in `rounds.life` and `rounds.voting`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.domain.rounds import (
    AFTER_CLOSING,
    AFTER_REVEAL,
    AccessEntry,
    Approval,
    Clearance,
    Exclusion,
    Reviewer,
    Round,
    RoundAnswer,
    RoundItem,
    RoundPlan,
    RoundStatus,
    VoteEntry,
    plan_document,
)
from gateway.rounds.reading import (
    Records,
    read_answers,
    read_approvals,
    read_clearances,
    read_documents,
    read_items,
    read_numbered,
    read_records,
    read_reviewers,
    read_votes_of,
)
from gateway.rounds.rows import (
    answer_row,
    item_from,
    item_row,
    reviewer_from,
    reviewer_row,
    round_from,
    round_row,
    vote_from,
)
from gateway.rounds.tables import (
    round_access,
    round_answers,
    round_approvals,
    round_batches,
    round_clearances,
    round_documents,
    round_exclusions,
    round_items,
    round_reviewers,
    round_secrets,
    round_votes,
    rounds,
)
from gateway.store import ROWS_AT_ONCE, Store, slices

Link = Callable[[Mapping[str, Any]], VoteEntry]
"""Makes the next entry of the chain of what stands before it: number, previous, revision."""


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a round stands, and will until the transaction that asked ends."""

    status: RoundStatus
    head: str | None
    votes: int


Conclude = Callable[[Standing, Sequence[RoundItem], Mapping[str, VoteEntry]], Mapping[str, Any] | None]
"""Makes a reviewer's receipt of where the round stands, their queue and their last votes; None refuses."""
ANY_STATUS = frozenset(RoundStatus)
BEFORE_CLOSING = ANY_STATUS - AFTER_CLOSING


class RoundStore:
    """Raises what `Store` raises: Unavailable may be retried, RowRefused not."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turns: dict[str, asyncio.Lock] = {}
        """By round: writers take turns here before they take turns in the database."""

    @asynccontextmanager
    async def _writing(
        self, round_id: str, allowed: Collection[RoundStatus] = ANY_STATUS
    ) -> AsyncIterator[tuple[AsyncConnection, Standing]]:
        """A transaction that has the round to itself. Raises WrongStatus where it stands at none of `allowed`.

        It begins by writing, because SQLite takes no lock for what is read.
        """
        row = rounds.c
        hold = sa.update(rounds).where(row.id == round_id).values(votes=row.votes)
        async with self._turns.setdefault(round_id, asyncio.Lock()), self._store.transaction() as connection:
            found = (await connection.execute(hold.returning(row.status, row.head, row.votes))).one_or_none()
            status = None if found is None else RoundStatus(found.status)
            if found is None or status is None or status not in allowed:
                raise WrongStatus(status)
            yield connection, Standing(status, found.head, found.votes)

    # --- rounds ---------------------------------------------------------------------------------------------

    async def create(self, new: Round, secrets: Mapping[str, str]) -> None:
        """Keep a new round. Raises RowRefused where its organisation has one of that name."""
        async with self._store.transaction() as connection:
            await connection.execute(sa.insert(rounds).values(round_row(new)))
            rows = [{"round_id": new.id, "name": name, "value": value} for name, value in secrets.items()]
            await connection.execute(sa.insert(round_secrets), rows)

    async def get(self, round_id: str) -> Round | None:
        return await self._first(sa.select(rounds).where(rounds.c.id == round_id))

    async def named(self, organisation: str, name: str) -> Round | None:
        return await self._first(sa.select(rounds).where(rounds.c.organisation == organisation, rounds.c.name == name))

    async def newest(self, limit: int, *, organisation: str | None = None) -> list[Round]:
        """The newest first, of one organisation or of all."""
        statement = sa.select(rounds).order_by(rounds.c.created_at.desc(), rounds.c.id.desc()).limit(limit)
        if organisation is not None:
            statement = statement.where(rounds.c.organisation == organisation)
        async with self._store.transaction() as connection:
            return [round_from(row) for row in (await connection.execute(statement)).mappings()]

    async def names_of(self, status: RoundStatus) -> list[str]:
        """What the rounds that stand there are called."""
        statement = sa.select(rounds.c.name).where(rounds.c.status == status.value).order_by(rounds.c.name)
        async with self._store.transaction() as connection:
            return list((await connection.execute(statement)).scalars())

    async def replace_plan(self, round_id: str, plan: RoundPlan) -> bool:
        """Another plan for a draft that asked nothing of any model yet; whether it was one."""
        asked = sa.exists().where(round_batches.c.round_id == rounds.c.id)
        draft = sa.and_(rounds.c.id == round_id, rounds.c.status == RoundStatus.DRAFT.value, ~asked)
        statement = sa.update(rounds).where(draft).values(plan=plan_document(plan), dry_run=None)
        async with self._writing(round_id) as (connection, _):
            return bool((await connection.execute(statement)).rowcount)

    async def move(self, round_id: str, before: Collection[RoundStatus], after: RoundStatus, **columns: Any) -> bool:
        """Take a step of a round's life, with what becomes fixed by it; whether it stood where the step begins."""
        statement = sa.update(rounds).where(rounds.c.id == round_id, rounds.c.status.in_([s.value for s in before]))
        async with self._store.transaction() as connection:
            return bool((await connection.execute(statement.values(status=after.value, **columns))).rowcount)

    async def close(
        self,
        round_id: str,
        before: Collection[RoundStatus],
        *,
        entry: AccessEntry,
        conclude: Callable[[Records], Mapping[str, Any]],
        **columns: Any,
    ) -> bool:
        """Close a round, and keep the documents that `conclude` makes of it, all or nothing; durable.

        `entry` is the last of the accesses that they are made of. Whether the round stood where the step begins.
        """
        closed = sa.update(rounds).where(rounds.c.id == round_id).values(status=RoundStatus.CLOSED.value, **columns)
        async with self._writing(round_id) as (connection, standing):
            if standing.status not in before:
                return False
            await connection.execute(closed)
            await add_row(connection, round_access, round_id, asdict(entry))
            documents = await asyncio.to_thread(conclude, await read_records(connection, round_id))
            rows = [{"round_id": round_id, "name": name, "content": one} for name, one in documents.items()]
            await connection.execute(sa.insert(round_documents), rows)
        await asyncio.to_thread(self._store.make_durable)
        return True

    async def seal(
        self,
        round_id: str,
        *,
        items: Sequence[RoundItem],
        documents: Mapping[str, Any],
        secrets: Mapping[str, str],
        is_same: Callable[[Records], bool] | None = None,
        **columns: Any,
    ) -> bool:
        """Fix a draft: its queues, the sealed parts and their salts, all or nothing; whether it was a draft.

        `is_same`: whether the draft is still the one that they were made of; DraftChanged is raised where it is not.
        """
        sealed = sa.update(rounds).where(rounds.c.id == round_id).values(status=RoundStatus.SEALED.value, **columns)
        async with self._writing(round_id) as (connection, standing):
            if standing.status is not RoundStatus.DRAFT:
                return False
            if is_same is not None and not await asyncio.to_thread(is_same, await read_records(connection, round_id)):
                raise DraftChanged
            await connection.execute(sealed)
            for some in slices(items, ROWS_AT_ONCE):
                await connection.execute(sa.insert(round_items), [item_row(round_id, item) for item in some])
            parts = [{"round_id": round_id, "name": name, "content": content} for name, content in documents.items()]
            await connection.execute(sa.insert(round_documents), parts)
            salts = [{"round_id": round_id, "name": name, "value": value} for name, value in secrets.items()]
            await connection.execute(sa.insert(round_secrets), salts)
        return True

    async def records(self, round_id: str) -> Records:
        """What is kept of a round, read while nothing is written of it."""
        async with self._writing(round_id) as (connection, _):
            return await read_records(connection, round_id)

    async def update(self, round_id: str, **columns: Any) -> None:
        """What is found out about a round besides its steps: its dry run."""
        async with self._store.transaction() as connection:
            await connection.execute(sa.update(rounds).where(rounds.c.id == round_id).values(**columns))

    async def secrets(self, round_id: str) -> dict[str, str]:
        statement = sa.select(round_secrets.c.name, round_secrets.c.value).where(round_secrets.c.round_id == round_id)
        async with self._store.transaction() as connection:
            return {name: value for name, value in await connection.execute(statement)}  # noqa: C416  typed rows

    async def put_document(self, round_id: str, name: str, content: Any) -> None:
        """Keep a document of a round, in place of the one of that name."""
        of_name = sa.and_(round_documents.c.round_id == round_id, round_documents.c.name == name)
        row = {"round_id": round_id, "name": name, "content": content}
        async with self._writing(round_id) as (connection, _):
            await connection.execute(sa.delete(round_documents).where(of_name))
            await connection.execute(sa.insert(round_documents).values(row))

    async def document(self, round_id: str, name: str) -> Any:
        of_name = sa.and_(round_documents.c.round_id == round_id, round_documents.c.name == name)
        async with self._store.transaction() as connection:
            return (await connection.execute(sa.select(round_documents.c.content).where(of_name))).scalar()

    async def documents(self, round_id: str, names: Collection[str] | None = None) -> dict[str, Any]:
        """All documents of a round, or those of these names that there are."""
        async with self._store.transaction() as connection:
            return await read_documents(connection, round_id, names)

    async def keep_documents(self, round_id: str, documents: Mapping[str, Any]) -> dict[str, Any]:
        """Keep documents, durably, unless there are any of these names; those that are kept now."""
        async with self._writing(round_id) as (connection, _):
            kept = await read_documents(connection, round_id, documents)
            if not kept:
                rows = [{"round_id": round_id, "name": name, "content": one} for name, one in documents.items()]
                await connection.execute(sa.insert(round_documents), rows)
        await asyncio.to_thread(self._store.make_durable)
        return kept or dict(documents)

    # --- answers --------------------------------------------------------------------------------------------

    async def add_batch(self, round_id: str, batch_id: str, position: int) -> None:
        """Note that a batch of comparisons is asked for a round. Doing it again does nothing."""
        known = sa.select(round_batches.c.batch_id).where(
            round_batches.c.round_id == round_id, round_batches.c.batch_id == batch_id
        )
        row = {"round_id": round_id, "batch_id": batch_id, "position": position}
        async with self._writing(round_id) as (connection, _):
            if (await connection.execute(known)).first() is None:
                await connection.execute(sa.insert(round_batches).values(row))

    async def batch_ids(self, round_id: str) -> list[str]:
        statement = sa.select(round_batches.c.batch_id).where(round_batches.c.round_id == round_id)
        async with self._store.transaction() as connection:
            return list((await connection.execute(statement.order_by(round_batches.c.position))).scalars())

    async def save_answers(self, round_id: str, answers: Sequence[RoundAnswer], **columns: Any) -> None:
        """Keep answers in place of those there are for the same prompts and models, while the round is a draft.

        `columns`: what is known of the round by them.
        """
        async with self._writing(round_id, {RoundStatus.DRAFT}) as (connection, _):
            if columns:
                await connection.execute(sa.update(rounds).where(rounds.c.id == round_id).values(**columns))
            for some in slices(answers, ROWS_AT_ONCE):
                pairs = [(answer.prompt_id, answer.model) for answer in some]
                same = sa.tuple_(round_answers.c.prompt_id, round_answers.c.model).in_(pairs)
                await connection.execute(sa.delete(round_answers).where(round_answers.c.round_id == round_id, same))
                await connection.execute(sa.insert(round_answers), [answer_row(round_id, answer) for answer in some])

    async def answers(self, round_id: str) -> list[RoundAnswer]:
        async with self._store.transaction() as connection:
            return await read_answers(connection, round_id)

    async def shown_pair(self, round_id: str, item: RoundItem) -> tuple[str | None, str | None]:
        """What stands on sides A and B of an item, as released."""
        at = round_answers.c
        statement = sa.select(at.model, at.shown).where(
            at.round_id == round_id, at.prompt_id == item.prompt_id, at.model.in_([item.left, item.right])
        )
        async with self._store.transaction() as connection:
            found = {model: shown for model, shown in await connection.execute(statement)}  # noqa: C416  typed rows
        return found.get(item.left), found.get(item.right)

    # --- reviewers ------------------------------------------------------------------------------------------

    async def add_reviewers(self, round_id: str, new: Sequence[Reviewer]) -> None:
        """Invite people, while the round is a draft: the queues are made of who is invited."""
        async with self._writing(round_id, {RoundStatus.DRAFT}) as (connection, _):
            await connection.execute(sa.insert(round_reviewers), [reviewer_row(round_id, one) for one in new])

    async def reviewers(self, round_id: str) -> list[Reviewer]:
        async with self._store.transaction() as connection:
            return await read_reviewers(connection, round_id)

    async def count_reviewers(self, round_id: str) -> int:
        statement = sa.select(sa.func.count()).where(round_reviewers.c.round_id == round_id)
        async with self._store.transaction() as connection:
            return int((await connection.execute(statement)).scalar_one())

    async def reviewer(self, round_id: str, reviewer_id: str) -> Reviewer | None:
        return await self._reviewer(round_reviewers.c.round_id == round_id, round_reviewers.c.id == reviewer_id)

    async def reviewer_of_session(self, digest: str) -> tuple[str, Reviewer] | None:
        """The round and the reviewer of a session."""
        statement = sa.select(round_reviewers).where(round_reviewers.c.session == digest)
        async with self._store.transaction() as connection:
            row = (await connection.execute(statement)).mappings().first()
        return None if row is None else (row["round_id"], reviewer_from(row))

    async def update_reviewer(self, round_id: str, reviewer_id: str, **columns: Any) -> None:
        """Change what is kept of a reviewer, durably."""
        at = round_reviewers.c
        async with self._writing(round_id) as (connection, _):
            statement = sa.update(round_reviewers).where(at.round_id == round_id, at.id == reviewer_id)
            await connection.execute(statement.values(**columns))
        await asyncio.to_thread(self._store.make_durable)

    async def renew_link(self, round_id: str, reviewer_id: str, **columns: Any) -> int:
        """Make all links of a reviewer void, end their session, change `columns`; the serial of the next link.

        Who has not consented declares their conflicts anew.
        """
        at = round_reviewers.c
        one = sa.and_(at.round_id == round_id, at.id == reviewer_id)
        values = {"link_serial": at.link_serial + 1, "session": None, **columns}
        async with self._writing(round_id) as (connection, _):
            await connection.execute(sa.update(round_reviewers).where(one).values(values))
            undeclared = sa.update(round_reviewers).where(one, at.consented_at.is_(None))
            await connection.execute(undeclared.values(conflicts=[]))
            return int((await connection.execute(sa.select(at.link_serial).where(one))).scalar_one())

    async def _reviewer(self, *where: sa.ColumnElement[bool]) -> Reviewer | None:
        async with self._store.transaction() as connection:
            row = (await connection.execute(sa.select(round_reviewers).where(*where))).mappings().first()
        return None if row is None else reviewer_from(row)

    # --- queues ---------------------------------------------------------------------------------------------

    async def items(self, round_id: str, reviewer: str | None = None) -> list[RoundItem]:
        """The queue of a reviewer, or all of them."""
        async with self._store.transaction() as connection:
            return await read_items(connection, round_id, reviewer)

    async def item(self, round_id: str, item_id: str) -> RoundItem | None:
        at = round_items.c
        statement = sa.select(round_items).where(at.round_id == round_id, at.id == item_id)
        async with self._store.transaction() as connection:
            row = (await connection.execute(statement)).mappings().first()
        return None if row is None else item_from(row)

    # --- votes ----------------------------------------------------------------------------------------------

    async def append_vote(self, round_id: str, item: RoundItem, link: Link) -> VoteEntry | None:
        """Add a revision of an item's judgement to the chain, durably; None where the round takes none.

        `link` gets number, revision and previous ("" for the first entry). A reviewer who has submitted is refused
        too: by None.
        """
        at, who = round_votes.c, round_reviewers.c
        latest = sa.select(sa.func.max(at.revision)).where(at.round_id == round_id, at.item == item.id)
        mine = sa.select(who.submitted_at, who.revoked_at).where(who.round_id == round_id, who.id == item.reviewer)
        async with self._writing(round_id) as (connection, standing):
            submitted_at, revoked_at = (await connection.execute(mine)).one()
            if standing.status is not RoundStatus.OPEN or submitted_at is not None or revoked_at is not None:
                return None
            revision = ((await connection.execute(latest)).scalar() or 0) + 1
            entry = link({"number": standing.votes + 1, "revision": revision, "previous": standing.head or ""})
            await connection.execute(sa.insert(round_votes).values({"round_id": round_id, **asdict(entry)}))
            moved = sa.update(rounds).where(rounds.c.id == round_id)
            await connection.execute(moved.values(head=entry.hash, votes=entry.number))
        await asyncio.to_thread(self._store.make_durable)
        return entry

    async def submit(
        self, round_id: str, reviewer_id: str, *, entry: AccessEntry, receipt: str, conclude: Conclude
    ) -> Mapping[str, Any] | None:
        """End a reviewer's judging, and keep the receipt that `conclude` makes under that name; durable.

        The receipt that counts; None where they submitted or were revoked before, or `conclude` refuses. Raises
        WrongStatus where the round is not open.
        """
        who = round_reviewers.c
        may = sa.and_(who.round_id == round_id, who.id == reviewer_id, who.submitted_at.is_(None))
        ended = sa.update(round_reviewers).where(may, who.revoked_at.is_(None)).values(submitted_at=entry.at)
        async with self._writing(round_id, {RoundStatus.OPEN}) as (connection, standing):
            items = await read_items(connection, round_id, reviewer_id)
            made = conclude(standing, items, await read_votes_of(connection, round_id, reviewer_id))
            if made is None or not (await connection.execute(ended)).rowcount:
                return None
            await connection.execute(
                sa.insert(round_documents).values({"round_id": round_id, "name": receipt, "content": made})
            )
            await add_row(connection, round_access, round_id, asdict(entry))
        await asyncio.to_thread(self._store.make_durable)
        return made

    async def votes(self, round_id: str, *, after: int = 0, limit: int | None = None) -> list[VoteEntry]:
        """Entries of the chain in their order, those behind number `after`."""
        statement = sa.select(round_votes).where(round_votes.c.round_id == round_id, round_votes.c.number > after)
        ordered = statement.order_by(round_votes.c.number).limit(limit)
        async with self._store.transaction() as connection:
            return [vote_from(row) for row in (await connection.execute(ordered)).mappings()]

    async def votes_of(self, round_id: str, reviewer: str) -> dict[str, VoteEntry]:
        """The last revision of each item that a reviewer judged, by the item's id."""
        async with self._store.transaction() as connection:
            return await read_votes_of(connection, round_id, reviewer)

    async def last_vote(self, round_id: str, item: str) -> VoteEntry | None:
        """The revision of an item's judgement that counts, None where nobody judged it."""
        at = round_votes.c
        statement = sa.select(round_votes).where(at.round_id == round_id, at.item == item)
        async with self._store.transaction() as connection:
            found = await connection.execute(statement.order_by(at.revision.desc()).limit(1))
            row = found.mappings().first()
        return None if row is None else vote_from(row)

    async def make_durable(self) -> None:
        """Return once everything that can be read here survives a power cut."""
        await asyncio.to_thread(self._store.make_durable)

    # --- what the chair sees --------------------------------------------------------------------------------

    async def exclude(self, round_id: str, exclusion: Exclusion) -> None:
        """Write an exclusion down. Raises WrongStatus once the round is closed: there are standings then."""
        await self._append(round_exclusions, round_id, asdict(exclusion), allowed=BEFORE_CLOSING)

    async def declare(
        self,
        round_id: str,
        reviewer_id: str,
        conflicts: Collection[str],
        *,
        entry: AccessEntry,
        consented_at: datetime | None,
        aside: Sequence[Exclusion] = (),
    ) -> bool:
        """Note what conflicts a reviewer has, with their consent if they gave it, and put items aside for them.

        All or nothing, each item once, and durable: who judges is told afterwards which items are left. Whether they
        had not consented before. Raises WrongStatus once the round is closed.
        """
        at, who = round_items.c, round_reviewers.c
        new = sa.and_(who.round_id == round_id, who.id == reviewer_id, who.consented_at.is_(None))
        declared = sa.update(round_reviewers).where(new).values(consented_at=consented_at, conflicts=list(conflicts))
        async with self._writing(round_id, BEFORE_CLOSING) as (connection, _):
            if not (await connection.execute(declared)).rowcount:
                return False
            for one in aside:
                free = sa.and_(at.round_id == round_id, at.id == one.subject, at.set_aside.is_(None))
                if (await connection.execute(sa.update(round_items).where(free).values(set_aside=one.rule))).rowcount:
                    await add_row(connection, round_exclusions, round_id, asdict(one))
            await add_row(connection, round_access, round_id, asdict(entry))
        await asyncio.to_thread(self._store.make_durable)
        return True

    async def clear(
        self,
        round_id: str,
        new: Sequence[Clearance],
        *,
        entry: Callable[[Clearance], AccessEntry],
        before: Collection[RoundStatus],
    ) -> list[Clearance]:
        """Note whose words may be published, each once, and in the access log what `entry` says of it; all or nothing.

        Durable. Those that were not cleared yet. Raises WrongStatus where the round stands at none of `before`.
        """
        async with self._writing(round_id, before) as (connection, _):
            known = {one.number for one in await read_clearances(connection, round_id)}
            fresh = [one for one in new if one.number not in known]
            for one in fresh:
                row = {"round_id": round_id, **asdict(one)}
                await connection.execute(sa.insert(round_clearances).values(row))
                await add_row(connection, round_access, round_id, asdict(entry(one)))
        await asyncio.to_thread(self._store.make_durable)
        return fresh

    async def clearances(self, round_id: str) -> list[Clearance]:
        async with self._store.transaction() as connection:
            return await read_clearances(connection, round_id)

    async def exclusions(self, round_id: str) -> list[Exclusion]:
        async with self._store.transaction() as connection:
            return [Exclusion(**row) for row in await read_numbered(connection, round_exclusions, round_id)]

    async def note_access(self, round_id: str, entry: AccessEntry) -> None:
        await self._append(round_access, round_id, asdict(entry))

    async def note_accesses(self, round_id: str, entries: Sequence[AccessEntry]) -> None:
        """Note many at once, all or nothing."""
        async with self._writing(round_id) as (connection, _):
            for entry in entries:
                await add_row(connection, round_access, round_id, asdict(entry))
        await asyncio.to_thread(self._store.make_durable)

    async def accesses(self, round_id: str) -> list[AccessEntry]:
        async with self._store.transaction() as connection:
            return [AccessEntry(**row) for row in await read_numbered(connection, round_access, round_id)]

    async def approve(
        self, round_id: str, action: str, new: Approval, *, entry: AccessEntry, before: Collection[RoundStatus]
    ) -> list[Approval]:
        """Note that somebody approves of an action, once, and that they said so; all who do by now; durable.

        Raises WrongStatus where the round does not stand at one of `before`.
        """
        async with self._writing(round_id, before) as (connection, _):
            known = await read_approvals(connection, round_id, action)
            if new.who not in {one.who for one in known}:
                row = {"round_id": round_id, "action": action, **asdict(new)}
                await connection.execute(sa.insert(round_approvals).values(row))
            await add_row(connection, round_access, round_id, asdict(entry))
            found = await read_approvals(connection, round_id, action)
        await asyncio.to_thread(self._store.make_durable)
        return found

    async def approvals(self, round_id: str, action: str) -> list[Approval]:
        async with self._store.transaction() as connection:
            return await read_approvals(connection, round_id, action)

    async def hidden_batches(self) -> frozenset[str]:
        """The batches whose answers are those of rounds that are not revealed."""
        after = [status.value for status in AFTER_REVEAL]
        statement = (
            sa.select(round_batches.c.batch_id)
            .join(rounds, rounds.c.id == round_batches.c.round_id)
            .where(rounds.c.status.not_in(after))
        )
        async with self._store.transaction() as connection:
            return frozenset((await connection.execute(statement)).scalars())

    async def _append(
        self, table: sa.Table, round_id: str, row: dict[str, Any], *, allowed: Collection[RoundStatus] = ANY_STATUS
    ) -> None:
        """Add a row under the next number of its round, while that stands where it may be done."""
        async with self._writing(round_id, allowed) as (connection, _):
            await add_row(connection, table, round_id, row)
        await asyncio.to_thread(self._store.make_durable)

    async def _first(self, statement: sa.Select[Any]) -> Round | None:
        async with self._store.transaction() as connection:
            row = (await connection.execute(statement)).mappings().first()
        return None if row is None else round_from(row)


class WrongStatus(Exception):
    """The round does not stand where this may be done."""

    def __init__(self, status: RoundStatus | None) -> None:
        super().__init__(f"the round is {status.value if status is not None else 'not there'}")
        self.status = status


class DraftChanged(Exception):
    """The draft is not the one any more that was to be sealed."""


async def add_row(connection: AsyncConnection, table: sa.Table, round_id: str, row: Mapping[str, Any]) -> None:
    """Add a row under the next number of its round."""
    highest = sa.select(sa.func.max(table.c.number)).where(table.c.round_id == round_id)
    number = ((await connection.execute(highest)).scalar() or 0) + 1
    await connection.execute(sa.insert(table).values({"round_id": round_id, "number": number, **row}))
