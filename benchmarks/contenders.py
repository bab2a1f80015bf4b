"""The contenders of peers.py: each runs in a process of its own, on the same weights and batches, and takes turns.

peers.py starts `python contenders.py FOLDER SETTINGS` and writes a number of steps to its standard input; this process
does them, waits until the device has finished, and answers with a line of JSON: seconds, seconds of all its cores,
losses, peak bytes, and as "facts" the dtype of its weights and who attends. FOLDER holds model/ (a Hugging Face folder)
and steps.npz; SETTINGS is JSON. Only "ours" imports JAX, only the others torch.
"""

import dataclasses
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np


class Turns:
    """Does as many steps as it is told and reports; ends the process when told nothing more."""

    def __init__(self, synchronize: Callable[[], None], memory: Callable[[], dict[str, int]]):
        self.synchronize, self.memory, self.facts = synchronize, memory, {}
        self.left, self.losses = 0, []

    def begin(self) -> None:
        """To be called before every step; waits for the next turn if this one is over."""
        if self.left == 0:
            order = sys.stdin.readline()
            if not order.strip():
                REPORT.close()
                os._exit(0)  # a Trainer would go on to save
            self.left, self.losses = int(order), []
            self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def end(self, loss) -> None:
        """To be called after every step, with its loss as a scalar on the device."""
        self.losses.append(loss)
        self.left -= 1
        if self.left == 0:
            self.synchronize()
            report = {
                "seconds": time.perf_counter() - self.began,
                "cpu_seconds": time.process_time() - self.cpu_began,
                "losses": list(map(float, self.losses)),
                "facts": self.facts,
                **self.memory(),
            }
            print(json.dumps(report), file=REPORT, flush=True)


