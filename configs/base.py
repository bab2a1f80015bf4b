"""Every configuration key is born here, once, with its unit and reason. Recipes (configs/reason.py) override values."""

import math

from ml_collections import config_dict

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model.attention import BACKENDS
from tiny_reasoning_jax.model.remat import RUNGS
from tiny_reasoning_jax.train.moments import MAX_RATIO, max_ratio

STAGES = ("data", "grade", "train", "eval", "export", "plan")
DEFAULT_STAGES = ("data", "train", "eval", "export")


# Numbers that must be above 0.
POSITIVE = {
    "train": ("num_steps", "batch_size", "seq_len", "learning_rate", "loss_chunk", "clip_norm",
              "validate_every_steps"),
    "checkpoint": ("every_steps", "keep"),
    "eval": ("num_problems", "num_samples", "batch_size", "max_new_tokens", "top_p"),
    "data": ("num_problems", "num_validation", "num_test"),
    "tokenizer": ("vocab_size",),
    "grade": ("num_problems", "num_samples"),
}  # fmt: skip


def get_config() -> config_dict.ConfigDict:
    """Returns the default of every key; sized for Qwen3-1.7B on one 80 GB card."""
    config = config_dict.ConfigDict()
    # The recipe that was chosen and why; the first line that a run prints.
    config.recipe = "configs/base.py as it stands"
    # Folder of this run: everything it writes, and what it continues from. One run per folder.
    config.workdir = "runs/reason"
    # Which stages to run, in this order, separated by commas. Each reads only what the earlier ones left in workdir.
    config.stages = ",".join(DEFAULT_STAGES)
    # Seeds problems, splits, initial weights, data order and sampling: the same seed is the same run, bit for bit on a
    # CPU, and on a GPU with deterministic=True.
    config.seed = 0
    # True: on a GPU XLA's deterministic operations, kernels that are not chosen by timing them, and no cuDNN for
    # train.attention; slower. It stands in the command, where it is seen before JAX starts, or XLA_FLAGS says the same.
    config.deterministic = False

    config.model = _model()
    config.tokenizer = _tokenizer()
    config.data = _data()
    config.train = _train()
    config.checkpoint = _checkpoint()
    config.plan = _plan()
    config.grade = _grade()
    config.eval = _eval()
    return config


def _model() -> config_dict.ConfigDict:
    model = config_dict.ConfigDict()
    # Where weights come from: a local Hugging Face folder, a hub id, or "random" (a new Qwen3 with the shape below).
    model.source = "Qwen/Qwen3-1.7B-Base"
    # The shape used when source is "random"; Hugging Face config.json names. The vocabulary is the tokenizer's.
    model.random = config_dict.ConfigDict()
    model.random.hidden_size = 128  # width D
    model.random.intermediate_size = 384  # MLP width F
    model.random.num_hidden_layers = 4  # L
    model.random.num_attention_heads = 4  # query heads N
    model.random.num_key_value_heads = 2  # key/value heads K
    model.random.head_dim = 32  # H, not derived from the width
    model.random.rope_theta = 10_000.0  # base of the rotary wavelengths, in positions
    model.random.tie_word_embeddings = True  # one matrix for embedding and head, as in Qwen3 up to 4B
    return model


def _tokenizer() -> config_dict.ConfigDict:
    tokenizer = config_dict.ConfigDict()
    # A local folder, a hub id, "model" (the one beside model.source's weights), or "procedural" (a byte-level BPE
    # trained on this run's own problems, with Qwen's special tokens).
    tokenizer.source = "model"
    # Vocabulary size of a "procedural" tokenizer, in entries, special tokens included.
    tokenizer.vocab_size = 768
    return tokenizer


