"""The pure middle: facts and arithmetic. No clock, no randomness, no files, no await: they arrive as arguments."""
