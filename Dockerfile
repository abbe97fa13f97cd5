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
RUN groupadd --system --gid 10001 simusage \
    && useradd --system --no-create-home --uid 10001 --gid 10001 simusage
COPY --from=build /usr/local/bin/simusage /usr/local/bin/simusage
COPY examples/inventory.json /usr/local/share/simusage/inventory.json
# Numeric, so that orchestrators can check that it is not root.
USER 10001:10001
ENV SIMUSAGE_SERVE_LISTEN=0.0.0.0:8000
EXPOSE 8000
# At SIMUSAGE_SERVE_LISTEN, over TLS if the server uses it. Settings of the server given as options are
# not known to it: use the environment or a settings file.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 CMD ["simusage", "health"]
ENTRYPOINT ["simusage"]
CMD ["serve"]