def _data() -> config_dict.ConfigDict:
    data = config_dict.ConfigDict()
    # Where problems come from; several, separated by commas, are a mixture. "procedural[:family+family]" (generated
    # here, no network; all families if none is named), a .jsonl, .json or .parquet file, a folder of such files, or a
    # hub id "org/name[:config[:split]]".
    data.source = "procedural"
    # Form of the records: "auto" tells it from their fields; otherwise a name from tiny_reasoning_jax/data/formats.py.
    data.format = "auto"
    # How often each source is drawn, in the order of data.source, separated by commas, e.g. "3,1"; "auto": by its size.
    data.weights = "auto"
    # Test problems: any single source as above, or "gym[:task+task]" (reasoning-gym). "auto": generated ones,
    # test.jsonl beside a train.jsonl, otherwise a part held out from the source by hash of the problem.
    data.test_source = "auto"
    # Distinct training problems to generate when source is "procedural"; problems.
    data.num_problems = 100_000
    # Size of the validation split (loss during training) and of the pool that evaluation draws from; problems.
    data.num_validation = 256
    data.num_test = 1500
    # Most training problems of a category, e.g. "algebra=5000,logic=2000", before those that are contaminated or too
    # long are dropped; "none": as many as there are.
    data.category_quotas = "none"
    # Problems from files that are more alike than this are used once (estimated Jaccard similarity of the prompts); 1:
    # only exact duplicates go.
    data.near_duplicates = 0.8
    # Training problems that share so many words in a row with a test problem, numbers aside, are dropped; 0: none are.
    data.decontamination_ngram = 13
    # What the five difficulties are: "source" (its own levels; by length where it has none), "length" (tokens of the
    # reasoning), or "measured" (pass rates in data.grades, a grades.jsonl that the grade stage wrote).
    data.difficulty = "source"
    data.grades = "none"
    # How difficulties are drawn over the run, see tiny_reasoning_jax/data/curriculum.py: "none" draws every example
    # alike, "linear", "staged" and "anneal" go from easy to hard, "adaptive" follows the pass rates of train.num_probe
    # problems.
    data.curriculum = "linear"
    # True: the same examples that the curriculum would draw, in random order; what a curriculum is compared with.
    data.control = False
    # Batches that a background thread prepares ahead of the device; optimizer steps.
    data.prefetch_steps = 4
    return data


def _train() -> config_dict.ConfigDict:
    train = config_dict.ConfigDict()
    train.num_steps = 1000  # optimizer steps
    train.batch_size = 16  # packed rows in one optimizer step, all micro-batches together
    # Micro-batches of an optimizer step (optax.MultiSteps); 0: the number that is fastest and fits the card.
    train.accum_steps = 0
    train.seq_len = 4096  # tokens in a packed row; longer examples are dropped and counted
    train.learning_rate = 1e-5  # peak, reached after warmup_steps
    train.warmup_steps = 50  # linear warm-up, optimizer steps
    train.final_learning_rate_ratio = 0.1  # where the cosine ends, as a part of the peak
    train.weight_decay = 0.01  # AdamW's, on matrices only (norm scales are left alone)
    train.b1 = 0.9  # AdamW's decay of the gradient's mean
    train.b2 = 0.95  # AdamW's decay of the gradient's square; 0.95 adapts within tens of steps
    train.clip_norm = 1.0  # global gradient norm above which gradients are scaled down
    train.compute_dtype = "bfloat16"  # activations; parameters are bfloat16 and the master float32 in any case
    # How the float32 master is stored: "float32" (4 bytes a parameter), or "remainder16", as the 16 bits that the
    # bfloat16 parameter does not hold (2 bytes; the same numbers, bit for bit).
    train.master = "float32"
    # How Adam's two moments are stored: "float32" (8 bytes a parameter), "bfloat16" (4), or "int8" (2, block-wise, see
    # tiny_reasoning_jax/train/moments.py). The smaller two round, without bias: other numbers, the same curve.
    train.moments = "float32"
    # True: master and moments, 4 to 12 bytes a parameter, lie in the host's memory between updates and not in the
    # card's; each update moves them over the bus and back. The same arithmetic, of which a compiler may round a last
    # bit otherwise. It takes accum_steps of 2 or more.
    train.offload_optimizer = False
    # What a layer keeps for its backward pass, from the most memory to the most work: "none" (as the compiler likes),
    # "most" (no matrix product runs twice), "some" (gate and up do), "full" (nearly all do); see model/remat.py.
    # "auto": the fastest that the card has room for, which is compiled before the run to be sure; on a CPU "none".
    train.remat = "auto"
    # How attention is computed: "auto" (the fastest that the device has, see model/attention/choice.py; kernels only
    # after a self-test there), "cudnn", "triton", "blockwise", or "reference", which holds all scores of a row at once.
    train.attention = "auto"
    train.loss_chunk = 2048  # tokens that meet the vocabulary at one time: loss_chunk x vocabulary x 4 bytes
    train.validate_every_steps = 100  # loss on the validation split, and the probe; optimizer steps
    # A step whose loss or gradient norm is more than so many standard deviations above its running mean makes no
    # update, see tiny_reasoning_jax/train/spikes.py; 0: none is skipped. 6 is usual (OLMo-core).
    train.max_spike = 0.0
    # Seconds that waiting for data, a step, a validation (with its probe) or a checkpoint may take, the first of each
    # four times as long because it compiles; then the run writes down where it stands and ends with exit code 7. 0: for
    # ever.
    train.watchdog_seconds = 1800.0
    train.num_probe = 0  # validation problems answered each time, for accuracy by difficulty during training; 0: none
    return train


