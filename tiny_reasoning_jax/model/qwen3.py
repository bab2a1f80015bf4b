"""Qwen3 (dense) in Flax NNX: arXiv 2505.09388; the layer equations are checked against transformers in the tests.

Modules are used at the edges: `ModelDef` builds the graph once, and training and sampling work on a plain dict
{"layers.0.attn.q": array, ...} that `ModelDef.bind` turns into a callable model inside a jitted function.
Letters: B rows, T positions, S cache slots, D width, F MLP width, N query heads, K key/value heads, H head width,
V rows of the vocabulary.
"""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from tiny_reasoning_jax.model import attention, cache, remat, rope, rows
from tiny_reasoning_jax.model.spec import ModelSpec

Params = dict[str, jax.Array]


def _matrix(rngs: nnx.Rngs, shape: tuple[int, ...], axes: tuple[str, ...], stddev: float) -> nnx.Param:
    """A normal-initialised float32 parameter that carries the logical name of each axis.

    The stddev is fan_in ** -0.5, and width ** -0.5 for the embedding: Qwen3's 0.02 at its own width of 2048. At a
    width of 128 that is 0.088, which the tiny recipe learns from faster than from 0.02.
    """
    return nnx.Param(stddev * jax.random.normal(rngs.params(), shape, jnp.float32), logical_axes=axes)


def _residual_stddev(spec: ModelSpec, fan_in: int) -> float:
    """Residual branches start smaller, so that their sum over the layers keeps its scale (GPT-2's rule)."""
    return (fan_in * 2 * spec.num_hidden_layers) ** -0.5


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _look_up(
    table: Float[Array, "V D"], tokens: Int[Array, "B T"], dtype
) -> tuple[Float[Array, "B T D"], Float[Array, "V D"]]:
    """The table's rows in dtype, and the table as it is, for a head that is tied to it.

    Gradients of both meet in one float32 array: rows are added to the head's in place. Where each had its own there
    would be two of 1.16 GiB at 151,936 x 2,048. Rows are cast before they are taken where that is narrower: a float32
    image of bfloat16 parameters, which training differentiates at, is then never formed; the gradient that JAX derives
    of this order would be summed in bfloat16.
    """
    return table.astype(min(table.dtype, dtype, key=lambda d: d.itemsize))[tokens].astype(dtype), table


def _look_up_forward(table, tokens, dtype):
    return _look_up(table, tokens, dtype), tokens


def _look_up_backward(dtype, tokens, cotangents):
    d_rows, d_table = cotangents
    return d_table.astype(jnp.float32).at[tokens].add(d_rows.astype(jnp.float32)).astype(d_table.dtype), None


_look_up.defvjp(_look_up_forward, _look_up_backward)


def _joined(x, *matrices):
    widths = [matrix[0].size for matrix in matrices]
    joint = jnp.concatenate([matrix.reshape(x.shape[-1], -1) for matrix in matrices], axis=1)
    parts = jax.lax.split(x.reshape(-1, x.shape[-1]) @ joint, widths, axis=1)
    return tuple(y.reshape(*x.shape[:-1], *matrix.shape[1:]) for y, matrix in zip(parts, matrices, strict=True))


def _apart(x, *matrices):
    return tuple(jnp.tensordot(x, matrix, 1) for matrix in matrices)


def _by_platform(x, *args, joined, apart):
    # Of few rows, as in decoding, the matrices are the larger part, and joining them copies them.
    if x.size < 8 * x.shape[-1] ** 2:
        return apart(x, *args)
    return jax.lax.platform_dependent(x, *args, cpu=joined, default=apart)


@jax.custom_vjp
def project(x: Float[Array, "*any D"], *matrices: Float[Array, "D ..."]) -> tuple[Float[Array, "..."], ...]:
    """x times each matrix, [*any, ...]: on a CPU in one product of them joined, elsewhere one after the other.

    Joined they read x once and sum its gradient inside one product. On a CPU small products gain, 5 % of the tiny
    recipe's step. On a GPU that is 0.2 GB of traffic a layer at 16k tokens of Qwen3-1.7B for q, k and v; to join the
    matrices, which the state keeps apart, and the gradients on their way in costs as much, and 2 GB to hold the joint
    ones until the backward pass; each is large enough to fill a card (computed, not measured on a GPU).
    """
    return _by_platform(x, *matrices, joined=_joined, apart=_apart)


