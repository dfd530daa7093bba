"""A DNS server on a loopback port whose records a test changes while it runs; UDP, and TCP for long answers.

`NameServer` can be run by hand as well: `python tests/name_server.py engines.test 10.0.0.1 10.0.0.2`.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from ipaddress import ip_address
from typing import Self, cast

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset
from guards import HANG_S

LONGEST_UDP_BYTES = 512
REFUSED = dns.rcode.REFUSED
SERVFAIL = dns.rcode.SERVFAIL


class NameServer:
    """`async with NameServer() as names`: it answers at `names.address` until the block ends.

    A name that nobody has set does not exist (NXDOMAIN).
    """

    def __init__(self, *, ttl_s: int = 0) -> None:
        self.port = 0
        self.asked: Counter[tuple[str, str]] = Counter()
        """Questions answered so far, by name and type of record."""
        self.over_tcp = 0
        self._ttl_s = ttl_s
        self._addresses: dict[str, list[str]] = {}
        self._aliases: dict[str, str] = {}
        self._failures: dict[str, dns.rcode.Rcode] = {}
        self._empty_once: set[str] = set()
        self._changed = asyncio.Event()

    @property
    def address(self) -> str:
        """As SIMSA_DNS_SERVERS takes it."""
        return f"127.0.0.1:{self.port}"

    def set(self, name: str, *addresses: str) -> None:
        """The name has these addresses from now on; none at all: it exists, without any."""
        self._addresses[name] = list(addresses)
        self._failures.pop(name, None)

    def alias(self, name: str, target: str) -> None:
        self._aliases[name] = target

    def remove(self, name: str) -> None:
        self._addresses.pop(name, None)
        self._failures.pop(name, None)

    def fail(self, name: str, rcode: dns.rcode.Rcode = SERVFAIL) -> None:
        """Questions about the name get this error from now on."""
        self._failures[name] = rcode

    def empty_once(self, name: str) -> None:
        """The next question about the name finds no record, and those after it do again."""
        self._empty_once.add(name)

    async def until_asked(self, name: str, times: int, record_type: str = "A") -> None:
        """Wait until so many further questions about the name were answered."""
        wanted = self.asked[name, record_type] + times
        async with asyncio.timeout(HANG_S):
            while self.asked[name, record_type] < wanted:
                self._changed.clear()
                await self._changed.wait()

    def answer(self, wire: bytes, *, is_udp: bool) -> bytes:
        """What goes out for one question."""
        query = dns.message.from_wire(wire)
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True).lower()
        record_type = dns.rdatatype.to_text(question.rdtype)
        response = dns.message.make_response(query, recursion_available=True)
        target = self._aliases.get(name, name)
        if name in self._failures:
            response.set_rcode(self._failures[name])
        elif target not in self._addresses:
            response.set_rcode(dns.rcode.NXDOMAIN)
        else:
            if target != name:
                response.answer.append(dns.rrset.from_text(question.name, self._ttl_s, "IN", "CNAME", f"{target}."))
            known = [] if name in self._empty_once else self._addresses[target]
            self._empty_once.discard(name)
            found = [one for one in known if _type_of(one) == record_type]
            if found:
                response.answer.append(dns.rrset.from_text(f"{target}.", self._ttl_s, "IN", record_type, *found))
        self.asked[name, record_type] += 1
        self._changed.set()
        if is_udp and len(response.to_wire()) > LONGEST_UDP_BYTES:
            response.answer.clear()
            response.flags |= dns.flags.TC
        return response.to_wire()

    async def __aenter__(self) -> Self:
        self._tcp = await asyncio.start_server(self._serve_tcp, "127.0.0.1", 0)
        self.port = self._tcp.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        self._udp, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(self), ("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._udp.close()
        self._tcp.close()
        await self._tcp.wait_closed()

    async def _serve_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            length = int.from_bytes(await reader.readexactly(2), "big")
            wire = self.answer(await reader.readexactly(length), is_udp=False)
            self.over_tcp += 1
            writer.write(len(wire).to_bytes(2, "big") + wire)
            await writer.drain()
        finally:
            writer.close()


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(self._server.answer(data, is_udp=True), addr)


def _type_of(address: str) -> str:
    return "AAAA" if ip_address(address).version == 6 else "A"


async def _main(name: str, *addresses: str) -> None:
    async with NameServer(ttl_s=5) as names:
        names.set(name, *addresses)
        print(f"SIMSA_DNS_SERVERS={names.address}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
