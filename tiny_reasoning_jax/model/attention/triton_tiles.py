"""Which tiles the Triton kernels of attention visit, and how large a tile is.

Segments are runs of equal ids and a token sees nothing later, so the keys of a tile of queries are one range of
positions: from the first of its first token's segment to its own last. Its work is that range and not the row: the cost
of a row follows the sum of its squared segment lengths. Seen from a tile of keys the range runs from itself to the last
position of its last token's segment. Padding sees nothing and is seen by nothing; where a tile holds nothing else, its
range is empty.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Tile sizes of one kernel, in tokens, and what Triton is told about it.

    Attributes:
      q: queries of a tile.
      k: keys of a tile.
      warps: groups of 32 threads that share a tile.
      stages: depth of the software pipeline: tiles in flight from memory, each takes its own shared memory.
    """

    q: int
    k: int
    warps: int
    stages: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """Tile sizes of the three kernels."""

    forward: Blocks
    backward_q: Blocks
    backward_kv: Blocks


# All of them: eight warps on the 128 rows that stay, 16 rows a warp, so that no warp waits for another's softmax and
# weights go from one product to the next in registers. At H = 128 that takes nearly all registers of an SM: one program
# runs there, and the rest of shared memory is free for tiles in flight. (64 rows and four warps: Triton hands weights
# round through shared memory. 128 rows and four warps: hundreds of bytes are spilled.) Chosen by what ptxas says of
# them in bfloat16: 210 to 255 registers, nothing spilled by forward and backward_q, 0 to 92 bytes by backward_kv.
# No GPU has timed them; benchmarks/attention.py --sweep does.
#                                       forward               backward_q            backward_kv
_ANY = Plan(Blocks(128, 64, 8, 3), Blocks(128, 64, 8, 2), Blocks(64, 128, 8, 2))  # 97 KiB of the 99 of 8.6, 8.9, 12.0
_BY_CAPABILITY = {
    "8.0": Plan(Blocks(128, 64, 8, 3), Blocks(128, 64, 8, 3), Blocks(64, 128, 8, 3)),  # 130 KiB of 163
    # Hopper's products read both operands from shared memory and are the faster the wider: keys in tiles of 128.
    "9.0": Plan(Blocks(128, 128, 8, 2), Blocks(128, 64, 8, 3), Blocks(64, 128, 8, 2)),  # 161 KiB of 227
}
_FLOAT32 = Plan(*[Blocks(32, 32, 4, 2)] * 3)  # for checks: no tensor cores, no thought of speed
_LONGEST = 128


def choose(dtype) -> Plan:
    """The tile sizes for the attached card; without a card those that run on each."""
    if dtype == jnp.float32:
        return _FLOAT32
    return _BY_CAPABILITY.get(getattr(jax.local_devices()[0], "compute_capability", None), _ANY)


def refusal(T: int, H: int) -> str | None:
    """Why rows of T tokens with heads of width H do not go into tiles; None if they do."""
    if H not in (16, 32, 64, 128):
        return f"the heads are {H} wide, and its tiles take 16, 32, 64 or 128; set train.attention=blockwise"
    if T % _LONGEST and T not in (16, 32, 64):
        above = -(-T // _LONGEST) * _LONGEST
        return f"train.seq_len={T} is not a multiple of {_LONGEST}, the tile of triton attention; take {above}"
    return None


def shorten(plan: Plan, T: int) -> Plan:
    """The same tiles, none longer than a row."""
    short = lambda blocks: dataclasses.replace(blocks, q=min(blocks.q, T), k=min(blocks.k, T))
    return Plan(short(plan.forward), short(plan.backward_q), short(plan.backward_kv))


def key_ranges(segment_ids: Int[Array, "B T"], block_q: int, block_k: int) -> Int[Array, "B Q 4"]:
    """Key tiles of every query tile: (first, first_whole, end_whole, end).

    Tiles outside [first, end) hold nothing that a query of the tile may see; of those in [first_whole, end_whole) every
    query sees every key, so that they need no mask.
    """
    tile = _Tile(segment_ids, block_q)
    first_seen = _first(segment_ids[:, None, :] == tile.first_id[:, :, None])
    return _ranges(tile, (first_seen, tile.last_token), (first_seen, tile.start), block_k)


def query_ranges(segment_ids: Int[Array, "B T"], block_q: int, block_k: int) -> Int[Array, "B K 4"]:
    """Query tiles of every key tile: (first, first_whole, end_whole, end), as in `key_ranges`."""
    tile = _Tile(segment_ids, block_k)
    last_seeing = _last(segment_ids[:, None, :] == tile.last_id[:, :, None])
    return _ranges(tile, (tile.first_token, last_seeing), (tile.start + block_k - 1, last_seeing), block_q)


class _Tile:
    """Of every tile of `block` tokens: its start, its first and last token that is not padding and their segments."""

    def __init__(self, segment_ids: Int[Array, "B T"], block: int):
        B, T = segment_ids.shape
        tiles = segment_ids.reshape(B, T // block, block)
        real = tiles != 0
        self.start = jnp.arange(0, T, block)[None, :]
        self.first_token, self.last_token = self.start + _first(real), self.start + _last(real)
        self.first_id = jnp.take_along_axis(segment_ids, self.first_token, axis=1)
        self.last_id = jnp.take_along_axis(segment_ids, self.last_token, axis=1)
        self.empty = ~jnp.any(real, axis=-1)
        self.one_segment = jnp.all(real, axis=-1) & (self.first_id == self.last_id)


def _ranges(tile: _Tile, some: tuple, whole: tuple, block: int) -> Int[Array, "B X 4"]:
    """Tiles of `block` tokens that touch the positions `some` (first and last), and those that lie within `whole`."""
    first, end = some[0] // block, some[1] // block + 1
    first_whole = jnp.where(tile.one_segment, -(-whole[0] // block), first)
    end_whole = jnp.where(tile.one_segment, jnp.maximum((whole[1] + 1) // block, first_whole), first)
    ranges = jnp.stack([first, first_whole, end_whole, end], axis=-1)
    return jnp.where(tile.empty[:, :, None], 0, ranges).astype(jnp.int32)


def _first(true: jax.Array) -> jax.Array:
    """Index of the first True on the last axis; 0 where there is none."""
    return jnp.argmax(true, axis=-1)


def _last(true: jax.Array) -> jax.Array:
    """Index of the last True on the last axis."""
    return true.shape[-1] - 1 - jnp.argmax(true[..., ::-1], axis=-1)
