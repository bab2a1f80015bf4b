"""pytest tests/train/test_step.py"""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from tiny_reasoning_jax.data.batch import Batch
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec
from tiny_reasoning_jax.train.master import load as load_master
from tiny_reasoning_jax.train.master import split as split_master
from tiny_reasoning_jax.train.optimizer import accumulator, inner_state, make_optimizer
from tiny_reasoning_jax.train.step import create_state, detach, make_train_step, micro_loss, run_step

SPEC = ModelSpec(97, 32, 48, 2, 4, 2, 8, 1e4)
MODEL = ModelDef(SPEC, dtype="float32")
T = 24


def config(**changes):
    values = dict(
        num_steps=100, warmup_steps=1, learning_rate=1e-2, final_learning_rate_ratio=0.1, weight_decay=0.1,
        b1=0.9, b2=0.95, clip_norm=1.0, accum_steps=1, loss_chunk=32, master="float32", moments="float32",
        offload_optimizer=False, max_spike=0.0,
    )  # fmt: skip
    return ml_collections.FrozenConfigDict(values | changes)


def examples(rng, count, low=5, high=12):
    return [rng.integers(1, SPEC.vocab_size, rng.integers(low, high)) for _ in range(count)]


def pack(rows, prompt_length=2, length=T):
    """Batch arrays [rows, T] from lists of examples per row."""
    arrays = {name: np.zeros((len(rows), length), np.int32) for name in Batch._fields[:-1]}
    for r, row in enumerate(rows):
        at = 0
        for number, tokens in enumerate(row, 1):
            n = len(tokens) - 1
            place = (r, slice(at, at + n))
            arrays["tokens"][place], arrays["targets"][place] = tokens[:-1], tokens[1:]
            arrays["segment_ids"][place], arrays["positions"][place] = number, np.arange(n)
            arrays["loss_mask"][place] = np.arange(1, n + 1) >= prompt_length
            at += n
    arrays["loss_mask"] = arrays["loss_mask"].astype(bool)
    return Batch(*map(jnp.asarray, arrays.values()), jnp.float32(max(1, arrays["loss_mask"].sum())))


def split(batch, accum_steps):
    """[rows, T] -> [accum_steps, rows / accum_steps, T]; the divisor stays the whole step's."""
    shaped = [x.reshape(accum_steps, -1, T) for x in batch[:-1]]
    return Batch(*shaped, loss_denom=jnp.full(accum_steps, batch.loss_denom))


def assert_close_for_its_size(actual, desired, name):
    """Float32 sums in another order differ by rounding of the largest terms, whatever an element itself comes to."""
    np.testing.assert_allclose(actual, desired, rtol=0, atol=1e-5 * float(jnp.abs(desired).max()), err_msg=name)


@pytest.fixture
def params():
    return MODEL.create_params(0)


def four_uneven_rows():
    rng = np.random.default_rng(1)
    batch = pack([examples(rng, 2), examples(rng, 1), examples(rng, 2, 9, 12), examples(rng, 1)])
    mask = np.array(batch.loss_mask)
    mask[1] = False  # with accum_steps 4 a micro-batch that trains nothing
    return batch._replace(loss_mask=jnp.asarray(mask), loss_denom=jnp.float32(mask.sum()))


