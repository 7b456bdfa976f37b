"""How models of the family write reasoning and tool calls."""
