"""The house: which file may import what, and what nothing may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("shared", "segmenter", "fraudwatch", "migrations")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))

# Each room of `shared` may import the rooms of earlier lines, and those of its own line.
LEVELS = (
    ("errors", "dictionary", "masking", "rules", "tables"),
    ("config", "jobs", "frames", "artifacts", "reports", "synthetic", "vocabulary", "windows"),
    ("encoding", "database", "cells", "charts", "history"),
    ("source", "migrating"),
    ("looks", "manners", "registry", "leases", "revising"),
    ("runs",),
    ("mapping",),
    ("template",),
    ("accounts", "slots"),
    ("setup", "grants", "verifying", "demo", "health", "scheduling"),
    ("cli",),
)
DOMAINS = ("segmenter", "fraudwatch")
ALLOWED = {
    "torch": {"fraudwatch/likelihoods", "fraudwatch/model", "fraudwatch/training"},
    "apscheduler": {"shared/scheduling"},
    "sqlalchemy": {
        *(f"shared/{name}" for name in ("accounts", "cells", "cli", "database", "looks", "setup")),
        *(f"shared/{name}" for name in ("migrating", "registry", "runs", "source", "tables")),
        *(f"shared/{name}" for name in ("demo", "grants", "health", "leases", "slots", "template")),
        *("shared/manners", "shared/revising", "shared/verifying"),
        *("segmenter/store", "fraudwatch/store", "migrations/"),
    },
    "sklearn": {
        "segmenter/model",
        "segmenter/agreement",
        "segmenter/cuts",
        "segmenter/selection",
        "segmenter/reviewing",
        "segmenter/evaluation",
        "fraudwatch/model",
        "fraudwatch/reviewing",
        "fraudwatch/evaluation",
    },
    "lightgbm": {"fraudwatch/ranker"},
    "alembic": {"shared/migrating", "shared/revising", "segmenter/store", "migrations/"},
}  # fmt: skip
TYPE_ALONE = {"sqlalchemy.engine", "sqlalchemy.engine.Connection"}  # of what a caller hands on
NEVER = {"pickle", "cPickle", "dill", "joblib", "cloudpickle", "marshal", "shelve"}
CALLS = {"eval", "exec", "compile", "__import__"}
LOADS = {"torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "np.load", "numpy.load"}
LOADS |= {"pd.read_pickle", "yaml.load", "os.system", "os.popen"}
# Ways to hand SQL over as text, and where its text is put together: from names that are ours or
# quoted by the dialect, never from a value. The revisions' names are plain by the configuration.
SQL_TEXT = {"text", "exec_driver_sql", "literal_column", "DDL", "executescript"}
PUT_TOGETHER = {
    ("shared/database", "f'INSERT INTO {name} VALUES ({marks})'"),  # a staged table of ours
    ("shared/database", "f'COPY {name} FROM STDIN'"),
    ("shared/database", "f'PRAGMA busy_timeout = {BUSY_SECONDS * 1000}'"),
    ("shared/demo", "f'CREATE TABLE {name} ({columns})'"),  # its own synthetic world
    ("shared/demo", "text"),
    ("shared/manners", "explain"),  # a compiled statement behind EXPLAIN
    ("shared/manners", "explain.replace('%', '%%')"),
    ("shared/manners", "f'SELECT max(rowid) FROM {table}'"),  # quoted by the dialect
    # Our own views, in revisions whose texts stand in them; names plain by the configuration.
    ("shared/revising", "f'CREATE VIEW {qualified(view)} AS {text.format(**standing_for)}'"),
    ("shared/revising", "f'DROP VIEW {qualified(view)}'"),
    ("shared/revising", "where"),
    ("shared/tables", "'slot_at IS NOT NULL AND status IN ' + str(TAKING)"),
}
HEAVY = ("torch", "sklearn", "pandas")


def module(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix()


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(node: ast.AST, *, running: bool = True) -> Iterator[str]:
    """Dotted names that the code imports; `running` leaves out what only types need."""
    for child in ast.iter_child_nodes(node):
        if running and isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom) and child.module:
            yield child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        else:
            yield from imports(child, running=running)


def ours() -> dict[str, set[str]]:
    """Which of our modules each of our modules imports."""
    known = {module(path).replace("/", "."): path for path in FILES}
    return {
        name: {found for found in imports(tree(path)) if found in known} - {name}
        for name, path in known.items()
    }


def test_there_is_something_to_look_at():
    assert len(FILES) > 20
    assert sum(len(found) for found in ours().values()) > 40


@pytest.mark.parametrize("path", FILES, ids=module)
def test_libraries_stay_in_their_rooms(path):
    names = set(imports(tree(path), running=False)) - TYPE_ALONE
    used = {name.split(".")[0] for name in names}

    for library, rooms in ALLOWED.items():
        at_home = any(
            module(path) == room or (room.endswith("/") and module(path).startswith(room))
            for room in rooms
        )
        assert at_home or library not in used, library


@pytest.mark.parametrize("path", FILES, ids=module)
def test_nothing_executable_is_read_or_made(path):
    used = {name.split(".")[0] for name in imports(tree(path), running=False)}
    called = {
        node.func.id
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    loads = {
        ast.unparse(node.func)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    }
    keywords = [node for node in ast.walk(tree(path)) if isinstance(node, ast.keyword)]

    assert not used & NEVER
    assert not called & CALLS
    assert not loads & LOADS
    assert not {keyword.arg for keyword in keywords if ast.unparse(keyword.value) == "True"} & {
        "allow_pickle",
        "shell",
    }


def sql_texts(path: Path) -> Iterator[ast.expr]:
    """What is handed over as SQL and is no expression of SQLAlchemy's."""
    for node in ast.walk(tree(path)):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        name = ast.unparse(node.func).split(".")[-1]
        made = isinstance(node.args[0], ast.JoinedStr | ast.BinOp) or (
            isinstance(node.args[0], ast.Call) and ast.unparse(node.args[0].func).endswith("format")
        )
        if name in SQL_TEXT or (name in ("execute", "executemany", "copy") and made):
            yield node.args[0]


