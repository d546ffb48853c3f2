"""Random histories: which steps they are made of, how they end, and how a bad one is told."""

from __future__ import annotations

import random
import re
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from rollout.names import ROLLBACK
from rollout.release import AlarmGate, FailureLimit, Gate, Window
from tests.histories.nasty_iot import Weather
from tests.histories.oracle import Broken, Oracle
from tests.histories.stage import FIELD_ALARM, RINGS, TROUBLES, Stage, has_order

LAYOUTS = (
    RINGS,
    (("canary", 20.0), ("broad", 80.0)),
    (("early", 50.0), ("broad", 50.0)),
    (("early", 30.0), ("canary", 20.0), ("broad", 50.0)),
    (("canary", 20.0), ("pilot", 10.0), ("early", 20.0), ("broad", 50.0)),
    (("broad", 100.0),),
)
GATES = (
    Gate(soak_minutes=2.0, success_percent=90.0),
    Gate(soak_minutes=5.0, success_percent=80.0, coverage_percent=50.0),
    Gate(success_percent=90.0, failure_limit=FailureLimit(percent=2.0)),
    Gate(soak_minutes=1.0, alarms=(AlarmGate(name=FIELD_ALARM),), success_percent=90.0),
    Gate(soak_minutes=1.0, alarms=(AlarmGate(name=FIELD_ALARM, action="rollback"),)),
    Gate(soak_minutes=1.0, approval=True, success_percent=90.0),
    Gate(soak_minutes=1.0, deadline_minutes=30.0, on_deadline="advance"),
    Gate(minimum_succeeded=4, success_percent=70.0),
)
REASONS = (None, "NOT_WANTED", "OPERATOR_HALT", "STACK_DESTROYED", "TIDYING_UP")
OPERATIONS = (
    "ListJobs",
    "DescribeJob",
    "CancelJob",
    "CreateJob",
    "UpdateJob",
    "ListThingGroups",
    "CreateThingGroup",
    "AddThingToThingGroup",
    "ListJobExecutionsForJob",
    "ListThingsInThingGroup",
    "DescribeThing",
    "GetJobDocument",
    "HeadObject",
    "ListObjectVersions",
    "DescribeAlarms",
    "PutMetricData",
    "Sign",
)
FINAL_VERSION = "99.0.0"
LENIENT = Gate(success_percent=50.0, coverage_percent=50.0)


@dataclass(frozen=True)
class Step:
    """One method of the stage, and what it is called with."""

    name: str
    how: dict[str, Any]

    def __str__(self) -> str:
        how = ", ".join(f"{key}={value!r}" for key, value in self.how.items())
        return f"stage.{self.name}({how})"


@dataclass(frozen=True)
class History:
    seed: int
    setting: dict[str, Any]
    steps: tuple[Step, ...]

    def play(self) -> Stage:
        """Raises Broken where the oracle objects."""
        stage = Stage(seed=self.seed, watch=Oracle, **self.setting)
        for step in self.steps:
            getattr(stage, step.name)(**step.how)
        finish(stage)
        return stage

    def script(self) -> str:
        """What plays it again."""
        setting = "".join(f", {key}={value!r}" for key, value in self.setting.items())
        return "\n".join(
            [
                "from rollout.release import AlarmGate, FailureLimit, Gate, Window",
                "from tests.histories.nasty_iot import Weather",
                "from tests.histories.oracle import Oracle",
                "from tests.histories.scripts import finish",
                "from tests.histories.stage import Stage",
                "",
                f"stage = Stage(seed={self.seed}, watch=Oracle{setting})",
                *map(str, self.steps),
                "finish(stage)",
            ]
        )


