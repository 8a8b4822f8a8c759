"""The wire protocols, each spoken as its providers document it."""
