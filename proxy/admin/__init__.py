"""The console: the virtual database through which an operator sees and steers the proxy."""
