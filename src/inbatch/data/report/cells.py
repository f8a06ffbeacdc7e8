"""Texts and shares in cells of tables."""

SAMPLE_CHARACTERS = 200
LEAST_SHARE = 1e-5  # that is shown as a number


def cell(value: object) -> str:
    """One line, cut where it is long."""
    text = " ".join(str(value).split())
    if len(text) > SAMPLE_CHARACTERS:
        text = text[: SAMPLE_CHARACTERS - 1] + "…"
    return text.replace("|", "\\|")


def share(value: float | None) -> str:
    """A percentage; a small one has one digit."""
    if value is None:
        return "-"
    if 0 < value < LEAST_SHARE:
        return f"<{100 * LEAST_SHARE:g}%"
    return "0%" if value == 0 else f"{value:.1%}" if value >= 0.001 else f"{100 * value:.1g}%"
