"""pytest tests/plan/test_memory.py: the memory of a compiled step: its parts, and what XLA wrote down about it."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import FrozenConfigDict

from configs import reason
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.plan import live, memory
from tiny_reasoning_jax.train import step as step_module
from tiny_reasoning_jax.train.checkpoint import bind
from tiny_reasoning_jax.train.optimizer import between_steps, inner_state, make_optimizer
from tiny_reasoning_jax.train.step import create_state, detach, make_train_step, run_step

SPEC = ModelSpec(vocab_size=640, hidden_size=64, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
                 num_key_value_heads=2, head_dim=16, rope_theta=1e4)  # fmt: skip
MODEL = ModelDef(SPEC, attention="reference")


def train_section(**changes):
    train = reason.get_config("tiny").train
    train.update({"batch_size": 4, "accum_steps": 2, "seq_len": 96, "loss_chunk": 32, **changes})
    return FrozenConfigDict(train)


@pytest.fixture(scope="module")
def planned():
    return memory.plan_memory(MODEL, train_section(), None, {})


def test_the_state_is_split_exactly():
    P = SPEC.num_parameters
    parts, host = memory.split_state(memory.abstract_state(MODEL, train_section()), train_section())
    assert host == 0
    assert parts["parameters"] == 2 * P and parts["master"] == 4 * P and parts["accumulator"] == 4 * P
    assert 0 <= parts["moments"] - 8 * P < 100  # and counters
    train = train_section(master="remainder16", accum_steps=1)
    small, _ = memory.split_state(memory.abstract_state(MODEL, train), train)
    assert small["master"] == 2 * P and small["accumulator"] == 0


def test_what_is_offloaded_is_not_the_devices():
    """All but norm scales, counters and the like: of the plan's parts, and of what each program is given."""
    train = train_section(offload_optimizer=True)
    state, _ = memory.arguments(MODEL, train)
    parts, host = memory.split_state(state, train)
    whole, _ = memory.split_state(state, train_section())
    assert parts["parameters"] == whole["parameters"] and parts["accumulator"] == whole["accumulator"]
    assert host + sum(parts.values()) == sum(whole.values())
    assert parts["master"] + parts["moments"] < 0.01 * (whole["master"] + whole["moments"])
    planned = memory.plan_memory(MODEL, train, None, {})
    assert planned.host == host
    assert 0 <= sum(whole.values()) - host - planned.donated <= 64


def test_the_whole_state_is_donated(planned):
    parts, _ = memory.split_state(memory.abstract_state(MODEL, train_section()), train_section())
    assert 0 <= sum(parts.values()) - planned.donated <= 16  # scalars that are set anew go their own way


def test_the_peak_is_what_the_compiler_says(planned):
    """The sum of parts equals the compiler's own totals, program by program."""
    peaks = {}
    for name in memory.program_names(train_section()):
        sizes = memory.lower(name, MODEL, train_section(), None).compile().memory_analysis()
        outside = sizes.output_size_in_bytes - sizes.alias_size_in_bytes
        # While it accumulates, master and moments are there, and the program knows nothing of them.
        beside = planned.parts["master"] + planned.parts["moments"] if name == "accumulate" else 0
        peaks[name] = beside + sizes.argument_size_in_bytes + sizes.temp_size_in_bytes + outside
    assert planned.variant == max(peaks, key=peaks.get)
    assert planned.peak == pytest.approx(max(peaks.values()), rel=0.01)


def test_a_dump_in_another_form_leaves_the_total(planned, monkeypatch, caplog):
    """As jax 0.11 wrote it before this knew its "page 0, ": arguments were nothing, the batch less than nothing."""
    monkeypatch.setattr(live, "_ALLOCATION", re.compile(r"allocation \d+: size (\d+), page \d+, [^p](.*)"))
    # Another chunk: nothing of it is compiled yet.
    memory_of = lambda: memory.plan_memory(MODEL, train_section(loss_chunk=28), None, {})
    unread = memory_of()
    assert "form that is not known here" in caplog.text
    monkeypatch.undo()
    assert unread.peak == pytest.approx(memory_of().peak, rel=0.01)
    assert "temporaries" in unread.parts and min(unread.parts.values()) > 0


