"""`python -m forecast`: forecasts of the stack files and of the examples of docs/; what it prints,
costs and refuses."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pulumi
import pytest

import forecast.__main__
import ops.main
from docs.comparison import compare
from forecast import costs
from forecast.assumptions import START, Assumptions
from forecast.bounds import bound_exposure
from forecast.cli import UNDECLARED, ForecastError, read_settings
from forecast.forecast import forecast_release, simulate, simulate_worse
from forecast.scenarios import ScenarioCourse, list_scenarios, run_scenario
from forecast.simulation import Simulation
from rollout.evidence import is_failing
from rollout.names import PLACED_A_MINUTE
from rollout.release import Abort, FailureLimit, Gate, Manifest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "docs/examples").glob("*.yaml"))
STACKS = ("local", "dev", "staging", "prod")
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command; its exit code, standard output and standard error."""

    def run(*words: str) -> tuple[int, str, str]:
        code = forecast.__main__.main(words)
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return run


def prod() -> Manifest:
    return read_settings(ROOT / "Pulumi.prod.yaml").manifest


def example(name: str) -> Manifest:
    return read_settings(ROOT / f"docs/examples/{name}.yaml").manifest


def rows(text: str, title: str) -> list[list[str]]:
    """The cells of a Markdown table, without its head."""
    part = text.split(f"### {title}")[1].split("###")[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


# Stack files and examples


@pytest.mark.parametrize("stack", STACKS)
def test_every_stack_is_forecast_to_release(run: Run, stack: str) -> None:
    quick = ["--update-minutes", "1"] if stack == "local" else []  # its time-out is a minute
    code, shown, _ = run("--stack", stack, "--json", *quick)
    course = json.loads(shown)["forecast"]["good"]
    assert (code, course["end"]) == (0, "good")
    declared = len(read_settings(ROOT / f"Pulumi.{stack}.yaml").fleet.devices)
    assert course["devices"] == course["exposed"] == (declared or UNDECLARED)


def test_a_fleet_that_comes_by_claim_is_told_how_long_aws_takes(run: Run) -> None:
    title = "Taking in 100,000 devices by claim"
    _, shown, _ = run("--stack", "prod", "--devices", "100000", "--markdown")
    assert [row[:4] for row in rows(shown, title)] == [
        ["connect: by claim, then as itself", "2", "500", "7 min"],
        ["CreateCertificateFromCsr: its certificate", "1", "20", "1 h 24 min"],
        ["RegisterThing: its thing, ring, policies", "1", "10", "2 h 47 min"],
    ]
    assert "Together they take 2 h 47 min" in shown
    _, shown, _ = run("--stack", "prod", "--devices", "600", "--json")
    steps = json.loads(shown)["provisioning"]
    assert [step["minutes"] for step in steps] == [1, 1, 1]
    assert steps[2]["quota"].endswith("RegisterThing MQTT API TPS (L-B2BBBD8C)")
    for words in (["--markdown"], ["--json"]):
        _, shown, _ = run("--stack", "dev", *words)
        assert "by claim" not in shown
        assert "provisioning" not in shown


def test_the_examples_are_canary_staged_and_blue_green() -> None:
    assert [path.stem for path in EXAMPLES] == ["blue-green", "canary", "staged"]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_releases_and_stops_a_bad_release_in_its_first_ring(path: Path) -> None:
    release = read_settings(path).manifest
    made, _, _ = forecast_release(release, Assumptions(devices=20_000))
    assert made.good.end == "good"
    assert [bad.course.end for bad in made.bad] == ["stopped"] * len(made.bad)
    first = made.bad[0]
    assert first.ring == release.rings[0].name
    assert 0 < first.course.exposed <= first.bound < 20_000 * release.rings[0].percent / 100
    assert all(bad.course.exposed <= bad.bound for bad in made.bad)
    assert (first.course.updated, first.course.silent) == (0, 0)


def test_staged_starts_rings_at_night_and_rolls_back_on_its_alarm() -> None:
    release, assumed = example("staged"), Assumptions(devices=20_000)
    good = Simulation(release, assumed).run()
    for ring in good.fleet.rings.values():
        assert ring.started is not None
        assert 1 <= (START // 60 + ring.started) % 1440 / 60 < 5
    defect = Simulation(release, replace(assumed, alarm="device-health", alarm_after=600)).run()
    assert [event.what for event in defect.events] == [
        "started",
        "failed",
        "rollback",
        "rolled-back",
    ]
    assert (defect.fleet.exposed, defect.fleet.updated) == (200, 0)


def test_blue_starts_when_a_person_has_approved_green() -> None:
    release = example("blue-green")
    waits = {
        minutes: Simulation(release, Assumptions(devices=2000, approval_minutes=minutes)).run()
        for minutes in (0, 1440, None)
    }
    blue = {minutes: sim.fleet.rings["blue"].started for minutes, sim in waits.items()}
    assert blue[0] is not None
    assert (blue[1440], blue[None]) == (blue[0] + 1440, None)
    assert waits[None].fleet.exposed == 1000


def test_reading_a_stack_leaves_no_configuration_behind() -> None:
    before = pulumi.Config("iot-ota").get("environment")
    read_settings(ROOT / "Pulumi.prod.yaml")
    assert pulumi.Config("iot-ota").get("environment") == before


# What it prints


def test_markdown_holds_what_json_holds(run: Run) -> None:
    _, text, _ = run("--stack", "prod", "--markdown")
    made = json.loads(run("--stack", "prod", "--json")[1])["forecast"]
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
    luck = rows(text, "If it is bad on some devices")
    assert len(luck) == len(made["luck"]) == 9 * 4
    told = {(row[0], row[1]): row[5] for row in luck}
    for one in made["luck"]:
        exposed = f"{one['exposed']:,}" if "exposed" in one else "-"
        assert told[one.get("ring", "all, in turn"), f"{100 * one['failing']:g} %"] == exposed
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


def test_both_commands_are_one(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("--stack", "prod", "--devices", "2000", "--markdown")
    ours = run(*asked)[1]
    assert ops.main.main(["plan", *asked]) == 0
    assert capsys.readouterr().out == ours
    assert ops.main.main(["plan", "--stack", "nowhere"]) == 1
    assert "Pulumi.nowhere.yaml cannot be read" in capsys.readouterr().err


def test_a_plot_is_drawn(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "plan.svg"
    assert run("--stack", "prod", "--devices", "2000", "--plot", str(file))[0] == 0
    svg = "{http://www.w3.org/2000/svg}"
    picture = ElementTree.parse(file).getroot()
    assert picture.tag == f"{svg}svg"
    words = {text.text for text in picture.iter(f"{svg}text")}
    assert {"canary", "early", "broad", "stopped", "running 2.1.0", "exposed"} <= words
    assert "2.1.0 on prod, 2,000 devices: rings start (grey) and end (green)" in words
    paths = [path.attrib["d"] for path in picture.iter(f"{svg}path")]
    numbers = [float(number) for path in paths for number in re.findall(r"[\d.]+", path)]
    assert 0 <= min(numbers) <= max(numbers) <= 1000, "everything is inside the picture"


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
        (["--stack", "prod", "--plot", "plan.png"], "a plot is an SVG picture, such as plan.svg"),
        (["--stack", "prod", "--plot", "/nowhere/plan.svg"], "cannot be written"),
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
    with pytest.raises(ForecastError) as refused:
        read_settings(wrong)
    assert "the percentages must add up to 100" in str(refused.value)
    assert "soakMinutes" in str(refused.value)
    wrong.write_text("[not, a, stack]")
    with pytest.raises(ForecastError, match=r"Pulumi\.wrong\.yaml holds no keys"):
        read_settings(wrong)


# Scenarios


@pytest.fixture(scope="module")
def scenarios() -> dict[str, ScenarioCourse]:
    listed = list_scenarios(prod(), Assumptions(devices=UNDECLARED))
    return {one.name: run_scenario(prod(), one) for one in listed}


def test_the_scenarios_are_printed_as_they_are_computed(
    run: Run, scenarios: dict[str, ScenarioCourse]
) -> None:
    code, text, _ = run("--stack", "prod", "--scenarios", "--markdown")
    assert code == 0
    printed = rows(text, "Scenarios on prod, 10,000 devices")
    assert [(row[0], row[2], row[5]) for row in printed] == [
        (name, f"{one.course.exposed:,}", f"{one.course.executions:,}")
        for name, one in scenarios.items()
    ]


def test_a_bad_release_is_stopped_and_rolled_back(scenarios: dict[str, ScenarioCourse]) -> None:
    unseen = "defect shows 8 h after installing, no alarm sees it"
    for name, one in scenarios.items():
        course = one.course
        if not one.is_bad:
            assert course.end == "good", name
        elif name != unseen:
            assert course.end == "stopped", name
            assert course.updated == 0, name
            assert course.exposed <= UNDECLARED * 0.11, f"{name}: the last ring was not reached"
    assert scenarios[unseen].course.end == "good", "nothing sees what no alarm sees"
    assert scenarios["every device begins and falls silent"].course.silent == 100


def test_the_recipe_rolls_nothing_back() -> None:
    release = compare.recipe(prod())
    listed = {one.name: one for one in list_scenarios(prod(), Assumptions(devices=UNDECLARED))}
    fleets = {
        name: compare.run_unattended(release, one.assumptions) for name, one in listed.items()
    }
    assert fleets["bad in 5 % of the devices"].updated == UNDECLARED * 0.95
    assert fleets["every device begins and falls silent"].silent == UNDECLARED
    for name, fleet in fleets.items():
        assert list(fleet.jobs) == [compare.JOB], name
        assert listed[name].is_bad or fleet.updated == UNDECLARED, name


def test_the_page_of_the_comparison_holds_what_its_script_prints(
    capsys: pytest.CaptureFixture[str],
) -> None:
    compare.main()
    page = (ROOT / "docs/comparison/README.md").read_text()
    assert capsys.readouterr().out in page, "run python -m docs.comparison.compare"


# Cost and limits


def test_an_update_of_ten_thousand_devices_is_counted_and_priced() -> None:
    made, _, _ = forecast_release(prod(), Assumptions(devices=10_000))
    lines = {line.what: line for line in made.good.bill}
    assert lines["IoT Jobs remote actions"].quantity == 10_000
    assert lines["IoT Core messages"].quantity == 10_000 * costs.MESSAGES_AN_UPDATE
    assert lines["transfer to the internet"].quantity == 10_000 * prod().firmware.size
    assert lines["S3 GET"].usd == pytest.approx(10_000 * 0.0004 / 1000)
    assert costs.total(made.good.bill) == pytest.approx(
        sum(line.usd for line in made.good.bill if line.usd is not None)
    )
    assert made.good.rollback_executions == 0


def test_a_stack_costs_its_controller_and_what_watches_it() -> None:
    lines = {line.what: line for line in costs.bill_month(rings=3)}
    assert lines["CloudWatch metrics"].quantity == 3 * 6 + 6
    assert lines["CloudWatch alarms"].quantity == 8
    assert lines["Lambda compute (arm64)"].quantity == 43_800 * 2 * 1.0
    assert costs.total(lines.values()) == pytest.approx(11.27, abs=0.01)
    more = {line.what: line for line in costs.bill_month(rings=3, is_provisioned=True)}
    assert more["CloudWatch metrics"].quantity == 3 * 6 + 6 + 2
    assert more["CloudWatch alarms"].quantity == 8 + 2


def test_a_rollback_costs_what_was_exposed_and_not_the_fleet() -> None:
    made, _, _ = forecast_release(prod(), Assumptions(devices=10_000))
    first, *_, last = made.bad
    assert first.course.rollback_executions == first.course.exposed < 100
    assert last.how == "is ordered back"
    assert last.course.rollback_executions == 2 * 10_000, "on the way back, and in their rings"
    assert last.course.rolled_back is not None
    assert last.course.stopped is not None
    runs, longest = 10_000 / PLACED_A_MINUTE, Assumptions.update_minutes[1]
    assert last.course.rolled_back - last.course.stopped >= runs - 1 + longest


@pytest.mark.parametrize("name", costs.PRICES)
def test_a_price_is_amazons_with_its_region_and_day_or_is_none(name: str) -> None:
    price = costs.PRICES[name]
    assert re.fullmatch(r"aws\.amazon\.com/[a-z0-9/-]+", price.source)
    if price.usd is None:
        assert (price.region, price.read, price.feed) == (None, None, None)
        return
    assert price.usd > 0
    assert price.region
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", price.read or "")
    if price.feed:
        assert re.match(r"b0\.p\.awsstatic\.com/pricing/", price.feed)
        assert price.rate_code


def test_what_has_no_price_is_named_and_in_no_sum(run: Run) -> None:
    _, text, _ = run("--stack", "prod", "--markdown")
    items = {row[0]: row[2] for row in rows(text, "Cost")}
    unpriced = [price for price in costs.PRICES.values() if price.usd is None]
    assert unpriced
    for price in unpriced:
        assert items[price.what] == "no price"
        assert re.search(rf"{price.what}[^;]*: look it up at {price.source}", text)
    assert "**this release without what has no price**" in items
    assert "**the stack, a month**" in items


@pytest.mark.parametrize(
    ("what", "assumed"),
    [
        (
            "longest update, of the time-out's minutes",
            Assumptions(devices=1000, update_minutes=(5, 90)),
        ),
        ("device requests a second in the busiest minute", Assumptions(devices=100_000)),
    ],
)
def test_a_limit_that_is_not_kept_is_said(what: str, assumed: Assumptions) -> None:
    made, _, _ = forecast_release(prod(), assumed)
    assert {limit.what: limit.kept for limit in made.limits}[what] is False


def test_the_worse_reading_of_executed_is_shown() -> None:
    """With 95 % that reject, what counts them too never reaches the threshold: only the gate stops
    the release."""
    assumed = Assumptions(devices=100_000, failing=0.05, rejecting=0.95)
    patient = Gate(failure_limit=FailureLimit(percent=50, false_stop_percent=0.01))
    release = replace(
        prod(),
        rings=tuple(replace(ring, gate=patient) for ring in prod().rings),
        abort=(Abort(on="FAILED", percent=10.0, minimum=2),),
    )
    finished, ended = (
        simulate(release, replace(assumed, executed=reading)).fleet.exposed
        for reading in ("finished", "ended")
    )
    assert (
        simulate_worse(release, assumed).fleet.exposed == max(finished, ended) == ended > finished
    )


def test_the_bound_is_of_what_has_begun_until_the_cancel_is_through() -> None:
    release: Any = replace(
        prod(), pace=replace(prod().pace, base_per_minute=None, maximum_per_minute=10)
    )
    assumed = Assumptions(devices=10_000, failing=1.0, update_minutes=(5, 5), cancel_minutes=2)
    sim = Simulation(release, assumed).run()
    limit, under_way = release.rings[0].gate.failure_limit, 10 * 5
    needed = next(n for n in range(1, 100) if is_failing(limit, n + under_way, n))
    assert bound_exposure(sim, "canary") == needed - 1 + 10 * (5 + 2)
    assert sim.fleet.exposed <= bound_exposure(sim, "canary") < 100
    assert bound_exposure(Simulation(release, replace(assumed, failing=0.5)), "early") == 1100, (
        "of a part: its rings"
    )
    with pytest.raises(KeyError):
        bound_exposure(sim, "nowhere")


def test_a_gate_without_failures_passes_a_plan_of_no_devices_to_a_person() -> None:
    empty = replace(prod(), rings=tuple(replace(ring, gate=Gate()) for ring in prod().rings))
    made, _, _ = forecast_release(empty, Assumptions(devices=0, approval_minutes=None))
    assert made.good.end == "waiting"
    assert "it cannot prove anything: it needs an approval" in made.good.waiting


@pytest.mark.parametrize("how", [(), ("--markdown",), ("--json",)])
def test_what_existing_agents_do_not_check_is_said_before_the_merge(
    how: tuple[str, ...], tmp_path: Path, run: Run
) -> None:
    text = (ROOT / "docs/examples/canary.yaml").read_text()
    file = tmp_path / "agents.yaml"
    rollout = "iot-ota:rollout:\n"
    file.write_text(
        text.replace(rollout, f"{rollout}    documentExtra: {{afr_ota: {{files: []}}}}\n")
    )
    said = run("--file", str(file), "--devices", "100", *how)[1]
    assert "documentExtra is for FreeRTOS OTA" in " ".join(said.split())
    plain = run("--file", str(ROOT / "docs/examples/canary.yaml"), "--devices", "100", *how)[1]
    assert "documentExtra" not in plain
