# The build runs on the builder's own platform, for whichever platform is asked for: docker build --platform linux/arm64
FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The build reads the revision from the repository, if there is one; files left out by .dockerignore must not count as changes.
RUN git ls-files -dz | git update-index -z --skip-worktree --stdin || rm -rf .git
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -ldflags='-s -w' -o /simple-oauth2 . && mkdir /tokens /auth

FROM scratch
ARG VERSION=0.3.0
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title=simple-oauth2 \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=$SOURCE
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /simple-oauth2 /simple-oauth2
# A new volume mounted here belongs to the user, who can then write to it.
COPY --from=build --chown=65532:65532 /tokens /tokens
COPY --from=build --chown=65532:65532 /auth /auth
# The command user changes users.json here, unless it is told of another file.
WORKDIR /auth
USER 65532:65532
ENV OAUTH2_ADDR=:8000
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=6s --start-period=5s CMD ["/simple-oauth2", "healthcheck"]
ENTRYPOINT ["/simple-oauth2"]
