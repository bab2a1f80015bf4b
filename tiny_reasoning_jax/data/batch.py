"""What the pipeline hands to the training step."""

import dataclasses
from typing import NamedTuple

import numpy as np


class Batch(NamedTuple):
    """Packed rows. In a micro-batch the arrays are [B, T]; in a whole step [accum_steps, B, T].

    Attributes:
      tokens: int32, input ids; 0 where there is padding.
      targets: int32, the id that follows each input within its own example; 0 where there is none.
      loss_mask: bool, True where the target is a completion token.
      segment_ids: int32, which example of the row a position belongs to, from 1; 0 is padding.
      positions: int32, place within the example, from 0.
      loss_denom: float32 scalar, trained tokens of the whole step: the divisor of each micro-batch's loss sum, so that
        the sum over micro-batches is total loss / total tokens for any split.
    """

    tokens: np.ndarray
    targets: np.ndarray
    loss_mask: np.ndarray
    segment_ids: np.ndarray
    positions: np.ndarray
    loss_denom: np.ndarray


@dataclasses.dataclass(frozen=True)
class StepBatch:
    """This host's rows of one optimizer step; the numbers are of the whole step, over all hosts.

    Attributes:
      arrays: Batch whose arrays are [accum_steps, B, T]; those of all hosts, side by side along B, are the step.
      ids: example ids of each micro-batch, this host's only.
      num_tokens: real (not padding) input positions in the step.
      num_trained_tokens: positions with loss_mask True.
      difficulty_tokens: int64 [5], the real input positions by difficulty of their example.
    """

    arrays: Batch
    ids: list[list[str]]
    num_tokens: int
    num_trained_tokens: int
    difficulty_tokens: np.ndarray
