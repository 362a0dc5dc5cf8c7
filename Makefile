# Each target does its own set-up; see tools/bootstrap.py.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin

SECONDS ?= 60

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench soak docs fuzz model mutants clean

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-7s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: ## Run the main job: two devices, a broker, live readings, attacks
	@$(PYTHON) tools/bootstrap.py demo
	@$(BIN)/pqc-iiot demo

test: ## Run every test
	@tools/need-packages mosquitto mosquitto-clients rsyslog rsyslog-gnutls rsyslog-openssl \
		softhsm2 opensc swtpm swtpm-tools tpm2-tools libtss2-dev pkg-config
	@$(PYTHON) tools/bootstrap.py test demo hsm tpm
	@tools/get-softokn .venv/softokn
	@tools/get-kryoptic .venv/kryoptic
	cargo test --release --quiet
	$(BIN)/pytest
	@tools/check-model

lint: ## Run ruff, mypy, rustfmt and clippy
	@$(PYTHON) tools/bootstrap.py lint test demo hsm
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cargo fmt --check
	cargo clippy --all-targets --quiet -- -D warnings

bench: ## Measure everything that the README states, and keys in hardware
	@tools/need-packages mosquitto softhsm2 opensc swtpm swtpm-tools libtss2-dev pkg-config
	@$(PYTHON) tools/bootstrap.py test bench hsm tpm
	@tools/get-softokn .venv/softokn
	@tools/get-kryoptic .venv/kryoptic
	$(BIN)/python -m benchmarks

soak: ## Send a million durable messages while everything is restarted at random
	@$(PYTHON) tools/bootstrap.py test
	@tools/need-packages mosquitto
	$(BIN)/python -m benchmarks.soak

docs: ## Render the API reference into site/
	@tools/need-packages libtss2-dev pkg-config
	@$(PYTHON) tools/bootstrap.py docs hsm tpm
	$(BIN)/python tools/render_docs.py

fuzz: ## Fuzz every parser for SECONDS each (60 if left out)
	@$(PYTHON) tools/bootstrap.py fuzz
	fuzz/run $(SECONDS)

model: ## Check the symbolic model of sessions, if its checker installs
	@$(PYTHON) tools/bootstrap.py
	@tools/check-model

mutants: ## Change the rules in one place after another: do the tests notice? (hours)
	@$(PYTHON) tools/bootstrap.py test
	$(BIN)/python tools/mutate.py
	tools/mutate-core

clean: ## Remove what the other targets made
	rm -rf .venv target site
