"""Each service logs this note at its start, so that its log identifies the release it runs."""

NOTE = "first"
