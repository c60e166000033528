"""Nothing imports this: a harmless edit goes here."""

NOTE = "first"
