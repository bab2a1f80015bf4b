"""pytest tests/fuzz/test_untrusted.py: a stranger's files run no code, reach no other folder, use up no memory."""

import json
import os
import pickle
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import fuzz_readers
import numpy as np
import pytest

from convert import from_hf, hf_folder, tensor_files, to_hf
from tiny_reasoning_jax.data import chat, template
from tiny_reasoning_jax.data import tokenizer as tokenizers
from tiny_reasoning_jax.data.prepared import PreparedSplit
from tiny_reasoning_jax.data.problems import dump_problem
from tiny_reasoning_jax.data.sources import read_source
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import store
from tiny_reasoning_jax.model.spec import hf_config, parse_hf_config


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A whole model folder: configuration, two shards with their index, tokenizer."""
    folder = tmp_path_factory.mktemp("source") / "model"
    folder.mkdir()
    for write in (fuzz_readers._write_config, fuzz_readers._write_shards, fuzz_readers._write_tokenizer):
        write(folder)
    return folder


@pytest.fixture
def given(model, tmp_path):
    return shutil.copytree(model, tmp_path / "given")


class Planted:
    """Pickled, it makes a file where it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.fixture
def planted(given, tmp_path):
    """Puts into the folder all that transformers and torch could be brought to run; returns what would appear."""
    sign = tmp_path / "pwned"
    code = f"import os\nos.mkdir({str(sign)!r})\nclass Own: pass\n"
    for name in ("modeling_own.py", "tokenization_own.py", "configuration_own.py", "tokenizer.py"):
        (given / name).write_text(code)
    for name in ("pytorch_model.bin", "model.bin", "vocab.pkl", "training_args.bin"):
        (given / name).write_bytes(pickle.dumps(Planted(sign)))
    for name, classes in {
        "config.json": {"AutoConfig": "configuration_own.Own", "AutoModelForCausalLM": "modeling_own.Own"},
        "tokenizer_config.json": {"AutoTokenizer": ["tokenization_own.Own", "tokenization_own.Own"]},
    }.items():
        config = json.loads((given / name).read_text())
        (given / name).write_text(json.dumps(config | {"auto_map": classes, "tokenizer_class": "Own"}))
    pickle.loads((given / "vocab.pkl").read_bytes())  # the bait is alive
    sign.rmdir()
    return sign


def test_a_folder_with_code_and_pickles_is_read_without_them(given, planted, tmp_path):
    from_hf.convert(given, tmp_path / "out")
    chat.check_tokenizer(tokenizers.load_tokenizer(given))
    to_hf.convert(tmp_path / "out", tmp_path / "hf")
    assert not planted.exists()
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".py", ".bin") and given not in path.parents]


def test_a_tokenizer_without_tokenizer_json_does_not_choose_its_class(given, planted, monkeypatch):
    whole = json.loads((given / "tokenizer.json").read_text())["model"]
    (given / "vocab.json").write_text(json.dumps(whole["vocab"]))
    (given / "merges.txt").write_text("".join(" ".join(pair) + "\n" for pair in whole["merges"]))
    (given / "tokenizer.json").unlink()
    monkeypatch.setattr("builtins.input", lambda *_: "y")  # transformers asks at the terminal whether to run the code
    with pytest.raises(UserError, match="'Own'; without that file only Qwen2Tokenizer"):
        tokenizers.load_tokenizer(given)
    config = json.loads((given / "tokenizer_config.json").read_text())
    (given / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "Qwen2Tokenizer"}))
    assert tokenizers.load_tokenizer(given).encode("17")
    assert not planted.exists()


def test_weights_that_are_pickles_are_refused(given, planted):
    for path in given.glob("*.safetensors*"):
        path.unlink()
    with pytest.raises(UserError, match="Pickled weights"):
        from_hf.load_hf(given)
    assert not planted.exists()