def _checkpoint() -> config_dict.ConfigDict:
    checkpoint = config_dict.ConfigDict()
    # Optimizer steps that a killed run may lose at most. A save begins a tenth earlier, training goes on while it is
    # written, and waits for it if it must; the last step is always saved.
    checkpoint.every_steps = 100
    checkpoint.keep = 2  # newest checkpoints kept on disk
    # True: if the newest checkpoint is damaged, go on from the newest that is not; the damaged files are kept aside.
    checkpoint.allow_older = False
    # True: go on although what the numbers depend on has changed, see tiny_reasoning_jax/workdir.py; it is recorded.
    checkpoint.allow_changes = False
    return checkpoint


def _plan() -> config_dict.ConfigDict:
    plan = config_dict.ConfigDict()
    # The card that the plan stage compiles training for: "attached", or one of tiny_reasoning_jax/plan/cards.py, which
    # need not be here.
    plan.gpu = "attached"
    plan.output = "none"  # file that the plan is also written to, as JSON
    return plan


def _grade() -> config_dict.ConfigDict:
    grade = config_dict.ConfigDict()
    # Whose pass rate the grade stage measures: "run" (this run's newest checkpoint; before the first the model it
    # starts from, to the end where the stage train follows), a Hugging Face folder, or a folder of our checkpoints.
    grade.model = "run"
    # Training problems, spread evenly over category and difficulty. A run with data.difficulty="measured" trains on
    # those that were measured and no others.
    grade.num_problems = 1000
    grade.num_samples = 4  # completions of each problem
    grade.temperature = 0.7  # of those completions; with 0 they would all be the same
    return grade


def _eval() -> config_dict.ConfigDict:
    evaluation = config_dict.ConfigDict()
    # What to ask, separated by commas: "test" (this run's own test problems), gsm8k, math, mbpp, humaneval, procedural
    # (each from its hub id, or e.g. gsm8k=FILE_OR_FOLDER_OR_HUB_ID), or any file of problems. See
    # tiny_reasoning_jax/eval/tasks. Training data lose what gives their problems away.
    evaluation.tasks = "test"
    # Whom to ask: "run" (this run's model before and after training), a Hugging Face folder or hub id, or a folder of
    # our checkpoints; those need no prepared data in workdir.
    evaluation.model = "run"
    # How to ask: "chat" (as training shows problems), or "few-shot" (worked examples and the problem as plain text,
    # which is how base models are measured).
    evaluation.protocol = "chat"
    # False: chat prompts with Qwen3's empty <think></think>, so that the model answers at once.
    evaluation.thinking = True
    # A line after every problem that is asked as chat and not for a program; "" for none, as in training. For models
    # trained elsewhere, Qwen's advice: "Please reason step by step, and put your final answer within \\boxed{}."
    evaluation.instruction = ""
    # Problems of each task: of "test" and procedural evenly over category and difficulty, of others a random part.
    evaluation.num_problems = 500
    # Completions of each problem, for mean accuracy, pass@k and majority votes; more than one needs a temperature.
    evaluation.num_samples = 1
    # True: run programs that the model wrote (mbpp, humaneval) even where the kernel cannot confine them. They can
    # then do whatever you can do on this machine.
    evaluation.unsafe_code = False
    evaluation.batch_size = 64  # completions decoded together
    evaluation.max_new_tokens = 1024  # longest completion; what is cut off is counted as truncated
    evaluation.temperature = 0.0  # 0 is greedy
    evaluation.top_p = 1.0  # smallest set of tokens holding this probability; 1 keeps all
    evaluation.top_k = 0  # keep only this many best tokens; 0 keeps all
    return evaluation


