"""pytest tests/convert/test_bad_folders.py: whatever is wrong with a source, an output or a checkpoint is said
with its remedy and exit code 2, all of it at once, and nothing is left behind."""

import errno
import json
import shutil

import huggingface_hub
import pytest
import torch

from convert import check, from_hf, tensor_files, to_hf
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import store


def refused(capsys, command, *args) -> str:
    """Runs a command that must end with code 2; returns its message."""
    assert command.main([str(arg) for arg in args]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and "Traceback" not in error
    return error


@pytest.fixture
def checkpoint(folders):
    from_hf.convert(folders.make(), folders.root / "checkpoint")
    return folders.root / "checkpoint"


def test_every_wrong_tensor_is_named_at_once(folders, capsys):
    def edit(tensors):
        del tensors["model.norm.weight"]
        del tensors["model.layers.1.mlp.up_proj.weight"]
        tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(40)
        tensors["model.layers.3.mlp.up_proj.weight"] = torch.zeros(40, 24)
        tensors["model.layers.0.self_attn.k_proj.weight"] = torch.zeros(24, 20, dtype=torch.bfloat16)
        tensors["model.layers.2.mlp.down_proj.weight"] = torch.zeros(24, 40, dtype=torch.int8)

    source = folders.make(edit=edit)
    error = refused(capsys, from_hf, "--source", source, "--output", folders.root / "out")
    for part in (
        "6 differ",
        "missing model.norm.weight [24]",
        "missing model.layers.1.mlp.up_proj.weight [40, 24]",
        "unknown model.layers.0.self_attn.q_proj.bias [40]",
        "unknown model.layers.3.mlp.up_proj.weight",
        "model.layers.0.self_attn.k_proj.weight has shape [24, 20], config.json makes it [20, 24]",
        "model.layers.2.mlp.down_proj.weight is stored as I8",
    ):
        assert part in error
    assert [entry.name for entry in folders.root.iterdir()] == ["source"]


def test_stale_tied_head_is_refused(folders, capsys):
    def edit(tensors):
        tensors["lm_head.weight"][7, 3] += 1

    source = folders.make(redundant_head=True, edit=edit)
    error = refused(capsys, from_hf, "--source", source, "--output", folders.root / "out")
    assert "1 of 277 rows" in error and "tie_word_embeddings" in error


def test_damaged_files_are_refused(folders, capsys):
    source = folders.make(num_shards=2)
    shard, index = source / "model-00002-of-00002.safetensors", source / "model.safetensors.index.json"
    whole, whole_index = shard.read_bytes(), json.loads(index.read_text())
    first = next(iter(whole_index["weight_map"]))
    moved = whole_index["weight_map"] | {first: shard.name}
    for message, damage in {
        "cut off": lambda: shard.write_bytes(whole[:-100]),
        "Git LFS": lambda: shard.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0"),
        "header": lambda: shard.write_bytes(whole[:8] + b"}" + whole[9:]),
        "are missing": lambda: shard.unlink(),
        f"{first} is not in": lambda: index.write_text(json.dumps({"weight_map": moved})),
        "is not JSON": lambda: index.write_text("{"),
        "neither model.safetensors nor": lambda: index.unlink(),
        "config.json does not exist": lambda: (source / "config.json").unlink(),
    }.items():
        shard.write_bytes(whole)
        index.write_text(json.dumps(whole_index))
        damage()
        assert message in refused(capsys, from_hf, "--source", source, "--output", folders.root / "out")
    assert not (folders.root / "out").exists()


def test_output_that_is_not_empty_is_not_touched(folders, capsys, checkpoint):
    output = folders.root / "taken"
    output.mkdir()
    (output / "mine").write_text("precious")
    sources = {from_hf: ("--source", folders.root / "source"), to_hf: ("--checkpoint", checkpoint)}
    for command, args in sources.items():
        assert "not empty" in refused(capsys, command, *args, "--output", output)
        assert [file.read_text() for file in output.iterdir()] == ["precious"]


def test_full_disk_is_found_before_anything_is_written(folders, capsys, checkpoint, monkeypatch):
    usage = shutil.disk_usage(folders.root)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    before = sorted(folders.root.iterdir())
    sources = {from_hf: ("--source", folders.root / "source"), to_hf: ("--checkpoint", checkpoint)}
    for command, args in sources.items():
        error = refused(capsys, command, *args, "--output", folders.root / "out")
        assert " 0.0 MB free" in error and "needs 50.0 MB" in error
    assert sorted(folders.root.iterdir()) == before


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_export_that_dies_half_way_leaves_nothing(error, folders, capsys, checkpoint, monkeypatch):
    calls = []

    def restore(opened, names):
        calls.append(names)
        if len(calls) > 3:
            raise error
        return store_restore(opened, names)

    store_restore = store.restore_params
    monkeypatch.setattr(store, "restore_params", restore)
    before = sorted(folders.root.iterdir())
    args = ["--checkpoint", checkpoint, "--output", folders.root / "out"]
    if isinstance(error, OSError):
        assert "filled up while 50.0 MB" in refused(capsys, to_hf, *args)
    else:
        with pytest.raises(KeyboardInterrupt):
            to_hf.main([str(arg) for arg in args])
    assert len(calls) > 3 and sorted(folders.root.iterdir()) == before


def test_rest_of_a_killed_attempt_is_cleared(folders, checkpoint):
    (folders.root / ".out.partial").mkdir()
    (folders.root / ".out.partial" / "half").write_text("")
    (folders.root / "out").mkdir()  # an empty folder may be the output
    to_hf.convert(checkpoint, folders.root / "out")
    assert not (folders.root / ".out.partial").exists()
    names = [file.name for file in (folders.root / "out").iterdir()]
    assert "model.safetensors" in names and "half" not in names


def test_source_without_tokenizer_is_refused(folders, capsys):
    source = folders.make()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (source / name).unlink()
    assert "no tokenizer" in refused(capsys, from_hf, "--source", source, "--output", folders.root / "out")


def test_tokenizer_without_end_of_turn_is_refused(folders, capsys, checkpoint):
    for name in ("tokenizer.json", "tokenizer_config.json"):
        path = checkpoint / "tokenizer" / name
        path.write_text(path.read_text().replace("<|im_end|>", "<|other|>"))
    args = ("--checkpoint", checkpoint, "--output", folders.root / "out")
    assert "or delete checksums.json there if it was on purpose" in refused(capsys, to_hf, *args)
    (checkpoint / "tokenizer" / "checksums.json").unlink()
    assert "lacks <|im_end|>" in refused(capsys, to_hf, *args)


def test_unreachable_hub_and_wrong_names_are_refused(folders, capsys, monkeypatch):
    def no_network(*args, **kwargs):
        assert {"config.json", "tokenizer.json", "model*.safetensors"} <= set(kwargs["allow_patterns"])
        raise OSError("no network here")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", no_network)
    args = ("--output", folders.root / "out", "--source")
    error = refused(capsys, from_hf, *args, "Qwen/Qwen3-1.7B-Base")
    assert "no network here" in error and "give the folder" in error
    assert "does not exist" in refused(capsys, from_hf, *args, "/no/such/folder")


def test_hub_id_is_downloaded_and_converted(folders, monkeypatch):
    source = folders.make()
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **kwargs: str(source))
    from_hf.convert("Qwen/Qwen3-1.7B-Base", folders.root / "checkpoint")
    assert store.open_checkpoint(folders.root / "checkpoint").meta["base_model"] == "Qwen/Qwen3-1.7B-Base"


