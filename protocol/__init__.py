"""PostgreSQL's wire protocol, without any wire: bytes to values and values to bytes, no I/O, no clock, no log."""
