"""`berth quota set|apply|show|list|explain|remove|hold|drain|resume`."""

from typing import Annotated, Any

import orjson
import typer

from berth.errors import InvalidCommand, NotFound, Problem
from berth.messages.documents import CLUSTER, QUOTAS, QuotasDocument, StopPolicy
from berth.messages.validation import parse
from berth_cli.connection import on
from berth_cli.context import Target, on_cluster
from berth_cli.documents import read_as
from berth_cli.output import note, print_json, print_lines, table
from berth_cli.quota_display import difference_lines, shown, spoken

app = typer.Typer()

BUILT_IN = ("cpu_cores", "ram_mb", "disk_mb", "instances")
Namespace = Annotated[str, typer.Argument(metavar="NAMESPACE")]
Amounts = Annotated[list[str] | None, typer.Option(metavar="DIMENSION=AMOUNT", help="Such as cpu_cores=40, gpu=2.")]


@app.command("set")
@on_cluster
def set_quota(
    target: Target,
    namespace: Namespace,
    hard: Amounts = None,
    soft: Amounts = None,
    burst_percent: Annotated[int | None, typer.Option(help="How far above soft it may go on idle capacity.")] = None,
    cohort: Annotated[str | None, typer.Option(help="With whom it lends and borrows.")] = None,
) -> None:
    """Replace the namespace's quota by this one."""
    quota: dict[str, Any] = {"namespace": namespace, "hard": _amounts("hard", hard), "soft": _amounts("soft", soft)}
    if burst_percent is not None:
        quota["burst_percent"] = burst_percent
    if cohort is not None:
        quota["cohort"] = cohort
    _apply(target, parse(QUOTAS, orjson.dumps({"quotas": [quota]}), root=""))


def _amounts(option: str, given: list[str] | None) -> dict[str, Any]:
    """`cpu_cores=40` and the like as a document; what is not built in is an extended resource."""
    amounts: dict[str, Any] = {}
    extended: dict[str, Any] = {}
    for text in given or []:
        name, equals, number = text.partition("=")
        try:
            amount: int | float = float(number) if "." in number else int(number)
        except ValueError:
            equals, amount = "", 0
        if not equals or not name:
            problem = Problem(path=f"--{option} {text}", expected="expected DIMENSION=AMOUNT, such as cpu_cores=40")
            raise InvalidCommand([problem])
        (amounts if name in BUILT_IN else extended)[name] = amount
    return {**amounts, "extended": extended} if extended else amounts


