"""The benchmarks run, keep what they find, and leave nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import broker_nodes, processes, support

ROOT = Path(__file__).parent.parent.parent


def run_bench(
    *names: str, output: Path, patience_seconds: float = 100, **variables: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bench", "--quick", "--output", str(output), *names],
        cwd=ROOT,
        env=support.environment() | variables,
        capture_output=True,
        text=True,
        timeout=patience_seconds,
        check=False,
    )


def test_a_quick_bench_writes_its_page_and_leaves_nothing(tmp_path: Path) -> None:
    support.requires("gcc")
    processes.become_subreaper()
    known = processes.descendants()
    finished = run_bench("deploys", output=tmp_path)
    assert finished.returncode == 0, finished.stderr
    kept = json.loads((tmp_path / "benchmarks.json").read_text())
    assert [row["reached"] for row in kept["deploys"]["rows"] if row["bar"]] == [True] * 3
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| descriptors after" in page
    assert "A quick run" in page
    assert not processes.kill_descendants(known)


def test_a_measurement_that_is_run_again_keeps_the_others_on_the_page(tmp_path: Path) -> None:
    support.requires("gcc")
    kept = {"idle": {"title": "Idle", "how": "", "rows": [{"what": "kept row", "ours": "1"}]}}
    (tmp_path / "benchmarks.json").write_text(json.dumps(kept))
    finished = run_bench("memory", output=tmp_path)
    assert finished.returncode == 0, finished.stderr
    page = (tmp_path / "benchmarks.md").read_text()
    assert page.index("## Memory") < page.index("kept row")


def test_an_unknown_measurement_is_refused_by_name(tmp_path: Path) -> None:
    finished = run_bench("nonsense", output=tmp_path)
    assert finished.returncode == 2
    assert "nonsense" in finished.stderr


def test_deploys_of_a_web_server_lose_nothing_in_a_quick_bench(tmp_path: Path) -> None:
    support.requires("ab")
    support.requires("wrk")
    finished = run_bench("http-deploys", output=tmp_path)
    assert finished.returncode == 0, finished.stderr
    kept = json.loads((tmp_path / "benchmarks.json").read_text())
    rows = kept["http-deploys"]["rows"]
    failed = {row["what"]: row["reached"] for row in rows if row["bar"] == "0"}
    assert len(failed) == 3
    assert all(failed.values()), rows


def test_a_peer_that_is_not_installed_is_a_note_on_the_page(tmp_path: Path) -> None:
    finished = run_bench("http-start", output=tmp_path, PATH=str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    page = (tmp_path / "benchmarks.md").read_text()
    assert "- Unicorn is not installed here." in page
    assert "exec → first answer" in page


def test_a_lost_server_fails_no_request_and_leaves_nothing_in_a_quick_bench(tmp_path: Path) -> None:
    finished = run_bench("server-loss", output=tmp_path, PATH=str(tmp_path))
    assert finished.returncode == 0, finished.stderr
    kept = json.loads((tmp_path / "benchmarks.json").read_text())
    found = kept["server-loss"]
    assert [row["reached"] for row in found["rows"] if row["bar"] == "0"] == [True] * 2, found
    assert found["samples"]["sengu's supervisor, left behind"] == [0]
    assert "ServerEngine's server is not measured here." in found["notes"]


def test_a_crowd_is_adopted_whole_in_a_quick_bench(tmp_path: Path) -> None:
    finished = run_bench("many", output=tmp_path)
    assert finished.returncode == 0, finished.stderr
    page = (tmp_path / "benchmarks.md").read_text()
    assert "| 30 workers: server killed → adopted |" in page
    assert "| 30 workers: the supervisor |" in page


@pytest.mark.timeout(240)
def test_deploys_of_programs_that_bind_by_themselves_lose_nothing_in_a_quick_bench(
    tmp_path: Path,
) -> None:
    for program in ("ab", "wrk", "gcc"):
        support.requires(program)
    processes.become_subreaper()
    known = processes.descendants()
    finished = run_bench("self-bound", output=tmp_path, patience_seconds=200)
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "benchmarks.json").read_text())["self-bound"]
    reached = {row["what"]: row["reached"] for row in found["rows"] if row["bar"] == "0"}
    assert all(reached.values()), found["rows"]
    assert {what.partition(",")[0] for what in reached} >= {"gunicorn sync", "sengu serve"}
    deploys = {what: n for what, n in found["samples"].items() if what.endswith(", deploys")}
    assert all(count >= [1] for count in deploys.values()), deploys
    assert not processes.kill_descendants(known)


def test_consumers_are_counted_and_leave_nothing_in_a_quick_bench(tmp_path: Path) -> None:
    broker_nodes.require()
    processes.become_subreaper()
    known = processes.descendants()
    finished = run_bench("consumers", output=tmp_path, patience_seconds=100)
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "benchmarks.json").read_text())["consumers"]
    assert [what for what in found["samples"] if what.startswith("sengu, empty job")], found
    assert not processes.kill_descendants(known)


def test_clients_of_rabbitmq_are_compared_in_a_quick_bench(tmp_path: Path) -> None:
    broker_nodes.require()
    processes.become_subreaper()
    known = processes.descendants()
    finished = run_bench("amqp-clients", output=tmp_path, patience_seconds=100)
    assert finished.returncode == 0, finished.stderr
    found = json.loads((tmp_path / "benchmarks.json").read_text())["amqp-clients"]
    assert found["rows"][0]["theirs"].startswith("pika, SelectConnection: "), found
    (missed,) = (row["ours"] for row in found["rows"] if row["what"].startswith("broker killed"))
    assert missed == "yes"
    assert not processes.kill_descendants(known)
