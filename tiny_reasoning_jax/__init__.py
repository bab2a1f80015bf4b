"""Training a reasoning model on one GPU, in JAX."""
