"""Mistakes: one clear line that names the remedy, exit status 2, nothing written."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings

import pytest
import yaml
from transformers.utils.logging import tqdm

from rl_lightning.cli.main import main
from rl_lightning.cli.quiet import quiet
from rl_lightning.policy.loading import load_tokenizer
from tests.conftest import QUICKSTART, ROOT

FIT = ["fit", "--config", str(QUICKSTART)]


def refused(capfd, args: list[str]) -> str:
    """Run, expect exit status 2 and one line on stderr, and return it."""
    assert main(args) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("args", "parts"),
    [
        (["--data.datasets={chain_sun: {weight: 1}}"], ["chain_sun", "no such task", "did you mean chain_sum"]),
        (
            ["--data.datasets={syllogism: {config: {num_premises: 2}}}"],
            ["syllogism.config.num_premises", "no such key", "allow_all"],
        ),
        (["--data.datasets={chain_sum: {wieght: 2}}"], ["wieght"]),
        (
            ["--model.objective.surrogate=gspo"],
            ["model.objective.surrogate", "no class 'gspo'", "path of your own class"],
        ),
        (["--model.policy.model_name_or_path=./nowhere"], ["./nowhere", "is not a directory", "hub name"]),
        (["--model.policy.model_name_or_path=./docs"], ["./docs", "is not a model's directory: it has no config.json"]),
        (["--ckpt_path=checkpoint-9"], ["checkpoint-9", "not a checkpoint directory or `last`"]),
        (["--ckpt_path=last"], ["no intact checkpoint in", "leave --ckpt_path out"]),
        (["--model.sampling.num_generations=1"], ["num_generations", "1 is too few", "2 or more"]),
        (["--model.sampling.temperature=-1"], ["sampling.temperature", "above 0"]),
        (["--model.learning_rat=1"], ["learning_rat"]),
        (["--model.learning_rate=fast"], ["learning_rate", "fast"]),
        (["--model.objective.loss_type=gpro"], ["loss_type", "gpro", "dr_grpo"]),
        (["--config=nowhere.yaml"], ["nowhere.yaml"]),
        (["--model.reward=my_package.MyReward"], ["my_package"]),
        (["--data.prompts_per_step=0"], ["data.prompts_per_step", "at least 1"]),
        (["--trainer.max_steps=-1", "--model.lr_schedule=linear"], ["lr_schedule", "needs trainer.max_steps"]),
        (["--trainer.precision=16-mixed"], ["trainer.precision", "32-true", "model.policy.dtype"]),
        (["--trainer.gradient_clip_val=1"], ["gradient"]),
        (["--data.curriculum.low=0.8"], ["data.curriculum.low", "0.8 is not allowed", "below high (0.7)"]),
        (["--data.curriculum.window=some"], ["window", "some"]),
        (
            ["--data.datasets={products: {}}", "--data.curriculum={start: 99}", "--trainer.max_steps=1"],
            ["data.curriculum.start: 99 is not allowed", "the levels of products are 0 to"],
        ),
        (
            ["--data.datasets={chain_sum: {levels: [{}, {max_term: 3}]}}"],
            ["datasets.chain_sum.levels[1].max_term: no such key", "did you mean max_terms"],
        ),
        (["--fixed_eval.samples=1"], ["fixed_eval.samples", "at least 2, or null for greedy"]),
    ],
    ids=lambda value: value[0][:40] if isinstance(value, list) else None,
)
def test_a_mistake_gets_one_line(capfd, tmp_path, args, parts):
    root = tmp_path / "run"
    line = refused(capfd, [*FIT, f"--trainer.default_root_dir={root}", *args])
    assert all(part in line for part in parts), line
    assert not root.exists() or not list(root.iterdir())


def test_an_existing_run_directory_is_refused_and_left_alone(capfd, tmp_path):
    (tmp_path / "config.yaml").write_text("mine")
    line = refused(capfd, [*FIT, f"--trainer.default_root_dir={tmp_path}"])
    assert "holds a run already" in line
    assert "--ckpt_path last" in line
    assert "--trainer.default_root_dir" in line
    assert [p.name for p in tmp_path.iterdir()] == ["config.yaml"]
    assert (tmp_path / "config.yaml").read_text() == "mine"


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["fti"], "'fti' is not a command; did you mean fit? there are: fit, validate"),
        (["tasks", "game_of_24"], "no such task"),
        (["tasks", "a", "b"], "unrecognized arguments: b"),
        (["tasks", "chain_sum", "--level"], "unrecognized arguments: --level"),
        (["tasks", "--levels"], "name it, e.g. tasks spell_backward --levels"),
        (["tasks", "--prompt"], "name it, e.g. tasks spell_backward --levels"),
        (["tasks", "chain_sum", "--prompt"], "--prompt and --config FILE belong together"),
        (
            ["tasks", "chain_sum", "--prompt", "--config", "nowhere.yaml"],
            "--config nowhere.yaml: there is no such file",
        ),
        (["tasks", "chain_sum", "--data.examples", "2"], "unrecognized arguments: --data.examples 2"),
        (["fit", "--config"], "config"),
        (["validate", "--config", str(QUICKSTART), "--ckpt_path", "nowhere"], "nowhere"),
    ],
)
def test_mistaken_commands_get_one_line(capfd, args, part):
    assert part in refused(capfd, args)


def test_help_and_the_catalogue(capsys):
    assert main([]) == main(["--help"]) == 0
    assert "fit --config quickstart" in capsys.readouterr().out
    assert main(["tasks", "spell_backward"]) == 0
    assert "min_word_len" in capsys.readouterr().out


def test_the_module_fixes_the_hash_seed_and_passes_the_exit_status_on():
    command = [sys.executable, "-m", "rl_lightning", "tasks", "ransom_note"]
    runs = [
        subprocess.run(command, env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True)
        for seed in "12"
    ]
    assert runs[0].stdout == runs[1].stdout
    wrong = subprocess.run([*command[:-1], "nope"], capture_output=True, text=True, check=False)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "Traceback" not in wrong.stderr


def test_a_fit_says_only_what_matters(capfd, caplog, tmp_path):
    small = [
        "--trainer.max_steps=1",
        "--model.sampling.max_new_tokens=4",
        "--data.eval_num_samples=1",
        "--data.num_workers=0",
    ]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        warnings.simplefilter("ignore", DeprecationWarning)  # as Python does
        assert main([*FIT, *small, f"--trainer.default_root_dir={tmp_path}"]) == 0
    assert [str(each.message) for each in said] == []
    assert [record.getMessage() for record in caplog.records] == ["Seed set to 0"]
    out, err = capfd.readouterr()
    assert "<|im_end|> (generation_config, config, tokenizer, chat template)" in out  # what ends a completion
    assert "Loading weights" not in err


@pytest.mark.parametrize(
    ("module", "message", "heard"),
    [
        ("transformers.modeling_utils", "`is_gradient_checkpointing` is deprecated and will be removed in v6.", False),
        ("transformers.modeling_utils", "`attention_mask` is wrong", True),
        ("lightning.pytorch.utilities.data", "Total length of `list` across ranks is zero.", False),
        ("lightning.pytorch.utilities.data_too", "Total length of `list` across ranks is zero.", True),
    ],
)
def test_only_the_expected_warnings_are_silenced(module, message, heard):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        quiet()
        warnings.warn_explicit(message, UserWarning, "file.py", 1, module=module)
    assert bool(said) == heard


def test_other_lines_of_bitsandbytes_and_other_bars_are_seen(caplog, capfd):
    quiet()
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    log.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "no")
    log.warning("Something else failed")
    assert caplog.messages == ["Something else failed"]
    list(tqdm(range(3), desc="Loading weights"))
    list(tqdm(range(3), desc="Fetching 3 files"))
    error = capfd.readouterr().err
    assert "Loading weights" not in error
    assert "Fetching 3 files" in error


def test_plan_says_what_fits_without_loading_or_writing_anything(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    big = ["plan", "--config", str(ROOT / "configs" / "qwen2.5-7b.yaml")]
    assert main([*big, "--vram", "12"]) == 0
    fits = capsys.readouterr().out
    assert "Qwen/Qwen2.5-7B-Instruct on a GPU with 12 GB" in fits
    assert "of 12.00: fits" in fits
    assert main([*big, "--vram=6", "--trainer.default_root_dir=taken"]) == 1
    assert "does not fit, by" in capsys.readouterr().out
    assert main(["plan", "--config", str(QUICKSTART), "--model.token_budget=300"]) == 0
    assert "token_budget: 300" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("vram", ["x", "0", "-1"])
def test_a_gpu_without_size_is_refused(capfd, vram):
    assert "vram" in refused(capfd, ["plan", "--config", str(QUICKSTART), f"--vram={vram}"])


def test_the_levels_of_a_task_are_shown_with_what_each_changes(capsys):
    assert main(["tasks", "chain_sum", "--levels"]) == 0
    text = capsys.readouterr().out
    assert "Level 0: min_terms: 2, max_terms: 2, min_digits: 1, max_digits: 1\n" in text
    assert "Level 10: min_terms: 11 -> 12, max_terms: 11 -> 12\n" in text
    assert text.count("Answer: ") == 11
    assert main(["tasks", "base_conversion", "--levels"]) == 0
    assert "Left out: level 4: the same as the level before" in capsys.readouterr().out


def test_a_prompt_is_shown_as_the_model_reads_it(capsys, tmp_path):
    config = yaml.safe_load(QUICKSTART.read_text())
    config["data"] |= {"examples": 2, "prefill": "<think>", "system_prompt": "Sums."}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["tasks", "chain_sum", "--prompt", "--config", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("<|system|>Sums.<|im_end|><|user|>")
    assert out.count("<|assistant|><think>") == 3
    prompt, _, said = out.rpartition("\n\n")
    assert prompt.endswith("<|assistant|><think>")
    tokens = load_tokenizer("tiny")(prompt, add_special_tokens=False)["input_ids"]
    assert said == f"{len(tokens)} tokens; the model continues after the last character above\n"
    second = tmp_path / "second.yaml"
    second.write_text("data: {prefill: So}")
    of = ["--config", str(path), "--config", str(second), "--data.examples=1"]
    assert main(["tasks", "chain_sum", "--prompt", *of]) == 0
    out = capsys.readouterr().out
    assert (out.count("<|assistant|>"), out.count("<|assistant|>So\n\n")) == (2, 1)
    of = ["--config", str(path), "--data.prefill=It", "--config", str(second), "--data.examples_for=sft_steps"]
    assert main(["tasks", "chain_sum", "--prompt", *of]) == 0
    out = capsys.readouterr().out
    assert out.count("<|assistant|>So\n\n") == 2  # the later of two settings, as in fit
    assert out.count("<|assistant|>") == 1 + 3
    assert "tokens in the samples of model.sft_steps" in out


def test_a_secret_in_the_settings_is_named_and_is_in_no_checkpoint(tmp_path, monkeypatch, caplog):
    (tmp_path / "my_judge.py").write_text(
        "from rl_lightning.scoring import Reward\n\n\nclass Judge(Reward):\n    def __init__(self, api_key: str) -> None:\n"
        "        self.api_key = api_key\n\n    def __call__(self, problem, completion, score):\n"
        "        return float(len(completion))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    judge = "--model.reward={class_path: my_judge.Judge, init_args: {api_key: hunter2}}"
    words = ["--trainer.max_steps=1", "--data.eval_num_samples=1", judge]
    assert main(["fit", "--config", "quickstart", *words, f"--trainer.default_root_dir={tmp_path / 'run'}"]) == 0
    assert "config.yaml has the setting api_key, which looks like a secret" in caplog.text
    assert "hunter2" in (tmp_path / "run" / "config.yaml").read_text()
    files = list((tmp_path / "run" / "checkpoint-1").iterdir())
    assert len(files) > 3
    assert not [file.name for file in files if b"hunter2" in file.read_bytes()]
