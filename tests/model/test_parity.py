"""pytest tests/model/test_parity.py: laws 1 and 8. Float32 parity with transformers' torch Qwen3.

Every part gets transformers' own input of that part, so that only the guilty one fails. On a CPU jax
multiplies float32 in float32; elsewhere this test would need jax.default_matmul_precision("highest").
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from convert import mapping
from tiny_reasoning_jax.model import rope
from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import parse_hf_config

SHAPES = {
    "tied 1:1": {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 10, "hidden_size": 24},
    "tied 4:1": {"num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 6, "hidden_size": 20},
    "untied 2:1": {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "hidden_size": 28},
}
shapes = pytest.mark.parametrize("shape", SHAPES)
B, T, V = 2, 19, 131
LOGITS_TOLERANCE, LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-5, 1e-4


@dataclasses.dataclass
class Reference:
    """What transformers computes; `seen` holds input and output of its modules, names are Hugging Face's."""

    model_def: ModelDef
    entries: list[mapping.Entry]
    params: dict[str, jax.Array]
    tokens: np.ndarray
    targets: np.ndarray
    seen: dict[str, tuple[np.ndarray, np.ndarray]]
    logits: np.ndarray
    loss: float
    grads: dict[str, np.ndarray]


@functools.cache
def reference(shape: str) -> Reference:
    config = transformers.Qwen3Config(
        vocab_size=V,
        intermediate_size=36,
        num_hidden_layers=2,
        rms_norm_eps=1e-3,  # large enough that leaving it out, or putting it elsewhere, shows
        rope_theta=50.0,
        rope_parameters={"rope_theta": 50.0, "rope_type": "default"},  # as transformers 5 says it
        tie_word_embeddings=shape.startswith("tied"),
        attn_implementation="eager",
        **SHAPES[shape],
    )
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            parameter.copy_(1 + 0.3 * noise if "norm" in name else 0.3 * noise)
    seen = {}
    for name, module in model.named_modules():
        module.register_forward_hook(functools.partial(_record, seen, name), with_kwargs=True)
    tokens, targets = np.random.default_rng(1).integers(0, V, (2, B, T))
    logits = model(torch.from_numpy(tokens)).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.from_numpy(targets).flatten())
    loss.backward()
    spec = parse_hf_config(config.to_dict())
    entries = mapping.make_entries(spec)
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    return Reference(
        model_def=ModelDef(spec, dtype="float32"),
        entries=entries,
        params={entry.name: jnp.asarray(entry.from_hf(tensors[entry.hf_name])) for entry in entries},
        tokens=tokens.astype(np.int32),
        targets=targets.astype(np.int32),
        seen=seen,
        logits=logits.detach().numpy(),
        loss=loss.item(),
        grads={name: parameter.grad.numpy() for name, parameter in model.named_parameters()},
    )


def _record(seen, name, module, args, kwargs, output):
    x = args[0] if args else kwargs.get("hidden_states", kwargs.get("input_ids"))
    y = output[0] if isinstance(output, tuple) else output
    if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor):
        seen[name] = (x.detach().numpy(), y.detach().numpy())


@shapes
def test_every_part_computes_what_transformers_computes(shape):
    theirs = reference(shape)
    model = theirs.model_def.bind(theirs.params)
    positions = jnp.tile(jnp.arange(T), (B, 1))
    angles = rope.rope_angles(positions, model.spec.head_dim, model.spec.rope_theta)
    one_segment = jnp.ones((B, T), jnp.int32)
    parts = {"model.embed_tokens": lambda x: model.embed[...][x]}
    for i, layer in enumerate(model.layers):
        parts |= {
            f"model.layers.{i}.input_layernorm": layer.attn_norm,
            f"model.layers.{i}.self_attn": lambda x, a=layer.attn: a(x, angles, one_segment, positions, None)[0],
            f"model.layers.{i}.post_attention_layernorm": layer.mlp_norm,
            f"model.layers.{i}.mlp": layer.mlp,
            f"model.layers.{i}": lambda x, a=layer: a(x, angles, one_segment, positions, None)[0],
        }
    parts |= {"model.norm": model.final_norm, "lm_head": model.logits}
    inputs = {name: jnp.asarray(theirs.seen[name][0]) for name in parts}
    ours = jax.jit(lambda inputs: {name: part(inputs[name]) for name, part in parts.items()})(inputs)
    guilty = {}
    for name in parts:
        expected = theirs.seen[name][1]
        difference = float(np.abs(np.asarray(ours[name]) - expected).max())
        assert np.abs(expected).max() > 0.1, f"{name} says too little"
        if not difference <= LOGITS_TOLERANCE:
            guilty[name] = difference
    assert not guilty


