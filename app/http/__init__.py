"""The HTTP side: the only package that knows FastAPI and Starlette."""
