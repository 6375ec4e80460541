"""The part of the library that an application calls right after it has changed a workspace."""
