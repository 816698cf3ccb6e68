"""What all commands need: typed options, running and errors, shared options, printing."""
