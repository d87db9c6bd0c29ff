# The operator's image, from Debian's packages and the binary. In the folder of the binary:
#   docker build -f stacks/operator.Dockerfile -t registry.example.org/reconcile:0.1.0 target/release
ARG BASE=debian:12-slim
FROM $BASE
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
    ca-certificates curl git openssh-client \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home --shell /usr/sbin/nologin reconcile \
 && install -d -o reconcile -g reconcile -m 0700 /var/lib/reconcile
COPY reconcile /usr/local/bin/reconcile
USER 10001
ENTRYPOINT ["reconcile"]
