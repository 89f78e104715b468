"""A model's final scores in detail: by domain and view, and by institution."""

from __future__ import annotations

from fedfuse_ray.federation.messages.metrics import accuracy, macro_f1
from fedfuse_ray.federation.plan.plan import Plan
from fedfuse_ray.federation.rounds.scoring import FinalScores
from fedfuse_ray.report import schema


def evaluation(plan: Plan, scores: FinalScores) -> schema.Evaluation:
    """Return the final scores in detail, as `evaluation.json` holds them."""
    domains = {}
    for domain, modalities in plan.spec.domains.items():
        domains[domain] = schema.DomainEvaluation(
            classes=list(plan.classes[domain]),
            specimens=plan.test[domain],
            views=[
                schema.ViewEvaluation(
                    modalities=view.view,
                    accuracy=accuracy(view.confusion),
                    macro_f1=macro_f1(view.confusion),
                    confusion=view.confusion.tolist(),
                    attention=None
                    if view.attention is None
                    else dict(zip(modalities, view.attention.tolist(), strict=True)),
                )
                for view in scores.views[domain]
            ],
            source=plan.scores.sources[domain],
        )
    institutions = {
        name: schema.InstitutionEvaluation(
            domain=plan.by_name[name].domain,
            modalities=plan.by_name[name].modalities,
            accuracy=value,
            held=plan.scores.held.get(name, 0),
        )
        for name, value in scores.institutions.items()
    }
    return schema.Evaluation(domains=domains, institutions=institutions)