@pytest.mark.parametrize("accum_steps", [2, 4])
def test_accumulated_equals_the_whole_batch(params, accum_steps):
    batch, first_moments, ends = four_uneven_rows(), [], []
    for n in (1, accum_steps):
        cfg = config(accum_steps=n)
        optimizer = make_optimizer(cfg)
        train_step = make_train_step(MODEL, cfg)
        state, metrics = run_step(
            train_step, create_state(jax.tree.map(jnp.copy, params), optimizer, cfg), split(batch, n)
        )
        first_moments.append(jax.device_get(inner_state(state.opt_state)[2][0].mu))  # a tenth of the gradient
        for _ in range(2):
            state, metrics = run_step(train_step, state, split(batch, n))
        ends.append((state.master, metrics))
    (whole, whole_metrics), (parts, parts_metrics) = ends
    np.testing.assert_allclose(parts_metrics.loss, whole_metrics.loss, rtol=1e-5)
    np.testing.assert_allclose(parts_metrics.grad_norm, whole_metrics.grad_norm, rtol=1e-4)
    for name in params:
        assert_close_for_its_size(first_moments[1][name], first_moments[0][name], name)
        # Adam divides a gradient by its own size: where it is itself no more than rounding the update is arbitrary, up
        # to the learning rate of 1e-2. A hundredth of that is allowed.
        np.testing.assert_allclose(parts[name], whole[name], rtol=0, atol=1e-4, err_msg=name)


def test_it_is_multisteps_bit_for_bit(params):
    """Against plain optax.MultiSteps, which runs the optimizer on every micro-step, over two optimizer steps."""
    cfg = config(accum_steps=4)
    optimizer = make_optimizer(cfg)
    batch = split(four_uneven_rows(), 4)
    ours = create_state(jax.tree.map(jnp.copy, params), optimizer, cfg)
    train_step = make_train_step(MODEL, cfg)
    for _ in range(2):
        ours, _ = run_step(train_step, ours, batch)

    master = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    opt_state = optimizer.init(master)

    @jax.jit
    def micro_step(master, opt_state, micro):
        image = jax.tree.map(lambda m: split_master(m)[0].astype(jnp.float32), master)
        grads = jax.grad(functools.partial(micro_loss, MODEL, cfg.loss_chunk))(image, micro)
        updates, opt_state = optimizer.update(grads, opt_state, master)
        return optax.apply_updates(master, updates), opt_state

    for i in range(8):
        master, opt_state = micro_step(master, opt_state, Batch(*(x[i % 4] for x in batch)))
    chex.assert_trees_all_equal((ours.master, ours.opt_state), (master, opt_state))


def test_params_are_always_the_bfloat16_view_of_the_master(params):
    """200 steps whose updates are below a bfloat16 ulp move the master and, in time, the parameters."""
    cfg = config(learning_rate=2e-5, final_learning_rate_ratio=1.0, num_steps=200, weight_decay=0.0)
    optimizer = make_optimizer(cfg)
    train_step = make_train_step(MODEL, cfg)
    start = jax.device_get(params["layers.0.attn_norm.scale"].astype(jnp.float32))  # ones: an ulp is 2**-8 or 2**-7
    state, batch = create_state(params, optimizer, cfg), split(four_uneven_rows(), 1)
    moved_at = None
    for step in range(1, 201):
        before = jax.device_get(state.master["layers.0.attn_norm.scale"])
        state, _ = run_step(train_step, state, batch)
        for name, master in state.master.items():
            assert jnp.array_equal(state.params[name], split_master(master)[0]), (name, step)
        after = jax.device_get(state.master["layers.0.attn_norm.scale"])
        assert 0 < np.abs(after - before).max() < 2**-9, step
        if moved_at is None and np.any(jax.device_get(state.params["layers.0.attn_norm.scale"]) != start):
            moved_at = step
    assert moved_at is not None and moved_at > 20, moved_at


@pytest.mark.parametrize("accum_steps, moments", [(1, "float32"), (2, "float32"), (2, "int8")])
def test_a_master_of_16_bits_is_bit_equal_to_a_float32_one(params, accum_steps, moments):
    """Parameters, master, moments and loss over 20 steps; the spec's matrices are made of whole blocks of int8."""
    batch, runs = split(four_uneven_rows(), accum_steps), []
    for form in ("float32", "remainder16"):
        cfg = config(accum_steps=accum_steps, moments=moments, master=form)
        optimizer = make_optimizer(cfg)
        train_step = make_train_step(MODEL, cfg)
        state, metrics = create_state(jax.tree.map(jnp.copy, params), optimizer, cfg), []
        for _ in range(20):
            state, m = run_step(train_step, state, batch)
            metrics.append(jax.device_get(m))
        whole = {
            name: np.asarray(leaf).view(np.uint32) for name, leaf in load_master(state.params, state.master).items()
        }
        runs.append(jax.device_get((state.params, whole, state.opt_state, metrics)))
        assert {leaf.dtype for leaf in state.master.values()} == {jnp.dtype("uint16" if "16" in form else "float32")}
    chex.assert_trees_all_equal(*runs)
    assert not np.array_equal(runs[0][0]["embed"], params["embed"])


