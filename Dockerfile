# syntax=docker/dockerfile:1

FROM golang:1.26.8-bookworm AS build
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN go build -trimpath -ldflags="-s -w -X main.version=${VERSION}" -o /out/toolgrant ./cmd/toolgrant

# Nothing but the static binary: no libc, no shell, no package manager.
FROM scratch
COPY --from=build /out/toolgrant /toolgrant
# A number, so that Kubernetes can enforce runAsNonRoot.
USER 65532:65532
ENTRYPOINT ["/toolgrant"]
