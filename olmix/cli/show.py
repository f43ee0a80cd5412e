"""`olmix show`: the proposed mixture, led by what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from olmix.artifacts.mixture_file import MixtureFile, Use
from olmix.cli.revisions import Named
from olmix.config.params import load_params
from olmix.core.contenders import LABELS, PROPOSAL
from olmix.core.limits import limit_text
from olmix.core.mixture import total_variation
from olmix.terminal.table import bar, decimals, table

# Total variation that rounding to six decimals can make.
SAME = 1e-5


def drifted_in(file: MixtureFile) -> Mapping[str, Any]:
    """By domain what changed of those that kept their weight all the same: its share and error, or nothing known."""
    drifted = (file.sections.get("plan") or {}).get("drifted")
    return drifted if isinstance(drifted, dict) else {}


def drift_note(drift: Mapping[str, Any] | None) -> str:
    """What is said of a domain in a table; nothing of one that did not drift."""
    if drift is None:
        return ""
    return f" drifted {drift['changed']:.1%}" if drift else " drifted"


def measured_lines(file: MixtureFile, validation: Mapping[str, Any] | None) -> list[str]:
    """What was measured of a mixture, one line a baseline: by `validation`, else as its file records it; or nothing."""
    if validation:
        return _validated_lines(validation)
    recorded = file.sections.get("measured")
    return _recorded_lines(recorded) if recorded else []


def _validated_lines(validation: Mapping[str, Any]) -> list[str]:
    proposal = validation[PROPOSAL]
    lines = [_bpb_line(proposal["mean_bpb"], proposal["standard_error"], len(proposal["seeds"]))]
    for name in LABELS:
        if name in validation and name != PROPOSAL:
            gain = validation[name]["gain_of_proposal"]
            same = total_variation(validation[name]["weights"], proposal["weights"]) < SAME
            lines.append(_gain_line(name, gain["bpb"], gain["standard_error"], validation[name]["mean_bpb"], same))
    return lines


def _recorded_lines(measured: Mapping[str, Any]) -> list[str]:
    lines = [_bpb_line(measured["bpb"], measured.get("standard_error"), measured["seeds"])]
    for name in LABELS:
        gain = measured.get(f"gain_over_{name}")
        if gain is not None:
            error = measured.get(f"gain_over_{name}_standard_error")
            lines.append(_gain_line(name, gain, error, measured["bpb"] + gain, same=False))
    return lines


def _bpb_line(bpb: float, error: float | None, seeds: int) -> str:
    return f"Measured, {seeds} fresh seed{'s' if seeds > 1 else ''}: {bpb:.4f} bits per byte{_error(error)}"


def _gain_line(name: str, gain: float, error: float | None, baseline: float, same: bool) -> str:
    if same:
        return f"  identical to {LABELS[name]}"
    if gain == 0:  # runs of the same seeds differ in some digit unless they read the same
        return f"  equal to {LABELS[name]}: proxies read the same sequences"
    verb = "better" if gain >= 0 else "WORSE"
    return f"  {abs(gain):.4f}{_error(error)} {verb} than {LABELS[name]} ({baseline:.4f}), {gain / baseline:+.1%}"


def _unmeasured_line(named: Named, validation: Mapping[str, Any] | None) -> str:
    """Why nothing was measured of a mixture."""
    if not named.is_proposal:
        return f"{named.place} contains no measurement."
    if drifted_in(named.file) and not named.file.sections["plan"].get("affected"):
        return "Not measured: domains only drifted, so the weights are those of the accepted mixture."
    params = None if validation is None else load_params(named.project)
    if params is None or params.validation_seeds():
        return "Not measured yet: run `dvc repro`."
    if params.proxy.external:
        return "Not measured: proxies are trained elsewhere (proxy.external)."
    return "Not measured: validate.seeds is 0."


def mixture_text(
    named: Named,
    validation: Mapping[str, Any] | None,
    descriptions: Mapping[str, str],
) -> str:
    """A table of the mixture under the measured gain; the prediction last.

    Natural shares are those of the mixture's own dataset, by the tokens that its file holds.
    """
    file = named.file
    held = sum(share.tokens for share in file.mixture.domains.values())
    weights = file.mixture.weights
    scale = max(weights.values(), default=1.0)
    rows = [
        [
            name,
            f"{weight:.4f}",
            f"{file.mixture.domains[name].tokens / held:.4f}",
            f"{file.mixture.domains[name].tokens:,}",
            _repetition(file.uses[name]),
            f"{bar(weight, scale):<20} {descriptions.get(name, '')}{drift_note(drifted_in(file).get(name))}".rstrip(),
        ]
        for name, weight in weights.items()
    ]
    lines = measured_lines(file, validation) or [_unmeasured_line(named, validation)]
    lines += ["", table(["domain", "weight", "natural", "tokens", "repetition", ""], rows), ""]
    predicted = file.sections.get("predicted")
    if predicted:
        parts = [f"{name} {value['bpb']:.4f}{_error(value['standard_error'])}" for name, value in predicted.items()]
        lines.append("Predicted by the law, bits per byte: " + ", ".join(parts))
    lines += trust_lines(file.sections.get("trust") or {})
    lines.append(_problem(file.sections))
    return "\n".join(lines).rstrip()


def _repetition(use: Use) -> str:
    """How often the target run reads a domain, and whether its cap binds; blank without a target."""
    return ("" if use.repetition is None else f"{use.repetition:.2f}") + (" cap" if use.capped else "    ")


def _problem(sections: Mapping[str, Any]) -> str:
    """The target and how the mixture was found, where the file holds them."""
    target, certificate = sections.get("target"), sections.get("certificate")
    parts = (
        [f"target {target['tokens']:,} tokens, repetition limit {limit_text(target['repetition'])}"] if target else []
    )
    parts += [_solver(certificate)] if certificate else []
    line = "; ".join(parts)
    return line[:1].upper() + line[1:]


def _solver(certificate: Mapping[str, Any]) -> str:
    """How the mixture was found, from the `certificate` of its file."""
    if "gap" in certificate:
        return f"duality gap {certificate['gap']:.1e}"
    if "searched" in certificate:
        return f"best of {certificate['searched']:,} mixtures searched, no certificate"
    return "carried over, not solved for"


def trust_lines(trust: Mapping[str, Any]) -> list[str]:
    """What the law's runs and other laws say of the prediction, from the `trust` of a mixture file."""
    if not trust:
        return []
    others = [law["bpb"] for law in trust["other_laws"].values()]
    spread = f" (other laws predict {min(others):.4f} to {max(others):.4f})" if others else ""
    moved = trust["moved_by_resampling"]
    gain, doubts = trust.get("gain"), trust.get("doubts")
    lines = [_predicted_gain_line(gain)] if gain else []
    lines += [
        f"Law {trust['law']}{spread}; nearest run at total variation {trust['nearest_run']:.3f}"
        + (f"; resampling the runs moves it by {moved:.3f}" if moved is not None else "")
        + f"; leverage {trust['leverage']:.2f} (largest run: {trust['largest_leverage_of_a_run']:.2f})"
    ]
    if doubts is not None:
        lines.append(f"Doubts about the prediction: {', '.join(doubts) or 'none'}")
    elif trust["mirage"]:  # files from before doubts were listed
        lines.append("Doubts about the prediction: the prediction beats every run by more than its error")
    return lines


def _predicted_gain_line(gain: Mapping[str, Any]) -> str:
    within = f" ({decimals(gain['low'])} to {decimals(gain['high'])})" if gain["low"] is not None else ""
    value = f"{decimals(gain['bpb'])}{_error(gain['standard_error'])}"
    return f"Predicted gain over {LABELS[gain['over']]} {value}{within}"


def mixture_json(file: MixtureFile, validation: Mapping[str, Any] | None) -> dict[str, Any]:
    """The same for a script."""
    domains = {
        name: {
            "weight": share.weight,
            "tokens": share.tokens,
            **{key: value for key, value in asdict(file.uses[name]).items() if value is not None},
        }
        for name, share in file.mixture.domains.items()
    }
    return {"domains": domains, **file.sections, "validation": validation}


def _error(standard_error: float | None) -> str:
    return f" ± {standard_error:.4f}" if standard_error is not None else ""
