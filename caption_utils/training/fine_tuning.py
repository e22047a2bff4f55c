"""Fine-tuning: the last stages of the encoder learn together with the decoder, at a rate of their own."""

from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from caption_utils.config import FineTuneConfig
from caption_utils.encoders.encoder import Encoder
from caption_utils.metrics.perplexity import perplexity
from caption_utils.model.decoder import Batch
from caption_utils.training.batches import CaptionBatches, Share
from caption_utils.training.checkpoint import Model
from caption_utils.training.trainer import Refinement


class FineTuning(Refinement):
    """A run in which the last stages of ``encoder`` learn, too; the model folder also gets their weights.

    ``batches`` and ``val`` hold the features of ``encoder.before(config.fine_tune)``, the maps in front of the first
    stage that learns. The stages before it are frozen, and batch norms are part of the convolutions, so that nothing
    else changes. Resume and processes are those of ``fit``. Raises ``InputError`` if the encoder has no such stages.
    """

    config: FineTuneConfig

    def __init__(
        self,
        model: Model,
        encoder: Encoder,
        config: FineTuneConfig,
        folder: Path,
        batches: CaptionBatches,
        val: CaptionBatches,
    ):
        self.encoder = encoder
        self.stages = encoder.last_stages(config.fine_tune).requires_grad_(True)
        super().__init__(model, config, folder, batches, val)

    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules(), "stages": self.stages}

    def rates(self) -> dict[str, float]:
        return {**super().rates(), "stages": self.config.encoder_learning_rate}

    def seen(self, batch: Batch) -> Batch:
        """The batch with the features that the stages make now, with their gradient, of each image once."""
        return replace(batch, features=self.encoder.after(batch.features, self.config.fine_tune))

    def objective(self, part: Batch, share: Share) -> Tensor:
        return super().objective(self.seen(part), share)

    def validate(self) -> tuple[str, float]:
        return "val_perplexity", perplexity(self.model.decoder, map(self.seen, self.val.in_order()))

    def result(self) -> Model:
        """The model with the weights of the stages, and those that an earlier run has changed."""
        learnt = {name: each.detach() for name, each in self.encoder.model.named_parameters() if each.requires_grad}
        weights = {**self.model.encoder_weights, **learnt}
        return replace(self.model, encoder_weights=weights, fingerprint=self.encoder.fingerprint_with(weights))
