"""How fast one load goes on one roofline, by the number of requests at once: times of a request, rates, the best batch.

One arithmetic for ceilings and expectations; which roofline and how much memory each of them takes belongs to ceilings.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.domain.roofline import Roofline, Work

ENOUGH = 0.99
"""Share of the highest rate at which a larger batch is said to gain nothing more."""
MOST_AT_ONCE = 2**20


@dataclass(frozen=True, slots=True)
class Load:
    """What is asked of the engine at a time. Tokens are those of one request."""

    input_tokens: int
    output_tokens: int
    batch: int = 1
    """Requests in flight."""
    cached_tokens: int = 0
    """Of the input, those whose cache is kept from earlier requests."""
    accepted_length: float = 1.0
    """Tokens that one decode step gives a request: above 1 with speculative decoding."""

    @property
    def prompt(self) -> Work:
        return Work(self.input_tokens - self.cached_tokens, self.cached_tokens)

    def __post_init__(self) -> None:
        require_at_least(1, input_tokens=self.input_tokens, output_tokens=self.output_tokens, batch=self.batch)
        if not 0 <= self.cached_tokens < self.input_tokens:
            raise ValueError(
                f"cached_tokens: expected 0 or more and fewer than the input's {self.input_tokens}, "
                f"got {self.cached_tokens}"
            )
        if not 1 <= self.accepted_length <= 1000:
            raise ValueError(f"accepted_length: expected 1 or more tokens a step, got {self.accepted_length}")


@dataclass(frozen=True, slots=True)
class Pace:
    """What one load takes on one roofline, worked out once for all batches."""

    roofline: Roofline
    load: Load
    ttft_s: float
    prompt_flops: float
    decode_flops: float
    cache_bytes: int
    """Read by a decode step for each request."""
    shared_bytes: int = 0
    """Read by a decode step once for all requests: a prefix that they share."""

    def tpot_s(self, batch: int) -> float:
        """A decode step of `batch` requests, for each token that it gives one of them.

        Speculation saves reading, not operations: every accepted token has to be computed.
        """
        roofline = self.roofline
        read = roofline.weights_read_bytes(batch) + self.shared_bytes + batch * self.cache_bytes
        read_s = read / roofline.bytes_per_s / self.load.accepted_length
        return max(read_s, batch * self.decode_flops / roofline.flops_per_s)

    def most_requests_per_s(self, batch: int) -> float:
        """The least of three limits, each of which holds for every schedule with at most `batch` requests in flight.

        Bytes: a decode step reads the weights once for `batch` requests, and each request's own cache. Operations:
        those of the prompt and of every token. Time: a request takes at least as long as alone. Prompts may ride
        along with decode steps, so no limit adds the time of one to that of the other.
        """
        roofline, tokens = self.roofline, self.load.output_tokens - 1
        step = (roofline.weights_read_bytes(batch) + self.shared_bytes) / batch + self.cache_bytes
        read_s = tokens / self.load.accepted_length * step / roofline.bytes_per_s
        flops_s = (self.prompt_flops + tokens * self.decode_flops) / roofline.flops_per_s
        return min(batch / self.lone_e2e_s(), 1.0 / max(read_s, flops_s))

    def expected_requests_per_s(self, batch: int) -> float:
        """All prompts take their turn, then all requests decode together."""
        return batch / (batch * self.ttft_s + self.tpot_s(batch) * (self.load.output_tokens - 1))

    def lone_e2e_s(self) -> float:
        return self.ttft_s + (self.load.output_tokens - 1) * self.tpot_s(1)


def pace_of(roofline: Roofline, load: Load, context: int) -> Pace:
    """`context`: tokens in the cache of a request that decodes."""
    prompt, decode = load.prompt, Work(1, context)
    return Pace(
        roofline=roofline,
        load=load,
        ttft_s=roofline.step_seconds([prompt]),
        prompt_flops=roofline.request_flops(prompt),
        decode_flops=roofline.request_flops(decode),
        cache_bytes=roofline.cache.read_bytes(context),
    )


def decode_context(load: Load, basis: str) -> int:
    """Tokens in the cache of a request that decodes: at the first token for a ceiling, else in the middle."""
    return load.input_tokens if basis == "ceiling" else load.input_tokens + load.output_tokens // 2


def best_concurrency(requests_per_s: Callable[[int], float], most: int) -> int:
    """The smallest batch that reaches ENOUGH of the rate with `most`; the rate grows with the batch."""
    enough = ENOUGH * requests_per_s(most)
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        if requests_per_s(middle) >= enough:
            high = middle
        else:
            low = middle + 1
    return low


def what_limits(best: int, most: int) -> str:
    if best >= ENOUGH * most and most < MOST_AT_ONCE:
        return "the KV cache is full"
    return "operations or reads of the cache, which grow with the batch"


def require_at_least(low: int, **values: int) -> None:
    """Raises ValueError that names the first value below `low`."""
    for name, value in values.items():
        if value < low:
            raise ValueError(f"{name}: expected {low} or more, got {value}")
