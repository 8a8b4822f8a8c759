"""Download what a job made: streamed, resumed, checked, and whole or not at all."""
