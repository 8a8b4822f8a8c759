"""Fetch what a job made: in pieces, resumed, checked, and whole or not at all."""