def is_constant(text: ast.expr) -> bool:
    if isinstance(text, ast.IfExp):
        return is_constant(text.body) and is_constant(text.orelse)
    return isinstance(text, ast.Constant)


@pytest.mark.parametrize("path", [p for p in FILES if "migrations" not in p.parts], ids=module)
def test_no_value_is_part_of_the_text_of_a_statement(path):
    written = {ast.unparse(text) for text in sql_texts(path) if not is_constant(text)}

    assert {text for text in written if (module(path), text) not in PUT_TOGETHER} == set()


def test_text_of_a_statement_that_is_put_together_would_be_noticed(tmp_path):
    path = tmp_path / "x.py"
    path.write_text(
        "sa.text(f'SELECT {x}')\nc.execute('SELECT ' + x)\nc.execute('{}'.format(x))\n"
        "sa.text('SELECT 1')\nc.execute(sa.select(x))\nc.exec_driver_sql(y)\n"
    )

    assert sum(not is_constant(text) for text in sql_texts(path)) == 4


def test_the_domains_do_not_know_each_other():
    for name, found in ours().items():
        for one, other in (DOMAINS, DOMAINS[::-1]):
            if name.startswith(one):
                assert not {m for m in found if m.split(".")[0] == other}, name


def test_shared_knows_no_domain():
    for name, found in ours().items():
        if name.startswith(("shared", "migrations")):
            assert not {m for m in found if m.split(".")[0] in DOMAINS}, name


def test_imports_of_shared_go_down_only():
    level = {f"shared.{name}": i for i, names in enumerate(LEVELS) for name in names}
    rooms = {name: found for name, found in ours().items() if name.startswith("shared.")}
    rooms.pop("shared.__init__", None)

    assert set(rooms) <= set(level), "a new room needs its line in LEVELS"
    # A look-up that runs only inside a function and would be a cycle of modules otherwise.
    inside = {("shared.cli", "shared.demo")}
    upward = {
        (name, other)
        for name, found in rooms.items()
        for other in found
        if level[other] > level[name] and (name, other) not in inside
    }
    assert upward == set()


def test_no_import_runs_in_a_circle():
    """Imports at the head of a file; those inside functions run when the module is whole."""
    heads = {}
    for path in FILES:
        head = ast.Module(
            [n for n in tree(path).body if not isinstance(n, ast.FunctionDef | ast.ClassDef)], []
        )
        heads[module(path).replace("/", ".")] = set(imports(head))
    done: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> None:
        assert name not in above, " → ".join((*above, name))
        if name in done:
            return
        for other in heads[name] & set(heads):
            visit(other, (*above, name))
        done.add(name)

    for name in heads:
        visit(name, ())


# --- the source is not read within a transaction on the results ----------------------------------

SOURCE = "shared.source.Source"  # who holds `run.source`
READER = "self._reader"  # its way to the user's database


def bodies() -> dict[str, ast.AST]:
    """Every function and method of the house, by its dotted name."""
    found: dict[str, ast.AST] = {}
    for path in FILES:
        home = module(path).replace("/", ".")
        for node in tree(path).body:
            if isinstance(node, ast.FunctionDef):
                found[f"{home}.{node.name}"] = node
            elif isinstance(node, ast.ClassDef):
                methods = (item for item in node.body if isinstance(item, ast.FunctionDef))
                found |= {f"{home}.{node.name}.{item.name}": item for item in methods}
    return found


