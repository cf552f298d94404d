"""Figures with their units, as people read them."""

SCALES = {
    "ns": [(1e9, "s"), (1e6, "ms"), (1e3, "µs"), (0, "ns")],
    "µs": [(1e6, "s"), (1e3, "ms"), (0, "µs")],
    "bytes": [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"), (0, "B")],
}


def scaled(value, unit):
    """The value in the unit that suits it, and that unit."""
    for size, name in SCALES.get(unit, []):
        if abs(value) >= size:
            return value / (size or 1), name
    return value, unit


def digits(number):
    """Three significant digits, or all before the point."""
    if abs(number) >= 100:
        return f"{number:,.0f}"
    return f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def show(value, unit):
    number, name = scaled(value, unit)
    if name in ("", "B") and number == int(number):
        return f"{number:,.0f} {name}".strip()
    return f"{digits(number)} {name}".strip()


def percent(share):
    return f"{share * 100:.0f} %"


def plural(count, noun):
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
