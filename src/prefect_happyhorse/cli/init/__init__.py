"""`happyhorse init`: what a project needs to begin with, asked on a terminal or given by options."""
