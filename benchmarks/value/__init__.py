"""What the numbers are good for: held-out experiments, one module for each question.

A module has ``QUESTION``, a sentence; ``measure(folder, sets, seeds)``, which returns rows for a
table, whose measured cells are :class:`~benchmarks.value.intervals.Measured`; and
``plot(rows, axes)``, which draws them. :data:`benchmarks.value.__main__.QUESTIONS` lists them.
"""
