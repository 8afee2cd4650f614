"""Ways to run the proxy: beside a local cluster (`make run`), in a container, under systemd."""
