# `make help` lists the targets. CI runs these same targets and nothing else.

GO      ?= go
BIN     := bin
CACHE   ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/lateen
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/lateen-mesh/lateen/wellknown.version=$(VERSION)
STATE   ?= /tmp/lateen-demo-$(shell id -u)
FUZZTIME ?= 2m
KEEP    ?= 0
ENGINE  ?= standalone
PROXY   ?= lateen
SCENARIOS ?= all
TIMES   ?= 1
GOLANGCI := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
# The database of known vulnerabilities; any address that govulncheck takes.
GOVULNDB ?= https://vuln.go.dev
# A test that fails is run once more, alone, and both runs are printed; what the race detector finds stays found.
GOTESTSUM := gotest.tools/gotestsum@v1.13.0 --format standard-quiet --rerun-fails=1 --rerun-fails-max-failures=3 --rerun-fails-abort-on-data-race

# The Kubernetes API is a module of its own, for its dependencies.
API     := local/apiserver
KUBERNETES := $(shell sed -n 's,^.*k8s.io/kubernetes \(v[0-9.]*\).*,\1,p' $(API)/go.mod | head -1)
APIFLAGS := -s -w -X k8s.io/component-base/version.gitVersion=$(KUBERNETES) -X k8s.io/client-go/pkg/version.gitVersion=$(KUBERNETES)
# So is the authorizer of OPA.
OPA     := samples/opa
SHELL   := bash
# Package names of `go build -v` become a count on a terminal, so that a long build is seen to go on.
PROGRESS := awk -v tty=$(if $(MAKE_TERMERR),1,0) '/^[A-Za-z0-9_.\/-]+$$/ { n++; if (tty) printf "\r%d packages compiled", n > "/dev/stderr"; next } { print > "/dev/stderr" } END { if (n && tty) print "" > "/dev/stderr" }'

.DEFAULT_GOAL := build
.PHONY: build demo check test race lint vuln e2e bench fuzz spec diff replay golden peers bench-engine bench-control help

build: ## build all programs into bin/; the first time takes minutes, most of them for the Kubernetes API
	@mkdir -p $(BIN)
	@echo 'building the programs of cmd/' && set -o pipefail && $(GO) build -v -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/... 2>&1 | $(PROGRESS)
	@echo 'building the Kubernetes API' && set -o pipefail && $(GO) build -C $(API) -v -trimpath -ldflags '$(APIFLAGS)' -o $(abspath $(BIN))/lateen-apiserver . 2>&1 | $(PROGRESS)
	@echo 'building the authorizer of OPA' && set -o pipefail && $(GO) build -C $(OPA) -v -trimpath -ldflags '-s -w' -o $(abspath $(BIN))/lateen-opa . 2>&1 | $(PROGRESS)
	@ln -sf lateen $(BIN)/istioctl

demo: build ## Bookinfo in a mesh on this machine, with the address of its page; Ctrl-C ends it
	@$(BIN)/lateen up --state $(STATE) samples/bookinfo

check: lint vuln test race ## all that must hold before a change lands: lint, no known vulnerability, tests, tests under the race detector

lint: ## gofmt, golangci-lint with go vet in it
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo 'error: files are not formatted'; echo 'hint: gofmt -w FILE'; exit 1; }
	$(GO) run $(GOLANGCI) run
	cd $(API) && $(GO) run $(GOLANGCI) run --config $(CURDIR)/.golangci.yml
	cd $(OPA) && $(GO) run $(GOLANGCI) run --config $(CURDIR)/.golangci.yml

vuln: build ## that no program has code in it with a known vulnerability; where the database is not reached it says so and goes on
	@if ! curl -fsS -m 20 -o /dev/null $(GOVULNDB)/index/db.json; then \
		echo 'warning: $(GOVULNDB) cannot be reached: known vulnerabilities were NOT looked for'; exit 0; fi; \
	for program in $(BIN)/*; do [ -L $$program ] || { echo $$program; $(GO) run $(GOVULNCHECK) -db $(GOVULNDB) -mode binary $$program || exit 1; }; done

test: peers ## all tests, those against a real Envoy included
	$(GO) run $(GOTESTSUM) --packages ./... -- -timeout 20m
	$(GO) test -C $(API) ./...
	$(GO) test -C $(OPA) ./...

race: ## the tests of every package of ours under the race detector; of the API's module those of its store, the rest being upstream's
	$(GO) run $(GOTESTSUM) --packages ./... -- -race -short
	$(GO) test -C $(API) -race -short ./store/...
	$(GO) test -C $(OPA) -race -short ./...

e2e: build peers ## the tests that run the built binaries: scenarios, README tour, differential cases
	$(GO) test -count=1 ./test/... ./cli/... ./local/...

peers: ## install the pinned real Envoy that the tests compare with, and fortio, into the cache folder
	@CACHE=$(CACHE) test/peer/install-envoy.sh
	@CACHE=$(CACHE) GO=$(GO) test/peer/install-fortio.sh

golden: ## compare generated xDS with the measured xDS beside the project
	$(GO) test ./control/compile -run Golden -v

bench: build peers ## the gateway against Envoy, nginx, haproxy and a bare relay; writes bench/RESULTS.md and results.json
	$(GO) run ./bench

spec: peers ## how much of the feature surface passing cases prove
	@$(GO) test -json ./... | $(GO) run ./test/report spec

diff: peers ## our proxy against a real Envoy, case by case
	@$(GO) test -json -run '^TestDiff' ./test/... | $(GO) run ./test/report diff

replay: build peers ## the acceptance scenarios (SCENARIOS=16,17) on ENGINE=standalone|kubernetes, with PROXY=lateen|envoy in all pods, each TIMES in a row
	@$(GO) test -json -timeout $(shell expr 20 \* $(TIMES))m -run '^TestReplay' ./test -args -engine=$(ENGINE) -scenarios=$(SCENARIOS) -proxy=$(PROXY) -times=$(TIMES) | $(GO) run ./test/report replay $(ENGINE)

bench-engine: build ## how long pods take, and what the parts of the local engine hold; writes its section of bench/RESULTS.md
	$(GO) run ./bench/engine

bench-control: build ## what the control plane takes with 1,000 services and 200 proxies; writes its section of bench/RESULTS.md
	$(GO) run ./bench/control

fuzz: ## every fuzz target for FUZZTIME each; KEEP=16 leaves so many of its inputs in the project
	@$(GO) run ./test/fuzzall -fuzztime $(FUZZTIME) -keep $(KEEP)

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
