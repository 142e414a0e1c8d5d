# The wheel is built in one image and installed in another, so that no source, tool or cache stays.
FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY asyncbatch asyncbatch
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.13-slim-bookworm
# The extras to install. `--build-arg EXTRAS=postgres,http` makes a smaller image.
ARG EXTRAS=all
# The wheel has its version in its name.
# hadolint ignore=DL3013
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels \
    set -- /wheels/*.whl \
    && pip install --no-cache-dir "$1[$EXTRAS]" \
    && useradd --uid 10001 --no-create-home asyncbatch \
    && mkdir --mode 1777 /state
# Ledgers without a place of their own, locks and the history of runs. Any user may write there, so that
# `docker run --user "$(id -u)"` works.
ENV XDG_STATE_HOME=/state
VOLUME /state
WORKDIR /data
USER 10001
ENTRYPOINT ["asyncbatch"]
