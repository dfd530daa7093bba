"""A repeat's seconds in few enough buckets to be drawn and tabled: means of what is counted, the most of what stands.

An hour has 3,600 seconds, a drawing some hundred places. What stands (requests in flight, the engine's queue, KV use)
keeps its highest value, so no peak is lost; what flows (requests, tokens) is the mean a second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from loadtests.cells import TimelinePoint

_Number = TypeVar("_Number", int, float)
MOST_DRAWN = 240
MOST_TABLED = 12


@dataclass(frozen=True, slots=True)
class Bucket:
    """The seconds from `begin_s` up to `end_s`. None = not known in any of them."""

    begin_s: float
    end_s: float
    sent_per_s: float
    ended_per_s: float
    failed_per_s: float
    tokens_per_s: float
    in_flight: int
    ttft_p50_s: float | None
    """The highest of the seconds."""
    engine_running: int | None
    engine_waiting: int | None
    engine_kv_usage: float | None
    engine_preemptions: int | None
    engine_generation_tokens: int | None
    engine_prefix_hit_share: float | None
    """At the end of the bucket, as it is of all the repeat so far."""


def bucket_width(timelines: Sequence[Sequence[TimelinePoint]], most: int) -> int:
    """Whole seconds a bucket, the fewest with which none of these needs more than `most`."""
    end = max((points[-1].at_s for points in timelines if points), default=0.0)
    return max(1, -int(-(end + 1) // most))


def buckets(timeline: Sequence[TimelinePoint], width_s: int) -> list[Bucket]:
    """The points of a timeline in buckets of so many seconds; those without a point are left out."""
    return [_bucket(place * width_s, width_s, points) for place, points in _split(timeline, width_s)]


def _split(timeline: Sequence[TimelinePoint], width_s: int) -> Iterator[tuple[int, list[TimelinePoint]]]:
    found: dict[int, list[TimelinePoint]] = {}
    for point in timeline:
        found.setdefault(int(point.at_s // width_s), []).append(point)
    yield from sorted(found.items())


def _bucket(begin_s: float, width_s: int, points: Sequence[TimelinePoint]) -> Bucket:
    n = len(points)
    return Bucket(
        begin_s=begin_s,
        end_s=min(begin_s + width_s, points[-1].at_s + 1),
        sent_per_s=sum(point.sent for point in points) / n,
        ended_per_s=sum(point.ended for point in points) / n,
        failed_per_s=sum(point.failed for point in points) / n,
        tokens_per_s=sum(point.output_tokens for point in points) / n,
        in_flight=max(point.in_flight for point in points),
        ttft_p50_s=_most(points, lambda point: point.ttft_p50_s),
        engine_running=_most(points, lambda point: point.engine_running),
        engine_waiting=_most(points, lambda point: point.engine_waiting),
        engine_kv_usage=_most(points, lambda point: point.engine_kv_usage),
        engine_preemptions=_most(points, lambda point: point.engine_preemptions),
        engine_generation_tokens=_most(points, lambda point: point.engine_generation_tokens),
        engine_prefix_hit_share=_last(points, lambda point: point.engine_prefix_hit_share),
    )


def _most(points: Sequence[TimelinePoint], read: Callable[[TimelinePoint], _Number | None]) -> _Number | None:
    return max((value for point in points if (value := read(point)) is not None), default=None)


def _last(points: Sequence[TimelinePoint], read: Callable[[TimelinePoint], _Number | None]) -> _Number | None:
    return next((value for point in reversed(points) if (value := read(point)) is not None), None)
