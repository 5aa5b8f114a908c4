import click


@click.command("opt")
def command() -> None:
    """x"""
