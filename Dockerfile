# `packetcore serve` in an image: docker build -t packetcore . && docker run -p 5000:5000 packetcore
#
# What comes behind the name of the image is given to `packetcore serve` in place of the last line. An application of
# yours goes into an image of its own:
#     FROM packetcore
#     COPY gateway.py /srv/
#     CMD ["--host", "0.0.0.0", "--port", "5000", "--log", "--app", "gateway:Gateway"]

ARG BASE=python:3.13-slim-bookworm

FROM ${BASE} AS build
# The extension in C is compiled here, and the compiler stays here.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY packetcore packetcore
COPY transports transports
COPY tap tap
COPY cli cli
RUN python3 -m venv /opt/packetcore && /opt/packetcore/bin/pip install --no-cache-dir \
    . ./transports/sockets "./transports/asyncio[uvloop]" ./transports/blocking ./tap "./cli[metrics]"
# Without the extension all works and nothing says so: this does.
COPY tests/wheel.py tests/
RUN /opt/packetcore/bin/python -I tests/wheel.py

FROM ${BASE}
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin packetcore
COPY --from=build /opt/packetcore /opt/packetcore
ENV PYTHONUNBUFFERED=1
USER 10001
WORKDIR /srv
EXPOSE 5000/tcp 5000/udp
# SIGTERM drains for --grace seconds, 5 unless it is given; docker stop waits for 10.
ENTRYPOINT ["/opt/packetcore/bin/packetcore", "serve"]
CMD ["--host", "0.0.0.0", "--port", "5000", "--log"]
