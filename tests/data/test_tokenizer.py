"""pytest tests/data/test_tokenizer.py: a trained tokenizer is Qwen's in small; a given one stays as it is."""

import hashlib
import json
import subprocess
import sys

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from tiny_reasoning_jax.data import chat
from tiny_reasoning_jax.data.tokenizer import (
    copy_tokenizer,
    find_tokenizer,
    hash_tokenizer,
    load_tokenizer,
    train_tokenizer,
)
from tiny_reasoning_jax.errors import UserError

TEXTS = [
    f"<|im_start|>user\nWhat is {a} + {b}?<|im_end|>\n<|im_start|>assistant\n<think>\nAdd the tens of {a} "
    f"and {b}, then the ones.\n</think>\n\n\\boxed{{{a + b}}}<|im_end|>\n"
    for a in range(10, 30)
    for b in range(10, 30)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained")
    train_tokenizer(iter(TEXTS), 400, path)
    return path


def file_hashes(folder) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_special_tokens_come_last_in_qwens_order(folder):
    tokenizer = load_tokenizer(folder)
    size = len(tokenizer)
    assert 256 + len(chat.SPECIAL_TOKENS) < size <= 400
    assert tokenizer.convert_tokens_to_ids(list(chat.SPECIAL_TOKENS)) == list(range(size - 5, size))
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.bos_token is None and tokenizer.unk_token is None
    chat.check_tokenizer(tokenizer)


@pytest.mark.parametrize("text", ["plain", "  two  spaces\n\n\ttab", "½ of ∀x 漢字 🙂", "it's 1,234.50", "\x00\r\n"])
def test_any_text_survives_encoding_and_decoding(folder, text):
    tokenizer = load_tokenizer(folder)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text


def test_every_digit_is_a_token_and_words_are_cut_as_qwen_cuts_them(folder, shared_data):
    text = "Add 1234 and 56, then don't \\boxed{1290}!\n\n  Done...\n x² = 4\r\n\tend "
    ours, qwen = (load_tokenizer(f).backend_tokenizer for f in (folder, shared_data / "qwen3_tokenizer"))
    assert ours.pre_tokenizer.pre_tokenize_str(text) == qwen.pre_tokenizer.pre_tokenize_str(text)
    assert ours.normalizer.normalize_str("e\u0301") == qwen.normalizer.normalize_str("e\u0301") == "é"
    tokens = load_tokenizer(folder).tokenize("1234")
    assert tokens == ["1", "2", "3", "4"]


def test_no_merge_is_spent_on_special_tokens(folder):
    vocabulary = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    assert not any("<|" in word or "|>" in word or "think" in word for word in vocabulary)
    tokens = load_tokenizer(folder).tokenize("<|im_start|>user\n")
    assert tokens == ["<|im_start|>", "user", "Ċ"]


def test_think_tags_survive_skipping_special_tokens_as_in_qwen3(folder, shared_data):
    for source in (folder, shared_data / "qwen3_tokenizer"):
        tokenizer = load_tokenizer(source)
        ids = tokenizer("<think>a</think><|im_end|>", add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>a</think>"


def test_files_are_readable_by_old_and_new_transformers(folder):
    assert sorted(file_hashes(folder)) == [
        "chat_template.jinja",
        "special_tokens_map.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    config = json.loads((folder / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["chat_template"] == (folder / "chat_template.jinja").read_text() == chat.CHAT_TEMPLATE
    assert json.loads((folder / "special_tokens_map.json").read_text())["eos_token"] == "<|im_end|>"


def test_the_same_texts_give_the_same_files_in_another_process(folder, tmp_path):
    program = (
        "import sys; sys.path[:0] = sys.argv[2:]; from pathlib import Path\n"
        "from tests.data.test_tokenizer import TEXTS\n"
        "from tiny_reasoning_jax.data.tokenizer import train_tokenizer\n"
        "train_tokenizer(TEXTS, 400, Path(sys.argv[1]))\n"
    )
    root = str(__file__).rsplit("/tests/", 1)[0]
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "other"), root], check=True)
    assert file_hashes(tmp_path / "other") == file_hashes(folder)


def test_texts_without_repetition_give_the_bytes_and_special_tokens(tmp_path):
    assert len(train_tokenizer([], 400, tmp_path)) == 256 + len(chat.SPECIAL_TOKENS)


def test_a_vocabulary_below_the_bytes_is_refused(tmp_path):
    with pytest.raises(UserError, match="vocab_size=260 is too small.*261"):
        train_tokenizer(TEXTS, 260, tmp_path)


def test_a_copy_is_byte_for_byte_and_takes_nothing_else_along(folder, tmp_path):
    source = tmp_path / "source"
    copy_tokenizer(folder, source)
    (source / "merges.txt").write_text("#version: 0.2\n")
    (source / "model.safetensors").write_bytes(b"weights")
    before = file_hashes(source)
    copy_tokenizer(source, tmp_path / "copy")
    assert file_hashes(tmp_path / "copy") == {k: v for k, v in before.items() if k != "model.safetensors"}
    assert hash_tokenizer(source) == hash_tokenizer(tmp_path / "copy")
    (tmp_path / "copy" / "chat_template.jinja").write_text("another")
    assert hash_tokenizer(source) != hash_tokenizer(tmp_path / "copy")


def test_the_real_tokenizer_has_qwen3s_ids(shared_data):
    tokenizer = load_tokenizer(shared_data / "qwen3_tokenizer")
    ids = tokenizer.convert_tokens_to_ids(list(chat.SPECIAL_TOKENS))
    assert ids == [151643, 151644, 151645, 151667, 151668]
    assert len(tokenizer) == 151669
    chat.check_tokenizer(tokenizer)


@pytest.mark.parametrize("source", ["./nowhere", "/nowhere/at/all", "nowhere", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(source, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: pytest.fail("went to the hub"))
    with pytest.raises(UserError, match="does not exist.*procedural"):
        find_tokenizer(source)


def test_a_hub_id_fetches_tokenizer_files_only(folder, monkeypatch, tmp_path):
    asked = {}

    def download(hub_id, allow_patterns):
        asked[hub_id] = allow_patterns
        return str(folder)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert find_tokenizer("Qwen/Qwen3-1.7B-Base") == folder
    assert "tokenizer.json" in asked["Qwen/Qwen3-1.7B-Base"]
    assert not any("*" in pattern or "safetensors" in pattern for pattern in asked["Qwen/Qwen3-1.7B-Base"])


def test_a_hub_that_does_not_answer_is_told_with_the_remedy(monkeypatch, tmp_path):
    def fail(*args, **kwargs):
        raise LocalEntryNotFoundError("cannot reach the hub\nmore lines")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="'Qwen/Qwen3-1.7B-Base'.*cannot reach the hub; check the name and the network"):
        load_tokenizer("Qwen/Qwen3-1.7B-Base")


def test_a_folder_without_tokenizer_or_with_a_damaged_one_is_refused(folder, tmp_path):
    with pytest.raises(UserError, match="neither tokenizer.json nor vocab.json"):
        load_tokenizer(tmp_path)
    copy_tokenizer(folder, tmp_path / "damaged")
    text = (folder / "tokenizer.json").read_text()
    (tmp_path / "damaged" / "tokenizer.json").write_text(text[: len(text) // 2])
    with pytest.raises(UserError, match="cannot be read"):
        load_tokenizer(tmp_path / "damaged")
