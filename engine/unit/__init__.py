"""Several ranks as one engine: started, kept in step, watched; imports no torch on the head."""
