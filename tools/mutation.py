"""``python tools/mutation.py [--list] [--room NAME]``: do the tests catch faults?

Makes small faults in copies of the project, one at a time, each of which must be caught by the tests of its file, or by
nbval if a notebook teaches it. Exits with 1 if a fault is not caught, or if tests fail without any fault. Each test run
is a fork of this process, in which the common imports are loaded, and so takes seconds. Needs a system that forks.
"""

import argparse
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from multiprocessing.pool import ThreadPool
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, NoReturn

ROOT = Path(__file__).resolve().parent.parent
COPIED, LINKED = ("caption_utils", "tests", "tools", "notebooks"), ("data", "docs", "results")
SECONDS = 120  # for one test, since a fault may make a loop endless
AT_ONCE = 2
NBVAL = ("--nbval", "--nbval-current-env", "--nbval-sanitize-with", "tests/nbval_sanitize.cfg")
LOADED = "hypothesis matplotlib.figure nbformat nltk pandas pytest safetensors skimage torch torch._dynamo torchvision"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "CAPTION_DATA": "demo", "CAPTION_PROFILE": "fast"}


class Fault(NamedTuple):
    """``old``, which occurs once in ``file``, becomes ``new``, and ``check`` must fail.

    ``file`` is in ``caption_utils``, or is a notebook, which is its own check.
    """

    file: str
    old: str
    new: str
    check: str = ""

    @property
    def by(self) -> str:
        """What must fail: ``check``, or else the test file with the name of the package's file."""
        room, _, name = self.file.rpartition("/")
        mirror = self.file if name.endswith(".ipynb") else f"tests/{room}/test_{name}".replace("//", "/")
        return self.check or mirror

    @property
    def place(self) -> str:
        """The path of the file in the project."""
        return self.file if self.file.endswith(".ipynb") else f"caption_utils/{self.file}"

    @property
    def room(self) -> str:
        """The room of the file; notebooks are a room, too."""
        return "notebooks" if self.by.endswith(".ipynb") else self.file.removesuffix(".py").split("/")[0]

    def __str__(self) -> str:
        return f"{self.file}: {self.old.strip()!r} -> {self.new.strip()!r}, by {self.by}"


