"""Dagster's front door. Settings that are wrong are shown whole where the code location fails to load."""

from chrono_backups.orchestration.location import build_definitions
from chrono_backups.settings import load

defs = build_definitions(load())
