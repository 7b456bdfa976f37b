"""`leadline doctor`: all checks, one table, and a status for scripts."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from leadline.engine.errors import ConfigError
from leadline.engine.platform_facts import cpu_facts
from leadline.loader.errors import ModelNotFoundError
from leadline.loader.hub import find_model, hub_cache
from leadline.server.console import make_console
from leadline.server.doctor.finding import Finding, Level, fail, ok, warn
from leadline.server.doctor.machine import check_disk, check_machine
from leadline.server.doctor.model import check_model
from leadline.server.settings import Settings

_STYLES = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


def diagnose(settings: Settings) -> int:
    """Print what was found; returns 1 if anything would keep the server from serving, else 0."""
    console = make_console()
    findings = []
    for finding in findings_of(settings):
        findings.append(finding)
        _print(console, finding)
    counts = {level: sum(f.level is level for f in findings) for level in Level}
    console.print(f"\n{counts[Level.FAIL]} to mend, {counts[Level.WARN]} to know of")
    return 1 if counts[Level.FAIL] else 0


def _print(console: Console, finding: Finding) -> None:
    """One line; on a terminal, one that is folded beside the subject."""
    level, subject = f"[{finding.level.value}]", finding.subject
    if not console.is_terminal:
        console.print(f"{level:<7} {subject:<13} {finding.text}", soft_wrap=True)
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(width=6, style=_STYLES[finding.level])
    table.add_column(width=13, style="bold")
    table.add_column(overflow="fold")
    table.add_row(level, subject, finding.text)
    console.print(table)


def findings_of(settings: Settings) -> Iterator[Finding]:
    """All findings, the machine's first."""
    try:
        settings.server.check()
    except ConfigError as error:
        yield fail("settings", str(error))
        return
    yield from check_machine(settings.server)
    name = settings.engine.model
    try:
        directory = find_model(name)
    except ModelNotFoundError as error:
        yield fail("model", str(error))
        return
    if directory is None:
        yield warn("model", f"{name} is not here yet; `leadline serve {name}` downloads it")
        yield check_disk(hub_cache(), "set HF_HOME to a larger disk")
        return
    yield ok("model", str(directory))
    yield from check_model(directory, settings.engine, settings.server, cpu_facts())
