"""A company's own data in, a small language model for the edge out: a Dagster asset graph over Microsoft Olive."""

__version__ = "0.1.0"
