"""What an engine's answers are worth: the project's own judgement from the engine's word and its address.

The registry is compared with, never believed, because it can be mistaken about what runs behind an address. Asking
the engine is `fleet`'s part.
"""

from __future__ import annotations

import ipaddress

from gateway.domain.records import Model, Provenance, ServingKind
from gateway.upstream import Origin

SIMULATOR_OWNER = "simsa-simulator"
STAND_IN_PREFIX = "simsa-stand-in-"
_NOT_ON_THE_INTERNET = frozenset(
    (
        *("localhost", "test", "example", "invalid", "local", "arpa"),
        *("intranet", "internal", "private", "corp", "home", "lan"),
    )
)
"""Last labels that no vendor's API can have: RFC 6761, RFC 6762 with its appendix G, and home.arpa of RFC 8375."""


def read_provenance(model: Model, origin: Origin, owned_by: str | None, root: str | None) -> tuple[Provenance, str]:
    """What stands behind a replica, and why: from what its own model list says and, for a hosted API, its address.

    A hosted API shows no weights, so its vendor's name must do: it is `real` only over TLS, where a certificate vouches
    for the name, and only on the internet, where no server of one's own can take the vendor's place. That this
    name is the vendor's, and not a stranger's, is what the operator answers for who wrote the registry.
    """
    if owned_by == SIMULATOR_OWNER:
        return Provenance.SIMULATED, f"the engine says so (owned_by {owned_by}, root {root})"
    if root is not None and root.rstrip("/").rpartition("/")[2].startswith(STAND_IN_PREFIX):
        return Provenance.STAND_IN, "the engine serves the project's random weights"
    if model.serving.kind is ServingKind.OPENAI_API:
        return _of_hosted_api(model, origin, owned_by)
    if owned_by == "vllm" and root is not None and root == model.weights.repo:
        return Provenance.REAL, f"the engine serves {root}"
    wanted = model.weights.repo or "no weights the registry knows of"
    return Provenance.UNKNOWN, f"the engine serves root {root} (owned_by {owned_by}), the registry expects {wanted}"


def _of_hosted_api(model: Model, origin: Origin, owned_by: str | None) -> tuple[Provenance, str]:
    if not _is_on_the_internet(origin.host):
        return Provenance.UNKNOWN, f"served from {origin.host}, which is not the vendor's own API"
    if not origin.tls:
        words = f"served from {origin.host} without TLS, so nothing proves that it is the vendor's own API"
        return Provenance.UNKNOWN, words
    if model.serving.adapter is not None and not model.serving.adapter.lists_models:
        return Provenance.REAL, f"the vendor's own API at {origin.host}, which has no list of models"
    return Provenance.REAL, f"the vendor's own API at {origin.host} lists it (owned_by {owned_by})"


def _is_on_the_internet(host: str) -> bool:
    """Whether the host can be a public one, by its spelling alone: nothing is resolved.

    A name is public when it has a dot and its last label is no reserved one and begins with a letter. Resolvers take
    `127.1` and `0x7f.1` for addresses, and full-width letters for plain ones: so the IDNA form is judged, and a last
    label that begins with a digit is refused unless the whole is an IP address in its usual form.
    """
    try:
        name = host.encode("idna").decode().lower().removesuffix(".")
    except UnicodeError:
        return False
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        parent, _, last = name.rpartition(".")
        return bool(parent) and last[:1].isalpha() and last not in _NOT_ON_THE_INTERNET
    return address.is_global and not address.is_multicast
