"""The transformers Trainer of a fine-tuning, with evaluation by the mean over learnt tokens."""

from collections.abc import Callable
from typing import Any

from phi3_assets.olive.corpus import CorpusRows


def corpus_trainer(callback: Any, **arguments: Any) -> Any:
    """Make the Trainer.

    Args:
        callback: A transformers TrainerCallback; it takes the place of the progress bar.
        **arguments: Those of `transformers.Trainer`.
    """
    from transformers import ProgressCallback, Trainer

    class CorpusTrainer(Trainer):  # type: ignore[misc]
        """Evaluates as the step eval_report does.

        The Trainer's own figure is a mean over rows of means over batches, which depends on how rows fall into
        batches; it takes a batch of rows that share their beginning for a single row; and it draws from the generator
        that dropout draws from, so that evaluating would change what is learnt.
        """

        control: Any

        def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
            metrics = {"eval_loss": mean_loss(self.model, self.eval_dataset, self.data_collator, self.args)}
            self.log(metrics)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
            return metrics

    trainer = CorpusTrainer(callbacks=[callback], **arguments)
    trainer.remove_callback(ProgressCallback)
    return trainer


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
