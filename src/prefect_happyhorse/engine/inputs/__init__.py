"""What a request holds, looked at and made reachable before anything is sent."""
