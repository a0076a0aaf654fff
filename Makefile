# Needs Go and Python 3 with pip (for Envoy and for the MCP parts, Node.js among
# them; OPA is built from source); `race` also needs a C compiler.

MODULES     := . grants/etcd
STATICCHECK := v0.8.2
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
FUZZTIME    ?= 5s
TESTFLAGS   ?= -timeout=15m

# Tools are built into a folder named after their version, so that moving a
# pin rebuilds them.
staticcheck := .bin/staticcheck-$(STATICCHECK)/staticcheck

# The recipes that run Envoy start with this. A failed fetch fails the recipe.
with-envoy = ENVOY=$$(./envoy/fetch) && export ENVOY

# Those that run MCP clients and servers of other languages start with this.
with-peers = TOOLGRANT_MCP_PEERS=$$(./examples/mcp/peers/fetch) && export TOOLGRANT_MCP_PEERS

# And those that run OPA with this.
with-opa = TOOLGRANT_OPA=$$(./examples/opa/fetch) && export TOOLGRANT_OPA

# each-module runs a command in every module and stops at the first failure.
each-module = for m in $(MODULES); do (cd $$m && $(1)) || exit 1; done

.PHONY: help
help: ## print this
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the static binary .bin/toolgrant
	CGO_ENABLED=0 go build -trimpath -ldflags='-X main.version=$(VERSION)' -o .bin/toolgrant ./cmd/toolgrant

.PHONY: envoy
envoy: ## print the path of the Envoy to use; fetch it if there is none
	@./envoy/fetch

.PHONY: mcp
mcp: ## print the folder of the MCP parts that tests and demo-mcp run; fetch them if there are none
	@./examples/mcp/peers/fetch

.PHONY: opa
opa: ## print the path of the OPA that tests use; build it if there is none
	@./examples/opa/fetch

# The demo is built and exec'd rather than run by `go run`, which a SIGTERM
# ends without its child: the demo could not clean up.
.PHONY: demo
demo: build ## play the story: a grant buys a call, and nothing else does
	go build -o .bin/reports-tool ./examples/reports/tool
	go build -o .bin/demo ./examples/demo
	@$(with-envoy) && exec .bin/demo

.PHONY: demo-mcp
demo-mcp: build ## play the story with an MCP server and clients of three SDKs
	go build -o .bin/mcp-server ./examples/mcp/server
	go build -o .bin/mcp-client ./examples/mcp/clients/go
	go build -o .bin/demo-mcp ./examples/mcp/play
	@$(with-envoy) && $(with-peers) && exec .bin/demo-mcp

.PHONY: test
test: ## run all tests, real Envoy, etcd and MCP clients and servers included
	$(with-envoy) && $(with-peers) && $(with-opa) && $(call each-module,go test $(TESTFLAGS) ./...)

.PHONY: race
race: ## run all tests under the race detector
	$(with-envoy) && $(with-peers) && $(with-opa) && $(call each-module,CGO_ENABLED=1 go test -race $(TESTFLAGS) ./...)

.PHONY: fuzz
fuzz: ## run every fuzz target for FUZZTIME (5s) and check that it ran
	@./.ci/fuzz $(FUZZTIME)

.PHONY: lint
lint: $(staticcheck) ## gofmt, go vet, staticcheck
	@out=$$(gofmt -l .) && if [ -n "$$out" ]; then echo "gofmt these:"; echo "$$out"; exit 1; fi
	$(call each-module,go vet ./...)
	$(call each-module,"$(CURDIR)/$(staticcheck)" ./...)

$(staticcheck):
	GOBIN="$(CURDIR)/$(@D)" go install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK)

.PHONY: tidy-check
tidy-check: ## check that go.mod and go.sum are tidy
	$(call each-module,go mod tidy -diff)

.PHONY: examples
examples: build ## check the examples' manifests and policies, and play the tests of these
	.bin/toolgrant manifest check --config examples/bank/toolgrant.yaml
	for e in bank mcp reports; do .bin/toolgrant policy check --strict --config examples/$$e/toolgrant.yaml || exit 1; done
	.bin/toolgrant policy test --require-coverage --config examples/bank/toolgrant.yaml

.PHONY: bench
bench: ## run all benchmarks
	$(with-envoy) && $(with-peers) && go test -run='^$$' -bench=. -benchmem ./...

.PHONY: bars
bars: ## the long tests: a million operations for the late-allow detector, 10^5 calls while each part is broken, 20,000 manifests
	TOOLGRANT_MANIFEST_CASES=20000 go test $(TESTFLAGS) -count=1 -run TestClosed -v ./manifest
	$(with-envoy) && TOOLGRANT_LATE_OPS=1000000 TOOLGRANT_BROKEN_CALLS=100000 \
		go test $(TESTFLAGS) -count=1 -run 'NoLate|AllowNothing' -v ./cmd/toolgrant

.PHONY: clean
clean: ## remove what make built and fetched
	rm -rf .bin .envoy .envoy.* .mcp .mcp.*
