# Martlet. `make run` and `make test` are the two commands; everything they need they install or build.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run stop test build release install uninstall bench soak fuzz gpu-check format lint clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## set up, build, start a one-node cluster with a web service, and show it
	@scripts/run.sh

stop: ## end that cluster and leave nothing of it but .build and Debian packages
	@scripts/stop.sh

test: ## set up, build, and run every test tier that this machine allows
	@scripts/test.sh

build: ## debug build of all programs and tests
	@scripts/setup.sh build
	swift build --build-tests

release: ## optimised build of all programs into .build/release
	@scripts/setup.sh build
	@scripts/release.sh

install: ## optimised build, then programs and systemd units into PREFIX (/usr/local) below DESTDIR; BUILD=dir takes built ones
	@[ -n "$(BUILD)" ] || $(MAKE) --no-print-directory release
	@scripts/install.sh install

uninstall: ## remove what install has put there; the state stays
	@scripts/install.sh uninstall

bench: ## ratios against runc, crun, dockerd and conmon, measured in one run
	@scripts/bench.sh

soak: ## the loops of the tests at their full counts; the log is .build/soak.log
	@scripts/soak.sh

fuzz: ## feed the parsers of runtime and shim for FUZZ_SECONDS each (60); findings are kept in .build/fuzz
	@scripts/fuzz.sh

gpu-check: release ## pack .build/gpu-check.tar, with which Tests/Hardware/gpu-check checks a machine with a GPU
	@scripts/gpucheck.sh .build/gpu-check.tar

format: ## rewrite our sources in the house style
	swift format format --in-place --parallel --recursive Sources Tests plugins Fuzz Package.swift

lint: ## check the style without changing anything
	swift format lint --strict --parallel --recursive Sources Tests plugins Fuzz Package.swift

clean: ## remove the build folder
	rm -rf .build
