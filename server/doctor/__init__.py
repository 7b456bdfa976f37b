"""`leadline doctor`: what would keep `leadline serve` from working, and what to do about it."""