SETTINGS, VOCABULARY = "tests/training/test_preparation.py", "notebooks/02_vocabulary.ipynb"
EXPLORATION, FEATURES = "notebooks/01_dataset_exploration.ipynb", "notebooks/03_image_features.ipynb"
BAHDANAU, LUONG = "notebooks/04_bahdanau_attention.ipynb", "notebooks/05_luong_attention.ipynb"
EVALUATION, PAGE = "notebooks/06_evaluation.ipynb", "notebooks/07_interactive_captioning.ipynb"
IMPROVEMENTS, SCORE = "notebooks/08_further_improvements.ipynb", "notebooks/09_learning_from_the_score.ipynb"
FAULTS = [
    Fault("files.py", "            temporary.unlink()", "            pass"),
    Fault("runtime.py", "    np.random.seed(seed)\n", ""),
    Fault("runtime.py", "bases.insert(0, root", "bases.append(root"),
    Fault("config.py", "math.pi * progress / warmup", "math.pi * progress", "tests/training/test_trainer.py"),
    Fault("config.py", "not low <= value <= high", "not low <= value", "tests/search/test_beam.py"),
    Fault("config.py", "patience: int = within(1, 1e6, 5)", "patience: int = within(0, 1e6, 5)", SETTINGS),
    Fault("plots.py", "100 * np.histogram(numbers, edges)[0]", "np.histogram(numbers, edges)[0]"),
    Fault("data/vocab.py", "if n >= min_count", "if n > min_count"),
    Fault("data/vocab.py", "(-counts[word], word)", "-counts[word]"),
    Fault("data/vocab.py", 'unicodedata.normalize("NFKC", text).translate', "text.translate"),
    Fault("data/wordpiece.py", "if n >= min_count", "if n > min_count"),
    Fault("data/wordpiece.py", "count + 1", "count"),
    Fault("data/word_vectors.py", "found[wanted.pop(word)]", "found[wanted[word]]"),
    Fault("data/splits.py", '"devImages.txt": "val"', '"devImages.txt": "test"'),
    Fault("data/splits.py", 'f"{seed}/{name}"', "name"),
    Fault("data/images.py", "    ImageOps.exif_transpose(reduced, in_place=True)\n", ""),
    Fault("data/images.py", 'image.size, "white"', 'image.size, "black"'),
    Fault("data/duplicates.py", "distance <= max_distance", "distance < max_distance"),
    Fault("data/folders.py", "if file.suffix.lower() in", "if file.suffix in"),
    Fault("data/layouts.py", "if not image or text", "if text"),
    Fault(
        "data/exploration.py", "unknown_percent(val, Vocabulary(all_counts", "unknown_percent(val, Vocabulary(counts"
    ),
    Fault("data/datasets.py", "matched - len(table)", "len(read.rows) - len(table)"),
    Fault("demo/scenes.py", "(width, height))", "(height, width))"),
    Fault("demo/descriptions.py", "said == sentence.replace", "said in sentence.replace"),
    Fault("encoders/encoder.py", "[:, None, None] * 255", "[:, None, None] * 256"),
    Fault("encoders/encode.py", "pixels.flip(2) if mirror", "pixels.flip(1) if mirror", "tests/encoders/test_store.py"),
    Fault("encoders/store.py", 'f"{encoder.fingerprint} {mirror}"', "encoder.fingerprint"),
    Fault("encoders/store.py", "features[row], done[row] = found.half().cpu().numpy(), True", "done[row] = True"),
    Fault("model/attention.py", "v(pairs.tanh_())", "v(pairs)"),
    Fault("model/hard.py", "alpha.detach() / times", "alpha.detach() * times"),
    Fault("model/normalizers.py", "partial(torch.softmax, dim=-1)", "partial(torch.softmax, dim=1)"),
    Fault("model/normalizers.py", "(ordered.cumsum(dim=-1) - 1) / rank", "ordered.cumsum(dim=-1) / rank"),
    Fault("model/normalizers.py", "scores.sort(dim=-1, descending=True)", "scores.sort(dim=-1)"),
    Fault("model/decoder.py", "whole.mean(dim=1)", "whole[:, 0]"),
    Fault("model/decoder.py", "self.dropout(output + embedded)", "self.dropout(output)"),
    Fault(
        "model/decoder.py",
        "context], dim=-1), (state.hidden, state.cell",
        "context], dim=-1), (state.cell, state.hidden",
    ),
    Fault("model/decoder.py", "self.attend(hidden, state)\n", "self.attend(state.hidden, state)\n"),
    Fault("model/decoder.py", "torch.sigmoid(self.gate", "torch.tanh(self.gate"),
    Fault("model/decoder.py", "state.hard * sampled(alpha)", "sampled(alpha)"),
    Fault("model/decoder.py", "(likeliest(alpha) if self.config.likeliest else alpha)", "alpha"),
    Fault("model/decoder.py", "if self.config.local_dim else regions", "if False else regions"),
    Fault("model/embedding.py", ".to(self.weight.dtype)", "", "tests/model/test_decoder.py"),
    Fault("fast/bahdanau.py", "f * (1 - f) * before", "f * (1 - f) * after"),
    Fault("fast/bahdanau.py", "exponential(-2 * state.keys)", "exponential(-state.keys)"),
    Fault("fast/graphs.py", "each.clone() for each in self.gradients", "each.detach() for each in self.gradients"),
    Fault("fast/layout.py", "(counts.cumsum(0) - counts)", "counts.cumsum(0) * 0"),
    Fault("search/beam.py", "-caption.score(config.length_penalty)", "caption.score(config.length_penalty)"),
    Fault("search/beam.py", "best_ended[live.images, -1:]", "best_ended[live.images, :1]"),
    Fault("search/constraints.py", ": len(SPECIALS)]", ": len(SPECIALS) - 1]"),
    Fault("search/constraints.py", "if words.shape[-1] < n:", "if words.shape[-1] <= n:"),
    Fault("search/hypotheses.py", "(len(self.ids) + 1) **", "len(self.ids) **", "tests/search/test_beam.py"),
    Fault("search/sampling.py", "- probabilities\n", "\n"),
    Fault(
        "metrics/perplexity.py",
        'reduction="none")',
        'reduction="none", ignore_index=2)',
        "tests/evaluation/test_report.py",
    ),
    Fault("metrics/scores.py", 'eff="closest"', 'eff="shortest"'),
    Fault("metrics/scores.py", "np.exp(np.minimum(0.0, 1 - 1 / ratios))", "1"),
    Fault("metrics/bootstrap.py", "(1 - LEVEL) / 2", "1 - LEVEL"),
    Fault("metrics/meteor.py", "(1 - ALPHA) / precision + ALPHA / recall", "ALPHA / precision + (1 - ALPHA) / recall"),
    Fault("metrics/diversity.py", "< len(words) - 1", "< len(words)"),
    Fault("training/batches.py", "[self.names[i] for i in chosen]", "[self.names[i - 1] for i in chosen]"),
    Fault("training/loss.py", "((1 - attended) ** 2)", "((1 - attended) ** 4)"),
    Fault("training/loss.py", "loss = total / (tokens or len(batch.targets))", "loss = total / len(batch.targets)"),
    Fault("training/loss.py", "(log_words - baseline) *", "log_words *"),
    Fault("training/loss.py", "config.entropy * entropy", "config.entropy"),
    Fault("training/trainer.py", "        self.optimizer.zero_grad()\n", ""),
    Fault("training/trainer.py", '== "cuda" else []):', '== "cuda" else [], enabled=False):'),
    Fault("training/progress.py", "return min(history", "return max(history", "tests/training/test_trainer.py"),
    Fault("training/trainer.py", "baseline.lerp_(mean, 0.1)", "baseline.lerp_(mean, 0.2)"),
    Fault("training/checkpoint.py", "if saved_with != fingerprint:", "if False:"),
    Fault("training/processes.py", 'reduction="sum"', 'reduction="mean"'),
    Fault("training/zoo.py", "item[0] != DEFAULT_MODEL", "item[0] == DEFAULT_MODEL"),
    Fault("training/run.py", "    seed_everything(config.seed)\n", ""),
    Fault("calibration.py", "1 - nearer / (len(self.tail) + 1)", "1 - nearer / len(self.tail)"),
    Fault("calibration.py", ".square().sum(dim=1) - (centred", ".square().sum(dim=1) + (centred"),
    Fault("calibration.py", "    if not belongs:", "    if False:"),
    Fault("captioner.py", "(len(self.tokens) + 1)", "len(self.tokens)"),
    Fault("captioner.py", "self.encoder.grid).numpy()", "self.encoder.grid).mT.numpy()"),
    Fault("evaluation/grounding.py", "area[top:bottom, left:right]", "area[left:right, top:bottom]"),
    Fault("evaluation/occlusion.py", "generator=ties), -ranks]", "generator=ties), ranks]"),
    Fault("evaluation/sharpness.py", ".sum(axis=1) / 2", ".sum(axis=1)"),
    Fault("evaluation/confidence.py", "eigenvectors.flip(1)", "eigenvectors"),
    Fault("evaluation/confidence.py", "calibrate(first, gists", "calibrate(second, gists"),
    Fault("evaluation/report.py", 'first.about["vocab_size"] != second', 'first.about["vocab_size"] == second'),
    Fault("training/preparation.py", "~dataset.table", "dataset.table", "tests/evaluation/test_unseen.py"),
    Fault("evaluation/attention.py", "dataset.image_names[:PHOTOS]", "dataset.image_names"),
    Fault("evaluation/records.py", "rows[0] != header or", "False or"),
    Fault("app/heatmaps.py", "('left', '', 'right')[column]", "('left', '', 'right')[row]"),
    Fault("app/page.py", 'return html.escape(shown.encode("utf-8", "replace").decode("utf-8"))', "return shown"),
    Fault("app/session.py", "[-MOST_SHOWN:]", "[:MOST_SHOWN]"),
    Fault("app/photos.py", '1 if host() == "colab" else', "1 if False else"),
    Fault("app/widget.py", '[*others, upload] if host() == "colab"', '[*others, upload] if host() == "kaggle"'),
    Fault("commands/sidecars.py", "texts and not self._keeps(photo)", "texts"),
    Fault("commands/caption.py", "0) >= least", "0) < least"),
    Fault("commands/sidecars.py", "parse_constant=lambda name: None", "parse_constant=float"),
    Fault(
        "__main__.py",
        '{error}", file=sys.stderr)\n        return 2',
        '", file=sys.stderr)\n        return 2',
        "tests/commands/test_main.py",
    ),
    # people scored with their own captions; too many leaks; distances doubled
    Fault(
        "data/exploration.py",
        "[[*captions[:k], *captions[k + 1 :]] for captions in chosen]",
        "list(chosen)",
        EXPLORATION,
    ),
    Fault("data/exploration.py", "1 - none - every", "1 - none", EXPLORATION),
    Fault("data/duplicates.py", "@ signs[start:].T) / 2", "@ signs[start:].T)", EXPLORATION),
    Fault(
        "data/vocab.py",
        "for token in tokens), self.eos]",
        "for token in tokens[::-1]), self.eos]",
        VOCABULARY,
    ),
    Fault("data/splits.py", '"trainImages.txt": "train"', '"trainImages.txt": "val"', VOCABULARY),
    Fault("training/batches.py", "pack_sequence([ids[:-1]", "pack_sequence([ids[:-2]", VOCABULARY),
    # regions column by column; another image's features
    Fault("encoders/encoder.py", "maps.flatten(2)", "maps.mT.flatten(2)", FEATURES),
    Fault(
        "encoders/store.py", "[self.row[name] for name in names]", "[self.row[name] - 1 for name in names]", FEATURES
    ),
    Fault(FEATURES, "unit @ unit[chosen]", "unit @ regions[chosen]"),
    # captions with another image's features; perplexity without <eos>; the worst beam first; maps transposed
    Fault("training/batches.py", "[self.names[i] for i in chosen]", "[self.names[i - 1] for i in chosen]", BAHDANAU),
    Fault("metrics/perplexity.py", 'reduction="none")', 'reduction="none", ignore_index=2)', BAHDANAU),
    Fault("search/beam.py", "-caption.score(config.length_penalty)", "caption.score(config.length_penalty)", BAHDANAU),
    Fault("captioner.py", "self.encoder.grid).numpy()", "self.encoder.grid).mT.numpy()", BAHDANAU),
    Fault("app/heatmaps.py", "image, veil(attention, image.size)", "image, veil(attention.T, image.size)", BAHDANAU),
    Fault("search/constraints.py", "== config.max_length", ">= config.max_length - 1", BAHDANAU),
    Fault("model/attention.py", "v(pairs.tanh_())", "v(pairs)", BAHDANAU),
    Fault("model/decoder.py", "whole.mean(dim=1)", "whole[:, 0]", BAHDANAU),
    Fault(BAHDANAU, "optimizer.zero_grad()", "pass"),
    Fault(BAHDANAU, "total += F.cross_entropy", "total -= F.cross_entropy"),
    Fault("model/decoder.py", "self.attend(hidden, state)\n", "self.attend(state.hidden, state)\n", LUONG),
    Fault("model/attention.py", "return query @ keys.mT", "return 2 * query @ keys.mT", LUONG),
    Fault("captioner.py", "self.encoder.grid).numpy()", "self.encoder.grid).mT.numpy()", LUONG),
    Fault("search/hypotheses.py", "(len(self.ids) + 1) **", "len(self.ids) **", EVALUATION),
    Fault("metrics/scores.py", "np.exp(np.minimum(0.0, 1 - 1 / ratios))", "1", EVALUATION),
    Fault("evaluation/grounding.py", "area[top:bottom, left:right]", "area[left:right, top:bottom]", EVALUATION),
    Fault("captioner.py", "(len(self.tokens) + 1)", "len(self.tokens)", PAGE),
    Fault("app/session.py", "captioner.captions(features, beams)[0]", "captioner.captions(features)[0]", PAGE),
    Fault("model/decoder.py", "torch.sigmoid(self.gate", "torch.tanh(self.gate", IMPROVEMENTS),
    Fault("training/loss.py", "(log_words - baseline) *", "log_words *", IMPROVEMENTS),
    Fault("data/wordpiece.py", "count + 1", "count", IMPROVEMENTS),
    # the end of captions not counted; captions compared with themselves, too; CIDEr without clipping; old gradients
    Fault("training/self_critical.py", "[[*caption, EOS] for caption in captions]", "list(captions)", SCORE),
    Fault("training/self_critical.py", "(rewards.shape[1] - 1)", "rewards.shape[1]", SCORE),
    Fault("metrics/cider.py", "min(ours[gram], theirs[gram])", "ours[gram]", SCORE),
    Fault(SCORE, "optimizer.zero_grad()", "pass"),
]