def test_prepared_data_with_pickles_are_refused(tmp_path):
    fuzz_readers._write_prepared(tmp_path)
    planted = np.empty(12, object)
    planted[:] = [Planted(tmp_path / "pwned")] * 12
    for folder in (tmp_path / "full", tmp_path / "empty"):
        np.save(folder / "lengths.npy", planted, allow_pickle=True)
        with pytest.raises(UserError, match="is damaged"):
            PreparedSplit.load(folder)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "SecurityError"),
        ("{{ lipsum.__globals__['os'].mkdir('pwned') }}", "SecurityError|unsafe|Undefined"),
        ("{% include '/etc/passwd' %}", "TypeError"),
        ("{{ 'a' * 10**10 }}", "too much memory"),
        ("{% set a = 'xxxxxxxx' %}" + "{% set a = a ~ a %}" * 40, "too much memory"),
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "too much memory|more than"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ messages", "TemplateSyntaxError"),
        ("{{ '\\ud800' }}", "surrogates"),
        ("x" * 2_000_000, "2,000,000 characters"),
    ],
)
def test_a_template_has_bounds(text, message, monkeypatch, tmp_path):
    monkeypatch.setattr(template, "LIMIT_SECONDS", 1.5)
    before = set(template._ROOT.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        template.render(text, "somebody's", [{"role": "user", "content": "hi"}])
    assert "somebody's" in str(caught.value) and "Use one with Qwen3's template" in str(caught.value)
    assert set(template._ROOT.iterdir()) == before
    # Whatever it did to its process, the next one is served.
    assert template.render("{{ messages[0].content }}!", "x", [{"role": "user", "content": "hi"}]) == "hi!"


def test_a_foreign_template_gives_what_transformers_gives(model):
    tokenizer = tokenizers.load_tokenizer(model)
    tokenizer.chat_template = chat.CHAT_TEMPLATE + "{{ eos_token }}{{ messages | tojson }}"
    messages = [{"role": "user", "content": "1 < 2 «é»\n"}, {"role": "assistant", "content": "yes", "x": None}]
    expected = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=True)
    assert "<|im_end|>[" in expected and chat.apply_template(tokenizer, messages, enable_thinking=True) == expected


def change(path, edit):
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("name", ["../outside.safetensors", "sub/x", "..", "", ".", "a\0b", "x" * 300, 7, None, ["a"]])
def test_an_index_names_no_file_elsewhere(given, name):
    (given.parent / "outside.safetensors").write_bytes((given / "model-00002-of-00002.safetensors").read_bytes())
    index = given / tensor_files.INDEX_FILE
    change(index, lambda content: content["weight_map"].update({"model.norm.weight": name}))
    with pytest.raises(UserError, match="nothing outside it is read"):
        from_hf.load_hf(given)
    change(index, lambda content: content["weight_map"].update({"model.norm.weight": str(given / "config.json")}))
    with pytest.raises(UserError, match="nothing outside it is read"):
        from_hf.load_hf(given)


def test_prepared_data_name_no_shard_elsewhere(tmp_path):
    fuzz_readers._write_prepared(tmp_path)
    shards = tmp_path / "full" / "shards.json"
    shutil.copy(tmp_path / "full" / "tokens-00000.array_record", tmp_path / "tokens-00000.array_record")
    change(shards, lambda content: content[0].update(file="../tokens-00000.array_record"))
    with pytest.raises(UserError, match=r"shard 0 of shards.json is '../tokens"):
        PreparedSplit.load(tmp_path / "full")


@pytest.mark.parametrize("name", ["LICENSE", "merges.txt", "tokenizer.json"])
def test_a_link_out_of_the_folder_is_not_carried_into_an_export(given, tmp_path, name):
    secret = tmp_path / "id_rsa"
    secret.write_text((given / name).read_text() if (given / name).exists() else "secret")
    (given / name).unlink(missing_ok=True)
    (given / name).symlink_to(secret)
    with pytest.raises(UserError, match="is a link out of its folder"):
        from_hf.convert(given, tmp_path / "out")
    with pytest.raises(UserError, match="is a link out of its folder"):
        store.copy_carried_files(given, tmp_path / "copy")
    assert not (tmp_path / "out").exists() and not (tmp_path / "copy" / name).exists()


