"""Olive's fine-tuning passes, fed with the tokenised corpus and watched while they train.

The passes are Olive's own; what they need beyond their configuration is overridden where they offer a method for it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from phi3_assets.olive.configs import PASSES
from phi3_assets.olive.corpus import CorpusRows
from phi3_assets.training.batches import collate


def training_pass(
    method: str,
    target_modules: list[str],
    watcher: Any,
    rehearse: Callable[[Any, int], None] | None = None,
    eval_rows: CorpusRows | None = None,
) -> Any:
    """Derive a pass from Olive's for one run.

    Args:
        method: A key of `PASSES`.
        target_modules: Linear layers that get an adapter.
        watcher: A transformers TrainerCallback that follows the training.
        rehearse: Called before the training with the model, as it will be trained, and the token id that fills rows.
        eval_rows: Rows to look at while it trains, where the configuration says when.

    Returns:
        A subclass of Olive's pass with the same parameters.
    """
    from olive.passes.pytorch import lora

    base = getattr(lora, PASSES[method])

    class CorpusPass(base):  # type: ignore[misc, valid-type]
        """Olive's pass on the rows of the corpus."""

        @staticmethod
        def get_datasets(config: Any) -> tuple[CorpusRows, CorpusRows | None]:
            # Olive copies every row through Dataset.from_generator into the user's Hugging Face cache, at 1.3 k rows/s.
            container = config.train_data_config.to_data_container()
            return container.pre_process(container.load_dataset()), eval_rows

        def collate_batch(self, batch: list[dict[str, Any]], tokenizer: Any) -> dict[str, Any]:
            return collate(batch, tokenizer.pad_token_id, self.hidden_size, self.dtype)

        def enable_lora(self, model: Any, config: Any, *args: Any, **kwargs: Any) -> Any:
            # QLoRA has just overwritten them with every 4-bit layer.
            config.target_modules = target_modules
            adapted = super().enable_lora(model, config, *args, **kwargs)
            # Olive sets it to False for https://github.com/huggingface/transformers/issues/35838, fixed since. With
            # False, accumulated batches are averaged as if each had as many supervised tokens as the others.
            model.accepts_loss_kwargs = True
            model.config.use_cache = False
            self.hidden_size, self.dtype = model.config.hidden_size, model.dtype
            return adapted

        def train_and_save_new_model(self, model: Any, tokenizer: Any, *args: Any, **kwargs: Any) -> Any:
            if rehearse is not None:
                rehearse(model, tokenizer.pad_token_id)
            with progress_callback(watcher), token_weighted_evaluation():
                return super().train_and_save_new_model(model, tokenizer, *args, **kwargs)

    CorpusPass.__name__ = f"Corpus{base.__name__}"
    return CorpusPass


@contextmanager
def progress_callback(watcher: Any) -> Iterator[None]:
    """Put `watcher` where transformers keeps the class of its progress bar, for as long as a trainer is built and run.

    Olive's pass builds the Trainer itself and takes no callbacks (0.13.0). This module variable is how transformers
    exchanges the bar for another in notebooks; `add_callback` takes an instance as well as a class.
    """
    from transformers import trainer

    kept = trainer.DEFAULT_PROGRESS_CALLBACK
    trainer.DEFAULT_PROGRESS_CALLBACK = watcher
    try:
        yield
    finally:
        trainer.DEFAULT_PROGRESS_CALLBACK = kept


@contextmanager
def token_weighted_evaluation() -> Iterator[None]:
    """Let trainers evaluate by the mean over learnt tokens, as the step eval_report does.

    The trainer's own figure is a mean over rows of means over batches, which depends on how rows fall into batches; it
    takes a batch of rows that share their beginning for a single row; and it draws from the generator that dropout
    draws from, so that looking would change what is learnt. `evaluate` is there to be overridden, but Olive's pass
    builds the trainer itself.
    """
    from transformers import trainer

    def evaluate(self: Any, *args: Any, **kwargs: Any) -> dict[str, float]:
        metrics = {"eval_loss": mean_loss(self.model, self.eval_dataset, self.data_collator, self.args)}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    kept = trainer.Trainer.evaluate
    trainer.Trainer.evaluate = evaluate
    try:
        yield
    finally:
        trainer.Trainer.evaluate = kept


def mean_loss(model: Any, rows: CorpusRows, collator: Callable[[list[Any]], Any], args: Any) -> float:
    """Mean negative log-likelihood of the learnt tokens of all rows, in nats.

    Args:
        model: The model; it is left in evaluation mode, and the trainer puts it back before each step.
        rows: The rows.
        collator: Makes a batch of rows.
        args: The trainer's arguments: rows of a batch, and the device.
    """
    import torch

    model.eval()
    # Sum of losses and number of tokens; of several processes, each takes every so manyth batch.
    sums = torch.zeros(2, dtype=torch.float64, device=args.device)
    size = args.per_device_train_batch_size
    with torch.no_grad():
        for start in range(args.process_index * size, len(rows), args.world_size * size):
            part = [rows[number] for number in range(start, min(start + size, len(rows)))]
            batch = {name: tensor.to(args.device) for name, tensor in collator(part).items()}
            learnt = batch["shift_labels"].numel()
            sums += torch.tensor([float(model(**batch).loss) * learnt, learnt], device=args.device)
    if args.world_size > 1:
        torch.distributed.all_reduce(sums)
    return float(sums[0] / sums[1])