def test_gradients_lose_nothing_where_they_are_bfloat16(params):
    """With bfloat16 activations, gradients at the bfloat16 matrices are those at their float32 image, bit for bit."""
    model = dataclasses.replace(MODEL, dtype="bfloat16")
    cfg = config(accum_steps=2)
    optimizer = make_optimizer(cfg)
    state, batch = create_state(params, optimizer, cfg), Batch(*(x[0] for x in split(four_uneven_rows(), 2)))
    exact = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    expected = jax.jit(jax.grad(functools.partial(micro_loss, model, cfg.loss_chunk)))(exact, batch)
    state = make_train_step(model, cfg).accumulate(detach(state), batch)
    chex.assert_trees_all_equal(accumulator(state.opt_state), expected)
    assert accumulator(state.opt_state)["embed"].dtype == jnp.float32
    assert np.any(jax.device_get(expected["embed"].astype(jnp.bfloat16)) != expected["embed"])  # summed in float32


def test_a_step_of_one_micro_batch_holds_no_accumulator(params):
    sizes = {}
    for n in (1, 2):
        cfg = config(accum_steps=n)
        state = jax.eval_shape(lambda p, c=cfg: create_state(p, make_optimizer(c), c), params)
        sizes[n] = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
        assert bool(accumulator(state.opt_state)) == (n == 2)
    floats = 4 * sum(p.size for p in params.values())
    assert sizes[2] - sizes[1] == floats + 8  # and the two counters of MultiSteps


def test_packed_examples_train_as_if_apart(params):
    rng = np.random.default_rng(2)
    first, second, third = examples(rng, 3)
    packed, apart = pack([[first, second, third]], length=40), pack([[first], [second], [third]], length=40)
    grad = jax.jit(jax.value_and_grad(functools.partial(micro_loss, MODEL, 32)))
    exact = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    (loss_p, grads_p), (loss_a, grads_a) = grad(exact, packed), grad(exact, apart)
    np.testing.assert_allclose(loss_p, loss_a, rtol=1e-6)
    for name in params:
        assert_close_for_its_size(grads_p[name], grads_a[name], name)


@jax.jit
def per_token(params, batch):
    model = MODEL.bind(params)
    hidden, _ = model(batch.tokens, batch.positions, batch.segment_ids)
    nll = -jax.nn.log_softmax(model.logits(hidden))
    return jnp.take_along_axis(nll, batch.targets[..., None], axis=-1)[..., 0]


def test_changing_one_example_changes_nothing_in_its_neighbours(params):
    rng = np.random.default_rng(3)
    first, second, third = examples(rng, 3)
    a = pack([[first, second, third]], length=40)
    b = pack([[first, (second + 11) % SPEC.vocab_size, third]], length=40)
    loss_a, loss_b = (per_token(params, x) for x in (a, b))
    neighbours = jnp.isin(a.segment_ids, jnp.array([1, 3]))
    assert jnp.array_equal(loss_a[neighbours], loss_b[neighbours])
    assert not jnp.array_equal(loss_a[a.segment_ids == 2], loss_b[a.segment_ids == 2])


def test_the_loss_sees_no_prompt_token(params):
    batch = pack([examples(np.random.default_rng(4), 2)], prompt_length=4)
    changed = batch._replace(targets=jnp.where(batch.loss_mask, batch.targets, 5))
    loss = jax.jit(functools.partial(micro_loss, MODEL, 32))
    assert loss(params, batch) == loss(params, changed)
    assert batch.loss_mask.sum() < (batch.segment_ids > 0).sum()


