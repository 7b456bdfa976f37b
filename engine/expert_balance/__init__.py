"""Expert balance: where the replicas of experts lie, and how they move there."""
