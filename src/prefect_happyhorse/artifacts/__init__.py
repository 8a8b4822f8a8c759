"""What a run shows in the Prefect UI: cards, galleries, tables and progress."""
