"""`python -m ops plan`: the stack files and the examples of docs/, foretold; what it prints, costs
and refuses."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pulumi
import pytest

import ops.__main__
from components import monitoring, naming, rollout_controller
from ops.errors import OpsError
from ops.plan import UNDECLARED, read_stack
from rollout import plan
from rollout.release import FailureLimit, Gate, Manifest
from rollout.simulation import START, Fleet, Simulation

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.yaml"))
STACKS = ("local", "dev", "staging", "prod")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; its exit code, standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        code = ops.__main__.main(["plan", *words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def prod() -> Manifest:
    return read_stack(ROOT / "Pulumi.prod.yaml").manifest


def example(name: str) -> Manifest:
    return read_stack(ROOT / f"docs/examples/{name}.yaml").manifest


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    part = text.split(f"### {title}")[1].split("###")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# Stack files and examples


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_is_foretold_to_release(run: Run, stack: str) -> None:
    quick = ["--update-minutes", "1"] if stack == "local" else []  # its time-out is a minute
    code, shown, _ = run("--stack", stack, "--json", *quick)
    course = json.loads(shown)["plan"]["good"]
    assert (code, course["end"]) == (0, "good")
    declared = len(read_stack(ROOT / f"Pulumi.{stack}.yaml").fleet.devices)
    assert course["devices"] == course["exposed"] == (declared or UNDECLARED)


def test_the_examples_are_canary_staged_and_blue_green() -> None:
    assert [path.stem for path in EXAMPLES] == ["blue-green", "canary", "staged"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_releases_and_stops_a_bad_release_in_its_first_ring(path: Path) -> None:
    release = read_stack(path).manifest
    made, _, _ = plan.plan(release, Fleet(devices=20_000))
    assert made.good.end == "good"
    assert [bad.course.end for bad in made.bad] == ["stopped"] * len(made.bad)
    first = made.bad[0]
    assert first.ring == release.rings[0].name
    assert 0 < first.course.exposed <= first.bound < 20_000 * release.rings[0].percent / 100
    assert all(bad.course.exposed <= bad.bound for bad in made.bad)
    assert (first.course.left, first.course.bricked) == (0, 0)


def test_staged_starts_rings_at_night_and_rolls_back_on_its_alarm() -> None:
    release, fleet = example("staged"), Fleet(devices=20_000)
    good = Simulation(release, fleet).run()
    for ring in good.rings.values():
        assert ring.started is not None
        assert 1 <= (START // 60 + ring.started) % 1440 / 60 < 5
    defect = Simulation(release, replace(fleet, alarm="device-health", alarm_after=600)).run()
    assert [event.what for event in defect.events] == [
        "started",
        "failed",
        "rollback",
        "rolled-back",
    ]
    assert (defect.exposed, defect.updated) == (200, 0)


def test_blue_starts_when_a_person_has_approved_green() -> None:
    release = example("blue-green")
    waits = {
        minutes: Simulation(release, Fleet(devices=2000, approval_minutes=minutes)).run()
        for minutes in (0, 1440, None)
    }
    blue = {minutes: sim.rings["blue"].started for minutes, sim in waits.items()}
    assert blue[0] is not None
    assert (blue[1440], blue[None]) == (blue[0] + 1440, None)
    assert waits[None].exposed == 1000


def test_reading_a_stack_leaves_no_configuration_behind() -> None:
    before = pulumi.Config("iot-ota").get("environment")
    read_stack(ROOT / "Pulumi.prod.yaml")
    assert pulumi.Config("iot-ota").get("environment") == before


def test_the_command_line_loads_nothing_heavy_to_list_its_commands() -> None:
    heavy = "{'pulumi', 'pulumi_aws', 'components', 'matplotlib', 'yaml'} & set(sys.modules)"
    ran = subprocess.run(
        [sys.executable, "-c", f"import sys, ops.plan; print(sorted({heavy}))"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (ran.stdout.strip(), ran.stderr) == ("[]", "")


# What it prints


def test_markdown_holds_what_json_holds(run: Run) -> None:
    _, text, _ = run("--stack", "prod", "--markdown")
    made = json.loads(run("--stack", "prod", "--json")[1])["plan"]
    assert [row[:2] for row in rows(text, "2.1.0 on prod")] == [
        ["canary", "100"],
        ["early", "1,000"],
        ["broad", "8,900"],
    ]
    bad = rows(text, "If it turns out bad")
    assert [(row[0], row[1], row[2], row[3]) for row in bad] == [
        (one.get("ring", "-"), one["how"], f"{one['course']['exposed']:,}", f"{one['bound']:,}")
        for one in made["bad"]
    ]
    assert len(bad) == 7
    limits = rows(text, "Limits")
    assert [(row[0], row[3] == "yes") for row in limits] == [
        (one["what"], one["kept"]) for one in made["limits"]
    ]
    assert all(row[4] for row in limits), "every limit says whose it is"
    assert "A person must approve early" in text


def test_the_terminal_shows_the_same_tables(run: Run) -> None:
    code, text, _ = run("--stack", "prod")
    assert code == 0
    for word in (
        "canary",
        "If it turns out bad",
        "this release",
        "Limits",
        "devices reached a minute",
        "Every ring has passed",
    ):
        assert word in text
    assert "**" not in text


@pytest.mark.parametrize(("suffix", "begins"), [(".png", b"\x89PNG"), (".svg", b"<?xml")])
def test_a_plot_is_drawn(run: Run, tmp_path: Path, suffix: str, begins: bytes) -> None:
    file = tmp_path / f"plan{suffix}"
    assert run("--stack", "prod", "--devices", "2000", "--plot", str(file))[0] == 0
    assert file.read_bytes().startswith(begins)


def test_what_does_not_pass_is_said_and_told_by_the_exit_code(run: Run) -> None:
    code, text, _ = run("--stack", "prod", "--failure-rate", "20%", "--markdown")
    assert code == 1
    assert "**It does not pass**: 2.1.0 with this digest is refused" in text


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "which stack? --stack prod reads Pulumi.prod.yaml"),
        (["--stack", "nowhere"], "Pulumi.nowhere.yaml cannot be read"),
        (
            ["--stack", "prod", "--failure-rate", "60%", "--rejects", "50%"],
            "together are more than the fleet",
        ),
        (["--stack", "prod", "--plot", "plan.txt"], "a plot is one of .png, .svg, .pdf"),
        (["--stack", "prod", "--plot", "/nowhere/plan.png"], "cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line(run: Run, words: list[str], says: str) -> None:
    code, _, said = run(*words)
    assert code == 1
    assert says in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "words",
    [
        ["--offline", "30"],
        ["--devices", "-1"],
        ["--update-minutes", "6-4"],
        ["--failure-rate", "x"],
    ],
)
def test_a_number_that_makes_no_sense_is_refused(run: Run, words: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run("--stack", "prod", *words)
    assert ended.value.code == 2


def test_a_wrong_stack_file_tells_its_mistakes(tmp_path: Path) -> None:
    wrong = tmp_path / "Pulumi.wrong.yaml"
    wrong.write_text(
        (ROOT / "Pulumi.prod.yaml")
        .read_text()
        .replace("percent: 89", "percent: 88")
        .replace("soakMinutes: 360", "soakMinutes: -1")
    )
    with pytest.raises(OpsError) as told:
        read_stack(wrong)
    assert "the percentages must add up to 100" in str(told.value)
    assert "soakMinutes" in str(told.value)
    wrong.write_text("[not, a, stack]")
    with pytest.raises(OpsError, match=r"Pulumi\.wrong\.yaml cannot be read"):
        read_stack(wrong)


# Scenarios


@pytest.fixture(scope="module")
def compared() -> dict[str, plan.Comparison]:
    return {one.name: one for one in plan.compare(prod(), Fleet(devices=UNDECLARED))}


def test_the_scenarios_are_printed_as_they_are_computed(
    run: Run, compared: dict[str, plan.Comparison]
) -> None:
    code, text, _ = run("--stack", "prod", "--scenarios", "--markdown")
    assert code == 0
    shown = rows(text, "Scenarios, 10,000 devices")
    assert [row[0] for row in shown[::2]] == list(compared)
    assert {row[1] for row in shown[::2]} == {"prod"}
    assert {row[1] for row in shown[1::2]} == {"recipe"}
    for row, one in zip(shown[::2], compared.values(), strict=True):
        assert row[3] == f"{one.ours.exposed:,}"
    for row, one in zip(shown[1::2], compared.values(), strict=True):
        assert row[3] == f"{one.recipe.exposed:,}"


def test_a_bad_release_is_stopped_and_taken_back_by_ours_alone(
    compared: dict[str, plan.Comparison],
) -> None:
    unseen = "defect shows 8 h after installing, no alarm sees it"
    for name, one in compared.items():
        if not one.bad:
            assert (one.ours.end, one.recipe.end) == ("good", "good"), name
        elif name != unseen:
            assert one.ours.end == "stopped", name
            assert one.ours.left == 0, name
            assert one.ours.exposed <= UNDECLARED * 0.11, f"{name}: the last ring was not reached"
    assert compared[unseen].ours.end == "good", "nothing sees what no alarm sees"
    assert compared["bad in 5 % of the devices"].recipe.left == UNDECLARED * 0.95
    assert compared["silent bricks: every device begins and dies"].recipe.bricked == UNDECLARED
    assert compared["silent bricks: every device begins and dies"].ours.bricked == 100
    assert all(one.recipe.returns == 0 for one in compared.values()), (
        "the recipe takes nothing back"
    )


# Cost and limits


def test_an_update_of_ten_thousand_devices_costs_what_the_list_says() -> None:
    made, _, _ = plan.plan(prod(), Fleet(devices=10_000))
    lines = {line.what: line for line in made.good.bill}
    actions = lines["IoT Jobs remote actions"]
    assert actions.quantity == 10_000
    assert actions.usd == pytest.approx(30.0)
    assert lines["IoT Core messages"].quantity == 10_000 * plan.MESSAGES_AN_UPDATE
    assert lines["transfer to the internet"].quantity == 10_000 * prod().firmware.size
    assert made.good.usd == pytest.approx(sum(line.usd for line in made.good.bill))
    assert made.good.returns == 0


def test_a_rollback_costs_what_was_exposed_and_not_the_fleet() -> None:
    made, _, _ = plan.plan(prod(), Fleet(devices=10_000))
    first, *_, last = made.bad
    assert first.course.returns == first.course.exposed < 100
    assert first.course.returns_usd < 1
    assert (last.how, last.course.returns) == ("is ordered back", 10_000)
    assert last.course.back is not None
    assert last.course.stopped is not None
    assert last.course.back - last.course.stopped >= 8_900 / 1000, (
        "a job reaches 1,000 devices a minute"
    )


def test_every_price_says_where_it_was_read() -> None:
    for name, price in plan.PRICES.items():
        assert price.usd > 0, name
        assert re.match(r"[a-z0-9.]+\.[a-z]+/", price.source), name


def test_numbers_of_other_parts_are_theirs() -> None:
    assert len(monitoring.RING_METRICS) == plan.RING_METRICS
    assert len(monitoring.CONTROLLER_METRICS) == plan.CHANNEL_METRICS
    assert len(naming.ALARMS) == plan.ALARMS
    assert rollout_controller.TIMEOUT_SECONDS == plan.LAMBDA_SECONDS
    assert rollout_controller.MEMORY_MB / 1024 == plan.RUN_GIGABYTES


@pytest.mark.parametrize(
    ("what", "fleet"),
    [
        ("longest update, of the time-out's minutes", Fleet(devices=1000, update_minutes=(5, 90))),
        ("device requests a second in the busiest minute", Fleet(devices=100_000)),
    ],
)
def test_a_limit_that_is_not_kept_is_said(what: str, fleet: Fleet) -> None:
    made, _, _ = plan.plan(prod(), fleet)
    assert {limit.what: limit.kept for limit in made.limits}[what] is False


def test_the_worse_reading_of_executed_is_shown() -> None:
    """With 95 % that reject, what counts them too never reaches the threshold: only the gate stops
    the release."""
    fleet = Fleet(devices=100_000, failing=0.05, rejecting=0.95)
    release = replace(
        prod(),
        rings=tuple(
            replace(ring, gate=Gate(failure_limit=FailureLimit(minimum=30)))
            for ring in prod().rings
        ),
    )
    finished, ended = (
        plan.simulate(release, replace(fleet, executed=reading)).exposed
        for reading in ("finished", "ended")
    )
    assert plan.worse(release, fleet).exposed == max(finished, ended) == ended > finished


def test_the_bound_is_of_what_has_begun_until_the_cancel_is_through() -> None:
    release: Any = replace(
        prod(), pace=replace(prod().pace, base_per_minute=None, maximum_per_minute=10)
    )
    fleet = Fleet(devices=10_000, failing=1.0, update_minutes=(5, 5), cancel_minutes=2)
    sim = Simulation(release, fleet).run()
    needed = release.rings[0].gate.failure_limit.minimum
    assert plan.bound(sim, "canary") == needed - 1 + 10 * (5 + 2)
    assert plan.bound(Simulation(release, replace(fleet, failing=0.5)), "early") == 1100, (
        "of a part: its rings"
    )
    with pytest.raises(KeyError):
        plan.bound(sim, "nowhere")


def test_a_gate_without_failures_passes_a_plan_of_no_devices_to_a_person() -> None:
    empty = replace(prod(), rings=tuple(replace(ring, gate=Gate()) for ring in prod().rings))
    made, _, _ = plan.plan(empty, Fleet(devices=0, approval_minutes=None))
    assert made.good.end == "waiting"
    assert "too few to prove anything" in made.good.waiting


def test_the_readme_quotes_the_scenarios_as_they_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ops.__main__.main(["plan", "--stack", "prod", "--scenarios", "--markdown"]) == 0
    printed: dict[str, dict[str, str]] = {}
    scenario = ""
    for line in capsys.readouterr().out.splitlines():
        if not line.startswith("|"):
            continue
        name, settings, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        if settings in ("prod", "recipe"):
            scenario = name or scenario
            printed.setdefault(scenario, {})[settings] = " ; ".join(cells)
    table = (
        (ROOT / "README.md")
        .read_text()
        .split("| scenario | prod | recipe |\n|---|---|---|\n")[1]
        .split("\n\n")[0]
    )
    for row in table.splitlines():
        scenario, prod, recipe = [cell.strip() for cell in row.strip("|").split("|")]
        for settings, cell in (("prod", prod), ("recipe", recipe)):
            for figure in re.findall(
                r"\d+ d\b(?: \d+ h)?|\d+ h\b(?: \d+ min)?|\d+ min|[\d,]*\d", cell
            ):
                assert figure in printed[scenario][settings], (
                    f"README, {scenario}, {settings}: {figure} is not what plan prints"
                )
