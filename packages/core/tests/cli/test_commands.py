"""The commands that need no task package, in this process: what they print, and how mistakes end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from opsin.core.cli import main
from opsin.core.cli.doctor import look_over
from opsin.core.errors import UserError
from opsin.core.models import create_model

CASES = Path(__file__).parents[1] / "parity"


def _run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def _refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of a mistake."""
    code, _, err = _run(capsys, *arguments)
    assert code == 2
    assert err.startswith("opsin: ") and err.count("\n") == 1 and "Traceback" not in err
    return err


def test_systems_and_models_are_listed_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "systems", "--task", "core", "--json")
    assert code == 0 and {"convnext", "vim"} <= {row["slug"] for row in json.loads(out)}
    code, out, _ = _run(capsys, "models", "convnext_*", "--json")
    assert code == 0 and "convnext_tiny" in json.loads(out)


def test_info_gives_the_published_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """28,589,128 parameters and 4.5 G multiply-adds are the paper's for ConvNeXt-T."""
    code, out, _ = _run(capsys, "info", "convnext_tiny", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["parameters"] == 28_589_128
    assert 4.3e9 < facts["multiply_adds"] < 4.6e9
    assert [stage["stride"] for stage in facts["stages"]] == [4, 8, 16, 32]


def test_info_counts_the_selective_scan(capsys: pytest.CaptureFixture[str]) -> None:
    """1.5 G multiply-adds are the paper's for Vim-Ti; without the scan they would be 1.3 G."""
    _, out, _ = _run(capsys, "info", "vim_tiny", "--json")
    assert 1.45e9 < json.loads(out)["multiply_adds"] < 1.65e9


def test_parity_prints_one_list_and_goes_on_after_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    block = CASES / "convnext" / "convnext-block.json"
    code, out, _ = _run(capsys, "parity", "--json", "missing.json", block)
    first, second = json.loads(out)
    assert code == 1
    assert set(first) == {"system", "case", "worst", "tolerance", "ok", "error"}
    assert not first["ok"] and "missing.json" in first["error"]
    assert second["ok"] and second["error"] is None and second["worst"] <= second["tolerance"]
    assert _run(capsys, "parity", block)[0] == 0


def test_convert_writes_what_the_published_file_holds(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = create_model("convnext_tiny", num_classes=3)
    torch.save({"model": model.state_dict()}, tmp_path / "published.pth")
    out = tmp_path / "ours.safetensors"
    code, _, _ = _run(
        capsys, "convert", "convnext_tiny", tmp_path / "published.pth", out, "--set", "num_classes=3"
    )
    assert code == 0
    assert torch.equal(load_file(out)["head.weight"], model.head.weight)
    line = _refused(
        capsys, "convert", "convnext_small", tmp_path / "published.pth", tmp_path / "no.safetensors"
    )
    assert "is not for ConvNeXtClassifier" in line and not (tmp_path / "no.safetensors").exists()


def test_export_writes_a_program_that_computes_the_same(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    out = tmp_path / "model.pt2"
    code, _, _ = _run(capsys, "export", "convnext_tiny", out, "--height", 64, "--width", 96)
    assert code == 0
    logits = torch.export.load(out).module()(torch.rand(1, 3, 64, 96))
    assert logits.shape == (1, 1000)


def test_benchmark_measures_each_model_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "benchmark", "convnext_tiny", "--size", 64, "--runs", 1, "--json")
    (row,) = json.loads(out)
    assert code == 0 and row["model"] == "convnext_tiny" and row["milliseconds"] > 0


def test_doctor_finds_nothing_to_mend_here(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = _run(capsys, "doctor", "--json")
    assert code == 0 and {row["what"] for row in json.loads(out)} >= {
        "python",
        "torch",
        "mmcv._ext",
        "opencv",
    }


def test_doctor_looks_folders_over_by_checks_and_survives_a_broken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "checks_of_mine.py").write_text(
        "from opsin.core.cli.doctor import Finding\n"
        "def names(folders): return [Finding('names', folder.name, 'mend') for folder in folders]\n"
        "def broken(folders): raise ValueError(folders)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    found = look_over([tmp_path], ["checks_of_mine:broken", "checks_of_mine:names"])
    assert [f.found for f in found] == ["broken: ValueError", tmp_path.name]
    with pytest.raises(UserError, match="no folder"):
        look_over([tmp_path / "none"], [])


@pytest.mark.parametrize(
    "arguments, expected",
    [
        (("train", "retinanet_convnext_sample"), "unknown config 'retinanet_convnext_sample'"),
        (("train", "configs/missing.py"), "no config at configs/missing.py"),
        (("info", "vim_tinny"), "did you mean vim_tiny"),
        (("models", "zz*"), "unknown model 'zz*'"),
        (("systems", "--task", "detektion"), "unknown task 'detektion'"),
        (("samples", "klassification", "x"), "unknown task 'klassification'; did you mean classification"),
        (("trane",), "No such command 'trane'"),
        (("train",), "Missing argument 'CONFIG'"),
        (("convert", "convnext_tiny", "missing.pth", "out.safetensors"), "no checkpoint at missing.pth"),
        (("convert", "convnext_tiny", "missing.pth", "out.bin"), "should end in .safetensors"),
        (("export", "convnext_tiny", "out.exe"), "should end in .pt2 or .onnx"),
        (("new-task", "Not-A-Name!"), "can't name a task"),
        (("new-task", "classification"), "a task 'classification' is installed already"),
    ],
)
def test_mistake_ends_in_one_line(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert expected in _refused(capsys, *arguments)
    assert not list(tmp_path.iterdir())


def test_shell_completion_offers_configs_models_and_tasks() -> None:
    """As bash asks for it, with what `opsin --install-completion bash` puts into its start-up file."""
    for words, expected in (
        ("opsin train retinanet_", "retinanet_convnext_samples"),
        ("opsin info vim_t", "vim_tiny"),
        ("opsin samples seg", "segmentation"),
        ("opsin tra", "train"),
    ):
        environment = {
            **os.environ,
            "_OPSIN_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        command = [str(Path(sys.executable).with_name("opsin"))]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert expected in done.stdout.split(), done


def test_debug_shows_where_a_mistake_was_found() -> None:
    from opsin.core.errors import UserError

    with pytest.raises(UserError):
        main(["info", "vim_tinny", "--debug"])
