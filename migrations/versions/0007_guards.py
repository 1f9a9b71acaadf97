"""Verdicts that only grow, kept so by the database; feature columns without the right to alter."""

from __future__ import annotations

from alembic import op

from shared.revising import qualified

revision = "0007"
down_revision = "0006"

REFUSAL = "fraud_verdicts is insert only. Record another verdict; the last one counts."
TAKEN = "fraud_verdicts has this verdict_id already, and is insert only. Choose another id."

SQLITE = {
    "verdicts_not_updated": "BEFORE UPDATE ON {verdicts} BEGIN SELECT RAISE(ABORT, '{refusal}')",
    "verdicts_not_deleted": "BEFORE DELETE ON {verdicts} BEGIN SELECT RAISE(ABORT, '{refusal}')",
    # INSERT OR REPLACE removes the earlier row without a look at the trigger on DELETE.
    "verdicts_not_replaced": "BEFORE INSERT ON {verdicts} WHEN EXISTS (SELECT 1 FROM {verdicts} "
    "WHERE verdict_id = NEW.verdict_id) BEGIN SELECT RAISE(ABORT, '{taken}')",
}
POSTGRESQL = (
    "CREATE FUNCTION {refuse}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "RAISE EXCEPTION '{refusal}' USING ERRCODE = 'insufficient_privilege'; END $$",
    "CREATE TRIGGER verdicts_not_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON {verdicts} "
    "FOR EACH STATEMENT EXECUTE FUNCTION {refuse}()",
    # Only an owner may add a column, and segments bring new features: the one change that a writer
    # may make, with the owner's right.
    "CREATE FUNCTION {add}(feature text, is_text boolean, meaning text) RETURNS void "
    "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN "
    "EXECUTE format('ALTER TABLE {features} ADD COLUMN IF NOT EXISTS %I %s', "
    "feature, CASE WHEN is_text THEN 'text' ELSE 'double precision' END); "
    "EXECUTE format('COMMENT ON COLUMN {features}.%I IS %L', feature, meaning); END $$",
    "REVOKE ALL ON FUNCTION {add}(text, boolean, text) FROM PUBLIC",
)


def _names() -> dict[str, str]:
    return {
        "verdicts": qualified("fraud_verdicts"),
        "features": qualified("customer_features"),
        "refuse": qualified("refuse_change"),
        "add": qualified("add_customer_feature"),
        "refusal": REFUSAL,
        "taken": TAKEN,
    }


def upgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        for statement in POSTGRESQL:
            op.execute(statement.format(**_names()))
        return
    for name, text in SQLITE.items():
        op.execute(f"CREATE TRIGGER {qualified(name)} {text.format(**_names())}; END")


def downgrade() -> None:
    if op.get_context().dialect.name == "postgresql":
        op.execute(f"DROP FUNCTION {qualified('add_customer_feature')}")
        op.execute(f"DROP TRIGGER verdicts_not_changed ON {qualified('fraud_verdicts')}")
        op.execute(f"DROP FUNCTION {qualified('refuse_change')}")
        return
    for name in SQLITE:
        op.execute(f"DROP TRIGGER {qualified(name)}")
