"""How a login is decided, both ways: who a client is, and how we show PostgreSQL who we are."""
