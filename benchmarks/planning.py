"""What the time model of `leadline plan` expects of published units, beside what they measured.

python -m benchmarks.planning            # prints the table
python -m benchmarks.planning --write    # puts it into docs/planning.md
"""

import argparse
import re
from pathlib import Path

from leadline.engine.planning.published import PUBLISHED, Comparison, compare
from leadline.loader.family import known_config

DOCS = Path(__file__).parents[1] / "docs/planning.md"
BEGIN, END = "<!-- benchmarks/planning.py -->\n", "<!-- end -->"
_COLUMNS = ("unit", "GPU, layout", "measured", "roofline", "expected", "deviation")
_HEAD = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|\n"


def table() -> str:
    """The comparison as Markdown, a row a unit."""
    model = known_config("deepseek-v3")
    assert model is not None, "DeepSeek-V3 is a model of the family"
    return _HEAD + "".join(_row(compare(model, unit)) for unit in PUBLISHED)


def _row(found: Comparison) -> str:
    unit = found.unit
    load = f"{unit.requests} a GPU, " if unit.requests and not unit.is_latency else ""
    context = "" if unit.is_prefill else f" ({load}{unit.context} of context)"
    measured, roofline, expected = (
        f"{value * 1e3:.1f} ms" if unit.is_latency else f"{value:,.0f}"
        for value in (unit.measured, found.roofline, found.expected)
    )
    return (
        f"| {unit.source}: {unit.name}{context} | {unit.gpu}, {unit.layout} | {measured} | "
        f"{roofline} | {expected} | {found.deviation:+.0%} |\n"
    )


def with_table(text: str) -> str:
    """The page with today's table."""
    pattern = re.escape(BEGIN) + ".*?" + re.escape(END)
    return re.sub(pattern, lambda match: BEGIN + table() + END, text, flags=re.DOTALL)


def main() -> None:
    """Print the table, and write it where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the table into docs/planning.md")
    if parser.parse_args().write:
        DOCS.write_text(with_table(DOCS.read_text()))
    print(table())


if __name__ == "__main__":
    main()