def draw(seed: int) -> History:
    """The history of a seed: a few kinds of steps, drawn anew for each, in any order."""
    dice = random.Random(seed)
    nasty = dice.random()
    setting: dict[str, Any] = {
        "devices": dice.choice((6, 15, 24, 40)),
        "rings": dice.choice(LAYOUTS),
        "gate": dice.choice(GATES[:3]),
        "weather": Weather(
            list_lag=dice.choice((1.0, 8.0)),
            blind=dice.choice((0.0, 8.0, 45.0)),
            join=dice.choice((1.0, 30.0, 90.0)),
            cancel_delay=dice.choice((0.0, 45.0)),
            cancel_per_minute=dice.choice((1000.0, 1000.0, 1.0, 3.0)),
            delete=dice.choice((1.0, 120.0)),
            page=dice.choice((250, 3)),
        ),
    }
    if dice.random() < 0.1:
        setting |= {"first": None, "adopts": dice.random() < 0.5}
    chosen = dice.sample(KINDS, dice.randint(3, 7))
    writer = Writer(dice)
    steps: list[Step] = []
    if "first" in setting:
        steps += [step for step in Writer(dice).release() if step.how.pop("stop_early", 1)]
    for _ in range(dice.randint(4, 6 + round(10 * nasty))):
        kind = dice.choice([*chosen, Writer.release])
        steps += kind(writer)
        if dice.random() < 0.75:
            steps.append(Step("minutes", {"count": dice.choice((1, 2, 3, 5, 8, 15, 30))}))
    return History(seed=seed, setting=setting, steps=tuple(steps))


