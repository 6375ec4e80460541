"""The commands as click sees them: names, options and help. Nothing heavy is imported until one runs."""
