"""Jobs, charges and files of the sandbox."""
