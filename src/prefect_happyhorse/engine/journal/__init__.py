"""The truth about money: entries, leases, the spool and budgets."""
