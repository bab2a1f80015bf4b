"""Tokenizers: finding one, training a small one, carrying one along unchanged.

It fetches nothing that a hub id did not ask for, and never rewrites a tokenizer that it was given: files are
copied byte for byte, because every tool that reads the exported model must cut text exactly as training did.
"""

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from tiny_reasoning_jax.data.chat import CHAT_TEMPLATE, END_OF_TURN, SPECIAL_TOKENS
from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.foreign import read_json, require_own, require_size

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
)

# Qwen's way of cutting text into words before BPE; a digit is always a word of its own.
_WORD_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def find_tokenizer(source: str | Path) -> Path:
    """Returns the folder with a tokenizer's files; for a hub id, after downloading those files and no others.

    Raises:
      UserError: no such folder, no tokenizer in it, or the hub did not give it.
    """
    folder = Path(source).expanduser()
    if not folder.is_dir():
        if not _HUB_ID.fullmatch(str(source)):
            raise UserError(
                f"tokenizer folder {str(source)!r} does not exist; give a folder with tokenizer.json, a hub "
                'id such as "Qwen/Qwen3-1.7B-Base", or tokenizer.source="procedural", which needs no files'
            )
        folder = _download(str(source))
    if not any((folder / name).is_file() for name in ("tokenizer.json", "vocab.json")):
        raise UserError(
            f"{str(source)!r} holds neither tokenizer.json nor vocab.json; give the folder with the "
            'tokenizer files or tokenizer.source="procedural", which needs none'
        )
    return folder


def load_tokenizer(source: str | Path):
    """Returns the transformers tokenizer of a local folder or hub id.

    Raises:
      UserError: it cannot be found, fetched or read.
    """
    folder = find_tokenizer(source)
    _refuse_odd_files(folder)
    import transformers  # takes seconds; a finished run should not wait for it

    # tokenizer.json as it stands: Qwen's own class takes the vocabulary out of it and builds the rest anew, more
    # slowly. Never AutoTokenizer: the class would be the folder's to choose, with code of the folder's if need be.
    has_all = (folder / "tokenizer.json").is_file()
    loader = transformers.PreTrainedTokenizerFast if has_all else transformers.Qwen2TokenizerFast
    try:
        tokenizer = loader.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        ids = tokenizer.get_vocab().values()
        if max(ids, default=-1) >= len(tokenizer):  # the embedding's rows are counted by entries
            raise ValueError(f"it has {len(tokenizer):,} entries, and one of them has id {max(ids):,}")
        return tokenizer
    except BaseException as error:
        # tokenizers raises a plain Exception for a damaged tokenizer.json, and a panic that is not even one.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(
            f"the tokenizer in {str(folder)!r} cannot be read: {_first_line(error)}; copy its files again"
        ) from error


def _refuse_odd_files(folder: Path) -> None:
    """Refuses what no Qwen tokenizer has and what leads transformers to other files or classes than are carried along.

    Raises:
      UserError: a file is too large, leads out of the folder, or tokenizer_config.json asks for something else.
    """
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            require_own(folder / name)
            require_size(folder / name)
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    files, kind = config.get("fast_tokenizer_files"), config.get("tokenizer_class")
    if files:
        raise UserError(f"{path} names fast_tokenizer_files; only tokenizer.json is read: remove that key")
    if not (folder / "tokenizer.json").is_file() and kind not in ("Qwen2Tokenizer", "Qwen2TokenizerFast", None):
        raise UserError(
            f"the tokenizer in {str(folder)!r} has no tokenizer.json and is a {str(kind)[:80]!r}; without that file "
            "only Qwen2Tokenizer, which Qwen3 uses, is read: save it with transformers, which writes tokenizer.json"
        )


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: Path):
    """Trains a byte-level BPE with Qwen's word pattern, special tokens and chat format, and saves it.

    The same texts give the same files. Texts with too few repeated words give a smaller vocabulary.

    Args:
      texts: rendered text; special tokens in it are cut out first, so that no merge is spent on them.
      vocab_size: entries, special tokens included.
      folder: where the files go (created).

    Returns:
      The tokenizer, loaded from `folder`.

    Raises:
      UserError: vocab_size cannot hold the 256 bytes and the special tokens.
    """
    smallest = 256 + len(SPECIAL_TOKENS)
    if vocab_size < smallest:
        raise UserError(
            f"tokenizer.vocab_size={vocab_size} is too small: 256 bytes and {len(SPECIAL_TOKENS)} special "
            f"tokens need {smallest}; set it to {smallest} or more (768 suits the procedural problems)"
        )
    bpe = Tokenizer(models.BPE())
    bpe.normalizer = normalizers.NFC()
    words = pre_tokenizers.Split(Regex(_WORD_PATTERN), behavior="isolated", invert=False)
    as_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([words, as_bytes])
    bpe.decoder = decoders.ByteLevel()
    special = re.compile("|".join(re.escape(token) for token in SPECIAL_TOKENS))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIAL_TOKENS),
        min_frequency=2,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((part for text in texts for part in special.split(text)), trainer)
    # After the merges and in this order, as in Qwen3. <think> and </think> are not "special" there: decoding
    # with skip_special_tokens keeps them.
    bpe.add_tokens([_added_token(token) for token in SPECIAL_TOKENS])
    _save(bpe, folder)
    return load_tokenizer(folder)


def copy_tokenizer(source_folder: Path, folder: Path) -> None:
    """Copies the tokenizer's files that `source_folder` has into `folder` (created), byte for byte."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        if (source_folder / name).is_file():
            require_own(source_folder / name)
            shutil.copyfile(source_folder / name, folder / name)


def hash_tokenizer(folder: Path) -> str:
    """Returns a short hash of the tokenizer's files in `folder`."""
    digest = hashlib.sha256()
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            digest.update(name.encode() + (folder / name).read_bytes())
    return digest.hexdigest()[:16]


def _added_token(content: str) -> AddedToken:
    return AddedToken(content, normalized=False, special=content.startswith("<|"))


def _save(bpe: Tokenizer, folder: Path) -> None:
    """Writes the files by hand: save_pretrained of transformers 5 names a class unknown to version 4."""
    folder.mkdir(parents=True, exist_ok=True)
    bpe.save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    special = {
        "eos_token": END_OF_TURN,
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
    }
    config = special | {
        "added_tokens_decoder": {
            str(bpe.token_to_id(token)): {"content": token, **flags, "special": token.startswith("<|")}
            for token in SPECIAL_TOKENS
        },
        "bos_token": None,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", special)):
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _download(hub_id: str) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return Path(huggingface_hub.snapshot_download(hub_id, allow_patterns=list(TOKENIZER_FILES)))
    except (OSError, HfHubHTTPError, HFValidationError) as error:
        raise UserError(
            f"tokenizer {hub_id!r} is no folder here and the Hugging Face hub did not give it: "
            f"{_first_line(error)}; check the name and the network, or download it elsewhere and give the "
            'folder, or set tokenizer.source="procedural", which needs neither'
        ) from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