def forward(model_def: ModelDef, params, tokens):
    """Logits of whole rows."""
    model = model_def.bind(params)
    hidden, _ = model(tokens, jnp.tile(jnp.arange(tokens.shape[1]), (tokens.shape[0], 1)))
    return model.logits(hidden)


@functools.partial(jax.jit, static_argnums=0)
def loss_and_grads(model_def: ModelDef, params, tokens, targets):
    """Mean cross-entropy and its gradients, and the logits."""

    def loss(params):
        logits = forward(model_def, params, tokens)
        picked = jnp.take_along_axis(jax.nn.log_softmax(logits), targets[..., None], axis=-1)
        return -picked.mean(), logits

    (value, logits), grads = jax.value_and_grad(loss, has_aux=True)(params)
    return value, grads, logits


@pytest.mark.parametrize("remat", ["none", "most", "some", "full"])
@shapes
def test_logits_loss_and_every_gradient(shape, remat):
    theirs = reference(shape)
    model_def = dataclasses.replace(theirs.model_def, remat=remat)
    loss, grads, logits = loss_and_grads(model_def, theirs.params, theirs.tokens, theirs.targets)
    assert np.abs(theirs.logits).max() > 3, "the logits say too little"
    assert np.abs(logits - theirs.logits).max() <= LOGITS_TOLERANCE
    assert abs(float(loss) - theirs.loss) <= LOSS_TOLERANCE
    guilty = {}
    for entry in theirs.entries:
        expected = entry.from_hf(theirs.grads[entry.hf_name])
        difference = float(np.abs(grads[entry.name] - expected).max() / np.abs(expected).max())
        if not difference <= GRADIENT_TOLERANCE:
            guilty[entry.name] = difference
    assert not guilty and len(grads) == len(theirs.entries) == len(theirs.grads)


def test_remat_recomputes_and_changes_nothing():
    """The gradient with remat holds the recomputation, and is the same number for number."""
    theirs = reference("tied 4:1")
    remat = dataclasses.replace(theirs.model_def, remat="full")
    arguments = (theirs.params, theirs.tokens, theirs.targets)
    plain, recomputed = (
        jax.make_jaxpr(loss_and_grads, static_argnums=0)(d, *arguments) for d in (theirs.model_def, remat)
    )
    assert "remat" not in str(plain) and "remat" in str(recomputed)
    a, b = (loss_and_grads(model_def, *arguments) for model_def in (theirs.model_def, remat))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6 * max(1, np.abs(x).max()))


def test_tied_embedding_is_one_parameter():
    theirs = reference("tied 1:1")
    assert "lm_head" not in theirs.params
    model = theirs.model_def.bind(theirs.params)
    assert model.head is model.embed[...]


@shapes
def test_a_future_token_cannot_change_past_logits(shape):
    """Law 8, bit for bit, at every place of a row; and the present one does change its own."""
    theirs = reference(shape)
    run = jax.jit(functools.partial(forward, theirs.model_def))
    tokens = np.tile(theirs.tokens[:1], (T + 1, 1))
    for t in range(T):
        tokens[t, t] = (tokens[t, t] + 1) % V  # row t is the last row with token t changed
    logits = np.asarray(run(theirs.params, tokens))
    for t in range(T):
        np.testing.assert_array_equal(logits[t, :t], logits[T, :t])
        assert np.all(np.any(logits[t, t:] != logits[T, t:], axis=-1))
