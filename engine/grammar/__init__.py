"""Grammars: compiled once, checked in a process of their own, matched for each request."""
