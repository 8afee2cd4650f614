"""What an operator writes and what we make of it: one row per setting, a file in, a frozen Config out."""
