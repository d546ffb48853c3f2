"""What a release and a stack cost, in US dollars, from the list prices in prices.json.

Only AWS's own prices are there, without free tiers, taxes and volume discounts. What has none shows
its quantity alone, and no sum holds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from rollout.codec import decode_text
from rollout.names import (
    ALARMS,
    CONTROLLER_MEGABYTES,
    PROVISIONING_ALARMS,
    RING_METRICS,
    ChannelMetric,
    ProvisioningMetric,
)

MONTH_MINUTES = 730 * 60
MESSAGES_AN_UPDATE, MESSAGES_OTHERWISE = 20, 9
"""What the reference device sends and receives for one execution, at most: notify-next; asking for
the job, beginning it, its document, with their answers; five reports of progress and the result
with theirs; the shadow. Without an installation less than half of that."""
RUN_SECONDS = 2.0
"""What a run of the controller is assumed to last."""


@dataclass(frozen=True, kw_only=True)
class Price:
    """What an item costs, in US dollars for `per` units; where and when that was read.

    Without `usd`, nobody has read it yet: `source` is AWS's page to look it up.
    """

    what: str
    unit: str
    source: str
    usd: float | None = None
    per: int = 1
    region: str | None = None
    read: str | None = None
    """The day, as 2025-11-04, on which the page was read or its feed archived."""
    tier: str | None = None
    """Up to which quantity it holds, where it does not for all."""
    feed: str | None = None
    """Where AWS's page takes its figures from, where they were read there."""
    rate_code: str | None = None
    """AWS's own id of the price in the feed."""


PRICES = decode_text(dict[str, Price], Path(__file__).with_name("prices.json").read_text())


@dataclass(frozen=True, kw_only=True)
class BillLine:
    """One item of a bill; `usd` is None where it has no price."""

    what: str
    quantity: float
    unit: str
    usd: float | None


def bill(quantities: Mapping[str, float]) -> tuple[BillLine, ...]:
    """Quantities by their names in prices.json."""
    lines = []
    for name, quantity in quantities.items():
        price = PRICES[name]
        usd = None if price.usd is None else quantity * price.usd / price.per
        lines.append(BillLine(what=price.what, quantity=quantity, unit=price.unit, usd=usd))
    return tuple(lines)


def total(lines: Iterable[BillLine]) -> float:
    """The sum of what has a price."""
    return sum(line.usd or 0.0 for line in lines)


def bill_month(rings: int, *, is_provisioned: bool = False) -> tuple[BillLine, ...]:
    """What a stack costs a month while nothing is released, and nobody comes in: the controller
    looks every minute."""
    metrics, alarms = len(RING_METRICS) * rings + len(ChannelMetric), len(ALARMS)
    if is_provisioned:
        metrics, alarms = metrics + len(ProvisioningMetric), alarms + len(PROVISIONING_ALARMS)
    return bill(
        {
            "run": MONTH_MINUTES,
            "compute": MONTH_MINUTES * RUN_SECONDS * CONTROLLER_MEGABYTES / 1024,
            "sign": MONTH_MINUTES,
            "key": 1,
            "metric": metrics,
            "alarm": alarms,
            "request": MONTH_MINUTES,
        }
    )
