# make demo    a call from a simulated carrier to a local EkaScribe, in real time (SPEED=max: as fast as it goes)
# make test    everything that CI runs: checks, then the tests on every Python that is here
# make check   lint, types, layers
# make bench   the compiled core beside its peers; make bench-load: how many calls one core carries (half an hour)
# make debug, make sanitize   the core's tests with bounds checks, and under the address and undefined-behaviour sanitizers
# make fuzz    look for frames and messages that the core misreads (FUZZ_S=600: for so many seconds each); CI: fuzz-short
# make storm   workers are killed, one after the other, while calls are made (KILLS=40)
# make autobahn   our WebSockets against Autobahn|Testsuite, which needs a Python 2.7
#
# Each makes the virtual environment it needs.  Only Python ≥ 3.11 and a C compiler have to be there.

PYTHON ?= python3
SPEED ?= 1
FUZZ_S ?= 600
KILLS ?= 40
VENV := .venv
BIN := $(VENV)/bin
TYPES := $(shell find mediaflow -name '*.pxd')
SOURCES := pyproject.toml setup.py $(TYPES) $(wildcard mediaflow/_*/*.pyx mediaflow/_*/*.[ch] $(TYPES:.pxd=.py))
SYSTEM := espeak-ng libssl-dev valgrind libportaudio2 pulseaudio pulseaudio-utils libasound2-plugins sox nodejs npm chromium

.PHONY: demo test check bench bench-load pipecat debug sanitize fuzz fuzz-short storm autobahn system peers others clean

demo: $(VENV)/.runtime
	$(BIN)/mediaflow run pipelines/vobiz_to_eka.yaml --lab --speed $(SPEED)

# Most tests wait for sockets and processes, so twice as many run side by side as there are cores, which takes two thirds
# of the time of as many as cores; those that measure run by themselves.
SIDE_BY_SIDE := -q -n $(shell expr 2 '*' $$(getconf _NPROCESSORS_ONLN)) -m 'not slow'

test: system check peers
	$(BIN)/pytest $(SIDE_BY_SIDE)
	$(BIN)/pytest -m slow
	$(MAKE) -j2 -O debug sanitize
	$(MAKE) fuzz-short
	$(MAKE) others

check: $(VENV)/.development
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p build/mypy && ln -sfn ../../plugins build/mypy/mediaflow_plugins   # plugins/ under its installed name
	$(BIN)/mypy
	PATH=$(BIN):$$PATH cython-lint mediaflow
	$(BIN)/lint-imports

bench: $(VENV)/.development
	$(BIN)/mediaflow bench dsp

bench-load: $(VENV)/.development system peers
	$(BIN)/mediaflow bench load

# The compiled core once more, in a place of its own, and its tests on that.
CORE_TESTS := tests/dsp tests/wire -q -m 'not slow' -p no:cacheprovider --deselect tests/dsp/test_levels.py

debug: $(VENV)/.development
	MEDIAFLOW_DEBUG=1 $(BIN)/python setup.py -q build --build-lib build/debug/lib --build-temp build/debug/tmp
	PYTHONPATH=build/debug/lib $(BIN)/python -P -m pytest $(CORE_TESTS)

sanitize: $(VENV)/.development
	MEDIAFLOW_SANITIZE=1 $(BIN)/python setup.py -q build --build-lib build/sanitize/lib --build-temp build/sanitize/tmp
	PYTHONPATH=build/sanitize/lib PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	  $(BIN)/python -P -m pytest $(CORE_TESTS) --deselect tests/dsp/test_chain.py::test_a_stage_from_outside

# The wire's readers, seen by libFuzzer and with its sanitizers, held against readers that nobody here wrote.  What is
# found worth going on from stays in build/fuzz, and so does what is misread: it belongs into the corpus, as `found-…`.
# `fuzz-short` begins with the corpus alone and does the same each time.
FUZZ_TARGETS := frames media members
FUZZER = PYTHONPATH=build/fuzz/lib:tests PYTHONHASHSEED=0 PYTHONMALLOC=malloc \
  ASAN_OPTIONS=detect_leaks=0:malloc_context_size=0 \
  LD_PRELOAD="$$($(BIN)/python -c 'import atheris; print(atheris.path())')/asan_with_fuzzer.so" \
  $$(setarch -R true && echo setarch -R) $(BIN)/python -P tests/wire/fuzz.py

