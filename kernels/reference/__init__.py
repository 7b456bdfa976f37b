"""The specification of every operation in plain torch; reads like the paper."""
