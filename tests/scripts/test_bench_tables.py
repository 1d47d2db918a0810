"""The benchmark against TRL: from reports to tables, and what its command line refuses."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError

import bench
import pytest
from benchmark import rounds
from benchmark.tables import learning_summary, workload_summary
from doc_sections import replace_section

from rl_lightning.types import UserError
from tests.scripts.toy_workload import RATES, SHAPE, TOY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


PACE = {"ours": 3.0, "peer": 12.0}


def side(name: str, seconds: float, peaks: tuple[int, ...] = (900, 500)) -> list[dict]:
    """Two rounds' reports of a side: the first with an account, a warm-up step each."""
    step = {"sample": seconds / 2, "train": seconds / 4, "sampled_tokens": 40, "trained_tokens": 30, "longest": 10}
    steps = [{**step, "seconds": s, "prompt_tokens": 20} for s in (99.0, seconds)]
    fields = {
        "side": name,
        "warm_up": 1,
        "before_load": 100,
        "loaded": 300,
        "parameters": 200,
        "predicted": 65,
        "workers": 7,
    }
    accounts = ((True, 60), (False, 0))
    return [
        {**fields, "account": account, "tensors": tensors, "peak": peak, "steps": steps}
        for (account, tensors), peak in zip(accounts, peaks, strict=True)
    ]


def result() -> dict:
    sides = {"ours": side("ours", 2.0), "peer": side("peer", 8.0, (999, 1100))}
    return {"machine": rounds.machine_info(1), **workload_summary(TOY, SHAPE, sides, RATES)}


def test_ratios_are_of_the_medians_without_warm_up():
    found = result()
    assert found["ours"]["step_seconds"] == 2
    assert found["peer"]["rollout_tokens_per_second"] == 10
    assert found["ours"]["peak_above_model"] == 200  # of the round without an account
    assert found["ours"]["tensors_above_step_start"] == 60
    assert found["ratios"] == {"step": 4, "rollout": 4, "training": 4, "memory": 4}


def test_a_side_without_warm_up_counts_every_step_and_leaves_the_account_blank():
    peer = [{**report, "warm_up": 0, "account": False, "tensors": 0} for report in side("peer", 1.0)]
    found = {
        "machine": rounds.machine_info(1),
        **workload_summary(TOY, SHAPE, {"ours": side("ours", 2.0), "peer": peer}, RATES),
    }
    assert (found["peer"]["steps"], found["peer"]["longest_step"]) == (4, 99)
    assert "| `prefix` | TRL | 50 (1 to 99) | 80 | 120 | 0.00 |  |" in bench.table("prefix", {"prefix": found})


def test_our_rollouts_by_vllm_are_a_third_side():
    sides = {"ours": side("ours", 2.0), "peer": side("peer", 8.0), "vllm": side("ours", 3.0)}
    found = {"machine": rounds.machine_info(1), **workload_summary(TOY, SHAPE, sides, RATES)}
    written = bench.table("prefix", {"prefix": found}).splitlines()
    assert [line.split(" | ")[1] for line in written[2:8]] == [
        "ours",
        "TRL",
        "ours on vLLM",
        "limit",
        "TRL to ours",
        "vLLM to ours",
    ]
    assert written[7].startswith("| | vLLM to ours | **1.50×** | **1.50×** | **1.50×** |")


def learning_run(name: str, seed: int, seconds: float, reached: bool = True) -> dict:
    evaluations = [{"step": 0, "training_seconds": 0.0, "accuracy": 0.2}]
    evaluations += [{"step": 4, "training_seconds": seconds, "accuracy": 0.9 if reached else 0.5}]
    fields = {"side": name, "seed": seed, "target": 0.85, "reached": reached, "evaluations": evaluations}
    return {**fields, "training_seconds": seconds, "evaluation_seconds": 1.0, "process_seconds": seconds + 9}


def time_to_target(reached: bool = True) -> dict:
    runs = {name: [learning_run(name, seed, s * (seed + 1), reached) for seed in (0, 1, 2)] for name, s in PACE.items()}
    settings = {"machine": rounds.machine_info(1), "target": 0.85, "every": 2}
    return settings | learning_summary(runs)


