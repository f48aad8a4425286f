"""The whole examination: facts, what is made of them, and the self-test."""

from toolkit.doctor.backends import backends
from toolkit.doctor.report import SCHEMA, Finding, Report, Syntax, worst
from toolkit.doctor.software import gather
from toolkit.doctor.traps import traps


def examine(*, quick: bool = False, compiled: bool = False) -> Report:
    """Return what this machine is good for.

    `quick` leaves out what computes: transfer syntaxes and the self-test. `compiled` tries torch.compile.
    """
    facts = gather()
    syntaxes: tuple[Syntax, ...] = ()
    findings: list[Finding] = backends(facts)
    if not quick:
        from toolkit.doctor.selftest import self_test
        from toolkit.doctor.syntaxes import judge, try_syntaxes

        syntaxes = try_syntaxes()
        findings += judge(syntaxes) + self_test(facts, compiled=compiled)
    findings += traps(facts)
    return Report(
        schema=SCHEMA,
        status=worst(findings),
        machine=facts.machine,
        driver=facts.driver,
        gpus=facts.gpus,
        chosen=facts.chosen,
        versions=facts.software.versions,
        syntaxes=syntaxes,
        findings=tuple(findings),
    )
