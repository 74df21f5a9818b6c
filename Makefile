# make run    everything from nothing to one endpoint on 127.0.0.1:6380
# make test   everything the tests need, then all tests
# make help   the rest

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory

MODULES := proto internal proxy configserver tests
TOOLS   := $(CURDIR)/.tools
BIN     := $(CURDIR)/bin
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS := -X github.com/basalt-redis/basalt/internal/version.release=$(VERSION)

# Tools are pinned here and installed from source into .tools, so that every
# machine generates and judges the same.
BUF_VERSION           := v1.75.0
PROTOC_GEN_GO_VERSION := v1.36.11
PROTOC_GEN_GRPC_VERSION := v1.5.1
GOLANGCI_VERSION      := v2.4.0

export PATH := $(TOOLS):$(PATH)
export GOTOOLCHAIN := local

# golangci-lint sometimes fails to load a package of the standard library ("returned
# nil but no error"), so a run that failed is repeated: real findings fail twice.
GOLANGCI = golangci-lint run --config $(CURDIR)/.golangci.yml ./...

# Variables of `make run`; they reach the runner through the environment.
export SHARDS REPLICAS PROXIES PORT CONFIGSERVERS DATA_DIR REDIS_SERVER DEBUG

.PHONY: help
help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: redis-server build ## a sharded Redis behind 127.0.0.1:6380; Ctrl-C stops it (SHARDS REPLICAS PROXIES PORT CONFIGSERVERS DATA_DIR REDIS_SERVER DEBUG)
	@exec $(BIN)/basaltctl local up

.PHONY: build
build: ## bin/configserver, bin/proxy, bin/basaltctl
	@mkdir -p $(BIN)
	go build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN)/ ./configserver/cmd/configserver ./configserver/cmd/basaltctl ./proxy/cmd/proxy

.PHONY: test
test: redis-server build test-unit test-blackbox ## everything it needs, then all tests

# Most tests wait most of the time, for a server, a lease or a bound that passes:
# more of them run at once than there are cores.
PARALLEL = -parallel 6

.PHONY: test-unit
test-unit: redis-server ## unit, property and component tests of every module
	@for m in internal proxy configserver; do echo "== $$m"; (cd $$m && go test $(PARALLEL) -timeout 10m ./...); done

# One package at a time: these tests measure stalls in milliseconds; those that do
# not run four at once. The random
# harm of tests/chaos has a fixed seed here; `make chaos` looks for new ones.
.PHONY: test-blackbox
test-blackbox: redis-server build ## the built binaries, killed and abused, against real servers
	@cd tests && BASALT_BIN=$(BIN) BASALT_CHAOS_SEED=$${BASALT_CHAOS_SEED:-7} BASALT_CHAOS_TIME=$${BASALT_CHAOS_TIME:-30s} go test -timeout 20m -count 1 -p 1 -parallel 4 -v $$(go list ./... | grep -v '/clients$$')

.PHONY: test-clients
test-clients: client-libraries build ## programs with the clients that people use, each beside a plain server and through a failover
	@cd tests && BASALT_BIN=$(BIN) go test -timeout 10m -count 1 -v ./clients

.PHONY: chaos
chaos: redis-server build ## random harm under load for CHAOS_TIME (5m), a new seed each time
	@cd tests && BASALT_BIN=$(BIN) BASALT_CHAOS_TIME=$${CHAOS_TIME:-5m} go test -timeout 60m -count 1 -v -run TestChaos ./chaos

.PHONY: chaos-rounds
chaos-rounds: redis-server build ## CHAOS_ROUNDS (200) incidents one by one, each judged by what it may cost; BASALT_CHAOS_SEED for the same again
	@cd tests && BASALT_BIN=$(BIN) BASALT_CHAOS_ROUNDS=$${CHAOS_ROUNDS:-200} go test -timeout 120m -count 1 -v -run TestRounds ./chaos

.PHONY: race
race: redis-server ## the unit tests under the race detector
	@for m in internal proxy configserver; do echo "== $$m"; (cd $$m && go test -race $(PARALLEL) -timeout 15m ./...); done

.PHONY: bench
bench: redis-server nutcracker build ## Basalt, Redis itself and twemproxy in one run (PEERS=name=port:pid,…)
	@cd tests && BASALT_BIN=$(BIN) go run ./bench $(BENCH_FLAGS)

.PHONY: fuzz
fuzz: ## fuzz the parsers for FUZZTIME each (30s)
	@cd proxy && for p in $$(go list ./...); do for f in $$(go test -list '^Fuzz' $$p | grep ^Fuzz || true); do go test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-30s} $$p; done; done

.PHONY: check
check: generate fmt vet lint race ## generate, format, vet, lint, race, and a clean tree
	git diff --exit-code
	@test -z "$$(git status --porcelain)" || { git status --short; echo "the tree is not clean: commit what was generated"; exit 1; }

.PHONY: fmt
fmt: ## gofmt everything
	@gofmt -l -w $$(git ls-files '*.go')