def test_the_links_of_the_hubs_cache_are_followed(given, tmp_path):
    blobs, snapshot = tmp_path / "hub" / "blobs", tmp_path / "hub" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted(given.iterdir())):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    from_hf.convert(snapshot, tmp_path / "out")
    assert not any(path.is_symlink() for path in (tmp_path / "out").rglob("*"))


@pytest.fixture
def frugal():
    """Neither memory nor time may go into what is refused."""
    tracemalloc.start()
    begin = time.process_time()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6 and time.process_time() - begin < 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 10**12}, "hidden_size=1000000000000 is too large"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000 is too large"),
        ({"vocab_size": 2**62}, "vocab_size=.* is too large"),
        ({"head_dim": 10**30}, "head_dim=.* is too large"),
        ({"hidden_size": "8"}, "hidden_size='8' must be a whole number"),
        ({"hidden_size": 8.5}, "hidden_size=8.5 must be a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers=True must be a whole number"),
        ({"hidden_size": ["x" * 10**6]}, "hidden_size=a JSON list must be"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps=nan must be above 0"),
        ({"rope_theta": float("inf"), "rope_parameters": None}, "rope_theta=inf must be a finite number"),
        ({"rope_theta": 10**400}, "rope_theta=1000.* must be a number"),
        ({"rope_parameters": [1]}, "rope_parameters=a JSON list must be an object"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings='false' must be true or false"),
        ({"layer_types": 7}, "sliding window"),
        ({"layer_types": [["x"]]}, "sliding window"),
        ({"max_position_embeddings": None, "model_type": {"a": 1}}, "model_type=a JSON dict is not supported"),
    ],
)
def test_a_config_cannot_announce_more_than_a_model_has(changes, message, frugal):
    with pytest.raises(UserError, match=message):
        parse_hf_config(hf_config(fuzz_readers.SPEC) | changes)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"shape": [10**9, 10**9], "data_offsets": [0, 2 * 10**18]}, "is cut off"),
        ({"shape": [10**9, 10**9]}, "bytes are set aside for a BF16 tensor"),
        ({"shape": [0, 2**62, 2**62], "data_offsets": [0, 0]}, "no possible shape"),
        ({"shape": [1] * 10**5}, "more than 8 axes"),
        ({"shape": [-1, -128]}, "no list of numbers from 0 on"),
        ({"shape": [8.0, 16.0]}, "no list of numbers from 0 on"),
        ({"data_offsets": [256, 0]}, "ends before it begins"),
        ({"data_offsets": [-256, 0]}, "no list of numbers from 0 on"),
        ({"data_offsets": [16, 272]}, "not next to the one before|cut off"),
        ({"dtype": ["BF16"]}, "has no dtype"),
    ],
)
def test_a_header_cannot_announce_what_the_file_does_not_hold(given, entry, message, frugal):
    path = given / "model-00001-of-00002.safetensors"
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["model.embed_tokens.weight"].update(entry)
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data[8 + length :])
    with pytest.raises(UserError, match=message):
        tensor_files.list_tensors(given)


def test_tensors_fill_the_file_once(given):
    path = given / "model-00001-of-00002.safetensors"
    data = path.read_bytes()
    path.write_bytes(data + b"and a program")
    with pytest.raises(UserError, match="13 bytes that belong to no tensor"):
        tensor_files.read_header(path)
    length = int.from_bytes(data[:8], "little")
    header = data[8 : 8 + length]
    first = header.index(b'"model.embed')
    twice = header[:first] + header[first : header.index(b"}", first) + 1] + b", " + header[first:]
    path.write_bytes(len(twice).to_bytes(8, "little") + twice + data[8 + length :])
    with pytest.raises(UserError, match="a name stands in it twice"):
        tensor_files.read_header(path)