fuzz fuzz-short: $(VENV)/.development
	@set -e; if $(BIN)/python -m pip install -q --only-binary :all: --group fuzz; then \
	  MEDIAFLOW_FUZZ=1 $(BIN)/python setup.py -q build --build-lib build/fuzz/lib --build-temp build/fuzz/tmp; \
	  rm -rf build/fuzz/fuzz-short; \
	  for target in $(FUZZ_TARGETS); do \
	    mkdir -p build/fuzz/$@/$$target; \
	    $(FUZZER) $$target build/fuzz/$@/$$target tests/wire/corpus/$$target -artifact_prefix=build/fuzz/$$target- \
	      -use_value_profile=1 -max_len=600 -print_final_stats=1 -verbosity=0 -detect_leaks=0 $(FUZZ_OPTIONS); \
	  done; \
	elif [ "$$CI" = true ]; then echo "NOT FUZZED: CI must have atheris"; exit 1; \
	else echo "NOT FUZZED: atheris, which brings libFuzzer, has no wheel for this Python and machine"; fi

fuzz: FUZZ_OPTIONS = -max_total_time=$(FUZZ_S)
fuzz-short: FUZZ_OPTIONS = -seed=1 -reload=0 -runs=20000

storm: $(VENV)/.development
	$(BIN)/python tests/kill_storm.py $(KILLS)

PYTHON2 := $(firstword $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/2.7.*/bin/python) $(shell command -v python2.7))

autobahn: $(VENV)/.development
	@if [ -z "$(PYTHON2)" ]; then echo "no Python 2.7 here: not tried against Autobahn|Testsuite"; \
	else $(MAKE) build/autobahn/bin/wstest && $(BIN)/python tests/autobahn.py build/autobahn/bin/wstest; fi

build/autobahn/bin/wstest:
	$(PYTHON2) -m pip install -q --target build/virtualenv 'virtualenv<20.16'
	PYTHONPATH=build/virtualenv $(PYTHON2) -m virtualenv -q build/autobahn
	build/autobahn/bin/pip install -q autobahntestsuite

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --upgrade pip

$(VENV)/.runtime: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install -q -e .
	touch $@

$(VENV)/.development: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install -q -e '.[files,mic]' --group test --group check
	touch $@ $(VENV)/.runtime

# What tests need from the system.  Where we are root and have apt, bring it; elsewhere those tests skip and say why.
system:
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  missing=; for package in $(SYSTEM); do \
	    dpkg-query -W -f '$${Status}' $$package 2>/dev/null | grep -q 'ok installed' || missing="$$missing $$package"; done; \
	  case "$$missing" in *nodejs*|*npm*) \
	    if command -v npm >/dev/null; then missing=$$(echo $$missing | sed 's/nodejs//;s/npm//'); fi;; esac; \
	  if [ -n "$$(echo $$missing)" ]; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $$missing; fi; \
	fi

# WebSocket clients and servers that nobody here wrote.
peers:
	@if command -v npm >/dev/null; then npm ci --silent --no-audit --no-fund --prefix tests/peers; fi

# Pipecat as a bridge, for its test: half a gigabyte, so only where it is asked for.
pipecat: build/pipecat/bin/python
build/pipecat/bin/python:
	$(PYTHON) -m venv build/pipecat
	$@ -m pip install -q 'pipecat-ai[websocket]>=1.14,<2' uvicorn websockets

# The other Pythons: the one on the path as pythonX.Y, or pyenv's.  The newest runs all tests as the oldest does, the one
# between those of what is compiled, which is where Pythons differ for us, and of calls that go through all of it.
NEWEST := 3.13
BETWEEN := 3.12
BETWEEN_TESTS := $(patsubst mediaflow/%.pxd,tests/test_%.py,$(wildcard mediaflow/*.pxd)) tests/test_websocket*.py \
  tests/test_hot.py tests/test_runner.py tests/test_end_to_end.py tests/dsp tests/wire tests/delivery tests/eka
others:
	@for version in $(BETWEEN) $(NEWEST); do \
	  python=$$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python 2>/dev/null | tail -1); \
	  python=$${python:-$$(command -v python$$version)}; \
	  if [ -z "$$python" ]; then echo "no Python $$version here: not tested on it"; continue; fi; \
	  case $$version in $(NEWEST)) tests=tests;; *) tests="$(wildcard $(BETWEEN_TESTS))";; esac; \
	  $(MAKE) other PYTHON=$$python VENV=.venv-$$version OTHER_TESTS="$$tests" || exit 1; \
	done

.PHONY: other
other: $(VENV)/.other
	mkdir -p build/elsewhere   # away from the sources, so that what is installed is what is tested
	cd build/elsewhere && $(abspath $(BIN))/pytest $(SIDE_BY_SIDE) -c ../../pyproject.toml --rootdir ../.. \
	  $(addprefix ../../,$(OTHER_TESTS))

$(VENV)/.other: $(VENV)/bin/python $(SOURCES)
	$(BIN)/python -m pip install -q '.[files,mic]' --group test
	touch $@

clean:
	rm -rf .venv .venv-* build *.egg-info mediaflow/*.so mediaflow/*/*.so tests/peers/node_modules
