"""Pure functions from files to canonical records and from records to tokens. No Dagster, no torch, no transformers."""
