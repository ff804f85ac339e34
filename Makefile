# Gantry. `make run` shows a container; `make test` is what CI runs.
GO      ?= go
BIN     := bin
GOFLAGS ?= -buildvcs=false
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
export CGO_ENABLED = 0
export GOFLAGS
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: all build run test test-unit test-race test-docker test-oracle lint bench tools clean

all: build

build:
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '-s -w' -o $(BIN)/ ./cmd/...
