"""The tasks that flows are made of."""
