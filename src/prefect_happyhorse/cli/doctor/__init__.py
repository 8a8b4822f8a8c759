"""`happyhorse doctor`: what would keep a run from working, and what to do about it. Nothing is bought."""
