"""The command line: a file for each subcommand, and what they share."""
