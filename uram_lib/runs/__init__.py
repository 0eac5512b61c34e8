"""From what a person asks for to the records of it: a `plan` of rows x seeds, each one a `run`, with its `progress` and
its `records`, and the `machine` that they are made on."""

# Here, as a plan is checked before PyTorch is imported.
DEVICES = ("auto", "cpu", "cuda", "mps")
