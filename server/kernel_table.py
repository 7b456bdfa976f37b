"""`leadline kernels`: the one command that imports torch."""

from rich.table import Table

from leadline.kernels.select import Choice, Platform, select_kernels
from leadline.server.console import make_console


def kernel_table(choices: list[Choice]) -> Table:
    """A row for each operation: what computes it, and why nothing before that could."""
    table = Table("operation", "chosen", "formats", "rejected", box=None, pad_edge=False)
    for choice in choices:
        rejected = "\n".join(f"{name}: {reason}" for name, reason in choice.rejected)
        table.add_row(choice.operation, choice.chosen, choice.formats, rejected)
    return table


def print_kernel_table(device: str, *, batch_invariant: bool) -> None:
    """Print the table for a platform (`cpu` or `cuda`)."""
    _, choices = select_kernels(Platform(device, batch_invariant))
    make_console().print(kernel_table(choices))
