"""Turns a webhook about a video into a mission."""


def transform(event: dict[str, object]) -> dict[str, object]:
    """The objective for an agent."""
    return {"objective": f"Watch {event.get('url', 'nothing')}"}
