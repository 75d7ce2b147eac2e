# syntax=docker/dockerfile:1

FROM python:3.13-slim AS build
WORKDIR /opt/holdfast
COPY . src
# The wheel is built by pinned tools, and everything it needs is pinned too.
RUN python -m venv tools
RUN tools/bin/python -m pip install --no-cache-dir -c src/constraints.txt hatchling
RUN tools/bin/python -m pip wheel --no-cache-dir --no-deps --no-build-isolation -w dist ./src
RUN python -m venv --without-pip venv
RUN tools/bin/python -m pip --python venv/bin/python install --no-cache-dir -c src/constraints.txt dist/*.whl

FROM python:3.13-slim
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin holdfast
COPY --from=build /opt/holdfast/venv /opt/holdfast/venv
ENV PATH=/opt/holdfast/venv/bin:$PATH PYTHONUNBUFFERED=1
USER 10001
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/livez', timeout=2)"]
ENTRYPOINT ["holdfast"]
CMD ["serve", "--host", "0.0.0.0"]