@app.command("apply")
@on_cluster
def apply(
    target: Target,
    file: Annotated[str, typer.Argument(metavar="FILE", help="`quotas` and `cohorts`; - is stdin.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Set quotas and cohorts of a document, all or none; what changes is shown first."""
    _apply(target, read_as(QUOTAS, file, root=""), dry_run=dry_run)


def _apply(target: Target, document: QuotasDocument, *, dry_run: bool = False) -> None:
    if not document.quotas and not document.cohorts:
        raise InvalidCommand([Problem(path="quotas", expected="expected at least one quota or cohort")])
    quotas, cohorts = document.quotas, document.cohorts
    tried = on(target, lambda cluster: cluster.apply_quotas(quotas, cohorts, dry_run=True), role="admin")
    changes = [one.model_dump(mode="json") for one in tried.changes]
    names = [quota.namespace for quota in quotas] + [cohort.name for cohort in cohorts]
    if dry_run:
        if target.as_json:
            print_json({"version": 1, "applied": [], "sequence": None, "changes": changes})
        else:
            print_lines(*(difference_lines(changes) or ["nothing would change"]))
        return
    if not target.as_json:
        note(*difference_lines(changes))
    answer = on(target, lambda cluster: cluster.apply_quotas(quotas, cohorts), role="admin")
    if target.as_json:
        print_json({"version": 1, "applied": names, "sequence": answer.sequence, "changes": changes})
    elif answer.sequence is None:
        note(answer.detail)
    else:
        note(f"applied {', '.join(names)} at sequence {answer.sequence}")


@app.command("remove")
@on_cluster
def remove(
    target: Target,
    namespace: Annotated[str | None, typer.Argument(metavar="NAMESPACE")] = None,
    cohort: Annotated[str | None, typer.Option(help="Remove this cohort's document instead.")] = None,
) -> None:
    """The namespace is unlimited from then on; what it uses stays counted. Nothing that runs is stopped."""
    if (namespace is None) == (cohort is None):
        raise InvalidCommand([Problem(path="NAMESPACE", expected="expected either a namespace or --cohort NAME")])
    answer = on(target, lambda cluster: cluster.remove_quota(namespace=namespace, cohort=cohort), role="admin")
    if target.as_json:
        print_json({"version": 1, "removed": namespace or cohort, "sequence": answer.sequence})
    else:
        note(f"{answer.detail} (sequence {answer.sequence})")


@app.command("hold")
@on_cluster
def hold(target: Target, namespace: Namespace) -> None:
    """Nothing new of the namespace is placed until it is resumed; what runs goes on."""
    _stop(target, namespace, StopPolicy.HOLD)


@app.command("drain")
@on_cluster
def drain(target: Target, namespace: Namespace) -> None:
    """As hold, and what runs of the namespace leaves, with its grace, and is queued again."""
    _stop(target, namespace, StopPolicy.HOLD_AND_DRAIN)


@app.command("resume")
@on_cluster
def resume(target: Target, namespace: Namespace) -> None:
    """The namespace may place new work again; what it has queued is driven in its order."""
    _stop(target, namespace, StopPolicy.NONE)


def _stop(target: Target, namespace: str, policy: StopPolicy) -> None:
    answer = on(target, lambda cluster: cluster.stop_namespace(namespace, policy), role="admin")
    if target.as_json:
        print_json({"version": 1, "namespace": namespace, "stop_policy": policy.value, "sequence": answer.sequence})
    else:
        note(answer.detail or f"{namespace}: {policy.value}")


@app.command("list")
@on_cluster
def list_quotas(target: Target) -> None:
    """Every namespace with its limits and use."""
    rows = on(target, lambda cluster: cluster.query("quotas"))
    if target.as_json:
        print_json(rows)
        return
    columns = ("hard", "soft", "used", "guaranteed", "borrowed", "burst", "available")
    lines = [(row["namespace"], *(_spoken(row[column]) for column in columns)) for row in rows]
    print_lines(*table(("namespace", *columns), lines))


def _spoken(amounts: dict[str, Any] | None) -> str | None:
    said = {name: amount for name, amount in (amounts or {}).items() if amount}
    return spoken(said) or None


@app.command("show")
@on_cluster
def show(target: Target, namespace: Namespace) -> None:
    """One namespace's limits and use."""
    rows = on(target, lambda cluster: cluster.query("quotas", ids=(namespace,)))
    if not rows:
        raise NotFound(f"{namespace} has no quota and uses nothing", hint="`berth quota list` lists them")
    _one(target, rows[0])


@app.command("explain")
@on_cluster
def explain(
    target: Target,
    namespace: Namespace,
    cluster: Annotated[
        str | None, typer.Option("--cluster", metavar="FILE", help="A cluster document, offline.")
    ] = None,
) -> None:
    """The numbers and the formula that decide what the namespace may still use."""
    if cluster is None:
        rows = on(target, lambda running: running.query("quota_explain", ids=(namespace,)))
        row = rows[0]
    else:
        from berth.ids import Namespace as NamespaceId
        from berth.model.read_models import quota_explanation
        from berth_cell.cell import Cell
        from berth_cell.seed import of_document

        document = read_as(CLUSTER, cluster, root="cluster")
        now = document.now or 0
        row = quota_explanation(Cell(at_ms=now, history=of_document(document, at_ms=now)).state, NamespaceId(namespace))
    _one(target, row)


def _one(target: Target, row: dict[str, Any]) -> None:
    if target.as_json:
        print_json(row)
    else:
        print_lines(*shown(row))
