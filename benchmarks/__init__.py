"""One file for each figure the README quotes; `python -m benchmarks --list` names them."""
