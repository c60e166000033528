"""Turns a webhook about a video into work."""


def transform(event: dict[str, object]) -> dict[str, object]:
    """What an agent is asked for."""
    return {"objective": f"Watch {event.get('url', 'nothing')}"}
