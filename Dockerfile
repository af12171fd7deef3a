# mp2 on Debian 13, whose libmicrohttpd is 1.0 (README.md, "Security", says why not Debian 12's).
#
#   docker build -t mp2 .
#   docker run -d --name mp2 -p 8080:8080 -v mp2-data:/data mp2
#   docker exec mp2 cat /data/admin.key        # the first admin key; it is not in the log
#
# Settings are environment variables (-e MP2_MAX_JSON=2M) or words after the image's name. CPU and
# memory limits of the container are respected. `docker kill -s HUP mp2` reloads, `docker stop` drains.
FROM debian:trixie-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
    gcc libc6-dev cmake ninja-build pkg-config libmicrohttpd-dev libuv1-dev libopenblas-pthread-dev \
    libjansson-dev libsqlite3-dev libsodium-dev libutf8proc-dev libgnutls28-dev && \
    rm -rf /var/lib/apt/lists/*
COPY . /src
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DMP2_TESTS=OFF \
    -DCMAKE_INSTALL_PREFIX=/usr && cmake --build /build && DESTDIR=/out cmake --install /build

FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
    libmicrohttpd12t64 libuv1t64 libopenblas0-pthread libjansson4 libsqlite3-0 libsodium23 \
    libutf8proc3 libgnutls30t64 curl && rm -rf /var/lib/apt/lists/* && \
    useradd --system --uid 10001 --home /data mp2 && install -d -o mp2 -g mp2 -m 0700 /data
COPY --from=build /out /
USER mp2
ENV MP2_LISTEN=0.0.0.0:8080 MP2_DB=/data/mp2.db MP2_ADMIN_KEY_FILE=/data/admin.key
VOLUME /data
EXPOSE 8080
# -k: the certificate is for the server's name, not for 127.0.0.1
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD \
    curl -fsSk "http${MP2_TLS_CERTIFICATE:+s}://127.0.0.1:${MP2_LISTEN##*:}/readyz" || exit 1
STOPSIGNAL SIGTERM
ENTRYPOINT ["mp2", "serve"]
