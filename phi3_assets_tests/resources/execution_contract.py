"""What every execution must do. Subclass it and give `execution` and `store` fixtures.

Real steps only: the user's files are read, and a tiny random model is built.
"""

import contextlib
import shutil

import dagster as dg

from phi3_assets import steps
from phi3_assets.core.manifest import Manifest, verify
from phi3_assets.core.recipe_file import load_recipe
from phi3_assets.core.step import StepCall, installed_versions
from phi3_assets_tests.conftest import raw_dataset_call


def base_model_call(seed: int = 0) -> StepCall:
    """A tiny random model: a step that imports torch."""
    step = steps.BASE_MODEL
    recipe = load_recipe("tiny-test", {"base_model_revision": str(seed)})
    return StepCall(step.name, step.code_version, step.params(recipe), {}, installed_versions(step.libraries))


def corpus_call(raw: Manifest, base: Manifest) -> StepCall:
    """A step that reads other artefacts."""
    step = steps.FORMATTED_CORPUS
    inputs = {"raw_dataset": raw.digest, "base_model": base.digest}
    return StepCall(
        step.name,
        step.code_version,
        step.params(load_recipe("tiny-test")),
        inputs,
        installed_versions(step.libraries),
    )


class ExecutionContract:
    """Tests any implementation against any store."""

    def run(self, execution, store, call, inputs, instance=None):
        """Run one step inside a real op, so that logs and observations go where they would."""
        box = {}

        @dg.op
        def only(context: dg.OpExecutionContext) -> None:
            with store.claim(call):
                try:
                    box["made"] = execution.run_step(context, call, inputs, store)
                except dg.Failure as error:
                    self.raised = error
                    raise

        @dg.job
        def job():
            only()

        result = job.execute_in_process(raise_on_error=False, instance=instance)
        return box.get("made"), result

    def failure(self, result) -> dg.Failure:
        data = next(event for event in result.all_events if event.is_step_failure).step_failure_data
        assert data.user_failure_data is not None, data.error.to_string()
        return data.user_failure_data

    def test_leaves_a_published_artefact(self, execution, store):
        call, inputs = raw_dataset_call(store)
        made, result = self.run(execution, store, call, inputs)
        assert result.success
        assert store.find(call.step, call.identity) == made
        verify(store.fetch(made.ref), made, content=True)
        assert made.metrics["rows_read"] == 40
        assert made.ran["seconds"] >= 0
        assert made.versions["python"].startswith("3.11")

    def test_reads_other_artefacts(self, execution, store):
        raw_call, files = raw_dataset_call(store)
        raw, _ = self.run(execution, store, raw_call, files)
        base, _ = self.run(execution, store, base_model_call(), {})
        call = corpus_call(raw, base)
        made, result = self.run(execution, store, call, {"raw_dataset": raw.ref, "base_model": base.ref})
        assert result.success
        assert made.metrics["train_rows"] + made.metrics["test_rows"] == 40

    def test_same_call_gives_the_same_digest(self, execution, store):
        call, inputs = raw_dataset_call(store)
        first, _ = self.run(execution, store, call, inputs)
        self.forget(store, first.ref)
        second, _ = self.run(execution, store, call, inputs)
        assert second.digest == first.digest

    def test_progress_and_logs_come_back(self, execution, store, instance):
        call, inputs = raw_dataset_call(store)
        self.run(execution, store, call, inputs, instance)
        records = instance.fetch_observations(dg.AssetKey("raw_dataset"), limit=10).records
        told = [record.asset_observation.metadata for record in records]
        assert next(numbers["Progress, %"].value for numbers in told if "Progress, %" in numbers) == 100

    def test_users_error_is_final_and_leaves_nothing(self, execution, store, home):
        (home / "datasets" / "codes.csv").write_text("Frage,Antwort\na,b\n")
        call, inputs = raw_dataset_call(store)
        made, result = self.run(execution, store, call, inputs)
        assert made is None
        failure = self.failure(result)
        assert "question_column" in failure.description
        assert self.raised.allow_retries is False
        assert store.find(call.step, call.identity) is None
        self.nothing_staged(store, call)

    def test_data_that_changes_meanwhile_is_refused(self, execution, store, home):
        call, inputs = raw_dataset_call(store)
        with (home / "datasets" / "codes.csv").open("a") as file:
            file.write("What now?,This.\n")
        _, result = self.run(execution, store, call, inputs)
        assert "'datasets'" in self.failure(result).description
        assert "changed while the step was starting or running" in self.failure(result).description
        assert store.find(call.step, call.identity) is None

    def test_damaged_input_is_refused(self, execution, store):
        raw_call, files = raw_dataset_call(store)
        raw, _ = self.run(execution, store, raw_call, files)
        base, _ = self.run(execution, store, base_model_call(), {})
        self.break_file(store, base.ref, "model.safetensors")
        call = corpus_call(raw, base)
        _, result = self.run(execution, store, call, {"raw_dataset": raw.ref, "base_model": base.ref})
        assert "model.safetensors was changed" in self.failure(result).description

    def test_other_library_versions_are_refused(self, execution, store):
        call, inputs = raw_dataset_call(store)
        name = next(iter(call.libraries))
        call = StepCall(**{**call.to_dict(), "libraries": {name: "0.0.1"}})
        _, result = self.run(execution, store, call, inputs)
        assert f"{name} " in self.failure(result).description
        assert "wanted 0.0.1" in self.failure(result).description

    def forget(self, store, ref):
        """Take an artefact out of the store, as if it had never been made."""
        shutil.rmtree(store.fetch(ref))

    def break_file(self, store, ref, path):
        """Change the last byte of a file where it is read from."""
        file = store.fetch(ref) / path
        data = bytearray(file.read_bytes())
        data[-1] ^= 1
        file.write_bytes(data)

    def nothing_staged(self, store, call):
        with contextlib.suppress(FileNotFoundError):
            assert list(store.work_path(call).glob("staged-*")) == []
