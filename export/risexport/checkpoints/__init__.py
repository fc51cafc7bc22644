"""Reading the models' checkpoints."""
