"""Texts in cells of Markdown tables."""

SAMPLE_CHARACTERS = 200


def cell(value: object) -> str:
    """One line, cut where it is long."""
    text = " ".join(str(value).split())
    if len(text) > SAMPLE_CHARACTERS:
        text = text[: SAMPLE_CHARACTERS - 1] + "…"
    return text.replace("|", "\\|")