def test_a_side_that_went_on_counts_up_to_its_first_evaluation_at_the_target():
    made = [{"step": s, "training_seconds": 10.0 * s, "accuracy": a} for s, a in enumerate([0.1, 0.5, 0.6, 0.5])]
    counted = rounds.up_to_target(made, 0.5)
    assert (counted["training_seconds"], len(counted["evaluations"])) == (10, 2)
    runs = time_to_target()["runs"]
    runs["peer"] = [run | rounds.up_to_target(run["evaluations"], 0.9) for run in runs["peer"]]
    found = {"machine": rounds.machine_info(1), "target": None, **learning_summary(runs)}
    assert found["ours_to_peer"] == {"training_seconds": 0.25}
    assert "| medians | ours to TRL | | | **0.25** | |  | |" in bench.table("learn", {"learn": found})


def test_sides_are_compared_by_the_median_over_the_seeds():
    assert time_to_target()["medians"]["ours"]["training_seconds"] == 6
    assert time_to_target()["ours_to_peer"]["training_seconds"] == 0.25
    assert time_to_target(reached=False)["ours_to_peer"] is None


def test_tables_come_from_the_files(tmp_path, capsys):
    results, page = tmp_path / "results", tmp_path / "page.md"
    results.mkdir()
    for name, of in {"tiny": result(), "scaling base": result(), "learn": time_to_target()}.items():
        bench.result_file(results, name).write_text(json.dumps(of))
    sections = ("workloads", "scaling", "learn")
    page.write_text(
        "# Page\n" + "".join(f"\nabout {s}\n<!-- {s} -->\nold\n<!-- /{s} -->\n" for s in sections) + "end\n"
    )
    argv = ["--table", "--results", str(results), "--page", str(page)]
    assert bench.main(argv) == 0
    written = page.read_text()
    assert "old" not in written
    assert "| `tiny` | ours | 2 (2 to 2) | 40 |" in written
    assert "| | TRL to ours | **4.0×** | **4.0×** | **4.0×** | **4.0×** | |" in written
    assert "| base | 2 × 2 | 4 | 1,024 | 2 | 66.7 |" in written
    assert "| 0.000 | 0.000 | +8% |" in written
    assert "| 2 | TRL | 4 | 0.200 to 0.900 | 36.0 |" in written
    assert "| medians | ours to TRL | | | **0.25** |" in written
    assert [line for line in written.splitlines() if line.startswith(("#", "about", "end"))] == [
        "# Page",
        *(f"about {s}" for s in sections),
        "end",
    ]
    assert bench.main(argv) == 0
    assert page.read_text() == written


def test_an_unreached_target_is_said(tmp_path):
    assert "0.200 to 0.500, short of 0.85" in bench.table("learn", {"learn": time_to_target(reached=False)})


def test_the_pages_marks_are_there():
    text = (bench.ROOT / "docs" / "performance.md").read_text()
    assert all(f"<!-- {s} -->\n" in text and f"<!-- /{s} -->" in text for s in ("workloads", "scaling", "learn"))


def test_a_page_without_marks_is_refused(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    with pytest.raises(UserError, match="<!-- learn -->"):
        replace_section(page, "learn", "text")


def test_nothing_is_measured_over_a_result_that_is_there(tmp_path, capsys):
    for point in bench.POINTS:
        bench.result_file(tmp_path, point).write_text("{}")
    assert bench.main(["--workload", "scaling", "--results", str(tmp_path)]) == 2
    assert "bench_scaling_all_at_their_most.json: exists already" in capsys.readouterr().err


def test_scaling_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    """Point by point: what has a file is not measured again."""
    names, measured = list(bench.POINTS), []

    def compare(workload, rounds, steps, threads, sides, vllm_python):
        measured.append((workload.name, sides, vllm_python))
        return result()

    monkeypatch.setattr(bench, "compare", compare)
    for name in names[:-2]:
        bench.result_file(tmp_path, name).write_text("{}")
    assert bench.main(["--workload", "scaling", "--results", str(tmp_path)]) == 0
    assert measured == [(name, ("ours",), None) for name in names[-2:]]
    assert bench.result_file(tmp_path, names[-1]).exists()


def test_a_missing_peer_is_one_line(monkeypatch, tmp_path, capsys):
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(rounds, "version", missing)
    assert bench.main(["--workload", "tiny", "--results", str(tmp_path)]) == 2
    assert capsys.readouterr().err.strip().endswith("pip install -c constraints.txt -e .[bench]")
