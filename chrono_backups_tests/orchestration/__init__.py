"""Dagster's side, through real repositories in temporary directories."""