def test_unsupported_model_is_refused_by_name(folders, capsys):
    source = folders.make()
    config = json.loads((source / "config.json").read_text())
    for key, value, message in (
        ("model_type", "qwen3_moe", "qwen3_moe"),
        ("attention_bias", True, "attention_bias"),
    ):
        (source / "config.json").write_text(json.dumps(config | {key: value}))
        for command, args in ((from_hf, ("--output", folders.root / "out")), (check, ())):
            assert message in refused(capsys, command, "--source", source, *args)


def test_missing_incomplete_and_damaged_checkpoints_are_refused(folders, capsys, checkpoint):
    def error(path):
        return refused(capsys, to_hf, "--checkpoint", path, "--output", folders.root / "out")

    assert "is not a folder" in error(folders.root / "nowhere")
    assert "it holds" in error(folders.root / "source") and "config.json" in error(folders.root / "source")
    shutil.copytree(checkpoint / "0", checkpoint / "7")
    shutil.copytree(checkpoint / "0", checkpoint / "9")
    files = [file for file in (checkpoint / "9" / "params").rglob("*") if file.is_file()]
    data = max(files, key=lambda file: file.stat().st_size)
    data.write_bytes(data.read_bytes()[:1000])
    assert "use step 7" in error(checkpoint)  # the latest cannot be read
    shutil.rmtree(checkpoint / "9" / "params")
    assert "it has no params" in error(checkpoint) and "use step 7" in error(checkpoint / "9")
    shutil.rmtree(checkpoint / "9")
    (checkpoint / "7").rename(checkpoint / "7.orbax-checkpoint-tmp")
    assert store.open_checkpoint(checkpoint).step_folder.name == "0"  # what was not committed is not seen
    shutil.rmtree(checkpoint / "0")
    assert "A save was interrupted: 7.orbax-checkpoint-tmp" in error(checkpoint)
    assert not (folders.root / "out").exists()


def test_checkpoint_of_another_shape_is_refused(folders, checkpoint):
    opened = store.open_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"no parameter layers\.9\.attn\.q"):
        store.restore_params(opened, ["embed", "layers.9.attn.q"])
    opened.meta["model_config"]["num_hidden_layers"] = 4
    with pytest.raises(UserError, match=r"missing layers\.3\.attn\.q"):
        to_hf.check_params(opened)


def test_header_of_absurd_size_does_not_fill_memory(tmp_path):
    file = tmp_path / "model.safetensors"
    file.write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with pytest.raises(UserError, match="announce a header"):
        tensor_files.read_header(file)
