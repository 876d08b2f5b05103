# vault-plugin-secrets-portkey

NAME    := vault-plugin-secrets-portkey
VERSION ?= $(shell cat VERSION)
CACHE   := $(or $(PORTKEY_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/$(NAME))
# Static and reproducible: the same source gives the same bytes, so that its
# sha256 can be checked by anybody. Optimised for what takes the time under the load
# of `make bench`, as scripts/profile.sh recorded it. The profile isn't called
# default.pgo, or `go test ./...` would build everything twice.
PROFILE := cmd/$(NAME)/cpu.pgo
BUILD   := CGO_ENABLED=0 go build -trimpath -buildvcs=false -pgo=$(PROFILE) -ldflags '-s -w -buildid= -X main.version=$(VERSION)'
GOFILES := $(shell find . -name '*.go' -not -path '*/node_modules/*')
PLATFORMS := linux/amd64 linux/arm64 darwin/amd64 darwin/arm64

.PHONY: help build release dev demo test test-unit test-integration soak bench docs fuzz lint vulncheck fmt clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

build: bin/$(NAME) ## Build the plugin into bin/

bin/$(NAME): $(GOFILES) $(PROFILE) go.mod go.sum VERSION internal/provider/providers.json internal/price/prices.json $(wildcard internal/tokens/*.gz)
	@mkdir -p bin
	$(BUILD) -o $@ ./cmd/$(NAME)

release: ## Build for every platform into dist/, with checksums
	@rm -rf dist && mkdir -p dist
	@set -e; for p in $(PLATFORMS); do \
	  out=dist/$(NAME)_$(VERSION)_$${p%/*}_$${p#*/}; echo "$$out"; \
	  GOOS=$${p%/*} GOARCH=$${p#*/} $(BUILD) -o $$out ./cmd/$(NAME); done
	@cd dist && sha256sum $(NAME)_* > SHA256SUMS && cat SHA256SUMS

dev: build ## Run a dev Vault with the plugin, a sandbox key and a virtual key, until ctrl-C
	@scripts/dev.sh

demo: build ## Show the main job end to end; ends by itself
	@scripts/demo.sh

test: ## All tests: needs Go, Node 20+ and Python 3.11+
	@scripts/need.sh
	@$(MAKE) --no-print-directory test-unit
	@$(MAKE) --no-print-directory test-integration

test-unit: ## Tests that need Go alone
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { echo "gofmt these files:"; gofmt -l $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	go vet -tags integration ./...
	go test -race ./...

test-integration: build ## Tests against a real Vault, with the real SDKs
	PYTHON_CLIENTS="$$(scripts/clients.sh)" && VAULT_BIN="$$(scripts/vault.sh)" && export PYTHON_CLIENTS VAULT_BIN && \
	  go test -race -tags integration -count=1 -timeout 40m ./test/...

soak: build ## The long tests of limits, with many crashes and failovers, and each fuzz test for SOAK_FUZZTIME (10m)
	@scripts/soak.sh

bench: build ## Measure the gateway beside other proxies; bench/cmd/bench/main.go says what can be chosen
	@scripts/bench.sh

fuzz: ## Each fuzz test for FUZZTIME (10m)
	@scripts/fuzz.sh

lint: ## gofmt, go vet, golangci-lint
	@scripts/lint.sh

docs: ## Copy the tested examples into the documentation
	go run ./tools/snippets docs/clients.md

vulncheck: ## Known vulnerabilities in what the plugin links (asks the network)
	go run golang.org/x/vuln/cmd/govulncheck@v1.9.0 ./...

fmt: ## Format the source
	gofmt -w $(GOFILES)

clean: ## Remove what was built here; the cache outside stays
	rm -rf bin dist
