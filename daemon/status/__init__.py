"""Shows the state: metrics, `/status`, the page, and the server of all three."""
