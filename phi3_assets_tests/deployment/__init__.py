"""Dockerfile, Compose and PostgreSQL, without a Docker engine: what they say is done by real processes."""
