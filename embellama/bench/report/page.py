"""The report as one HTML file that needs nothing else: no network, no script to be read."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files
from string import Template

from embellama.bench.findings import BenchFindings
from embellama.bench.report import sections
from embellama.bench.report.choice import choice_rules, pareto_section
from embellama.bench.report.markup import join
from embellama.bench.report.table import figures_table


def render_page(findings: BenchFindings) -> str:
    """Write what a comparison found as an HTML document that is complete in itself.

    Its policy forbids every connection, and every style and script but its own. Whatever comes
    from the findings is escaped.
    """
    style = _part("page.css") + choice_rules(findings)
    script = _part("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    return Template(_part("page.html")).substitute(
        policy=policy,
        style=style,
        script=script,
        title=join([f"Which file type for {findings.model}?"]),
        lead=sections.lead(findings),
        measured=sections.measured(findings),
        recommendations=sections.recommendations(findings),
        pareto=pareto_section(findings),
        table_note=sections.table_note(findings),
        figures=figures_table(findings),
        latency=sections.latency(findings),
        cosines=sections.cosines(findings),
        worst=sections.worst(findings),
        machine=sections.machine(findings),
        glossary=sections.glossary(findings),
    )


def _part(name: str) -> str:
    return files("embellama.bench.report").joinpath(name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """Return what a content security policy calls an inline element by."""
    return "sha256-" + b64encode(sha256(content.encode()).digest()).decode()