def validate(config) -> None:
    """Checks the rules between keys that types cannot express.

    Raises:
      UserError: the first rule that is broken: value, limit and remedy.
    """
    if not set(config.stages.split(",")) <= set(STAGES):
        raise UserError(f"stages={config.stages!r}: choose from {','.join(STAGES)}, separated by commas")
    for section, names in POSITIVE.items():
        for name in names:
            if config[section][name] <= 0:
                raise UserError(f"{section}.{name}={config[section][name]} must be above 0")
    if "plan" in config.stages and config.stages != "plan":
        raise UserError(
            f"stages={config.stages!r}: plan stands alone, for a card that need not be here; a run that trains prints "
            "the plan for its own card anyway"
        )
    batch_size, accum_steps = config.train.batch_size, config.train.accum_steps
    if accum_steps < 0:
        raise UserError(f"train.accum_steps={accum_steps} must not be below 0; 0 takes the fastest that fits")
    if accum_steps and batch_size % accum_steps:
        above = accum_steps * (batch_size // accum_steps + 1)
        raise UserError(
            f"train.batch_size={batch_size} rows cannot be split into train.accum_steps={accum_steps} equal "
            f"micro-batches; try --config.train.batch_size={above}"
        )
    if config.train.offload_optimizer and 1 in (accum_steps, batch_size):
        raise UserError(
            f"train.offload_optimizer=True updates what has been accumulated, and train.accum_steps={accum_steps} of "
            f"train.batch_size={batch_size} accumulates nothing; take --config.train.accum_steps=2 or more of as many "
            "rows, or 0 for the program's choice"
        )
    if config.train.warmup_steps >= config.train.num_steps:
        raise UserError(
            f"train.warmup_steps={config.train.warmup_steps} must be below train.num_steps={config.train.num_steps}; "
            f"try --config.train.warmup_steps={config.train.num_steps // 10}"
        )
    _validate_sampling(config)
    _validate_data(config.data, config.train.num_probe)
    choices = {"train.remat": ("auto", *RUNGS), "train.compute_dtype": ("bfloat16", "float32"),
               "train.attention": ("auto", *BACKENDS),
               "train.master": ("float32", "remainder16"), "train.moments": ("float32", "bfloat16", "int8"),
               "data.curriculum": ("none", "linear", "staged", "anneal", "adaptive"),
               "data.difficulty": ("source", "length", "measured"), "eval.protocol": ("chat", "few-shot")}  # fmt: skip
    for key, allowed in choices.items():
        section, name = key.split(".")
        if config[section][name] not in allowed:
            raise UserError(f"{key}={config[section][name]!r}: choose one of {', '.join(allowed)}")
    if config.deterministic and config.train.attention == "cudnn":
        raise UserError(
            "deterministic=True and train.attention='cudnn': its backward pass adds up gradients in any order; take "
            "--config.train.attention=auto, which then passes over it"
        )
    ratio = max_ratio(config.train.b1, config.train.b2)
    if config.train.moments == "int8" and ratio > MAX_RATIO:
        raise UserError(
            f"train.b1={config.train.b1} and train.b2={config.train.b2} let Adam's m / sqrt(v) reach {ratio:.3g}, and "
            f'train.moments="int8" holds {MAX_RATIO}; try --config.train.b1=0.9 --config.train.b2=0.95, or '
            f"--config.train.moments=bfloat16"
        )


def _validate_sampling(config) -> None:
    if config.train.warmup_steps < 0 or config.eval.temperature < 0 or config.eval.top_k < 0 or config.eval.top_p > 1:
        raise UserError(
            f"train.warmup_steps={config.train.warmup_steps}, eval.temperature={config.eval.temperature} and "
            f"eval.top_k={config.eval.top_k} must not be below 0, eval.top_p={config.eval.top_p} not above 1"
        )
    if config.eval.protocol == "few-shot" and (not config.eval.thinking or config.eval.instruction):
        raise UserError(
            f"eval.thinking={config.eval.thinking} and eval.instruction={config.eval.instruction!r} have no effect "
            'with eval.protocol="few-shot", which uses no chat template: leave them at True and "", or take '
            "--config.eval.protocol=chat"
        )
    for name in ("max_spike", "watchdog_seconds"):
        value = config.train[name]
        if not (math.isfinite(value) and value >= 0):
            raise UserError(f"train.{name}={value} must be a finite number and not below 0, which turns it off")
    if config.train.num_probe < 0:
        raise UserError(
            f"train.num_probe={config.train.num_probe} must not be below 0; 0 asks no problems during training"
        )
    for name in ("grade", "eval"):
        section = config[name]
        if not math.isfinite(section.temperature):
            raise UserError(f"{name}.temperature={section.temperature} must be a finite number; 0.7 is usual")
        if section.temperature < 0 or (section.temperature == 0 and section.num_samples > 1):
            raise UserError(
                f"{name}.temperature={section.temperature} gives {name}.num_samples={section.num_samples} equal "
                f"completions; set it above 0 (0.7 is usual), or --config.{name}.num_samples=1"
            )


def _validate_data(data, num_probe: int) -> None:
    if not 0 < data.near_duplicates <= 1:
        raise UserError(
            f"data.near_duplicates={data.near_duplicates} must be above 0 and at most 1, where only exact duplicates go"
        )
    if data.decontamination_ngram < 0:
        raise UserError(f"data.decontamination_ngram={data.decontamination_ngram} must not be below 0; 13 is usual")
    if (data.difficulty == "measured") != (data.grades != "none"):
        raise UserError(
            f"data.difficulty={data.difficulty!r} and data.grades={data.grades!r} go together: measured difficulties "
            f"come from a grades.jsonl, which --config.stages=data,grade writes into its workdir"
        )
    if data.curriculum == "adaptive" and num_probe == 0:
        raise UserError(
            'data.curriculum="adaptive" needs the pass rates of validation problems, train.num_probe=0 asks none; try '
            "--config.train.num_probe=100"
        )
    if data.control and data.curriculum in ("none", "adaptive"):
        raise UserError(
            f"data.control=True shuffles what a curriculum would draw, which data.curriculum={data.curriculum!r} does "
            f"not fix beforehand; compare with linear, staged or anneal"
        )
