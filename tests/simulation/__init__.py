"""Queues in virtual time: what order comes of a policy under a load of days, within seconds."""
