"""Redis and Postgres on this machine, as child processes, for `holdfast up`, `holdfast demo` and the tests.

`servers.EmbeddedServers` is the way in.
"""
