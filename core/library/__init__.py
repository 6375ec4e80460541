"""The part of the library that decides: what an application calls in its own process."""