@pytest.mark.parametrize("page", ["", "page 0, "])
def test_allocations_are_read_as_jax_has_written_them(tmp_path, page):
    """jax 0.10 and, with pages, 0.11."""
    (tmp_path / "x.buffer-assignment.txt").write_text(
        f"allocation 0: size 100, {page}parameter 0, shape |f32[25]| at ShapeIndex {{}}, maybe-live-out:\n"
        f"allocation 1: size 60, {page}parameter 1, shape |f32[15]| at ShapeIndex {{}}:\n"
        f"allocation 2: size 7, {page}thread-local:\n"
        f"allocation 3: size 1000, {page}preallocated-temp:\n"
    )
    assert live.read_sizes(tmp_path) == live.Sizes(arguments=160, donated=100, temporaries=1000)


def test_gradients_are_told_from_activations(planned):
    matrices = SPEC.num_parameters * 4  # float32 at most; bfloat16 ones take half
    assert 0 < planned.parts["gradients"] <= matrices
    assert planned.parts["activations"] > 0
    assert planned.largest == sorted(planned.largest, key=lambda value: -value.num_bytes)


def test_xla_recomputes_nothing_on_its_own(planned):
    assert planned.hidden_remat == 0
    assert live.count_hidden_remat("  %fusion.3.remat2 = f32[4]{0} fusion(%p)\n  %remat2.28.0 = f32[] add(%a, %b)") == 1


