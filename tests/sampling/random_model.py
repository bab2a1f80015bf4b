"""Random models whose predictions depend on the whole context: at the usual initialisation they hardly do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from tiny_reasoning_jax.model.qwen3 import ModelDef
from tiny_reasoning_jax.model.spec import ModelSpec

V = 97


NEVER = (V, V + 1)  # as eos_ids: tokens that the model cannot choose


def create_model(N=4, K=2, H=8, *, tied=True, num_layers=2, seed=0):
    """A float32 model and its parameters, with weights of the size that trained ones have."""
    spec = ModelSpec(V, 24, 40, num_layers, N, K, H, 1e4, tie_word_embeddings=tied)
    model_def = ModelDef(spec, dtype="float32")
    rng = np.random.default_rng(seed)
    params = {}
    for name, shape in model_def.shapes().items():
        if len(shape.shape) == 1:
            values = rng.uniform(0.5, 1.5, shape.shape)
        else:
            values = rng.normal(0, 0.4, shape.shape)
        params[name] = jnp.asarray(values, jnp.float32)
    return model_def, params


@functools.partial(jax.jit, static_argnames="model_def")
def _forward(model_def, params, tokens):
    B, T = tokens.shape
    model = model_def.bind(params)
    hidden, _ = model(tokens, jnp.broadcast_to(jnp.arange(T), (B, T)))
    return model.logits(hidden)


def full_logits(model_def, params, sequences):
    """Logits [len(sequences), T, V] without a cache, as training computes them; T is 80, 640 or 2112."""
    longest = max(map(len, sequences))
    tokens = np.zeros((len(sequences), next(T for T in (80, 640, 2112) if longest <= T)), np.int32)
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
    return np.asarray(_forward(model_def, params, tokens))


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def random_prompts(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, V, length).tolist() for length in lengths]
