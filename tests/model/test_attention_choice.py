"""pytest tests/model/test_attention_choice.py: which attention trains where, and what a kernel must pass first."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tiny_reasoning_jax.errors import UserError
from tiny_reasoning_jax.model import attention
from tiny_reasoning_jax.model.attention import choice, plain, self_test
from tiny_reasoning_jax.model.attention.choice import Device

CPU, TPU, AMD = Device("cpu"), Device("tpu"), Device("gpu")
T4, A100, RTX4090, H100, B200 = (Device("gpu", c) for c in ((7, 5), (8, 0), (8, 9), (9, 0), (10, 0)))
QWEN3 = {"seq_len": 4096, "head_dim": 128, "dtype": "bfloat16"}


def candidates(asked, device, **changes):
    return choice.candidates(asked, device, **{**QWEN3, **changes})


@pytest.mark.parametrize(
    "device, changes, expected",
    [
        (H100, {}, ("cudnn", "triton", "blockwise")),
        (B200, {}, ("cudnn", "triton", "blockwise")),
        (H100, {"deterministic": True}, ("triton", "blockwise")),
        (RTX4090, {}, ("triton", "blockwise")),
        (A100, {"seq_len": 32768}, ("triton", "blockwise")),
        (H100, {"dtype": "float32"}, ("blockwise",)),
        (H100, {"head_dim": 72}, ("cudnn", "blockwise")),  # no tile of Triton's
        (H100, {"seq_len": 1000}, ("cudnn",)),  # cuDNN takes rows of any length
        (H100, {"seq_len": 512}, ("reference",)),
        (T4, {"dtype": "float32"}, ("blockwise",)),
        (CPU, {}, ("blockwise",)),
        (CPU, {"seq_len": 256, "dtype": "float32"}, ("reference",)),
        (TPU, {}, ("blockwise",)),
        (AMD, {}, ("blockwise",)),
    ],
)
def test_auto_follows_the_table(device, changes, expected):
    assert candidates("auto", device, **changes) == expected


def test_what_is_asked_for_by_name_is_all_that_is_tried():
    for name in choice.NAMES:
        assert candidates(name, H100) == (name,)
    assert set(choice.NAMES) == set(attention.BACKENDS) and set(choice.KERNELS) < set(choice.NAMES)


@pytest.mark.parametrize(
    "asked, device, changes, message",
    [
        ("flash", H100, {}, "'flash' is unknown; choose one of auto, reference, blockwise, cudnn, triton"),
        ("cudnn", A100, {}, r"'cudnn' cannot run: it needs a card from Hopper on \(compute capability 9.0\), this is "
                            r"compute capability 8.0; --config.train.attention=auto takes the best that can"),
        ("cudnn", CPU, {}, "'cudnn' cannot run: it needs an NVIDIA card, and here is cpu"),
        ("triton", AMD, {}, "'triton' cannot run: it needs an NVIDIA card, and here is gpu"),
        ("triton", T4, {"dtype": "float16"}, "it needs a card from Ampere on"),
        ("cudnn", H100, {"dtype": "float32"}, "cuDNN takes bfloat16 and float16, not float32"),
        ("triton", H100, {"dtype": "float32"}, "train in 16 bits, not in float32"),
        ("triton", H100, {"head_dim": 72}, "heads are 72 wide"),
        ("cudnn", H100, {"head_dim": 12}, "heads up to 256 wide, in steps of 8; the model's head_dim is 12"),
        ("blockwise", CPU, {"seq_len": 1000}, "train.seq_len=1000 is not a multiple of 512, .* take 1024"),
        ("auto", CPU, {"seq_len": 1000}, "no attention backend .*train.seq_len=1000.*blockwise: .* take 1024"),
        ("auto", T4, {}, "compute capability 7.5.* cannot compute in bfloat16.*another card, or "
                         "--config.train.compute_dtype=float32 --config.train.attention=blockwise"),
        ("blockwise", T4, {}, "compute capability 7.5.* cannot compute in bfloat16"),
    ],
)  # fmt: skip
def test_what_cannot_run_is_refused_with_a_remedy(asked, device, changes, message):
    with pytest.raises(UserError, match=message):
        candidates(asked, device, **changes)


def test_the_attached_device_is_described(monkeypatch):
    class Card:
        platform, compute_capability = "gpu", "9.0"

    assert choice.attached().platform == jax.local_devices()[0].platform
    for capability, expected in (("9.0", H100), ("12.1", Device("gpu", (12, 1))), ("gfx942", AMD), (None, AMD)):
        Card.compute_capability = capability
        monkeypatch.setattr(jax, "local_devices", lambda: [Card()])
        assert choice.attached() == expected


# The self-test. N, K and H small, so that a row of 256 tokens and its 20 examples take no time; on a card they are the
# run's.
SHAPE = {"N": 4, "K": 2, "H": 16, "dtype": jnp.bfloat16, "seq_len": 256}


def visible(ids, earlier):
    """[B, T, T]: what a mask that is right but for the order lets see; earlier(t, s)."""
    t = jnp.arange(ids.shape[1])
    return (ids[:, :, None] == ids[:, None, :]) & (ids != 0)[:, :, None] & earlier(t[:, None], t[None, :])


def with_mask(earlier):
    return lambda q, k, v, ids: plain.masked_attention(q, k, v, visible(ids, earlier))


def with_gradients(change):
    """Attention whose output is right, with changed gradients of q, k and v."""

    @jax.custom_vjp
    def attend(q, k, v, ids):
        return plain.reference(q, k, v, ids)

    def forward(q, k, v, ids):
        out, pull = jax.vjp(lambda q, k, v: plain.reference(q, k, v, ids), q, k, v)
        return out, (pull, ids)

    attend.defvjp(forward, lambda residuals, d_out: (*change(residuals[1], *residuals[0](d_out)), None))
    return attend


def without_last_segments(ids, *grads):
    last = (ids >= jnp.max(ids, axis=1, keepdims=True) - 1)[:, :, None, None]
    return [jnp.where(last, 0, x) for x in grads]


def repeat(x, q):
    return jnp.tile(x, (1, 1, q.shape[2] // x.shape[2], 1))  # head n reads n % K, and not n // G


def other_tokens(x):
    """What a token at t reads if the row's offset is doubled on the way, as by offsets times N * H for K * H."""
    return x[:, (2 * jnp.arange(x.shape[1])) % x.shape[1]]