@contextmanager
def broken_copy(fault: Fault | None) -> Iterator[Path]:
    """A copy of the project with the fault in it, if any."""
    with TemporaryDirectory(prefix="mutation-") as name:
        copy = Path(name)
        for folder in COPIED:
            shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for folder in LINKED:
            (copy / folder).symlink_to(ROOT / folder)
        for path in ROOT.glob("*.*"):
            if path.is_file():
                shutil.copy(path, copy)
        if fault:
            path = copy / fault.place
            text = path.read_text(encoding="utf-8")
            if text.count(fault.old) != 1:
                raise SystemExit(f"{fault.file}: {fault.old!r} is there {text.count(fault.old)} times; mend the list")
            path.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        yield copy


def status(check: str, fault: Fault | None = None) -> int:
    """Pytest's exit status: 0 if all tests of ``check`` pass, 1 if one fails."""
    with broken_copy(fault) as copy:
        child = os.fork()
        if not child:
            run_tests(copy, check)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_tests(copy: Path, check: str) -> NoReturn:
    """Run ``check`` silently in the copy, and end this process with pytest's exit status."""
    code = 3  # pytest's own error
    try:
        os.chdir(copy)
        os.environ["PYTHONPATH"] = str(copy)
        sys.path.insert(0, str(copy))
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        options = NBVAL if check.endswith(".ipynb") else ("--timeout", str(SECONDS))
        code = import_module("pytest").main(["-x", "-q", "-p", "no:cacheprovider", *options, check])
    finally:
        os._exit(int(code))


