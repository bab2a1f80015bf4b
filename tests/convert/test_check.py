"""pytest tests/convert/test_check.py: right passes, wrong fails, and what was not done is said."""

import json

import numpy as np
import pytest
import torch

from convert import check, from_hf, mapping, to_hf
from convert.card import Card
from tiny_reasoning_jax.model import rope


@pytest.fixture
def source(folders):
    return folders.make(num_shards=2, redundant_head=True)


@pytest.fixture
def logits_only(monkeypatch):
    """Leaves out greedy decoding, which compiles for seconds."""
    monkeypatch.setattr(check, "MAX_GREEDY_PARAMETERS", 0)


def run(capsys, source, *args) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit code, and name -> (outcome, detail) as printed."""
    code = check.main(["--source", str(source), *map(str, args)])
    lines = capsys.readouterr().out.splitlines()[:-1]
    return code, {line[9:31].strip(): (line[:8].strip(), line[31:]) for line in lines}


def test_good_folder_checkpoint_and_export_pass(source, folders, capsys):
    from_hf.convert(source, folders.root / "checkpoint")
    to_hf.convert(folders.root / "checkpoint", folders.root / "hf")
    for folder in (source, folders.root / "hf"):
        code, checks = run(capsys, folder, "--checkpoint", folders.root / "checkpoint")
        assert code == 0, checks
        assert all(outcome == "ok" for outcome, _ in checks.values()), checks
        assert len(checks) == 8 and "64 greedy tokens equal" in checks["against transformers"][1]
    assert "<|im_end|> (" in checks["stop tokens"][1] and "<|endoftext|> (" in checks["stop tokens"][1]


def failures(capsys, source, *args) -> set[str]:
    code, checks = run(capsys, source, *args)
    failed = {name for name, (outcome, _) in checks.items() if outcome == "FAILED"}
    assert code == (1 if failed else 0)
    return failed


def test_other_parameters_in_the_checkpoint_fail(source, folders, capsys, logits_only):
    def edit(tensors):
        tensors["model.layers.1.mlp.up_proj.weight"][3, 4] *= 1.01

    from_hf.convert(folders.make("other", edit=edit), folders.root / "checkpoint")
    assert failures(capsys, source, "--checkpoint", folders.root / "checkpoint") == {"checkpoint"}


def test_wrong_mathematics_fail(source, capsys, monkeypatch, logits_only):
    angles = rope.rope_angles
    monkeypatch.setattr(rope, "rope_angles", lambda positions, size, theta: angles(positions, size, 1.001 * theta))
    assert failures(capsys, source) == {"against transformers"}


def test_wrong_mapping_fails(source, capsys, monkeypatch, logits_only):
    """Swapped axes of equal size: shapes fit and the round trip is byte-equal, only the logits know."""
    swapped = [row for row in mapping.TABLE if "mlp.gate" not in row[2] and "mlp.up" not in row[2]]
    gate, up = (row for row in mapping.TABLE if row not in swapped)
    swapped += [(gate[0], gate[1], up[2], up[3]), (up[0], up[1], gate[2], gate[3])]
    monkeypatch.setattr(mapping, "TABLE", (swapped[0], *swapped[1:-4], *swapped[-2:], *swapped[-4:-2]))
    assert failures(capsys, source) == {"against transformers"}


def test_what_readers_trip_over_fails(source, folders, capsys, monkeypatch):
    monkeypatch.setattr(check, "_check_against_transformers", lambda folder, spec: "not looked at here")
    (source / "pytorch_model.bin").write_bytes(b"")
    assert failures(capsys, source) == {"files"}
    (source / "pytorch_model.bin").unlink()
    path = source / "generation_config.json"
    path.write_text(json.dumps({"eos_token_id": 3}))
    assert failures(capsys, source) == {"stop tokens"}
    path.unlink()  # config.json says it then
    assert failures(capsys, source) == set()
    (source / "chat_template.jinja").write_text("another")
    assert failures(capsys, source) == {"tokenizer"}
    tensors = folders.make("torn", edit=lambda tensors: tensors.pop("model.norm.weight"))
    assert failures(capsys, tensors) == {"tensors", "round trip"}


def test_without_torch_it_says_that_logits_were_not_compared(source, capsys, monkeypatch):
    find_spec = check.importlib.util.find_spec
    monkeypatch.setattr(check.importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name))
    code, checks = run(capsys, source)
    assert code == 0 and checks["against transformers"][0] == "skipped"
    assert "logits were NOT compared" in checks["against transformers"][1]


def test_export_of_float32_weights_is_what_the_check_expects(folders, capsys, logits_only):
    """The export of weights that had to be rounded holds the rounded ones."""
    loaded = from_hf.load_hf(folders.make(dtype=torch.float32, tie_word_embeddings=False))
    to_hf.export_hf(
        folders.root / "hf",
        lambda name: np.asarray(loaded.params[name]),
        hf_config=loaded.hf_config,
        generation_config=loaded.generation_config,
        tokenizer_folder=folders.tokenizer_folder,
        card=Card("random"),
    )
    assert failures(capsys, folders.root / "hf") == set()
