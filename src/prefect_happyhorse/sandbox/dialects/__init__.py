"""How each gateway speaks: its errors, its answers, its paths."""