def named(path: Path) -> dict[str, str]:
    """What each name of a file stands for: its own functions, and what it imports anywhere."""
    home = module(path).replace("/", ".")
    names = {n.name: f"{home}.{n.name}" for n in tree(path).body if isinstance(n, ast.FunctionDef)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def called(node: ast.AST, owner: str, names: dict[str, str]) -> set[str]:
    """Dotted names of the functions of ours that a piece of code calls, as far as it tells.

    owner: the class of `self`. What is called by a value's method is not known, but for the source.
    """
    calls = (ast.unparse(call.func) for call in ast.walk(node) if isinstance(call, ast.Call))
    found = set()
    for call in calls:
        before, _, last = call.rpartition(".")
        if before == "self":
            found.add(f"{owner}.{last}")
        elif before.split(".")[-1] == "source":
            found.add(f"{SOURCE}.{last}")
        else:
            first, _, rest = call.partition(".")
            found.add(f"{names.get(first, first)}.{rest}".rstrip("."))
    return found


def reading(functions: dict[str, ast.AST], calls: dict[str, set[str]]) -> set[str]:
    """Those that read the user's tables, themselves or by what they call."""
    found = {
        name
        for name, body in functions.items()
        if name.startswith(SOURCE) and READER in ast.unparse(body)
    }
    while more := {name for name in calls if name not in found and calls[name] & found}:
        found |= more
    return found


def within_transactions(body: ast.AST) -> Iterator[ast.AST]:
    """The statements that run within a transaction on the results: of a block, or of the function
    that is one unit of work."""
    units = {
        ast.unparse(call.args[-1])
        for call in ast.walk(body)
        if isinstance(call, ast.Call) and ast.unparse(call.func).split(".")[-1] == "unit"
    }
    for node in ast.walk(body):
        if isinstance(node, ast.FunctionDef) and node is not body and node.name in units:
            yield from node.body
        opened = [ast.unparse(item.context_expr) for item in getattr(node, "items", [])]
        if isinstance(node, ast.With) and any("results.transaction(" in item for item in opened):
            yield from node.body


def test_the_source_is_not_read_within_a_transaction_on_the_results():
    """Else a slow read would hold the writers' lock, and wait for itself in a single file."""
    names = {module(path).replace("/", "."): named(path) for path in FILES}
    functions = bodies()
    homes = {name: max((h for h in names if name.startswith(f"{h}.")), key=len)
             for name in functions}  # fmt: skip
    owners = {name: name.rpartition(".")[0] for name in functions}
    calls = {
        name: called(body, owners[name], names[homes[name]]) for name, body in functions.items()
    }
    readers = reading(functions, calls)

    read_inside = {
        f"{name} calls {reader}"
        for name, body in functions.items()
        for inner in within_transactions(body)
        for reader in called(inner, owners[name], names[homes[name]]) & readers
    }

    assert {f"{SOURCE}.read", "shared.accounts.inspect", "fraudwatch.fitting.learned_on"} <= readers
    assert f"{SOURCE}.changed" not in readers
    assert sum(1 for body in functions.values() for _ in within_transactions(body)) > 40
    assert read_inside == set()


MODULES = [module(path).replace("/", ".") for path in FILES if path.parts[-2] in PACKAGES[:3]]

AT_IMPORT = """
import os, socket, sqlite3, sys
import numpy, pandas  # may look at the environment themselves
for heavy in ("torch", "sklearn", "scipy.stats", "safetensors.numpy", "jinja2", "sqlalchemy"):
    __import__(heavy)
class Watched(dict):
    def _seen(self, *names):
        frame, files = sys._getframe(1), []
        while frame is not None:
            files.append(frame.f_code.co_filename)
            frame = frame.f_back
        if any(name in files[1] for name in OURS):
            raise AssertionError("reads the environment at import: " + files[1])
    def get(self, *a): self._seen(); return dict.get(self, *a)
    def __getitem__(self, k): self._seen(); return dict.__getitem__(self, k)
    def __contains__(self, k): self._seen(); return dict.__contains__(self, k)
OURS = [os.sep + p + os.sep for p in ("shared", "segmenter", "fraudwatch")]
os.environ = Watched(os.environ)
def refuse(*args, **kwargs):
    raise AssertionError("connects at import")
socket.socket.connect = refuse
sqlite3.connect = sqlite3.dbapi2.connect = refuse
import sqlalchemy
sqlalchemy.create_engine = refuse
import importlib
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def python(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_nothing_connects_or_reads_the_environment_at_import():
    python("-c", AT_IMPORT, *MODULES)


def test_the_front_door_opens_without_the_heavy_libraries():
    loaded = python("-c", "import sys, shared.cli; print('\\n'.join(sys.modules))").split()

    assert "shared.cli" in loaded
    assert not set(HEAVY) & set(loaded)


def test_help_is_shown_without_the_heavy_libraries():
    code = (
        "import sys; sys.argv = ['peerwatch', '--help']\n"
        "from shared.cli import main\n"
        "try:\n    status = main()\nexcept SystemExit as end:\n    status = end.code\n"
        f"assert not status, status\nassert not {set(HEAVY)} & set(sys.modules)\n"
    )

    assert "Usage" in python("-c", code)
