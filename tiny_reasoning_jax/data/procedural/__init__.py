"""Procedural problems: families of graded problems that the program writes itself, each with its own check.

Splits go by the hash of the canonical problem, never by a seed, so that no training problem is tested on.
"""

from tiny_reasoning_jax.data.procedural.families import FAMILIES, SPLITS, check, check_families, generate

__all__ = ["FAMILIES", "SPLITS", "check", "check_families", "generate"]