@pytest.mark.parametrize("accum_steps", [1, 2])
def test_a_non_finite_gradient_is_reported_and_not_applied(params, accum_steps):
    cfg = config(accum_steps=accum_steps)
    optimizer = make_optimizer(cfg)
    train_step = make_train_step(MODEL, cfg)
    batch = split(four_uneven_rows(), accum_steps)
    state, metrics = run_step(train_step, create_state(params, optimizer, cfg), batch)
    assert metrics.finite
    before = jax.device_get((state.params, state.master, inner_state(state.opt_state), state.step))
    poisoned = batch._replace(loss_denom=jnp.zeros_like(batch.loss_denom))
    state, metrics = run_step(train_step, state, poisoned)
    assert not metrics.finite
    after = jax.device_get((state.params, state.master, inner_state(state.opt_state), state.step))
    chex.assert_trees_all_equal(before, after)


def test_one_compilation_per_variant_for_a_whole_run(params):
    cfg = config(accum_steps=2)
    optimizer = make_optimizer(cfg)
    train_step = make_train_step(MODEL, cfg)
    state = create_state(params, optimizer, cfg)
    rng = np.random.default_rng(5)
    for count in (1, 2, 1, 2):
        state, _ = run_step(train_step, state, split(pack([examples(rng, count) for _ in range(4)]), 2))
    assert train_step.accumulate._cache_size() == 1
    assert train_step.apply._cache_size() == 1


@pytest.mark.parametrize("stored", [{}, {"master": "remainder16", "moments": "int8"}, {"moments": "bfloat16"}])
def test_the_state_is_donated_and_the_accumulating_variant_has_no_optimizer(params, stored):
    cfg = config(accum_steps=2, **stored)
    optimizer = make_optimizer(cfg)
    train_step = make_train_step(MODEL, cfg)
    state = create_state(params, optimizer, cfg)
    micro = Batch(*(x[0] for x in split(four_uneven_rows(), 2)))
    for variant, given in ((train_step.accumulate, detach(state)), (train_step.apply, state)):
        compiled = variant.lower(given, micro).compile()
        state_bytes = sum(x.nbytes for x in jax.tree.leaves(given))
        aliased = compiled.memory_analysis().alias_size_in_bytes
        # The recorded gradient norm is overwritten by a new scalar: the arrays of the model must all be aliased.
        assert aliased >= 0.99 * state_bytes, (aliased, state_bytes)
    accumulate_text = train_step.accumulate.lower(detach(state), micro).compile().as_text()
    apply_text = train_step.apply.lower(state, micro).compile().as_text()
    # Adam's denominator is the only square root over parameter shapes outside the norms' rsqrt.
    embed = f"f32[{SPEC.vocab_size},{SPEC.hidden_size}]"
    roots = lambda text: [
        line for line in text.splitlines() if "sqrt(" in line and "rsqrt(" not in line and embed in line
    ]
    assert roots(apply_text) and not roots(accumulate_text)


def test_remat_changes_memory_not_numbers(params):
    batch = Batch(*(x[0] for x in split(four_uneven_rows(), 1)))
    exact = jax.tree.map(lambda p: p.astype(jnp.float32), params)
    grad = lambda remat: jax.jit(
        jax.value_and_grad(functools.partial(micro_loss, ModelDef(SPEC, "float32", remat=remat), 32))
    )
    (loss_a, grads_a), (loss_b, grads_b) = grad("none")(exact, batch), grad("full")(exact, batch)
    np.testing.assert_allclose(loss_a, loss_b, rtol=1e-6)
    for name in params:
        np.testing.assert_allclose(grads_a[name], grads_b[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert "remat" in str(jax.make_jaxpr(grad("full"))(exact, batch))
    assert "remat" not in str(jax.make_jaxpr(grad("none"))(exact, batch))
