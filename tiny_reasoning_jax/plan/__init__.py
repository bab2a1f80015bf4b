"""What a run needs of a GPU, before anyone rents one: the step of training, compiled for any card."""
