"""The six stages and all that runs them: trainer, checkpoints, processes, costs."""
