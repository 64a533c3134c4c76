"""The panel to try the model in the page."""

from typing import Any

from recsys_jax.models.trained import TrainedModel


def page_data(model: TrainedModel) -> dict[str, Any] | None:
    """What `panel.js` computes lists from; None where the model cannot run in a page, which then has no panel."""
    return None
