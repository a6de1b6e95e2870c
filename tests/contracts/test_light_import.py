"""Importing the package and asking for help must stay light: nothing heavy is loaded."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("pyarrow", "duckdb", "numpy", "httpx", "fhir", "pandas", "polars", "asyncssh", "obstore", "splink", "pyspark")


def loaded_after(code: str) -> set[str]:
    script = f"import sys\n{code}\nprint(*sorted(name for name in {HEAVY!r} if name in sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert loaded_after("import hiexchange") == set()


def test_help_loads_nothing_heavy() -> None:
    code = "from hiexchange.cli import main\nsys.argv = ['hiexchange', '--help']\ntry:\n    main()\nexcept SystemExit:\n    pass"
    assert loaded_after(code) == set()


def test_help_of_every_verb_loads_nothing_heavy() -> None:
    code = (
        "import contextlib, io\nfrom typer.testing import CliRunner\nfrom hiexchange.cli.app import app, register_verbs\n"
        "register_verbs()\nimport typer\ncommands = typer.main.get_command(app).commands\n"
        "for verb in commands:\n    result = CliRunner().invoke(app, [verb, '--help'])\n    assert result.exit_code == 0, verb"
    )
    assert loaded_after(code) == set()
