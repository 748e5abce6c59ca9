FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake g++ make perl \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# The dependencies, librdkafka and OpenSSL among them, in a layer that a change of our own code leaves alone.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
 && echo 'fn main() {}' > src/main.rs \
 && touch src/lib.rs \
 && cargo build --release --locked --no-default-features \
 && rm -r src
COPY src src
RUN touch src/main.rs src/lib.rs \
 && cargo build --release --locked --no-default-features \
 && strip target/release/replicator

FROM debian:bookworm-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 replicator \
 # Volumes that are mounted here when they are new take the owner from here.
 && mkdir /events /store \
 && chown replicator /events /store
COPY --from=build /build/target/release/replicator /usr/local/bin/replicator
USER 10001
ENTRYPOINT ["replicator"]
CMD ["--help"]