def verdict(code: int) -> str:
    """What pytest's exit status says about a fault."""
    return {0: "NOT CAUGHT", 1: "caught"}.get(code, f"NOT CAUGHT (pytest ended with {code})")


def main() -> int:
    """Check the chosen faults and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="list the faults and try none")
    parser.add_argument("--room", choices=sorted({fault.room for fault in FAULTS}), help="only those of one room")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.room in (None, fault.room)]
    if options.list:
        print(*faults, sep="\n")
        return 0
    os.environ |= ONE_THREAD
    for name in LOADED.split():
        import_module(name)
    escaped = 0
    with ThreadPool(AT_ONCE) as pool:  # an executor's threads break the forks that tests make
        checks = list(dict.fromkeys(fault.by for fault in faults))
        for check, code in zip(checks, pool.imap(status, checks), strict=True):
            if code:
                escaped += 1
                print(f"FAILS WITHOUT A FAULT: {check}", flush=True)
        codes = pool.imap(lambda fault: status(fault.by, fault), faults)
        for fault, code in zip(faults, codes, strict=True):
            escaped += code != 1
            print(f"{verdict(code):<10}  {fault}", flush=True)
    print(f"{len(faults)} faults in {len(checks)} files; {escaped} not caught or not testable")
    return int(bool(escaped))


if __name__ == "__main__":
    sys.exit(main())
