"""What acts: the HTTP client, submit, poll, download, the journal and the store. Nothing here knows Prefect."""