class Writer:
    """Writes steps, with all that they need in plain values."""

    def __init__(self, dice: random.Random) -> None:
        self.dice, self.minor, self.serial = dice, 0, 0

    def release(self) -> Iterator[Step]:
        dice = self.dice
        self.minor += 1
        how: dict[str, Any] = {"version": f"1.{self.minor}.0"}
        if dice.random() < 0.5:
            how |= {
                "ail": dice.choice(("bad", "bad", "brick", "silent")),
                "share": dice.choice((1.0, 0.5, 0.2, 0.05)),
            }
        if dice.random() < 0.5:
            how["gate"] = dice.choice(GATES)
        if dice.random() < 0.15:
            how["rollback"] = "forbidden"
        if dice.random() < 0.1:
            how["stop_early"] = True
        yield Step("release", how)

    def odd_release(self) -> Iterator[Step]:
        dice = self.dice
        odd = dice.choice(("same image", "older", "downgrade", "other image"))
        if odd == "same image":
            self.minor += 1
            image = f"1.{dice.randint(0, self.minor)}.0"
            yield Step("release", {"version": f"1.{self.minor}.0", "image": image})
        elif odd == "other image":
            yield Step("release", {"version": f"1.{self.minor}.0", "image": "another"})
        else:
            version = f"0.9.{dice.randint(1, 9)}"
            yield Step("release", {"version": version, "downgrade": odd == "downgrade"})

    def revert(self) -> Iterator[Step]:
        yield Step("revert", {"back": self.dice.choice((1, 1, 2))})

    def rings(self) -> Iterator[Step]:
        yield Step(
            "change",
            {"rings": self.dice.choice(LAYOUTS), "stop_early": self.dice.random() < 0.2},
        )

    def settings(self) -> Iterator[Step]:
        dice = self.dice
        how = dice.choice(
            (
                {"gate": dice.choice(GATES)},
                {"paused": True},
                {"paused": False},
                {"halted": True},
                {"halted": False},
                {"rollback": "forbidden"},
                {"window": Window(cron="0 3 * * *", minutes=60)},
                {"window": None},
                {"in_progress_timeout_minutes": 5},
            )
        )
        yield Step("change", how)

    def deployment(self) -> Iterator[Step]:
        yield Step("finish_deployment", {})

    def people(self) -> Iterator[Step]:
        dice = self.dice
        ring = dice.choice(("canary", "early", "broad"))
        orders = [
            Step("pause", {}),
            Step("halt", {"cancel": dice.random() < 0.7}),
            Step("resume", {}),
            Step("approve", {"ring": ring}),
            Step("retry", {"ring": dice.choice((ring, ring, ROLLBACK))}),
            Step("roll_back", {}),
            Step("roll_back_earlier", {"back": dice.choice((1, 2))}),
        ]
        if has_order("pardon"):
            orders.append(Step("pardon_something", {}))
        if has_order("waived"):
            orders.append(Step("waive_someone", {"which": dice.randint(0, 40)}))
        yield dice.choice(orders)

    def resume(self) -> Iterator[Step]:
        yield Step("resume", {})

    def console(self) -> Iterator[Step]:
        dice = self.dice
        if dice.random() < 0.7:
            how = {
                "which": dice.choice((-1, -2, 0)),
                "reason": dice.choice(REASONS),
                "force": dice.random() < 0.3,
            }
            yield Step("cancel_by_hand", how)
        else:
            yield Step("delete_by_hand", {"which": dice.choice((-1, -2, 0))})

    def memory(self) -> Iterator[Step]:
        kind = self.dice.choice(("lose_state", "replay_state", "forge_state"))
        how = {"back": self.dice.choice((1, 2, 5))} if kind == "replay_state" else {}
        yield Step(kind, how)

    def forger(self) -> Iterator[Step]:
        dice = self.dice
        yield Step(
            "forge_job",
            {
                "ring": dice.choice(("canary", "broad", "nowhere", ROLLBACK)),
                "sequence": dice.choice((1, 1_790_000_061, 1_790_090_000, 2**53, 2**63)),
                "of": dice.choice((None, 0, -1)),
            },
        )

    def images(self) -> Iterator[Step]:
        kind = self.dice.choice(("lose_image", "overwrite_image", "restore_images"))
        how = {"for_good": self.dice.random() < 0.5} if kind == "lose_image" else {}
        yield Step(kind, how)

    def stack(self) -> Iterator[Step]:
        yield Step("destroy", {})
        yield Step("tick", {"seconds": self.dice.choice((60.0, 1200.0))})
        yield Step("up", {})

    def network(self) -> Iterator[Step]:
        if self.dice.random() < 0.5:
            how = {"share": self.dice.choice((0.3, 0.8)), "seed": self.dice.randint(0, 9)}
            yield Step("go_offline", how)
        else:
            yield Step("come_online", {})

    def fleet(self) -> Iterator[Step]:
        dice = self.dice
        self.serial += 1
        yield dice.choice(
            (
                Step("kill_device", {"which": dice.randint(0, 40)}),
                Step("join_device", {"serial": f"7{self.serial:04}", "seconds": 60.0}),
                Step("rename_hardware", {"which": dice.randint(0, 40)}),
                Step("fill_groups", {"which": dice.randint(0, 40)}),
                Step("empty_groups", {}),
                Step("repair", {}),
                Step("slow_down", {"seconds": dice.choice((30.0, 400.0, 2400.0))}),
            )
        )

    def alarm(self) -> Iterator[Step]:
        yield Step(self.dice.choice(("redden", "calm")), {})

    def rights(self) -> Iterator[Step]:
        yield Step("deny", {"operation": self.dice.choice(OPERATIONS)})
        yield Step("minutes", {"count": self.dice.choice((1, 3))})
        yield Step("allow", {})

    def trouble(self) -> Iterator[Step]:
        for _ in range(self.dice.randint(1, 3)):
            how = {"kind": self.dice.choice(TROUBLES), "at": self.dice.randint(0, 40)}
            yield Step("trouble", how)
            if self.dice.random() < 0.5:
                yield Step("tick", {"seconds": 20.0})

    def overlap(self) -> Iterator[Step]:
        for _ in range(self.dice.randint(1, 3)):
            how = {"seed": self.dice.randint(0, 10**6), "later": self.dice.choice((0.0, 1.0, 60.0))}
            yield Step("overlap", how)
            if self.dice.random() < 0.5:
                yield Step("tick", {"seconds": 60.0})


KINDS: tuple[Callable[[Writer], Iterator[Step]], ...] = (
    Writer.odd_release,
    Writer.revert,
    Writer.rings,
    Writer.settings,
    Writer.deployment,
    Writer.people,
    Writer.people,
    Writer.resume,
    Writer.console,
    Writer.memory,
    Writer.forger,
    Writer.images,
    Writer.stack,
    Writer.network,
    Writer.fleet,
    Writer.alarm,
    Writer.rights,
    Writer.trouble,
    Writer.trouble,
    Writer.overlap,
)


# How a history ends


