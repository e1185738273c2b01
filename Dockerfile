# Two stages: uv and its cache stay behind. No shell is the entry point; SIGTERM reaches Python.
# trixie, because its fence-agents are split by device, should this image need them one day.
ARG PYTHON=3.13-slim-trixie

FROM python:${PYTHON} AS build
RUN pip install --no-cache-dir --root-user-action=ignore uv
WORKDIR /app
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never
COPY pyproject.toml uv.lock ./
# The dependencies alone first: this layer changes only when the lock does.
RUN uv sync --frozen --no-dev --no-install-project
COPY README.md LICENSE ./
COPY remediator ./remediator
COPY policies ./policies
RUN uv sync --frozen --no-dev --no-editable

FROM python:${PYTHON}
# 65532 is the "nonroot" of distroless images; a number, so that runAsNonRoot can check it.
RUN mkdir -p /var/lib/remediator && chown 65532:65532 /var/lib/remediator
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    REMEDIATOR_DATA_DIR=/var/lib/remediator \
    REMEDIATOR_HTTP__HOST=0.0.0.0
USER 65532:65532
EXPOSE 8080
STOPSIGNAL SIGTERM
ENTRYPOINT ["/app/.venv/bin/remediator"]
CMD ["run"]
