"""Attacks on images, training against them (`attacks`), and how Table 4 tests with them (`robustness`)."""