def finish(stage: Stage) -> None:
    """First the world is left alone, then a person mends what is to be mended."""
    heal(stage)
    rest(stage, 150)
    assert stage.oracle is not None
    stage.oracle.at_rest()
    mend(stage)


def heal(stage: Stage) -> None:
    """The mishaps are over; what people ordered, and broken devices, stay."""
    stage.allow()
    stage.restore_images()
    stage.come_online()
    for alarm in list(stage.iot.alarms):
        if stage.iot.alarms[alarm][0] != "OK":
            stage.calm(alarm)
    if not stage.is_up:
        stage.up()


def rest(stage: Stage, minutes: int) -> None:
    """Minutes in which nobody does anything; the controller is woken less often while it and the
    world stand still."""
    end, step = stage.now + minutes * 60, 120.0
    while stage.now < end:
        stage.tick(step)
        run = stage.run()
        is_still = run.before == run.after and not stage.is_busy
        step = min(step * 2, 1800.0) if is_still else 120.0


def mend(stage: Stage) -> None:
    """A person releases a good version and does what the channel asks for; it must reach
    everybody, whatever has happened."""
    stage.finish_deployment()
    stage.repair()
    stage.empty_groups()
    stage.resume()
    for device in stage.present():
        device.seconds = min(device.seconds, 120.0)
        if device.hardware != stage.manifest.firmware.hardware and has_order("waived"):
            stage.waive(device.name)
    stage.minutes(2)
    stage.release(FINAL_VERSION, gate=LENIENT, rings=(("canary", 30.0), ("broad", 70.0)))
    for _ in range(60):
        stage.minutes(6, every=180.0)
        if is_done(stage):
            return
        stage.repair()
        answer_it(stage)
    raise Broken(f"a good release does not reach everybody; {stage.show()}")


def is_done(stage: Stage) -> bool:
    fine = stage.manifest.firmware.hardware
    runs = {device.version for device in stage.present() if device.hardware == fine}
    is_everywhere = runs <= {FINAL_VERSION} and stage.last_good == FINAL_VERSION
    return is_everywhere and stage.waiting == "nothing" and not stage.is_loud


def answer_it(stage: Stage) -> None:
    """What a person does who reads `ops status`."""
    if stage.find_halt() or stage.control.get("paused") or stage.control.get("halted"):
        stage.resume()
    waiting = stage.state.get("waiting", {})
    ring = waiting.get("ring")
    if ring and waiting.get("kind") in (
        "approval",
        "minimum-succeeded",
        "no-devices",
        "stuck",
        "success",
        "coverage",
        "deadline",
    ):
        stage.approve(ring)
    if waiting.get("kind") == "rollback-failed":
        if "ops waive JOB" in waiting["text"]:
            job = re.search(r"the devices of (\S+):", waiting["text"])
            stage.waive(job[1] if job else "")
        else:
            stage.retry(ROLLBACK)


# Telling of a bad one


def judge(seed: int) -> str | None:
    """None where the history of this seed holds; else what is wrong, and a script of it, cut down
    to what it takes."""
    history = draw(seed)
    problem = problem_of(history)
    if problem is None:
        return None
    short = shorten(history, problem)
    return f"seed {seed}: {problem_of(short)}\n\n{short.script()}\n"


def problem_of(history: History) -> str | None:
    try:
        history.play()
    except Broken as broken:
        cause = broken.__cause__
        trace = "".join(traceback.format_exception(cause)[-3:]) if cause else ""
        return f"{broken}\n{trace}"
    except Exception as error:  # a mistake of the stage's own, or of a step
        return f"{error}\n{''.join(traceback.format_exception(error)[-4:])}"
    return None


def shorten(history: History, problem: str, seconds: float = 25.0) -> History:
    """The history without the steps that it takes not, by trying for so long."""
    end, kind = time.monotonic() + seconds, problem[:24]
    place = len(history.steps) - 1
    while place >= 0 and time.monotonic() < end:
        steps = history.steps[:place] + history.steps[place + 1 :]
        shorter = History(seed=history.seed, setting=history.setting, steps=steps)
        found = problem_of(shorter)
        if found and found[:24] == kind:
            history = shorter
        place -= 1
    return history