def _project_backward(residuals, d_out):
    x, *matrices = residuals
    derive = lambda function: lambda x, d_out, *matrices: jax.vjp(function, x, *matrices)[1](d_out)
    return _by_platform(x, d_out, *matrices, joined=derive(_joined), apart=derive(_apart))


project.defvjp(lambda x, *matrices: (project(x, *matrices), (x, *matrices)), _project_backward)


class RMSNorm(nnx.Module):
    """Root-mean-square norm over the last axis; statistics in float32 (arXiv 1910.07467)."""

    def __init__(self, size: int, eps: float, axis: str):
        self.scale = nnx.Param(jnp.ones(size, jnp.float32), logical_axes=(axis,))
        self.eps = eps

    def __call__(self, x: Float[Array, "*any size"]) -> Float[Array, "*any size"]:
        """Normalises x and scales it; the result has x's dtype."""
        return rows.rms_norm(x, self.scale[...], self.eps)


class Attention(nnx.Module):
    """Grouped-query attention with RMSNorm on queries and keys."""

    def __init__(self, spec: ModelSpec, attend, rngs: nnx.Rngs):
        D, H = spec.hidden_size, spec.head_dim
        N, K = spec.num_attention_heads, spec.num_key_value_heads
        self.q = _matrix(rngs, (D, N, H), ("embed", "heads", "head_dim"), D**-0.5)
        self.k = _matrix(rngs, (D, K, H), ("embed", "kv_heads", "head_dim"), D**-0.5)
        self.v = _matrix(rngs, (D, K, H), ("embed", "kv_heads", "head_dim"), D**-0.5)
        self.o = _matrix(rngs, (N, H, D), ("heads", "head_dim", "embed"), _residual_stddev(spec, N * H))
        self.q_norm = RMSNorm(H, spec.rms_norm_eps, "head_dim")
        self.k_norm = RMSNorm(H, spec.rms_norm_eps, "head_dim")
        self.attend = attend

    def __call__(self, x, angles, segment_ids, through_cache, layer_cache):
        """x [B, T, D] -> [B, T, D] and the layer's updated cache; without one, None."""
        w = lambda param: param[...].astype(x.dtype)
        q, k, v = (remat.name(y, remat.ATTENTION) for y in project(x, w(self.q), w(self.k), w(self.v)))
        q, k = rope.rotate(self.q_norm(q), angles), rope.rotate(self.k_norm(k), angles)
        if layer_cache is None:
            context = self.attend(q, k, v, segment_ids)  # a backend names what it keeps
        else:
            context, layer_cache = through_cache(layer_cache, q, k, v)
        return jnp.einsum("BTNH,NHD->BTD", context, w(self.o)), layer_cache


@jax.custom_vjp
def _swiglu(gate: Float[Array, "rows F"], up: Float[Array, "rows F"]) -> Float[Array, "rows F"]:
    """silu(gate) * up. Keeps the two for its backward pass and nothing else.

    The derivative that JAX makes of it keeps silu(gate) and the sigmoid, too. The GPU's compiler computes them again in
    the kernels that read them (the plan is the same); the CPU's writes and reads them.
    """
    return jax.nn.silu(gate) * up


def _swiglu_backward(residuals, d_out):
    gate, up, d_out = (x.astype(jnp.float32) for x in (*residuals, d_out))
    sigmoid = jax.nn.sigmoid(gate)
    silu = gate * sigmoid
    d_gate = d_out * up * (sigmoid + silu * (1 - sigmoid))
    return d_gate.astype(residuals[0].dtype), (d_out * silu).astype(residuals[1].dtype)


_swiglu.defvjp(lambda gate, up: (_swiglu(gate, up), (gate, up)), _swiglu_backward)


