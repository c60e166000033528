"""Every service reads this at its start and logs it: its first line says which release the process runs."""

NOTE = "first"