def test_a_checkpoint_cannot_announce_more_than_its_files_hold(tmp_path, monkeypatch):
    fuzz_readers._write_checkpoint(tmp_path)
    opened = store.open_checkpoint(tmp_path / "run")
    huge = {name: shape.update(shape=(10**6, 10**6)) for name, shape in opened.shapes.items()}
    announced = f"{len(huge) * 2 * 10**12:,}"
    with pytest.raises(ValueError, match=f"announces {announced} bytes of parameters and its files have"):
        store._check_size(opened.step_folder / "params", huge)
    monkeypatch.setattr(store, "_MAX_EXPANSION", 0)
    monkeypatch.setattr(store, "_SMALL_BYTES", 0)
    with pytest.raises(UserError, match="cannot be used .*announces"):  # and it is asked when one is opened
        store.open_checkpoint(tmp_path / "run")


@pytest.mark.parametrize("change_meta", [{"model_config": None}, {"step": "0"}, {"base_model": "half \ud800"}, None])
def test_a_checkpoints_meta_is_not_believed(tmp_path, change_meta):
    fuzz_readers._write_checkpoint(tmp_path)
    path = tmp_path / "run" / "0" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    path.write_text(json.dumps(meta | change_meta if change_meta else [meta]))
    with pytest.raises(UserError, match="cannot be used"):
        store.open_checkpoint(tmp_path / "run")


def test_a_damaged_checkpoint_prints_no_traceback(tmp_path):
    program = """
import sys, time
from pathlib import Path
import fuzz_readers
from tiny_reasoning_jax.model import store
root = Path(sys.argv[1])
fuzz_readers._write_checkpoint(root)
manifest = root / "run" / "0" / "params" / "manifest.ocdbt"
data = bytearray(manifest.read_bytes())
data[len(data) // 2] ^= 1
manifest.write_bytes(data)
for _ in range(10):  # TensorStore's threads are not always late
    try:
        store.restore_params(store.open_checkpoint(root / "run"))
    except store.UserError as error:
        print(error, file=sys.stderr)
    time.sleep(0.1)
"""
    paths = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "cannot be used" in done.stderr and "Traceback" not in done.stderr


def test_a_file_name_need_not_be_text(tmp_path):
    name = os.fsencode(tmp_path) + b"/\xff\xed.jsonl"
    with open(name, "w") as file:
        file.write('{"question": "How many?", "answer": "4"}\n')
    for source in (str(tmp_path), os.fsdecode(name)):
        (record,) = read_source(source)
        assert b"\\\\xff\\\\xed.jsonl:1" in dump_problem(record)


class PanicException(BaseException):
    """As the tokenizers library raises it where its Rust panics."""


def test_a_panic_of_the_tokenizers_library_is_a_message(model, monkeypatch):
    import transformers

    tokenizer = tokenizers.load_tokenizer(model)
    for error in (PanicException("index out of bounds"), KeyboardInterrupt()):

        def fail(*_, error=error, **__):
            raise error

        expected = UserError if isinstance(error, PanicException) else KeyboardInterrupt
        monkeypatch.setattr(transformers.PreTrainedTokenizerFast, "from_pretrained", fail)
        with pytest.raises(expected, match="cannot be read: index out of bounds" if expected is UserError else None):
            tokenizers.load_tokenizer(model)

        class Backend:
            no_truncation = no_padding = lambda self: None
            encode_batch_fast = fail

        stand_in = type("Tokenizer", (), {"backend_tokenizer": Backend(), "name_or_path": "x"})()
        with pytest.raises(expected, match="cannot cut a text: index out" if expected is UserError else None):
            chat.encode_texts(stand_in, ["a"])
    assert tokenizer


def test_ids_with_gaps_are_refused(given):
    def edit(content):
        content["added_tokens"][0]["id"] = content["model"]["vocab"]["a"] = 10**9

    change(given / "tokenizer.json", edit)
    with pytest.raises(UserError, match="cannot be read"):
        tokenizers.load_tokenizer(given)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize(
    "text", ["[" * 10**5, '{"a": ' + "9" * 5000 + "}", '{"a": "\\ud800"}', "\xff", "[]", "", " " * 70_000_000]
)
def test_json_that_is_none_is_told_with_its_file(given, name, text):
    (given / name).write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=name):
        hf_folder.read_config(given)
        hf_folder.read_generation_config(given)
        hf_folder.special_token_ids(given)
