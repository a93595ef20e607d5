"""What is tested with: freezing test sets and reading them again.

Rows that once stood here are never trained on.
"""

TEST_SET = "test_set.parquet"
"""What a `raw_dataset` calls the test set that it used or proposes."""