@pytest.mark.parametrize("name", ["accumulate", "apply"])
def test_the_program_that_is_planned_is_the_one_that_trains(name):
    """Letter by letter, of a new run and of one that goes on: so the compile cache has it, too.

    Called with a real state, bound as training binds it, and a batch from the host.
    """
    train = train_section()
    optimizer = make_optimizer(train)
    new = create_state(MODEL.create_params(0), optimizer, train)
    restored = jax.device_put(jax.tree.map(np.asarray, new), jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    restored = restored._replace(opt_state=between_steps(new.opt_state, inner_state(restored.opt_state), 7))
    abstract = memory.abstract_batch(2, train.seq_len)
    batch = jax.tree.map(lambda x: np.ones(x.shape, x.dtype)[()], abstract)
    planned = memory.lower(name, MODEL, train, None).as_text()
    program = getattr(make_train_step(MODEL, train), name)
    given = detach if name == "accumulate" else lambda state: state
    assert [program.lower(given(bind(state)), batch).as_text() == planned for state in (new, restored)] == [True, True]
    assert program.lower(given(new), batch).as_text() != planned  # otherwise there would be nothing to bind


def test_what_was_planned_is_not_traced_again(monkeypatch):
    """At 28 layers and 310 parameters that takes seconds, of every start."""
    train, traced, micro_loss = train_section(loss_chunk=24), [], step_module.micro_loss
    monkeypatch.setattr(step_module, "micro_loss", lambda *args: traced.append(1) or micro_loss(*args))
    names = memory.program_names(train)
    texts = [memory.lower(name, MODEL, train, None).as_text() for name in names]
    state, batch = memory.arguments(MODEL, train)
    given, step = {"accumulate": detach(state), "apply": state}, make_train_step(MODEL, train)
    assert [getattr(step, name).lower(given[name], batch).as_text() for name in names] != texts
    assert len(traced) == len(names)


def test_training_compiles_each_program_once_whether_new_or_going_on():
    """The outputs of the first step are what the second is called with."""
    train = train_section()
    optimizer = make_optimizer(train)
    new = create_state(MODEL.create_params(0), optimizer, train)
    state = new._replace(params=jax.device_put(new.params, jax.sharding.SingleDeviceSharding(jax.devices()[0])))
    ones = lambda x: np.ones((2, *x.shape), x.dtype)
    batch = jax.tree.map(ones, memory.abstract_batch(2, train.seq_len))
    step = make_train_step(MODEL, train)
    state = bind(state)
    for _ in range(2):
        state, _ = run_step(step, state, batch)
    assert step.accumulate._cache_size() == step.apply._cache_size() == 1


def test_one_micro_batch_is_one_program():
    assert memory.program_names(train_section(accum_steps=1)) == ("apply",)


@pytest.mark.parametrize("name", ["accumulate", "apply"])
def test_no_buffer_of_logits_is_larger_than_a_chunk(name, tmp_path):
    """Only a chunk's tokens meet the vocabulary: of the other dimensions there are D (the matrix) or a chunk."""
    train = train_section(loss_chunk=16)
    memory.lower(name, MODEL, train, None).compile(compiler_options={"xla_dump_to": str(tmp_path)})
    text = next(tmp_path.glob("*buffer-assignment.txt")).read_text()
    shapes = [live.Value(0, shape, "").dimensions for *_, shape in live._placed(text.splitlines())]
    with_vocabulary = [shape for shape in shapes if SPEC.vocab_size in shape]
    assert with_vocabulary
    largest = SPEC.vocab_size * max(SPEC.hidden_size, train.loss_chunk)
    assert all(math.prod(shape) <= largest for shape in with_vocabulary)


def test_the_fullest_moment_is_replayed():
    # Two values side by side, then one in the place of both; what shares an offset counts once.
    values = [(0, 4, 0, 100), (2, 6, 100, 50), (5, 9, 0, 120), (5, 9, 0, 110)]
    assert live._fullest(values) == 5
    assert live._fullest([(0, 9, 0, 10), (3, 4, 10, 90), (6, 7, 10, 80)]) == 3


def test_the_values_at_the_fullest_moment_are_all_there_is(tmp_path):
    def two(x):
        a, b = jnp.sort(x), jnp.sort(-x)  # [512, 512] float32 each: 1 MiB; no compiler fuses sorting with what follows
        return jnp.sum(jnp.sort(a @ b))

    compiled = jax.jit(two).lower(jax.ShapeDtypeStruct((512, 512), jnp.float32)).compile(
        compiler_options={"xla_dump_to": str(tmp_path)}
    )  # fmt: skip
    values, sizes = live.read_fullest_moment(tmp_path), live.read_sizes(tmp_path)
    assert sizes.arguments == compiled.memory_analysis().argument_size_in_bytes == 2**20
    large = [value for value in values if value.num_bytes == 2**20]
    assert len(large) >= 2 and all(value.dimensions == (512, 512) for value in large)
    assert sum(value.num_bytes for value in values) == pytest.approx(sizes.temporaries, rel=0.05)


def test_a_workspace_counts_while_its_kernel_is_at_work(tmp_path):
    """Two kernels, the second when less is there; and a fuller moment without either."""
    (tmp_path / "x.buffer-assignment.txt").write_text(
        "allocation 0: size 1000, preallocated-temp:\n"
        " value: <1 early{} @0> (size=300,offset=0): f32[75]{0}\n"
        " value: <2 dot_product_attention_bwd.1{0} @0> (size=100,offset=300): f32[25]{0}\n"
        " value: <3 dot_product_attention_bwd.2{0} @0> (size=100,offset=400): f32[25]{0}\n"
        " value: <4 late{} @0> (size=600,offset=400): f32[150]{0}\n"
    )
    (tmp_path / "x.live-range.txt").write_text(
        "  early{}:0-2\n  dot_product_attention_bwd.1{0}:2-4\n  dot_product_attention_bwd.2{0}:4-5\n  late{}:7-9\n"
    )
    (tmp_path / "x.after_optimizations.txt").write_text("")
    moment = lambda workspace: [value.num_bytes for value in live.read_fullest_moment(tmp_path, workspace)]
    assert moment(0) == moment(150) == [600]
    assert moment(250) == [300, 250, 100]


def test_a_gradient_has_its_parameters_entries_and_no_tokens():
    value = lambda shape: live.Value(1, shape, "")
    shapes = ("f32[64,192]{1,0}", "f32[192,64]{0,1}", "f32[192,64]{1,0}", "f32[96,128]{1,0}", "bf16[640,64]{1,0}",
              "f32[64]{0}")  # fmt: skip
    values = [value(shape) for shape in shapes]
    found = live.find_gradients(values, [(64, 192), (192, 64), (640, 64), (64,)], 64, {96, 192})
    assert [v.shape for v in found] == ["bf16[640,64]{1,0}"]  # 192 tokens in a micro-batch: those are told by it
    found = live.find_gradients(values, [(64, 192), (192, 64), (640, 64), (64,)], 64, {96})
    assert len(found) == 3  # of three with 12,288 entries, two are gradients
