"""Values without any I/O: requests, jobs, assets and errors."""
