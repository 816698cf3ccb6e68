"""What commands are made of: typed options, how a command runs, what several commands share and print."""
