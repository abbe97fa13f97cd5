# The first stage builds the program, the second runs it.

FROM rust:1.95-slim-bookworm AS build
# librdkafka and OpenSSL are built from source.
RUN apt-get update && apt-get install --yes --no-install-recommends g++ make perl && rm -rf /var/lib/apt/lists/*
WORKDIR /simusage
COPY Cargo.toml Cargo.lock config.toml ./
COPY sql sql
COPY src src
COPY web web
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/simusage/target \
    cargo build --locked --release --features vendored-openssl --bin simusage && cp target/release/simusage /usr/local/bin/

FROM debian:bookworm-slim
# sslmode=verify-full uses the CA certificates of the system if sslrootcert is not given.
RUN apt-get update && apt-get install --yes --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --no-create-home --uid 10001 simusage
COPY --from=build /usr/local/bin/simusage /usr/local/bin/simusage
COPY examples/inventory.json /usr/local/share/simusage/inventory.json
USER simusage
ENV SIMUSAGE_SERVE_LISTEN=0.0.0.0:8000
EXPOSE 8000
# The image has no curl, so bash sends the request.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s --retries=3 CMD ["bash", "-c", \
    "exec 3<>/dev/tcp/127.0.0.1/8000 && printf 'GET /livez HTTP/1.0\\r\\n\\r\\n' >&3 && grep -q '200 OK' <&3"]
ENTRYPOINT ["simusage"]
CMD ["serve"]
