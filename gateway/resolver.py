"""The only door to name servers: one question, one answer. The client library is known only here.

Not `getaddrinfo`: it tells neither how long an answer lasts nor that a server failed from that a name is not there, and
holds a thread while it waits. So names stand in name servers; /etc/hosts is not read.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.rdatatype
import dns.resolver

from gateway.domain.discovery import Answer, Found, NoneThere, Question, Unanswered

TRY_S = 1.0
"""Seconds before a question is sent again, to the next server where there is one."""
GIVE_UP_S = 3.0
WHOLE_NAME_PARTS = 4
"""A name of so many parts is asked for as it stands before the search list is tried. Clusters set `ndots:5`, which
would be four wrong questions for each right one, any of which may fail."""


class Resolver:
    """Asks the given name servers about whole names, or the system's about names as its search list completes them."""

    def __init__(self, servers: Sequence[tuple[str, int]] = ()) -> None:
        self._servers = [dns.nameserver.Do53Nameserver(host, port) for host, port in servers]
        self._backend = dns.asyncbackend.get_backend("asyncio")
        self._open: set[asyncio.Task[Answer]] = set()

    async def ask(self, question: Question) -> Answer:
        """One answer; whatever goes wrong is an answer too.

        Who asks may be cancelled, the question itself never is: cut short, the library leaves sockets behind with which
        an event loop of uvloop does not close, and `wait_for`, by which it waits, forgets the cancelling (Python 3.11).
        """
        asking = asyncio.create_task(self._asked(question), name=f"ask for {question.name}")
        self._open.add(asking)
        asking.add_done_callback(self._open.discard)
        return await asyncio.shield(asking)

    async def close(self) -> None:
        """Wait for the questions that are still open, GIVE_UP_S at the longest."""
        await asyncio.gather(*self._open, return_exceptions=True)

    async def _asked(self, question: Question) -> Answer:
        try:
            found = await self._client().resolve(
                question.name, question.record_type.value, search=not self._servers, backend=self._backend
            )
        except dns.resolver.NXDOMAIN:
            return NoneThere("no such name")
        except dns.resolver.NoAnswer:
            return NoneThere(f"it has no {question.record_type.value} record")
        except (dns.exception.DNSException, OSError) as error:
            return Unanswered(f"{question.record_type.value}: {_in_words(error)}")
        addresses = sorted({record.to_text() for record in found})
        return Found(tuple(addresses), float(found.rrset.ttl if found.rrset is not None else 0))

    def _client(self) -> dns.asyncresolver.Resolver:
        """Made anew for each question, because the system's configuration may change. Raises DNSException."""
        client = dns.asyncresolver.Resolver(configure=not self._servers)
        if self._servers:
            client.nameservers = list(self._servers)
        client.ndots = WHOLE_NAME_PARTS - 1
        client.timeout, client.lifetime = TRY_S, GIVE_UP_S
        return client


def _in_words(error: Exception) -> str:
    """The library's account of what each server did, on one line."""
    return " ".join(str(error).split())[:300] or type(error).__name__
