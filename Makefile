# Everything that runs or checks the project. `make run` and `make test` set up .venv by themselves.
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
PYTHON := $(BIN)/python
DEMO := CAPTION_DATA=demo CAPTION_PROFILE=fast
# Two files at a time, the longest first (tests/conftest.py); threads that wait for each other would cost more than they
# gain.
PYTEST := OMP_NUM_THREADS=1 $(DEMO) $(BIN)/python -m pytest --quiet \
    --numprocesses 2 --dist loadfile --no-loadscope-reorder

unexport PYTHONDONTWRITEBYTECODE  # many processes import the package; compiled once, it is there for all

.DEFAULT_GOAL := help
.PHONY: help run test quick style types check few app lab book notebooks bench gpu links ablation demo lock hosts

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

run: $(READY) ## run all notebooks on the demo set, then caption sample photographs
	@$(DEMO) $(BIN)/python tools/notebooks.py run

test: $(READY) ## check style and types, run the tests, compare the notebooks with their stored outputs
	@$(MAKE) --no-print-directory style
	@$(MAKE) --no-print-directory --jobs 2 types check

quick: $(READY) ## check style and types, run the quick tests that need neither a browser nor Java
	@$(MAKE) --no-print-directory style
	@$(MAKE) --no-print-directory --jobs 2 types few

style: # of the files
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .

types: # of the package; the first time this takes most of a minute, and one core, so tests run meanwhile
	$(BIN)/mypy

check: # the tests and the notebooks, in an environment that is there
	$(PYTEST) --nbval --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg notebooks tests

few: # the tests that are quick
	$(PYTEST) -m "not slow and not browser and not java" tests

app: $(READY) ## open the page that captions your photographs
	$(BIN)/voila notebooks/07_interactive_captioning.ipynb --Voila.config_file_paths=tools/jupyter

lab: $(READY) ## open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks/01_dataset_exploration.ipynb --config=tools/jupyter/voila.py

book: $(READY) ## build notebooks and documents as pages, in build/book
	$(BIN)/sphinx-build --quiet --fail-on-warning --builder html -c docs -d build/doctrees . build/book

notebooks: $(READY) ## run the notebooks again and store their outputs
	$(DEMO) $(BIN)/python tools/notebooks.py refresh

links: $(READY) ## write badges and bootstrap cells, from the address in pyproject.toml
	$(BIN)/python tools/notebooks.py links

gpu: ## check and measure on a GPU, with PYTHON=python3 without .venv; PyTorch and NumPy are enough
	$(PYTHON) benchmarks/gpu.py

bench: $(READY) ## measure speed: whole tasks beside version 0.1 (with DATA=data/flickr8k training, too), then their parts
	-$(BIN)/python benchmarks/bench_tasks.py $(if $(DATA),--data $(DATA))
	@for file in $(filter-out %/bench_tasks.py,$(wildcard benchmarks/bench_*.py)); do \
	    echo "$$file"; GOMP_SPINCOUNT=1000 $(BIN)/python "$$file" || exit 1; done

ablation: $(READY) ## measure what each part of the model is worth: DATA=data/flickr8k, many hours, resumable
	$(BIN)/python tools/ablation.py $(or $(DATA),data/flickr8k)

demo: $(READY) ## draw the demo set in data/demo again
	$(BIN)/python tools/demo_set.py

lock: ## pin the newest allowed packages in requirements.lock (needs uv)
	uv pip compile --universal --python-version 3.11 --all-extras --upgrade --quiet \
	    --no-header --no-annotate --no-emit-index-url pyproject.toml --output-file requirements.lock

hosts: ## test with the oldest and the newest supported packages, in environments of their own
	tools/hosts

# The stamp comes last. Where it is missing, the last set-up did not end, and this one starts from nothing.
$(READY): requirements.lock pyproject.toml
	@python=$$(tools/find_python) && \
	echo "Setting up $(VENV) (once; a few minutes, mostly PyTorch's download)" && \
	if [ ! -f $@ ]; then "$$python" -m venv --clear $(VENV); fi && rm -f $@
	@$(BIN)/python -m pip install --quiet --requirement requirements.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
