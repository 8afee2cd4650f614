"""How the tables of the depot came to be, in steps."""
