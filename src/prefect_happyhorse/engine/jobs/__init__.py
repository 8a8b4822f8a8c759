"""A job from submit to stored outputs."""