def host_memory() -> dict[str, int]:
    """Peak resident memory of this process."""
    return {"peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def load_arrays(folder: Path, names: tuple[str, ...]) -> tuple[np.ndarray, ...]:
    with np.load(folder / "steps.npz") as arrays:
        return tuple(arrays[name] for name in names)


def run_ours(folder: Path, settings: dict) -> None:
    """This program: its loader of weights, its step as the loop of training calls it."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tiny_reasoning_jax import xla

    xla.set_environment()
    import jax
    from ml_collections import FrozenConfigDict

    from convert.from_hf import load_hf
    from tiny_reasoning_jax import plan_stage
    from tiny_reasoning_jax.data.batch import Batch
    from tiny_reasoning_jax.model.attention import choice
    from tiny_reasoning_jax.plan.choose import with_train
    from tiny_reasoning_jax.run import make_model_def
    from tiny_reasoning_jax.train.checkpoint import bind
    from tiny_reasoning_jax.train.optimizer import make_optimizer
    from tiny_reasoning_jax.train.step import create_state, make_train_step, run_step

    xla.start()
    config = FrozenConfigDict(settings["config"])
    loaded = load_hf(folder / "model")
    attention, said = plan_stage.settle_attention(config, loaded.spec, choice.attached())
    config = with_train(config, attention=attention)
    model_def, optimizer = make_model_def(config, loaded.spec), make_optimizer(config.train)
    state = bind(create_state(loaded.params, optimizer, config.train))
    del loaded
    train_step = make_train_step(model_def, config.train)
    device = jax.local_devices()[0]

    def memory():
        stats = device.memory_stats()
        return {"peak_bytes": stats["peak_bytes_in_use"]} if stats else host_memory()

    turns = Turns(lambda: jax.block_until_ready(state), memory)
    turns.facts = {"weights": str(state.params["embed"].dtype), "attention": attention, "attention_said": said}
    for arrays in zip(*load_arrays(folder, Batch._fields), strict=True):
        turns.begin()
        state, metrics = run_step(train_step, state, Batch(*arrays))
        turns.end(metrics.loss)


def torch_turns(device: str) -> Turns:
    import torch

    if device == "cpu":
        return Turns(lambda: None, host_memory)
    peak = lambda: {
        "peak_bytes": torch.cuda.max_memory_allocated(),
        "peak_reserved_bytes": torch.cuda.max_memory_reserved(),
    }
    return Turns(torch.cuda.synchronize, peak)


def torch_facts(model) -> dict[str, str]:
    return {"weights": str(model.dtype).removeprefix("torch."), "attention": model.config._attn_implementation}


class Masters:
    """AdamW over float32 masters while the model holds their bfloat16 image, as ours does."""

    def __init__(self, parameters):
        self.parameters = list(parameters)
        self.masters = [p.detach().clone().requires_grad_() for p in self.parameters]

    def take_gradients(self):
        """Moves the gradients from the model to the masters."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad, parameter.grad = parameter.grad, None

    def give_values(self):
        """Rounds the masters into the model."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            parameter.data.copy_(master.detach().bfloat16())


def make_loss(model, settings: dict):
    """(tokens, targets, loss_mask, segment_ids, positions, denom) -> loss of a micro-batch, packed rows kept apart."""
    import torch
    from torch.nn import functional

    T = settings["config"]["train"]["seq_len"]
    causal = torch.ones(T, T, dtype=torch.bool, device=model.device).tril()
    additive = settings["attention"] == "eager"

    def loss(tokens, targets, loss_mask, segment_ids, positions, denom):
        mask = (segment_ids[:, None, :, None] == segment_ids[:, None, None, :]) & causal
        if additive:
            mask = torch.where(mask, 0.0, torch.finfo(model.dtype).min)
        inputs = {"input_ids": tokens, "position_ids": positions, "attention_mask": mask}
        hidden = model.model(**inputs, use_cache=False).last_hidden_state
        if settings["trained_only"]:
            logits, targets = model.lm_head(hidden[loss_mask]), targets[loss_mask]
        else:
            logits, targets = model.lm_head(hidden).flatten(0, 1), targets.masked_fill(~loss_mask, -100).flatten()
        return functional.cross_entropy(logits.float(), targets, reduction="sum") / denom

    return torch.compile(loss) if settings["compile"] else loss


def run_torch(folder: Path, settings: dict) -> None:
    """A plain loop: transformers' Qwen3 in float32, AdamW, clipping, the same schedule."""
    import torch
    import transformers

    if settings["device"] == "cpu":
        torch.set_num_threads(settings["cores"])
    train = settings["config"]["train"]
    model = transformers.Qwen3ForCausalLM.from_pretrained(
        folder / "model", dtype=torch.float32, attn_implementation=settings["attention"]
    )
    model.to(settings["device"]).train()
    compute = make_loss(model, settings)
    masters = Masters(model.parameters()) if settings["rounded"] else None
    parameters = masters.masters if masters else list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": train["weight_decay"]},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    betas = (train["b1"], train["b2"])
    optimizer = torch.optim.AdamW(groups, lr=0.0, betas=betas, eps=1e-8, **settings["adamw"])
    names = ("tokens", "targets", "loss_mask", "segment_ids", "positions", "loss_denom")
    turns = torch_turns(settings["device"])
    turns.facts = torch_facts(model)
    for rate, arrays in zip(settings["rates"], zip(*load_arrays(folder, names), strict=True), strict=True):
        turns.begin()
        total = 0.0
        for micro_batch in zip(*arrays, strict=True):
            tensors = [torch.as_tensor(x, device=settings["device"]) for x in micro_batch]
            tensors[0], tensors[1] = tensors[0].long(), tensors[1].long()
            loss = compute(*tensors)
            loss.backward()
            total = total + loss.detach()
        if masters:
            masters.take_gradients()
        torch.nn.utils.clip_grad_norm_(parameters, train["clip_norm"])
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        if masters:
            masters.give_values()
        turns.end(total)


@dataclasses.dataclass
class Collator:
    """Rows that are packed already, side by side or, for kernels that take sequence borders, as one long row."""

    flat: bool

    def __call__(self, rows: list[dict]) -> dict:
        """The arguments of the model: `labels` are shifted already, and only the count of trained tokens reads them."""
        import torch

        stack = lambda name: torch.stack([row[name] for row in rows])
        batch = {"input_ids": stack("input_ids"), "position_ids": stack("position_ids")}
        batch["labels"] = batch["shift_labels"] = stack("shift_labels")
        if self.flat:
            batch = {name: value.flatten()[None] for name, value in batch.items()}
            starts = (batch["position_ids"][0] == 0).nonzero().flatten()
            borders = torch.cat([starts, torch.tensor([batch["position_ids"].shape[1]])]).to(torch.int32)
            longest = int(borders.diff().max())
            batch |= {"cu_seq_lens_q": borders, "cu_seq_lens_k": borders}
            batch |= {"max_length_q": longest, "max_length_k": longest}
        return batch


def make_rows(folder: Path):
    """Our packed rows as a data set of one row a record, in the order of training."""
    from datasets import Dataset

    names = ("tokens", "targets", "loss_mask", "positions")
    flat = [x.reshape(-1, x.shape[-1]) for x in load_arrays(folder, names)]
    tokens, targets, loss_mask, positions = flat
    columns = {"input_ids": tokens, "shift_labels": np.where(loss_mask, targets, -100), "position_ids": positions}
    return Dataset.from_dict({name: list(column.astype(np.int64)) for name, column in columns.items()})


def flash_attention() -> str | None:
    """The fastest of the packed kernels that transformers finds installed; None without one."""
    from transformers import utils

    for version in (3, 2):
        if getattr(utils, f"is_flash_attn_{version}_available")():
            return f"flash_attention_{version}"
    return None


def run_trl(folder: Path, settings: dict) -> None:
    """TRL's SFTTrainer, fed with our packed rows; settings["trl"] are entries of SFTConfig."""
    import torch
    import transformers
    from trl import SFTConfig, SFTTrainer

    if settings["device"] == "cpu":
        torch.set_num_threads(settings["cores"])
    train, rates = settings["config"]["train"], settings["rates"]
    flash = flash_attention() if settings["flash"] else None
    model_settings = {**settings["model"], **({"attn_implementation": flash} if flash else {})}
    turns, losses = torch_turns(settings["device"]), []

    class Trainer(SFTTrainer):
        def compute_loss(self, *args, **kwargs):
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.detach())
            return loss

        def create_scheduler(self, num_training_steps, optimizer=None):
            at = lambda step: rates[min(step, len(rates) - 1)] / train["learning_rate"]
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer or self.optimizer, at)
            self._created_lr_scheduler = True
            return self.lr_scheduler

    class TakeTurns(transformers.TrainerCallback):
        def on_step_begin(self, *args, **kwargs):
            turns.begin()

        def on_step_end(self, *args, **kwargs):
            turns.end(sum(losses))
            losses.clear()

    config = SFTConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=train["batch_size"] // train["accum_steps"],
        gradient_accumulation_steps=train["accum_steps"],
        max_steps=len(rates),
        learning_rate=train["learning_rate"],
        weight_decay=train["weight_decay"],
        adam_beta1=train["b1"],
        adam_beta2=train["b2"],
        max_grad_norm=train["clip_norm"],
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        model_init_kwargs=model_settings,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=settings["device"] == "cpu",
        **settings["trl"],
    )
    trainer = Trainer(
        model=str(folder / "model"),
        args=config,
        data_collator=Collator(flat=flash is not None),
        train_dataset=make_rows(folder).with_format("torch"),
        callbacks=[TakeTurns()],
    )
    turns.facts = torch_facts(trainer.model) | {"autocast": "bfloat16" if config.bf16 else "none"}
    trainer.train()


RUN = {"ours": run_ours, "torch": run_torch, "trl": run_trl}

if __name__ == "__main__":
    # Libraries print; only the report goes to the pipe.
    REPORT = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    SETTINGS = json.loads(sys.argv[2])
    RUN[SETTINGS["kind"]](Path(sys.argv[1]), SETTINGS)
