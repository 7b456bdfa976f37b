"""The OpenAPI document: written from the types that requests and answers have."""