class MLP(nnx.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, spec: ModelSpec, rngs: nnx.Rngs):
        D, F = spec.hidden_size, spec.intermediate_size
        self.gate = _matrix(rngs, (D, F), ("embed", "mlp"), D**-0.5)
        self.up = _matrix(rngs, (D, F), ("embed", "mlp"), D**-0.5)
        self.down = _matrix(rngs, (F, D), ("mlp", "embed"), _residual_stddev(spec, F))

    def __call__(self, x: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        """Applies down(silu(gate(x)) * up(x))."""
        w = lambda param: param[...].astype(x.dtype)
        # Flat rows: with [B, T, F] the CPU compiler picks layouts that make the backward pass 2.4 times slower.
        flat = x.reshape(-1, x.shape[-1])
        gate, up = (remat.name(y, remat.MLP) for y in project(flat, w(self.gate), w(self.up)))
        return (_swiglu(gate, up) @ w(self.down)).reshape(x.shape)


class Layer(nnx.Module):
    """One transformer block with pre-norm residual branches."""

    def __init__(self, spec: ModelSpec, attend, rngs: nnx.Rngs):
        self.attn_norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps, "embed")
        self.attn = Attention(spec, attend, rngs)
        self.mlp_norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps, "embed")
        self.mlp = MLP(spec, rngs)

    def __call__(self, x, angles, segment_ids, through_cache, layer_cache):
        """x [B, T, D] -> [B, T, D] and the layer's cache."""
        with jax.named_scope("attention"):
            context, layer_cache = self.attn(self.attn_norm(x), angles, segment_ids, through_cache, layer_cache)
            x = remat.name(x + context, remat.ATTENTION)
        with jax.named_scope("mlp"):
            return x + self.mlp(self.mlp_norm(x)), layer_cache


@jax.custom_vjp
def _one_by_one(x, weights):
    """x and weights as they are; on the way back their gradients leave together.

    So a layer's weights have their gradients before the layer below begins. Left to itself XLA's GPU scheduler puts
    those products behind the whole backward pass, and all that they read waits for them: 0.8 GiB of 63 at 16k tokens.
    """
    return x, weights


_one_by_one.defvjp(
    lambda x, weights: ((x, weights), None), lambda _, gradients: jax.lax.optimization_barrier(gradients)
)


@functools.partial(jax.jit, static_argnames=("graph", "rung"))
def _run_layer(graph, weights, x, angles, segment_ids, rung: str):
    """A layer of training: traced once for all layers, not 28 times, which takes ten seconds of every start."""
    x, weights = _one_by_one(x, weights)
    run = remat.wrap(nnx.merge(graph, weights).__call__, rung)
    return run(x, angles, segment_ids, None, None)[0]


class Qwen3(nnx.Module):
    """The decoder. Layers are unrolled: scanned layers keep nearly twice the activations on a GPU."""

    def __init__(self, spec: ModelSpec, rngs: nnx.Rngs, *, dtype, attend, remat: str):
        self.spec, self.dtype, self.remat = spec, dtype, remat
        self.embed = _matrix(rngs, (spec.vocab_size, spec.hidden_size), ("vocab", "embed"), spec.hidden_size**-0.5)
        self.layers = nnx.List([Layer(spec, attend, rngs) for _ in range(spec.num_hidden_layers)])
        self.final_norm = RMSNorm(spec.hidden_size, spec.rms_norm_eps, "embed")
        if not spec.tie_word_embeddings:
            self.lm_head = _matrix(
                rngs, (spec.vocab_size, spec.hidden_size), ("vocab", "embed"), spec.hidden_size**-0.5
            )

    @property
    def head(self) -> Float[Array, "V D"]:
        """The output matrix; with tied embeddings it is the embedding itself, not a copy."""
        return (self.embed if self.spec.tie_word_embeddings else self.lm_head)[...]

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        positions: Int[Array, "B T"],
        segment_ids: Int[Array, "B T"] | None = None,
        kv_cache: cache.Cache | None = None,
        through_cache: Callable | None = None,
    ) -> tuple[Float[Array, "B T D"], cache.Cache | None]:
        """Final hidden states, before the head.

        Args:
          tokens: input ids.
          positions: place of each token in its own sequence.
          segment_ids: packed examples, see data/batch.py; None means that every row is one sequence.
          kv_cache: with a cache, tokens are stored in it and see the earlier slots of their row; segment_ids are not
            used.
          through_cache: how, and where: cache.extend or cache.step, its keywords given.
        """
        embedded, _ = self.look_up(tokens)
        if segment_ids is None:
            segment_ids = jnp.ones_like(tokens)
        return self.run(embedded, positions, segment_ids, kv_cache, through_cache)

    def look_up(self, tokens: Int[Array, "B T"]) -> tuple[Float[Array, "B T D"], Float[Array, "V D"]]:
        """The tokens' embeddings, and the head; whose gradients, tied, then take one array (see `_look_up`)."""
        embedded, table = _look_up(self.embed[...], tokens, self.dtype)
        return embedded, table if self.spec.tie_word_embeddings else self.head

    def run(self, x, positions, segment_ids, kv_cache=None, through_cache=None):
        """What `__call__` does with the tokens' embeddings x [B, T, D]."""
        angles = rope.rope_angles(positions, self.spec.head_dim, self.spec.rope_theta)
        new_cache = []
        for i, layer in enumerate(self.layers):
            if kv_cache is None:
                x = _run_layer(*nnx.split(layer), x, angles, segment_ids, rung=self.remat)
                continue
            x, layer_cache = layer(x, angles, segment_ids, through_cache, kv_cache[i])
            new_cache.append(layer_cache)
        return self.final_norm(x), None if kv_cache is None else tuple(new_cache)

    def logits(self, hidden: Float[Array, "*any D"]) -> Float[Array, "*any V"]:
        """Float32 logits of final hidden states. For training use train/losses.py, which never holds them all."""
        return jnp.einsum("...D,VD->...V", hidden, self.head.astype(hidden.dtype), preferred_element_type=jnp.float32)


