"""The dataset that a new home directory starts with, and the script that made it."""
