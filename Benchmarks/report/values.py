"""Formats figures with their units."""

SCALES = {
    "ns": [(1e9, "s"), (1e6, "ms"), (1e3, "µs")],
    "µs": [(1e6, "s"), (1e3, "ms")],
    "bytes": [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (1, "B")],
}


def digits(number):
    """Three significant digits, or all digits before the point."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def show(value, unit):
    """The value in a suitable unit."""
    size, name = next(((size, name) for size, name in SCALES.get(unit, []) if abs(value) >= size), (1, unit))
    number = value / size
    is_count = name in ("", "B", "bytes") and number == int(number)
    return f"{int(number):,} {name}".strip() if is_count else f"{digits(number)} {name}".strip()


def plural(count, noun):
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
