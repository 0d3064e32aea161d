# `make help` lists the targets. CI runs these same targets and nothing else.

GO      ?= go
BIN     := bin
CACHE   ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lateen
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/lateen-mesh/lateen/wellknown.version=$(VERSION)
STATE   ?= /tmp/lateen-demo-$(shell id -u)
FUZZTIME ?= 2m
ENGINE  ?= standalone
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := build
.PHONY: build demo check test race lint e2e bench fuzz spec diff replay golden peers help

build: ## build bin/lateen, bin/istioctl (a link), bin/istiod, bin/pilot-agent, bin/lateen-proxy
	@mkdir -p $(BIN)
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...
	@ln -sf lateen $(BIN)/istioctl

demo: build ## run the mesh of samples/external-services with stand-ins for its sites; Ctrl-C ends it
	@LATEEN=$(BIN)/lateen STATE=$(STATE) samples/external-services/demo.sh

check: lint test race ## all that must hold before a change lands: lint, tests, tests under the race detector

lint: ## gofmt, go vet, golangci-lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'error: files are not formatted'; echo 'hint: gofmt -w FILE'; exit 1; }
	$(GO) vet ./...
	$(GO) run $(GOLANGCI) run

test: peers ## all tests, those against a real Envoy included
	$(GO) test ./...

race: ## the tests of every package under the race detector
	$(GO) test -race -short ./...

e2e: build peers ## the tests that run the built binaries: scenarios, README tour, differential cases
	$(GO) test -count=1 ./test/... ./cli/... ./local/...

peers: ## install the pinned real Envoy that the tests compare with, into the cache folder
	@CACHE=$(CACHE) test/peer/install-envoy.sh

golden: ## compare generated xDS with the measured xDS beside the project
	$(GO) test ./control/compile -run Golden -v

bench: build peers ## the gateway against Envoy, nginx, haproxy and a bare relay; writes bench/RESULTS.md and results.json
	$(GO) run ./bench

spec: peers ## how much of the feature surface passing cases prove
	@$(GO) test -json ./... | $(GO) run ./test/report spec

diff: peers ## our proxy against a real Envoy, case by case
	@$(GO) test -json -run '^TestDiff' ./test/... | $(GO) run ./test/report diff

replay: build peers ## the acceptance scenarios on ENGINE=standalone|kubernetes
	@$(GO) test -json -run '^TestReplay' ./test/... -args -engine=$(ENGINE) | $(GO) run ./test/report replay $(ENGINE)

fuzz: ## every fuzz target for FUZZTIME each
	@$(GO) run ./test/fuzzall -fuzztime $(FUZZTIME)

help: ## this list
	@grep -hE '^[a-z0-9]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'
