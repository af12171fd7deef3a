# mp2 on a release that carries libmicrohttpd 1.0 (Debian 13; see "Why not Debian 12's" in README.md).
#
#   docker build -t mp2 .
#   docker run -p 8080:8080 -v mp2-data:/data mp2
FROM debian:trixie-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends \
    gcc libc6-dev cmake ninja-build pkg-config libmicrohttpd-dev libuv1-dev libopenblas-pthread-dev \
    libjansson-dev libsqlite3-dev libsodium-dev libutf8proc-dev libgnutls28-dev && rm -rf /var/lib/apt/lists/*
COPY . /src
RUN cmake -S /src -B /build -G Ninja -DCMAKE_BUILD_TYPE=Release -DMP2_TESTS=OFF \
    -DCMAKE_INSTALL_PREFIX=/usr && cmake --build /build && DESTDIR=/out cmake --install /build

FROM debian:trixie-slim
RUN apt-get update && apt-get install -y --no-install-recommends \
    libmicrohttpd12 libuv1 libopenblas0-pthread libjansson4 libsqlite3-0 libsodium23 libutf8proc3 \
    libgnutls30t64 curl && rm -rf /var/lib/apt/lists/* && useradd --system --home /data mp2 && \
    install -d -o mp2 -g mp2 -m 0700 /data
COPY --from=build /out /
USER mp2
VOLUME /data
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s CMD curl -fsS http://127.0.0.1:8080/readyz || exit 1
ENTRYPOINT ["mp2", "serve", "--listen", "0.0.0.0:8080", "--db", "/data/mp2.db"]
