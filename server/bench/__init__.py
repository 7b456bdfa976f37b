"""`leadline bench`: what a server does under load, measured from outside."""
