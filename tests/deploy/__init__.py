"""Installing and running for real: clean roots, systemd, containers, manifests."""
