"""Whether the link's probabilities are shares of the held-out rows, at each validation."""

import lightning as L
import numpy as np
import torch

from spo.callbacks.observer import first_replicate, media_loggers, observed
from spo.charts import reliability_chart


class Reliability(L.Callback):
    """`link/reliability` (chart) and `link/reliability_picture`, of replicate 0: bins of equal weight as of `link/ece`.

    Only where a logger takes pictures: a report makes its own from validation.parquet and link.json.
    """

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        sample, loggers = observed(pl_module).validation_sample, media_loggers(trainer)
        if sample is None or not trainer.is_global_zero or not loggers:
            return
        rows = first_replicate(sample)
        if rows.t.size == 0:
            return
        from spo.report.reliability import reliability, reliability_image  # matplotlib, only where somebody looks

        link = observed(pl_module).active_link
        t = torch.as_tensor(rows.t, dtype=torch.float32, device=pl_module.device)
        with torch.no_grad():  # a link of many replicates wants all of them
            p = link(t.expand(*sample.t.shape[:-1], -1)).reshape(-1, t.shape[-1])[0].double().cpu().numpy()
        found = reliability(np.asarray(p), rows.z, rows.weight, symmetric=link.symmetric)
        record = {"step": trainer.global_step, **found}
        for logger in loggers:
            logger.log_chart("link/reliability", reliability_chart(record), trainer.global_step)
            logger.log_picture("link/reliability_picture", reliability_image(record), trainer.global_step)
