"""`leadline plan`: what a model needs of GPUs, and what to expect of them."""
