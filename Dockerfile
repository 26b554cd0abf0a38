# syntax=docker/dockerfile:1

FROM rust:1.95-trixie AS build
WORKDIR /src
COPY . .
# Cache mounts are better here than a layer of dependencies: registry and target outlive a changed manifest,
# a new workspace member needs no change here, and only the binary goes into the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked \
    && install -D target/release/georoom /out/georoom

# This must be the Debian of the builder, because the binary is linked against its libc.
FROM debian:trixie-slim

# The user has the same number on every host, for volumes and for runAsNonRoot.
RUN groupadd --gid 10001 georoom \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
       --shell /usr/sbin/nologin georoom

COPY --from=build /out/georoom /usr/local/bin/georoom

# healthcheck [path] succeeds if the API answers 200 at the path. It uses bash's /dev/tcp, so that no curl
# has to be installed and patched.
COPY --chmod=755 <<'SCRIPT' /usr/local/bin/healthcheck
#!/bin/bash
exec 3<>"/dev/tcp/127.0.0.1/${API_ADDR##*:}" || exit 1
printf 'GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n' "${1:-/healthz}" >&3
mapfile -t answer <&3
[[ ${answer[0]} == 'HTTP/1.1 200 '* ]]
SCRIPT

# Loopback, the default, cannot be reached from outside a container. georoom still refuses to serve these
# addresses without a key or OPEN_MODE=true.
ENV API_ADDR=0.0.0.0:3000 \
    GATEWAY_ADDR=0.0.0.0:3030
# Without DATABASE_URL, SQLite's file is created here. Mount a volume to keep it.
RUN install -d -o 10001 -g 10001 /var/lib/georoom
WORKDIR /var/lib/georoom
USER 10001:10001
EXPOSE 3000 3030
STOPSIGNAL SIGTERM
# This asks /healthz, not /readyz: while the database is away, sockets stay and reads of live rooms go on, so
# the process should not be restarted for that.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["healthcheck", "/healthz"]
ENTRYPOINT ["georoom"]
CMD ["serve"]
