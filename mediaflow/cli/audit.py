"""``mediaflow audit``: what became of every sample, of one call or of all."""

from __future__ import annotations

import sys

import click


@click.command()
@click.argument("call", required=False)
@click.option("--state", default="mediaflow-data", show_default=True, help="Folder of the ledger.")
@click.option("--json", "as_json", is_flag=True, help="Print the accounts as JSON, one call a line.")
def command(call: str | None, state: str, as_json: bool) -> None:
    """Show the ledger of CALL, or of all calls.  Exits with 1 if one of them failed."""
    import sqlite3

    from ..delivery import ledger
    from ..delivery.account import has_failed

    try:
        accounts = ledger.read(state, call)
    except FileNotFoundError as error:
        click.echo(
            f"there is no ledger at {error}; --state names the folder that the pipeline's `state` names", err=True
        )
        sys.exit(2)
    except sqlite3.Error as error:
        click.echo(f"the ledger in {state} cannot be read: {error}", err=True)
        sys.exit(2)
    if call is not None and not accounts:
        click.echo(f"the ledger knows no call {call!r}", err=True)
        sys.exit(1)
    if as_json:
        import json

        for account in accounts:
            click.echo(json.dumps(account))
    else:
        from ._tables import print_accounts

        print_accounts(accounts)
    sys.exit(1 if any(has_failed(account) for account in accounts) else 0)
