# Guichet. `make help` lists what there is.
.DEFAULT_GOAL := help
.PHONY: help dev dev-reset demo test test-long lint bench build

TOOL := go tool -modfile=tools/go.mod
WITH_DATABASE := go run ./internal/testdb/run --

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Build bin/guichet
	go build -o bin/guichet ./cmd/guichet

dev: ## Run everything on this machine, with simulators: Ctrl-C stops it
	@scripts/need dev
	@$(MAKE) --no-print-directory build
	@exec bin/guichet dev

dev-reset: build ## Forget what `make dev` has stored
	@bin/guichet dev --reset

demo: ## Run the main job from a click to SAP, and check it
	@scripts/need demo
	@$(MAKE) --no-print-directory build
	@bin/guichet demo

test: ## Check and test everything; what CI runs
	@scripts/need test
	@$(MAKE) --no-print-directory lint
	$(WITH_DATABASE) go test -race -timeout 20m ./...

test-long: ## The long forms of the tests: thousands of seeds, a million rows
	@scripts/need test
	GUICHET_LONG=1 $(WITH_DATABASE) go test -timeout 4h ./...

lint: ## Formatting, go vet, staticcheck, the house rules
	@out=$$($(TOOL) gofumpt -l .); test -z "$$out" || { echo "not formatted, run '$(TOOL) gofumpt -w .':"; echo "$$out"; exit 1; }
	go vet ./...
	$(TOOL) staticcheck ./...
	go test ./internal/arch

bench: ## Measure, in ratios to a named baseline
	go run ./cmd/bench
