# Gantry. `make run` shows a container; `make test` is what CI runs.
GO      ?= go
BIN     := bin
GOFLAGS ?= -buildvcs=false
COMMIT  := $(shell git rev-parse --short HEAD 2>/dev/null)
LDFLAGS := -s -w -X main.gitCommit=$(COMMIT)
# What lives for milliseconds begins with a few instructions of its own where there are any, and with its heap at the beginning of a huge page.
ENTRY_oci_amd64 := -E gantry/oci/early.entry
ENTRY_cli_amd64 := -E gantry/internal/hugeheap.entry
ARCH := $(shell $(GO) env GOARCH)
AT_ONCE := GOEXPERIMENT=norandomizedheapbase64
STATICCHECK := $(GO) run honnef.co/go/tools/cmd/staticcheck@v0.8.2
# Debian packages that the tests use: peers, a registry, the docker command line, a static shell for test images.
PACKAGES := busybox-static docker-registry skopeo iproute2 nftables runc crun iptables procps uidmap dbus-daemon docker.io containerd podman buildah umoci isal btrfs-progs zstd xz-utils bzip2
export CGO_ENABLED = 0
export GOFLAGS

.PHONY: all build run stop test tools lint unit race fuzz docker vm test-vm soak faults oracle bench clean

all: build

build:
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/gantryd ./cmd/gantry-shim ./internal/hello
	$(AT_ONCE) $(GO) build -trimpath -ldflags='gantry/cmd/gantry-oci=$(LDFLAGS) $(ENTRY_oci_$(ARCH))' -ldflags='gantry/cmd/gantry=$(LDFLAGS) $(ENTRY_cli_$(ARCH))' -o $(BIN)/ ./cmd/gantry ./cmd/gantry-oci

# run starts gantryd if none runs on its socket, brings in the built-in image, unless it is there already, and runs a container of it.
run: build
	@sum=$$(sha256sum <$(BIN)/hello | cut -d' ' -f1); \
	old=$$($(BIN)/gantry image inspect -f '{{index .Config.Labels "content"}} {{.Id}}' gantry/hello 2>/dev/null || true); \
	test "$${old%% *}" = "$$sum" || { \
		tar -C $(BIN) -c hello | $(BIN)/gantry import --change 'ENTRYPOINT ["/hello"]' --change "LABEL content=$$sum" - gantry/hello >/dev/null; \
		test -z "$$old" || $(BIN)/gantry rmi "$${old##* }" >/dev/null 2>&1 || true; \
	}
	@$(BIN)/gantry run --rm -e REQUESTED=$$(date +%s%N) gantry/hello

# stop ends the gantryd that run has started. Containers keep running.
stop:
	@test ! -e /run/gantry.pid || kill $$(cat /run/gantry.pid)

# tools installs what the tests need and this machine lacks.
tools:
	@missing=$$(for p in $(PACKAGES); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	command -v docker >/dev/null || missing="$$missing docker.io"; \
	command -v gcc >/dev/null || missing="$$missing gcc libc6-dev"; \
	if [ -n "$$(echo $$missing)" ]; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing; \
	fi

test: tools lint unit race docker vm

lint:
	@unformatted=$$(gofmt -l $$(git ls-files '*.go')); test -z "$$unformatted" || { echo "not formatted: $$unformatted"; exit 1; }
	$(GO) vet ./...
	$(STATICCHECK) ./...

unit:
	$(GO) test $$($(GO) list ./... | grep -v -e /tests/docker -e /tests/vm -e /tests/oci)
	$(GO) test -count=1 -timeout 15m ./tests/oci

# race runs the same tests under the race detector, which needs cgo and a C compiler. The two compressions only compute, in one goroutine, and take ten times as long with it.
race:
	CGO_ENABLED=1 $(GO) test -race $$($(GO) list ./... | grep -v -e /tests/ -e /archive/deflate -e /archive/zstandard)

# fuzz gives each fuzz target FUZZTIME. What is new of an input is not made small for long: with inputs as large as archives that would take all the time there is.
FUZZTIME ?= 20s
fuzz:
	@grep -rlE --include='*_test.go' '^func Fuzz' . | while read -r file; do \
		for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9]+).*/\1/p' $$file); do \
			echo "$${file%/*} $$target"; \
			$(GO) test $${file%/*} -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x </dev/null || exit 1; \
		done; \
	done

# docker drives real clients against a real daemon, one package after the other: docker's command line, moby's Go client, and our own
# command line with the same words; what is about the daemon alone, and long, is not done again with that.
docker: build
	$(GO) test -count=1 -p 1 -timeout 30m ./tests/docker/...
	GANTRY_TEST_CLI=gantry $(GO) test -count=1 -p 1 -timeout 30m -skip '^Test(Settle|SparseAndHuge)' ./tests/docker/run ./tests/docker/lifecycle ./tests/docker/images ./tests/docker/network ./tests/docker/build

# vm boots two machines and runs the tests of engine, runtime and kernel packages in them: one that has nothing but cgroup v2, and AppArmor, and one that systemd
# runs, in a minute each on two idle cores. Where qemu or Debian's packages cannot be had, the tests say so and are skipped.
vm:
	@command -v qemu-system-x86_64 >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends qemu-system-x86; } >/dev/null 2>&1 || true
	$(GO) test -count=1 -timeout 26m -v ./tests/vm

test-vm: vm

# soak runs ten thousand containers one after the other, and a hundred at once, and prints how long one takes.
soak:
	$(GO) test -count=1 -timeout 60m -v -run TestSoak ./tests/oci -soak 10000

# faults kills the daemon before every write site of every operation on images, has each fail in every way, and damages every file of a store, where docker takes samples.
faults: build
	$(GO) test -count=1 -timeout 6h -v ./tests/docker/faults -sweep
	$(GO) test -count=1 -timeout 6h -v -run TestDamagedStore ./tests/docker/damage -files 1000

# oracle runs the same tests against Debian's dockerd, to show that the tests are right.
oracle: build
	@command -v dockerd >/dev/null || { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io; }
	GANTRY_TEST_DAEMON=dockerd $(GO) test -count=1 -p 1 -timeout 30m ./tests/docker/...

bench: build
	$(GO) run ./tests/bench

clean:
	rm -rf $(BIN)
