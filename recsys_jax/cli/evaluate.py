"""Measures a recipe by one of several protocols, such as `recsys-jax evaluate shop --protocol time --full`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from recsys_jax import fit, load_model
from recsys_jax.config import Config, Language, describe
from recsys_jax.console import places
from recsys_jax.console.options import Common, last_language, remember, remembered
from recsys_jax.console.pictures.embedding import Colouring, Space
from recsys_jax.console.recommendations import example
from recsys_jax.console.reports import draw, summary, write
from recsys_jax.console.tables import say, say_notes, show
from recsys_jax.console.terminal import console, note, progress, remark, share_processors
from recsys_jax.errors import require, require_seed
from recsys_jax.evaluation.baselines import baselines, popularities
from recsys_jax.evaluation.engine import ALL, KS, MODEL, evaluate, in_sample
from recsys_jax.evaluation.findings import better_recipe, headline
from recsys_jax.evaluation.methods import both, recipe, trained
from recsys_jax.evaluation.report import report
from recsys_jax.report.page import write as write_html
from recsys_jax.storage.runs import model_of, outdated

Protocol = Literal["in-sample", "cross-validation", "hold-out", "time", "new-combinations", "new-products"]


@dataclass(frozen=True)
class Options(Common):
    """Measures a recipe by one of several protocols, beside baselines and a control."""

    dataset: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="DATASET")]] = places.MALL
    """The folder with dataset.toml."""
    run: Path | None = None
    """The folder with the trained model, by default runs/NAME; else the dataset's recipe is measured."""
    customers: Path | None = None
    """Another customer file than the dataset's, or than the one that `recsys-jax personas` made."""
    protocol: Protocol = "cross-validation"
    """What is held out: customers (all in turn, or one in FOLDS), the last purchases, and so on; in-sample: nothing."""
    k: tuple[int, ...] = KS
    """The lengths of the recommended lists that are measured."""
    folds: int = 5
    """Parts that are held out one after the other; hold-out and time hold out one such part."""
    seed: int = 0
    """How purchases fall into folds, the control's shuffles, the intervals' resamples, and the picture's layout."""
    encoder: str | None = None
    """The encoder that the personas were fitted with, where it is neither 'use' nor 'lsa'."""
    seeds: int = 1
    """Models per fold, with the recipe's seed and the next ones: mean and spread (not in-sample)."""
    ensemble: bool = False
    """Measure the mean of these models' scores, too."""
    colour: str | None = None
    """The customers' attribute that colours embedding_space.png, such as skin_type; by default the segment."""
    language: Language | None = None
    """Of report.html: English or Korean; by default that of the run's last page, or English."""
    full: bool = False
    """Print all tables and findings, which report.md has in any case."""
    force: bool = False
    """Take over a run folder that has the files of others, or another dataset's run."""
    examples = (
        "data/amoremall",
        "shop --protocol time --full",
        "shop --protocol in-sample",
        "shop --seeds 3 --language ko",
    )


def main(options: Options) -> str:
    """Measures, says what was found, and writes the figures."""
    require_seed(options.seed)
    places.require_dataset(options.dataset)
    run = places.run_folder(options.dataset, options.run, force=options.force)
    language = options.language or last_language(run)
    whose = model_of(run)
    there = options.protocol == "in-sample" or (run / "model.json").exists()
    model = load_model(run, tell=note) if there else None
    config = places.standard(options.dataset) if model is None else model.config
    seeds = places.seeds_from(config, options.seeds, options.ensemble)
    share_processors(config, len(seeds))
    measures = f"recsys-jax train DATASET deep --seeds {options.seeds} measures in-sample"
    allowed = f"with held-out protocols alone, as the run holds one model; {measures}"
    require(len(seeds) == 1 or options.protocol != "in-sample", "seeds", options.seeds, allowed)
    require(model is not None or options.colour is None, "colour", options.colour, "with a model: train one first")
    if model is None and options.run is not None:
        console.print(f"{run} has no model: the dataset's recipe is measured")
    dataset, made = places.load(options.dataset, run, options.customers)
    Colouring.of(dataset, options.colour)  # an attribute that isn't there is told before all the work
    asked_of_run = remembered(run).get("run")
    others: dict[str, Config] = {}
    if asked_of_run is not None:  # `run` has measured both recipes
        default = places.standard(options.dataset)
        others = both(default, len(dataset.purchases), config.seed, asked_of_run.get("epochs"))
        del others[config.recipe]
    if options.protocol == "in-sample":
        assert model is not None
        with progress(f"training {' and '.join(others)} on everything" if others else "asking"):
            rivals = {name: trained([fit(dataset, one)]) for name, one in others.items()}
        result = in_sample(model, dataset, options.k, others=rivals | popularities(dataset))
    else:
        methods = {MODEL: recipe(config, seeds, ensemble=options.ensemble)}
        methods |= {name: recipe(one) for name, one in others.items()}
        methods |= baselines(dataset, new_products=options.protocol == "new-products")
        split, of_fold = places.held_out(
            options.dataset, dataset, made, options.protocol, options.folds, options.seed, options.encoder
        )
        with progress(options.protocol) as bar:
            result = evaluate(
                dataset, split, methods, options.k, dataset_of_fold=of_fold, seed=options.seed, progress=bar
            )
    found = report(result, seed=options.seed)

    def first(language: Language = "en") -> str:
        compared = [better_recipe(found, config.recipe, name, language) for name in others]
        return compared[0] if compared and result.split != "in-sample" else headline(found, language)

    where = f"as {run} has no model" if model is None else f"as in {run}"
    anew = "" if result.split == "in-sample" else ", trained anew in each fold"
    leak = "" if result.leak_free is None else "; without the leak"
    # Where products are bought again, the last fifth of all purchases may be more of those that count once in training.
    different = "different " if len(dataset.repeats) else ""
    asked = (
        f"Asked: {describe(config)}, {where}{anew}; {result.protocol}; n = {result.queries[ALL]:,} of "
        f"{len(dataset.purchases):,} {different}purchases{leak}"
    )
    sized = f"{asked}; {len(dataset.customer_ids):,} customers, {result.candidates:,} products"
    derived = places.derived(options.dataset, dataset, made)
    page = write(found, dataset, run, options.protocol, options.k[0], model=whose, derived=derived, asked=[sized])
    places.write_set_aside(dataset.set_aside, run, quiet=True)
    remember("evaluate", replace(options, run=run, language=language), run)
    space = None if model is None else Space.of(model, dataset, seed=options.seed)
    drawn = model is not None and draw(run, model, dataset, options.seed, options.colour, space)
    write_html(
        run,
        found,
        dataset,
        model,
        space,
        headline=first(language),
        folder=options.dataset,
        made=made,
        derived=derived,
        encoder=options.encoder,
        colour=options.colour,
        called={MODEL: config.recipe} if others else None,
        language=language,
    )
    say_notes(dataset.notes, options.dataset)
    say(asked)
    say(first())
    summary(found)
    if options.full:
        show(page)
    out = run / options.protocol
    console.print(f"Written to {out}: report.md and more; above, report.html" + (", embedding_space.png" * drawn))
    for protocol in outdated(run, dataset.fingerprints):
        remark(f"{run / protocol} is of other data than these")
    if model is None:
        customers = () if options.customers is None else ("--customers", options.customers)
        return places.following("train", options.dataset, *customers)
    return example(run, dataset)
