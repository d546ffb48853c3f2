"""The manifest: what a channel releases, to which rings, behind which gates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from rollout.codec import canonical_json, decode_text
from rollout.names import image_key
from rollout.version import Version


@dataclass(frozen=True, kw_only=True)
class Firmware:
    """One firmware image and whom it is for."""

    version: Version
    sha256: str
    """64 lower-case hexadecimal digits."""
    size: int
    """Bytes, at least 1."""
    hardware: str
    """The hardware family it runs on; a device of another answers REJECTED."""
    minimum_version: Version | None = None
    """The oldest version it may install over; an older device answers REJECTED."""
    allow_downgrade: bool = False
    """Whether it may be released although it is not above the last good version."""

    @property
    def key(self) -> str:
        """Where the artifact lies in the channel's bucket."""
        return image_key(self.version, self.sha256)


@dataclass(frozen=True, kw_only=True)
class FailureLimit:
    """When a ring has failed: there is evidence that more than `percent` of the devices that begin
    the release fail or time out (`rollout.evidence`)."""

    percent: float = 10.0
    """Of the devices that began, 0.1 to 50."""
    false_stop_percent: float = 1.0
    """The chance, 0.01 to 50, that a ring stops a release whose true share of failing devices is
    `percent` or less, however often it is looked at."""
    devices: int | None = None
    """So many failing devices stop the ring, whatever the evidence: for rings too small to prove
    anything."""


@dataclass(frozen=True, kw_only=True)
class AlarmGate:
    """A CloudWatch alarm that a ring's gate watches, and what its going to ALARM does."""

    name: str
    action: Literal["hold", "rollback"] = "hold"


@dataclass(frozen=True, kw_only=True)
class Gate:
    """What a ring must show before the next ring starts (for the last ring: before the release is
    the last good one)."""

    coverage_percent: float = 90.0
    """Devices finished (succeeded, failed, timed out), of the ring's devices that the job is
    for."""
    success_percent: float = 95.0
    """Devices succeeded, of those finished or in progress: what is still running counts against the
    release."""
    minimum_succeeded: int = 1
    """Devices that must have succeeded, whatever the percentages say."""
    failure_limit: FailureLimit = FailureLimit()
    """When the ring stops the release."""
    soak_minutes: float = 0.0
    """How long the ring must stay healthy after it reached coverage, minimumSucceeded and
    success."""
    alarms: tuple[AlarmGate, ...] = ()
    """Alarms that must be quiet."""
    approval: bool = False
    """Whether a person must approve that this ring has proved itself."""
    deadline_minutes: float | None = None
    """After this time since the ring started, `on_deadline` decides."""
    on_deadline: Literal["hold", "advance"] = "hold"
    """`advance` waives coverage only. A deadline never rolls back: a weekend of offline devices is
    not a bad release."""


@dataclass(frozen=True, kw_only=True)
class RingPlan:
    """One ring of a release: its share of the fleet in percent (up to two decimals) and its
    gate."""

    name: str
    percent: float
    gate: Gate = Gate()


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How many devices a minute are told of the job, as IoT Jobs takes it (CreateJob
    jobExecutionsRolloutConfig).

    Without `base_per_minute` the rate is constant at `maximum_per_minute` (1 to 1000). With it, the
    rate starts at `base_per_minute` and is multiplied by `factor` (1.1 to 5, one decimal place) for
    every `increase_after` devices that were notified or that succeeded.
    """

    maximum_per_minute: int = 1000
    base_per_minute: int | None = None
    factor: float = 2.0
    increase_after: int = 100
    increase_on: Literal["notified", "succeeded"] = "succeeded"


@dataclass(frozen=True, kw_only=True)
class Abort:
    """IoT's own brake (CreateJob abortConfig): cancels what is still queued. Never on ALL: REJECTED
    is no failure."""

    on: Literal["FAILED", "TIMED_OUT"]
    percent: float
    minimum: int


@dataclass(frozen=True, kw_only=True)
class Approval:
    """A person's word that a ring has proved the image with this digest."""

    ring: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Window:
    """When rings may start: `minutes` (1 to 1430) from each time that `cron` (minute hour day month
    weekday, UTC) names."""

    cron: str
    minutes: int


@dataclass(frozen=True, kw_only=True)
class RolloutOptions:
    """How a release is rolled out, beside its rings and its pace."""

    abort: tuple[Abort, ...] = (
        Abort(on="FAILED", percent=50.0, minimum=20),
        Abort(on="TIMED_OUT", percent=50.0, minimum=20),
    )
    """IoT's own brake, which holds even without the controller; so coarse that it does not stop by
    chance what a gate would let pass.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_AbortConfig.html
    """
    in_progress_timeout_minutes: int = 30
    """1 to 10080; a device that began and went silent is TIMED_OUT after it.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_TimeoutConfig.html
    """
    presigned_url_seconds: int = 3600
    """60 to 3600, counted from when the device asks for the document.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_PresignedUrlConfig.html
    """
    rollback: Literal["automatic", "forbidden"] = "automatic"
    """`forbidden` is for one-way releases: a failure then halts."""
    paused: bool = False
    """No further ring starts."""
    halted: bool = False
    """What runs is cancelled."""
    approvals: tuple[Approval, ...] = ()
    """What people have approved; one of another digest than the release's has no effect."""
    start_at: str | None = None
    """No ring starts before this time (`2026-12-01T02:00:00Z`)."""
    window: Window | None = None
    """When rings may start.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_MaintenanceWindow.html
    """
    document_extra: dict[str, Any] | None = None
    """Keys beside ours in every job document, for agents that read keys of their own, with
    `{release}`, `{url}`, `{version}`, `{sha256}`, `{size}` and `{imageSignature}` in their texts.

    See https://docs.aws.amazon.com/iot/latest/apireference/API_CreateJob.html
    """


@dataclass(frozen=True, kw_only=True)
class Manifest(RolloutOptions):
    """`channels/<channel>/release.json`, as `pulumi up` writes it and the controller reads it."""

    schema: Literal[1]
    channel: str
    firmware: Firmware
    rings: tuple[RingPlan, ...]
    pace: Pace = Pace()
    adopted: Firmware | None = None
    """What the fleet's devices ran before the channel's first release: its way back. It has no
    effect once anything was offered."""

    @classmethod
    def parse(cls, text: str | bytes) -> Manifest:
        """Raises DecodeError when the text is not a manifest of this schema."""
        return decode_text(cls, text)

    def text(self) -> str:
        return canonical_json(self)

    def ring(self, name: str) -> RingPlan | None:
        return next((ring for ring in self.rings if ring.name == name), None)