@dataclasses.dataclass(frozen=True)
class ModelDef:
    """Everything static about a model: hashable, so that it can be closed over or passed as a static argument.

    Attributes:
      spec: the shape.
      dtype: dtype of activations; parameters are cast to it where they are used.
      attention: name of the training attention backend.
      remat: rung of the ladder in model/remat.py: what a layer keeps for its backward pass.
    """

    spec: ModelSpec
    dtype: str = "bfloat16"
    attention: str = "reference"
    remat: str = "none"

    def _create(self, seed) -> Qwen3:
        attend = attention.select(self.attention)
        return Qwen3(self.spec, nnx.Rngs(seed), dtype=jnp.dtype(self.dtype), attend=attend, remat=self.remat)

    @functools.cached_property
    def _split(self):
        graph, state = nnx.split(nnx.eval_shape(lambda: self._create(0)))
        return graph, nnx.to_flat_state(state)

    def bind(self, params: Params) -> Qwen3:
        """The callable model over `params`. For use inside a traced function: it costs time only while tracing.

        The layers' parameters are cast to dtype here, outside of any rematerialised layer, whose arguments are kept:
        it would hold a second, float32 copy of them where training differentiates at the float32 image of the
        parameters. The embedding and the head stay as they are, because their gradients are summed in float32.
        """
        graph, flat_state = self._split
        flat = []
        for path, variable in flat_state:
            value = params[_name(path)]
            flat.append((path, variable.replace(value.astype(self.dtype) if path[0] == "layers" else value)))
        return nnx.merge(graph, nnx.from_flat_state(flat))

    def shapes(self) -> dict[str, jax.ShapeDtypeStruct]:
        """Name -> shape of every parameter, bfloat16, as it is stored."""
        return {_name(p): jax.ShapeDtypeStruct(v.get_value().shape, jnp.bfloat16) for p, v in self._split[1]}

    def logical_axes(self) -> dict[str, tuple[str, ...]]:
        """Name -> logical name of each axis of every parameter, for sharding rules."""
        return {_name(path): variable.get_metadata("logical_axes") for path, variable in self._split[1]}

    def create_params(self, seed: int) -> Params:
        """New random parameters in bfloat16, the same for the same seed."""

        @jax.jit
        def create():
            state = nnx.to_flat_state(nnx.state(self._create(seed)))
            return {_name(path): variable[...].astype(jnp.bfloat16) for path, variable in state}

        return create()


def _name(path: tuple) -> str:
    return ".".join(map(str, path))