.PHONY: vet
vet: ## go vet every module
	@for m in $(MODULES); do (cd $$m && go vet ./...); done

.PHONY: lint
lint: tools ## golangci-lint and buf lint
	@cd proto && buf lint && buf breaking --against '../.git#ref=HEAD,subdir=proto'
	@for m in internal proxy configserver tests; do echo "== lint $$m"; (cd $$m && { $(GOLANGCI) || $(GOLANGCI); }); done

.PHONY: generate
generate: tools ## generated code: proto and the command table
	@cd proto && buf generate
	@cd proxy && go generate ./...

.PHONY: tidy
tidy: ## go mod tidy every module
	@for m in $(MODULES); do (cd $$m && GOWORK=off go mod tidy); done

.PHONY: deps
deps: redis-server nutcracker tools ## all that building, testing and benchmarks need

# $(1) command, $(2) Debian package that has it.
define ensure
	$(call ensure-that,command -v $(1),$(1),$(2))
endef

# $(1) shell command that succeeds when it is there, $(2) what it is, $(3) Debian
# packages that have it.
define ensure-that
	@{ $(1); } >/dev/null 2>&1 || { \
	  command -v apt-get >/dev/null || { echo "$(2) is missing: install it with your package manager; another redis-server can be named with REDIS_SERVER=/path"; exit 1; }; \
	  sudo=; [ "$$(id -u)" = 0 ] || sudo=sudo; \
	  echo "installing $(3)"; \
	  $$sudo apt-get install -y -q $(3) >/dev/null 2>&1 || { $$sudo apt-get update -q >/dev/null && $$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -q $(3) >/dev/null; }; }
endef

.PHONY: redis-server
redis-server:
	$(call ensure,$(or $(REDIS_SERVER),redis-server),redis-server)

.PHONY: nutcracker
nutcracker:
	$(call ensure,nutcracker,nutcracker)

# What the programs of tests/clients are written with: Debian's packages, for
# Debian's interpreters, and npm's at the versions of package-lock.json.
NODE_PROGRAMS := tests/clients/programs/node

.PHONY: client-libraries
client-libraries: redis-server
	$(call ensure,redis-benchmark,redis-tools)
	$(call ensure-that,/usr/bin/python3 -c 'import redis',redis-py,python3 python3-redis)
	$(call ensure-that,/usr/bin/python3 -c 'import rq; import celery',RQ and Celery,python3-rq python3-celery)
	$(call ensure-that,/usr/bin/ruby -e 'require "redis"',ruby-redis,ruby ruby-redis)
	$(call ensure-that,/usr/bin/php -r 'exit(class_exists("Redis") ? 0 : 1);',phpredis,php-cli php-redis)
	$(call ensure-that,test -e /usr/include/hiredis/hiredis.h,hiredis,libhiredis-dev)
	$(call ensure-that,command -v gcc && test -e /usr/include/stdio.h,gcc,gcc libc6-dev)
	$(call ensure,node,nodejs)
	$(call ensure,npm,npm)
	@$(MAKE) $(NODE_PROGRAMS)/node_modules/.package-lock.json

$(NODE_PROGRAMS)/node_modules/.package-lock.json: $(NODE_PROGRAMS)/package.json $(NODE_PROGRAMS)/package-lock.json
	@echo "installing ioredis, node-redis, redlock and socket.io"
	@cd $(NODE_PROGRAMS) && npm ci --no-audit --no-fund --loglevel=error
	@touch $@

.PHONY: tools
tools: $(TOOLS)/buf-$(BUF_VERSION) $(TOOLS)/protoc-gen-go-$(PROTOC_GEN_GO_VERSION) $(TOOLS)/protoc-gen-go-grpc-$(PROTOC_GEN_GRPC_VERSION) $(TOOLS)/golangci-lint-$(GOLANGCI_VERSION)

# $(1) stamp with version, $(2) package@version: an upgrade changes the stamp.
define install
	@mkdir -p $(TOOLS)
	@echo "installing $(2)"
	@cd $(TOOLS) && GOWORK=off GOBIN=$(TOOLS) go install $(2)
	@touch $(1)
endef

$(TOOLS)/buf-$(BUF_VERSION):
	$(call install,$@,github.com/bufbuild/buf/cmd/buf@$(BUF_VERSION))
$(TOOLS)/protoc-gen-go-$(PROTOC_GEN_GO_VERSION):
	$(call install,$@,google.golang.org/protobuf/cmd/protoc-gen-go@$(PROTOC_GEN_GO_VERSION))
$(TOOLS)/protoc-gen-go-grpc-$(PROTOC_GEN_GRPC_VERSION):
	$(call install,$@,google.golang.org/grpc/cmd/protoc-gen-go-grpc@$(PROTOC_GEN_GRPC_VERSION))
$(TOOLS)/golangci-lint-$(GOLANGCI_VERSION):
	$(call install,$@,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION))

.PHONY: clean
clean: ## what was built here
	@rm -rf $(BIN) $(TOOLS) $(NODE_PROGRAMS)/node_modules
