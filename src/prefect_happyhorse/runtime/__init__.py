"""Prefect's machinery around a run: limits, cancellation, events, lineage and automations."""