FAULTS = {
    "segment ids are dropped": lambda q, k, v, ids: plain.reference(q, k, v, jnp.minimum(ids, 1)),
    "two segments are one": lambda q, k, v, ids: plain.reference(q, k, v, (ids + 1) // 2),
    "the future is seen": with_mask(lambda t, s: s >= 0),
    "one token ahead is seen": with_mask(lambda t, s: s <= t + 1),
    "heads are grouped otherwise": lambda q, k, v, ids: plain.reference(q, repeat(k, q), repeat(v, q), ids),
    "wrong offsets of keys": lambda q, k, v, ids: plain.reference(q, other_tokens(k), other_tokens(v), ids),
    "another scale": lambda q, k, v, ids: plain.reference(1.1 * q, k, v, ids),
    "a gradient is missing": with_gradients(lambda ids, dq, dk, dv: (dq, 0 * dk, dv)),
    "a gradient is a tenth off": with_gradients(lambda ids, dq, dk, dv: (1.1 * dq, dk, dv)),
    "a head has no gradient": with_gradients(lambda ids, dq, dk, dv: (dq, dk, dv.at[:, :, 0].set(0))),
    "groups are not summed": with_gradients(lambda ids, dq, dk, dv: (dq, dk / 2, dv)),
    "the last segments have no gradient": with_gradients(without_last_segments),
    "padding has a gradient": with_gradients(lambda ids, dq, dk, dv: (dq, jnp.where(dk == 0, 1e-3, dk), dv)),
    "padding is not finite": lambda q, k, v, ids: jnp.where(
        (ids != 0)[:, :, None, None], plain.reference(q, k, v, ids), jnp.nan
    ),
}  # fmt: skip


@pytest.mark.parametrize("attend", FAULTS.values(), ids=FAULTS)
def test_the_self_test_sees_every_fault(attend):
    outcome = self_test.test(attend, **SHAPE)
    assert not outcome.passed and outcome.error > 1.5 * self_test.TOLERANCE, outcome


@pytest.mark.parametrize("dtype, error", ((jnp.bfloat16, 0.01), (jnp.float16, 0.0015)))
def test_what_is_right_passes_by_far(dtype, error):
    outcome = self_test.test(plain.reference, **{**SHAPE, "dtype": dtype})
    assert outcome.passed and 0 < outcome.error < error


def test_only_packed_against_apart_sees_what_spoils_both_sides(monkeypatch):
    """The two comparisons do not lean on each other: here plain attention itself has lost the segments."""
    segments_lost = lambda q_ids, k_ids, first: visible(jnp.minimum(q_ids, 1), lambda t, s: s <= t)
    monkeypatch.setattr(plain, "packed_mask", segments_lost)
    # A length of its own: what is compiled already does not see the change.
    outcome = self_test.test(plain.reference, **{**SHAPE, "seq_len": 240})
    assert not outcome.passed and "the same examples apart" in outcome.where


@pytest.mark.parametrize("T", (1, 16, 128, 640, 1024))
def test_rows_of_the_self_test_are_ragged(T):
    ids = self_test.ragged_rows(T)
    for row in ids:
        runs = np.split(row, np.flatnonzero(np.diff(row)) + 1)
        assert [run[0] for run in runs] == [*range(1, row.max() + 1), 0]
    if T >= 128:
        lengths = [np.bincount(row)[1:] for row in ids]
        assert 1 in lengths[0] and max(lengths[1]) > T // 2 and all(len(np.unique(n)) > 2 for n in lengths)


def settle(asked, names, backends):
    return self_test.settle(asked, names, {**attention.BACKENDS, **backends}, **SHAPE)


def broken(q, k, v, ids):
    raise ValueError("no kernel image\nfor this device")


def test_a_kernel_that_passes_is_taken_and_says_so():
    name, said = settle("auto", ("cudnn", "triton"), {"cudnn": plain.reference})
    assert name == "cudnn" and len(said) == 1
    assert said[0].startswith("attention: cudnn, self-test passed: largest error 0.00")


def test_a_kernel_that_fails_is_refused_by_name_and_the_next_one_tried():
    dropped = FAULTS["segment ids are dropped"]
    name, said = settle("auto", ("cudnn", "triton", "blockwise"), {"cudnn": dropped, "triton": broken})
    assert name == "blockwise" and said[-1] == "attention: blockwise"
    assert said[0].startswith(
        "WARNING: attention backend 'cudnn' FAILED its self-test on this device and is not used: the"
    )
    assert said[1].endswith("'triton' FAILED its self-test on this device and is not used: ValueError: no kernel image")
    name, _ = settle("auto", ("cudnn", "triton", "blockwise"), {"cudnn": broken, "triton": plain.reference})
    assert name == "triton"


def test_a_kernel_that_is_asked_for_and_fails_ends_the_run():
    with pytest.raises(
        UserError, match="train.attention='cudnn': .*'cudnn' FAILED.*Take --config.train.attention=blockwise"
    ):
        settle("cudnn", ("cudnn",), {"cudnn": broken})


def test_plain_attention_needs_no_self_test():
    assert settle("auto", ("reference",), {"reference": broken}) == ("reference", ["attention: reference"])


def test_kernels_of_the_attached_card_pass_at_the_heads_of_qwen3():
    device = choice.attached()
    names = [name for name in candidates("auto", device) if name in choice.KERNELS] if device.capability else []
    if not names:
        pytest.skip("no NVIDIA card from Ampere on")
    for name in names:
        outcome = self_test.test(attention.BACKENDS[name], N=16, K=8, H=128, dtype=jnp.bfloat16, seq_len=4096)
        assert outcome.passed, (name, outcome)
